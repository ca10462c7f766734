"""Whole trainings, small ones: equal requests give equal models, whatever interrupts, damages or starves them."""

import dataclasses
import json
import os
import shutil
from unittest import mock

import pytest
import runs
import tiny
import torch
from safetensors.torch import load_file

from diffuse_cli import events
from diffuse_cli.config import Machine, Recipe, Sampling
from diffuse_cli.errors import DivergedError, ModelError, UsageError
from diffuse_cli.network.network import Network
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint, registry
from diffuse_cli.training import estimate, loop, monitor
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.loss import Batch
from diffuse_cli.training.run import open_run
from diffuse_cli.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("decoded")

CPU = torch.device("cpu")
QUICK = Sampling(steps=2, batch_size=1)


# ── Equal requests, equal models ────────────────────────────────────────────────────────────────────────────────────


def test_the_same_request_in_another_home_gives_the_same_bytes(trained, squares, home):
    shutil.rmtree(home / "images")                         # even the pictures are decoded again
    before = runs.listing(squares)
    tiny.train(squares)
    assert runs.results(tiny.run_directory(home)) == runs.results(trained[0])
    assert runs.listing(squares) == before


def test_another_seed_gives_another_model(trained, squares, home):
    tiny.train(squares, Recipe(resolution=8, preset="nano", steps=8, batch_size=4, seed=1))
    assert checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", CPU).sha256 \
        != checkpoint.load_model(trained[0] / "model.safetensors", CPU).sha256


@pytest.mark.parametrize("compiled", [True, False])
def test_a_compiled_training_says_what_its_start_took(squares, home, compiled, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda call: asked.append(call.__name__) or call)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    stream = tiny.train(squares, stop_at=2, compile=compiled)
    told = [event.message for event in tiny.of_kind(events.Noticed, stream) if event.message.startswith("compiled: ")]
    assert len(told) == int(compiled)
    assert asked == (["encode", "forward"] if compiled else [])
    assert os.environ.get("TORCHINDUCTOR_CACHE_DIR") == (str(home / "compiled") if compiled else None)


def test_a_training_interrupted_again_and_again_ends_bit_identical(trained, squares, home):
    reached = 0
    for more in (1, 2, 1, 3):
        stream = tiny.train(squares, stop_at=more)
        assert tiny.of_kind(events.Started, stream)[0].step == reached
        reached += more
        end = stream[-1]
        assert (end.step, end.complete, end.reason) == (reached, False, "SIGINT")
        assert runs.steps_of(events.Saved, stream)[-1] == reached
        assert registry.last() is None                     # only a finished run becomes the default
    assert tiny.train(squares)[-1].complete
    assert runs.results(tiny.run_directory(home)) == runs.results(trained[0])
    assert registry.last() == "tiny"


def test_a_training_that_dies_between_two_saves_ends_bit_identical(trained, squares, home):
    with open_run(squares, tiny.RECIPE, Machine(**tiny.OPTIONS)) as run, tiny.scaled_down():
        running = loop.train(run)
        steps = 0
        with mock.patch.object(monitor, "REPORT_SECONDS", 0):
            for event in running:
                steps += isinstance(event, events.Stepped)
                if steps == 5:
                    break
        running.close()
    stream = tiny.train(squares)
    assert tiny.of_kind(events.Started, stream)[0].step == 3
    assert runs.results(tiny.run_directory(home)) == runs.results(trained[0])


def test_a_finished_run_is_not_trained_again(trained, squares, home):
    tiny.train(squares)
    before = runs.results(tiny.run_directory(home))
    stream = tiny.train(squares)
    assert not tiny.of_kind(events.Stepped, stream)
    assert any("already trained to 8 steps" in event.message for event in tiny.of_kind(events.Noticed, stream))
    assert stream[-1].complete
    assert runs.results(tiny.run_directory(home)) == before


def test_small_micro_batches_change_nothing_but_the_rounding(trained, squares, home):
    tiny.train(squares, micro_batch=1)
    one, four = (load_file(directory / runs.STATE) for directory in (tiny.run_directory(home), trained[0]))
    weights = [name for name in four if name.startswith(("weights.", "average."))]
    start = _first_weights(trained[0])
    moved = sum((four[name] - start[name.partition(".")[2]]).square().sum() for name in weights).sqrt()
    apart = sum((four[name] - one[name]).square().sum() for name in weights).sqrt()
    assert 0 < apart < 1e-2 * moved                      # Adam magnifies the rounding of small gradients


def _first_weights(directory):
    network = Network(checkpoint.load_model(directory / "model.safetensors", CPU).config.network)
    network.initialise(randomness.generator(tiny.RECIPE.seed, "weights"))
    return network.state_dict()


def test_training_without_captions(unconditional):
    directory, _ = unconditional
    model = checkpoint.load_model(directory / "model.safetensors", CPU)
    assert (model.tokenizer, model.words, model.config.conditional) == (None, {}, False)
    assert not (directory / "tokenizer.json").exists()
    (first,) = generate.generate(model, [SampleRequest(prompt="ignored", sampling=QUICK)])
    (second,) = generate.generate(model, [SampleRequest(sampling=QUICK)])
    assert (first.pixels == second.pixels).all()


# ── Longer budgets ──────────────────────────────────────────────────────────────────────────────────────────────────


LONGER = dataclasses.replace(tiny.RECIPE, steps=16)


@pytest.mark.parametrize("stop_at", [None, 1, 4], ids=["at once", "after a step", "in the new cool-down"])
def test_a_longer_budget_goes_on_from_before_the_cool_down_as_if_it_had_been_so_from_the_start(
        squares, home, tmp_path, stop_at):
    tiny.train(squares)
    if stop_at is not None:
        tiny.train(squares, LONGER, stop_at=stop_at)
    stream = tiny.train(squares, LONGER)
    assert tiny.of_kind(events.Started, stream)[0].step == 6 + (stop_at or 0)
    assert stream[-1].complete
    assert json.loads((tiny.run_directory(home) / "config.json").read_text())["plan"]["steps"] == 16
    longer = checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", CPU).sha256
    with tiny.at_home(tmp_path / "once"):
        tiny.train(squares, LONGER)
        assert checkpoint.load_model(tiny.run_directory(tmp_path / "once") / "model.safetensors", CPU).sha256 == longer


def test_a_run_interrupted_before_its_cool_down_becomes_longer_where_it_is(squares, home):
    tiny.train(squares, stop_at=5)
    assert tiny.of_kind(events.Started, tiny.train(squares, LONGER, stop_at=1))[0].step == 5


def test_a_budget_cannot_shrink(squares, home):
    tiny.train(squares, stop_at=1)
    with pytest.raises(UsageError, match="begun for 8 steps, and this is 7"):
        tiny.train(squares, dataclasses.replace(tiny.RECIPE, steps=7))
    assert tiny.train(squares)[-1].complete


def test_what_else_was_asked_for_cannot_change_with_the_budget(squares, home):
    tiny.train(squares, stop_at=1)
    with pytest.raises(UsageError, match="seed: 0 → 1"):
        tiny.train(squares, dataclasses.replace(LONGER, seed=1))


def test_a_run_without_its_state_from_before_the_cool_down_cannot_become_longer(squares, home):
    tiny.train(squares)
    (tiny.run_directory(home) / "step-00000006.safetensors").unlink()
    with pytest.raises(ModelError, match="no state from before the cool-down"):
        tiny.train(squares, LONGER)
    assert tiny.train(squares)[-1].complete


# ── Events and the log ──────────────────────────────────────────────────────────────────────────────────────────────


def test_events_come_at_their_steps(trained):
    _, stream = trained
    assert runs.steps_of(events.Saved, stream) == [3, 6, 8]
    assert runs.steps_of(events.Validated, stream) == [4, 8]
    assert runs.steps_of(events.Previewed, stream) == [8]
    assert isinstance(stream[-1], events.Finished)
    assert [type(event) for event in stream].count(events.Started) == 1


def test_the_log_mirrors_the_stream(trained):
    directory, stream = trained
    lines = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    told = [events.to_dict(event) for event in stream if not isinstance(event, events.Scanned | events.Paused)]
    assert lines == json.loads(json.dumps(told))


def test_a_run_that_is_refused_after_a_warning_leaves_nothing(tmp_path, home):
    folder, found = tiny.draw_squares(tmp_path / "few", 4), []
    recipe = dataclasses.replace(tiny.UNCONDITIONAL, init="demo", resolution=64, preset=None)
    with pytest.raises(ModelError, match="needs captions"), open_run(
            folder, recipe, Machine(**tiny.OPTIONS)) as run:
        found.extend(loop.train(run))
    assert "will memorise them" in tiny.of_kind(events.Noticed, found)[0].message
    assert os.listdir(home / "models") == []


# ── What goes wrong ─────────────────────────────────────────────────────────────────────────────────────────────────


def _poisoned(*steps):
    """As if the pictures of these steps (0, 1, …) made the loss infinite."""
    draw = Batches.draw

    def poisoned(self, step, start, count):
        batch, keys = draw(self, step, start, count)
        if step in steps:
            batch = Batch(batch.image * float("inf"), batch.noise, batch.t, batch.tokens, batch.caption_of)
        return batch, keys

    return mock.patch.object(Batches, "draw", poisoned)


def test_divergence_ends_the_run_and_leaves_finite_numbers(trained, squares, home, counted):
    with _poisoned(4, 5, 6), pytest.raises(DivergedError) as caught:
        tiny.train(squares)
    assert caught.value.exit_code == 8
    assert "the last 7; 4 was good" in caught.value.what
    directory = tiny.run_directory(home)
    for path in directory.glob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(path).values())
    assert checkpoint.load_model(directory / "model.safetensors", CPU).training.step == 6
    assert (directory / "report.html").exists()
    with _poisoned(6), pytest.raises(DivergedError):       # two bad steps are part of the state saved at 6
        tiny.train(squares)
    counted("No number that is not finite reaches the disk", "three poisoned steps in a row", 1)


def test_two_bad_steps_are_skipped_and_counted(squares, home):
    with _poisoned(4, 5):
        stream = tiny.train(squares)
    assert stream[-1].complete
    assert tiny.of_kind(events.Stepped, stream)[-1].skipped == 2
    assert json.loads((tiny.run_directory(home) / "events.jsonl").read_text().splitlines()[-1])["complete"]


def test_too_little_memory_makes_the_pictures_at_once_fewer(squares, home):
    accumulate = Trainer._accumulate

    def scarce(self, start, count):
        result = accumulate(self, start, count)
        if count > 2:
            raise torch.OutOfMemoryError
        return result

    with mock.patch.object(Trainer, "_accumulate", scarce):
        stream = tiny.train(squares)
    assert runs.warnings(stream) == ["out of memory: from now on 2 pictures at once"]
    reached = runs.results(tiny.run_directory(home))
    tiny.train(squares, micro_batch=2, fresh=True)
    assert runs.results(tiny.run_directory(home)) == reached


# ── Rehearsals ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("options", [{}, {"fresh": True}])
def test_a_rehearsal_writes_nothing(squares, home, options):
    tiny.train(squares, stop_at=1)
    before = runs.listing(home)
    with mock.patch.object(estimate, "MEASURED_SECONDS", 0), open_run(
            squares, tiny.RECIPE, Machine(**tiny.OPTIONS, **options), rehearsal=True) as run:
        *_, started = loop.rehearse(run)
    changed = {path.name for path, seen in runs.listing(home).items() if before.get(path) != seen}
    assert changed <= {"lock"}
    assert runs.listing(home).keys() == before.keys()
    facts = dict(started.facts)
    assert started.step == (0 if options else 1)
    assert {"arithmetic", "memory", "disk", "speed", "time", "batch", "budget"} <= facts.keys()


def test_a_rehearsal_of_a_new_run_leaves_no_directory(squares, home):
    with mock.patch.object(estimate, "MEASURED_SECONDS", 0), open_run(
            squares, tiny.RECIPE, Machine(**tiny.OPTIONS), rehearsal=True) as run:
        list(loop.rehearse(run))
    assert list((home / "models").iterdir()) == []
