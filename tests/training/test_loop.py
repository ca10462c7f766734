"""Whole trainings, small ones: equal requests give equal models, whatever interrupts, damages or starves them."""

import dataclasses
import json
import os
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import tiny
import torch
from safetensors.torch import load_file

from diffuse_cli import config, events
from diffuse_cli.checks import from_dict
from diffuse_cli.config import Machine, Plan, Recipe, Sampling
from diffuse_cli.errors import DataError, DivergedError, ModelError, StorageError, UsageError
from diffuse_cli.files import durable
from diffuse_cli.network.network import Network
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint, registry, run_directory, training_states
from diffuse_cli.training import estimate, loop, monitor, saving, validation
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.every import Every
from diffuse_cli.training.loss import Batch
from diffuse_cli.training.run import open_run
from diffuse_cli.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("decoded")

CPU = torch.device("cpu")
QUICK = Sampling(steps=2, batch_size=1)
STATE = "step-00000008.safetensors"


def results(directory):
    """The bytes that must not depend on how the end was reached."""
    return {name: (directory / name).read_bytes() for name in ("model.safetensors", STATE)}


def steps_of(kind, stream):
    return [event.step for event in tiny.of_kind(kind, stream)]


def warnings(stream):
    return [event.message for event in tiny.of_kind(events.Noticed, stream) if event.level == "warning"]


def listing(folder):
    return {path: (path.stat().st_mtime_ns, path.stat().st_size, path.is_file() and path.read_bytes())
            for path in (folder, *folder.rglob("*"))}


# ── Equal requests, equal models ────────────────────────────────────────────────────────────────────────────────────


def test_the_same_request_in_another_home_gives_the_same_bytes(trained, squares, home):
    shutil.rmtree(home / "images")                         # even the pictures are decoded again
    before = listing(squares)
    tiny.train(squares)
    assert results(tiny.run_directory(home)) == results(trained[0])
    assert listing(squares) == before


def test_another_seed_gives_another_model(trained, squares, home):
    tiny.train(squares, Recipe(resolution=8, preset="nano", steps=8, batch_size=4, seed=1))
    assert checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", CPU).sha256 \
        != checkpoint.load_model(trained[0] / "model.safetensors", CPU).sha256


@pytest.mark.parametrize("compiled", [True, False])
def test_a_compiled_training_says_what_its_start_took(squares, home, compiled, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda network: asked.append(network) or network)
    stream = tiny.train(squares, stop_at=2, compile=compiled)
    told = [event.message for event in tiny.of_kind(events.Noticed, stream) if event.message.startswith("compiled: ")]
    assert len(told) == len(asked) == int(compiled)


def test_a_training_interrupted_again_and_again_ends_bit_identical(trained, squares, home):
    reached = 0
    for more in (1, 2, 1, 3):
        stream = tiny.train(squares, stop_at=more)
        assert tiny.of_kind(events.Started, stream)[0].step == reached
        reached += more
        end = stream[-1]
        assert (end.step, end.complete, end.reason) == (reached, False, "SIGINT")
        assert steps_of(events.Saved, stream)[-1] == reached
        assert registry.last() is None                     # only what is finished is the default
    assert tiny.train(squares)[-1].complete
    assert results(tiny.run_directory(home)) == results(trained[0])
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
    assert results(tiny.run_directory(home)) == results(trained[0])


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


def test_saving_is_rarer_when_it_is_dear():
    due = Every("5m", "--save-every", steps=1000, step=0)
    due.limit_cost(1)
    assert due.every == 300
    due.limit_cost(30)
    assert due.every == 1500
    due = Every("100", "--save-every", steps=1000, step=0)
    due.limit_cost(30)
    assert due.every == 100


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [_flip, lambda path: os.truncate(path, 1000), lambda path: path.unlink()],
                         ids=["bit", "cut", "lost"])
def test_a_damaged_state_falls_back_to_the_one_before(trained, squares, home, damage):
    directory = tiny.run_directory(home)
    tiny.train(squares, stop_at=7)
    damage(directory / "step-00000007.safetensors")
    stream = tiny.train(squares, stop_at=1)
    assert warnings(stream) == ["the state of step 7 is damaged, trying the one before"]
    assert tiny.of_kind(events.Started, stream)[0].step == 6
    assert [state.step for state in training_states.saved_states(directory)][:2] == [7, 6]        # 7 anew
    assert tiny.train(squares)[-1].complete
    assert results(directory) == results(trained[0])


def test_states_outlive_both_heads(trained, squares, home):
    directory = tiny.run_directory(home)
    tiny.train(squares, stop_at=5)
    (directory / "HEAD-0").unlink()
    (directory / "HEAD-1").write_bytes(b"\0" * 100)
    stream = tiny.train(squares)
    assert tiny.of_kind(events.Started, stream)[0].step == 5
    assert results(directory) == results(trained[0])


def test_no_whole_state_is_an_error_and_nothing_is_begun_anew(squares, home):
    directory = tiny.run_directory(home)
    tiny.train(squares, stop_at=4)
    for path in directory.glob("step-*"):
        _flip(path)
    before = listing(directory)
    with pytest.raises(ModelError, match="no saved state of the run 'tiny' is whole"):
        tiny.train(squares)
    after = listing(directory)
    assert {path: after[path] for path in directory.glob("step-*")} == {
        path: before[path] for path in directory.glob("step-*")}
    assert tiny.train(squares, fresh=True, stop_at=1)[-1].step == 1
    assert (directory.parent / "tiny-old" / "step-00000004.safetensors").exists()


def test_a_run_that_is_refused_after_a_warning_leaves_nothing(tmp_path, home):
    folder, found = tiny.draw_squares(tmp_path / "few", 4), []
    recipe = dataclasses.replace(tiny.UNCONDITIONAL, init="demo", resolution=64, preset=None)
    with pytest.raises(ModelError, match="needs captions"), open_run(
            folder, recipe, Machine(**tiny.OPTIONS)) as run:
        found.extend(loop.train(run))
    assert "will memorise them" in tiny.of_kind(events.Noticed, found)[0].message
    assert os.listdir(home / "models") == []


def test_small_micro_batches_change_nothing_but_the_rounding(trained, squares, home):
    tiny.train(squares, micro_batch=1)
    one, four = (load_file(directory / STATE) for directory in (tiny.run_directory(home), trained[0]))
    weights = [name for name in four if name.startswith(("weights.", "average."))]
    start = _first_weights(trained[0])
    moved = sum((four[name] - start[name.partition(".")[2]]).square().sum() for name in weights).sqrt()
    apart = sum((four[name] - one[name]).square().sum() for name in weights).sqrt()
    assert 0 < apart < 1e-2 * moved                      # Adam magnifies the rounding of small gradients


def _first_weights(directory):
    network = Network(checkpoint.load_model(directory / "model.safetensors", CPU).config.network)
    network.initialise(randomness.generator(tiny.RECIPE.seed, "weights"))
    return network.state_dict()


# ── What is told ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_come_at_their_steps(trained):
    _, stream = trained
    assert steps_of(events.Saved, stream) == [3, 6, 8]
    assert steps_of(events.Validated, stream) == [4, 8]
    assert steps_of(events.Previewed, stream) == [8]
    assert isinstance(stream[-1], events.Finished)
    assert [type(event) for event in stream].count(events.Started) == 1


def test_the_log_mirrors_the_stream(trained):
    directory, stream = trained
    lines = [json.loads(line) for line in (directory / "events.jsonl").read_text().splitlines()]
    told = [events.to_dict(event) for event in stream if not isinstance(event, events.Scanned | events.Paused)]
    assert lines == json.loads(json.dumps(told))


def test_the_validation_loss_falls(trained):
    first, last = tiny.of_kind(events.Validated, trained[1])
    assert last.best
    assert last.noise_mse < 0.97 * first.noise_mse
    assert last.noise_mse == pytest.approx(sum(last.noise_mse_at) / len(last.noise_mse_at))
    assert list(last.log_snr) == sorted(last.log_snr, reverse=True)


def test_reports_are_means_over_the_steps_since_the_last(squares, home):
    with mock.patch.object(monitor, "REPORT_SECONDS", 0):
        each = tiny.of_kind(events.Stepped, tiny.train(squares))
    with mock.patch.object(monitor, "REPORT_SECONDS", 1e9):
        (all_,) = tiny.of_kind(events.Stepped, tiny.train(squares, fresh=True))
    assert [event.step for event in each] == list(range(1, 9))
    for field in ("train_objective", "noise_mse", "variance_loss"):
        assert getattr(all_, field) == pytest.approx(sum(getattr(event, field) for event in each) / 8, rel=1e-5)
    assert each[-1].remaining == 0
    assert all(event.train_objective != event.noise_mse for event in each)


def test_saving_and_validating_do_not_count_as_compute(squares, home):
    """images_per_second is of the steps alone: each takes 10 s of this clock, everything else 1,000 s."""
    now, step, save = 0.0, Trainer.step, saving.save

    def stepping(trainer):
        nonlocal now
        now += 10
        return step(trainer)

    def slowly(act):
        def acting(*arguments):
            nonlocal now
            now += 1000
            return act(*arguments)
        return acting

    def clock():
        return now

    with mock.patch.object(loop.time, "monotonic", clock), mock.patch.object(Trainer, "step", stepping), \
            mock.patch.object(loop, "measure", slowly(loop.measure)), \
            mock.patch.object(loop, "preview", slowly(loop.preview)), \
            mock.patch.object(saving, "save", slowly(save)):
        told = tiny.of_kind(events.Stepped, tiny.train(squares, save_every="2"))
    assert now > 3000
    assert {event.images_per_second for event in told} == {tiny.RECIPE.batch_size / 10}


def test_a_finished_run_is_not_trained_again(trained, squares, home):
    tiny.train(squares)
    before = results(tiny.run_directory(home))
    stream = tiny.train(squares)
    assert not tiny.of_kind(events.Stepped, stream)
    assert any("already trained to 8 steps" in event.message for event in tiny.of_kind(events.Noticed, stream))
    assert stream[-1].complete
    assert results(tiny.run_directory(home)) == before


# ── What is delivered ───────────────────────────────────────────────────────────────────────────────────────────────


def _validations(*values):
    """As if the validations gave these values, one after another."""
    return mock.patch.object(validation, "noise_curve", side_effect=[[value] * 8 for value in values])


def test_overfitted_weights_give_way_to_the_best(squares, home):
    with _validations(0.2, 0.3):
        end = tiny.train(squares)[-1]
    assert end.delivered == "best step, 4: validation loss 0.2000, at the last 0.3000"
    model = checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", CPU)
    assert (model.training.step, model.training.delivered) == (4, "best")
    again = tiny.train(squares)[-1]                        # and so does the same command again
    assert again.delivered == end.delivered
    assert (tiny.run_directory(home) / "model.safetensors").read_bytes() \
        == (tiny.run_directory(home) / "best.safetensors").read_bytes()


def test_a_difference_within_a_hundredth_is_luck(squares, home):
    with _validations(0.2, 0.2019):
        end = tiny.train(squares)[-1]
    assert end.delivered == "last step: validation loss 0.2019"
    assert checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", CPU).training.step == 8


def test_the_best_is_remembered_over_an_interruption(squares, home):
    with _validations(0.2, 0.3):
        tiny.train(squares, stop_at=5)
        assert tiny.train(squares)[-1].delivered.startswith("best step, 4: validation loss 0.2000")


def test_what_was_best_on_other_pictures_is_not_delivered(home, tmp_path):
    folder = tiny.draw_squares(tmp_path / "changing", 20)
    with _validations(0.1):
        tiny.train(folder, stop_at=5)                      # the best, by pictures that are held out no more
    tiny.draw_squares(folder, 40)
    tiny.train(folder, accept_changes=True, stop_at=1)
    with _validations(0.3):
        assert tiny.train(folder)[-1].delivered == "last step: validation loss 0.3000"


def test_what_was_delivered_stays_where_nothing_is_left_to_learn(home, tmp_path):
    folder = tiny.draw_squares(tmp_path / "changing", 24)
    with _validations(0.1, 0.3):
        assert tiny.train(folder)[-1].delivered.startswith("best step, 4")
    model = (tiny.run_directory(home) / "model.safetensors").read_bytes()
    (folder / "003.txt").write_text("a violet square")
    assert tiny.train(folder, accept_changes=True)[-1].delivered.startswith("best step, 4")
    assert (tiny.run_directory(home) / "model.safetensors").read_bytes() == model


def test_best_weights_whose_place_others_took_in_a_forgotten_cool_down_are_not_delivered(squares, home):
    with _validations(0.2, 0.2):
        assert tiny.train(squares)[-1].delivered.startswith("last step")
    shutil.copy(tiny.run_directory(home) / "model.safetensors", tiny.run_directory(home) / "best.safetensors")
    longer = dataclasses.replace(tiny.RECIPE, steps=12)
    with mock.patch.object(loop, "_loop", return_value=()):
        assert tiny.train(squares, longer)[-1].step == 6               # dies at the start
    with _validations(0.4):
        assert tiny.train(squares, longer)[-1].delivered == "last step: validation loss 0.4000"


def test_a_model_in_training_can_be_sampled(squares, home):
    path = tiny.run_directory(home) / "model.safetensors"
    with open_run(squares, tiny.RECIPE, Machine(**tiny.OPTIONS)) as run, tiny.scaled_down():
        for event in loop.train(run):
            if isinstance(event, events.Saved) and event.step < run.recipe.steps:
                model = checkpoint.load_model(path, CPU)
                assert (model.training.step, model.training.delivered) == (event.step, "last")
                (drawn,) = generate.generate(model, [SampleRequest(prompt="a red square", sampling=QUICK)])
                assert drawn.pixels.shape == (8, 8, 3)


def test_the_model_holds_the_averaged_weights_and_what_is_known_of_them(trained):
    directory, _ = trained
    model, state = load_file(directory / "model.safetensors"), load_file(directory / STATE)
    for name, tensor in model.items():
        assert torch.equal(tensor, state[f"average.{name}"])
    assert any(not torch.equal(tensor, state[f"weights.{name}"]) for name, tensor in model.items())
    loaded = checkpoint.load_model(directory / "model.safetensors", CPU)
    held_out = 24 // 10
    assert sum(loaded.words[colour] for colour in tiny.COLOURS) == loaded.words["square"] == 24 - held_out
    assert loaded.training.images_seen == 32
    assert "squares" not in json.dumps(loaded.training.to_json())    # no names of folders


def test_training_without_captions(unconditional):
    directory, _ = unconditional
    model = checkpoint.load_model(directory / "model.safetensors", CPU)
    assert (model.tokenizer, model.words, model.config.conditional) == (None, {}, False)
    assert not (directory / "tokenizer.json").exists()
    (first,) = generate.generate(model, [SampleRequest(prompt="ignored", sampling=QUICK)])
    (second,) = generate.generate(model, [SampleRequest(sampling=QUICK)])
    assert (first.pixels == second.pixels).all()


def test_a_copy_of_the_model_goes_where_it_was_asked_for(squares, home, tmp_path):
    out = tmp_path / "copy.safetensors"
    tiny.train(squares, out=str(out))
    assert out.read_bytes() == (tiny.run_directory(home) / "model.safetensors").read_bytes()


def test_previews_show_the_prompts_that_were_asked_for(trained, squares, home):
    tiny.train(squares, preview_prompt=("a red square", "a blue square"))
    asked, captions = (tuple((directory / "previews").glob("*.png")) for directory in (
        tiny.run_directory(home), trained[0]))
    assert [path.name for path in asked] == [path.name for path in captions] == ["step-00000008.png"]
    assert results(tiny.run_directory(home)) == results(trained[0])          # looking changes nothing


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


def _full_disk(times, of=STATE[:5]):
    """As if the disk were full at the first so many writes of files whose names begin like this."""
    write, left = durable.write, [times]

    def failing(path, data, **options):
        if path.name.startswith(of) and left[0] > 0:
            left[0] -= 1
            raise StorageError(f"cannot write {path}: no space left on device")
        write(path, data, **options)

    return mock.patch.object(durable, "write", failing)


def test_a_full_disk_is_outlived_when_there_is_room_again(trained, squares, home):
    with _full_disk(2):
        stream = tiny.train(squares)
    assert steps_of(events.Saved, stream) == [8]
    assert len([line for line in warnings(stream) if "no space left" in line]) == 2
    assert results(tiny.run_directory(home)) == results(trained[0])


def test_a_disk_that_stays_full_ends_the_run_and_keeps_what_is_there(squares, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tiny.train(squares, stop_at=2)
    kept = (tiny.run_directory(home) / "step-00000002.safetensors").read_bytes()
    with _full_disk(3), pytest.raises(StorageError, match="no space left"):
        tiny.train(squares, save_every="1")
    assert (tiny.run_directory(home) / "step-00000002.safetensors").read_bytes() == kept
    with _full_disk(2), pytest.raises(StorageError, match="no space left"):
        tiny.train(squares, stop_at=1)                     # one that was due, and the last, which is not put off


def test_a_model_whose_directory_is_deleted_is_written_elsewhere(trained, squares, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for step in (2, 3):
        (tmp_path / f"tiny-{step:08d}.safetensors").write_text("not ours")     # and is not ours to replace
    stop, directory = tiny.StopAfter(2), tiny.run_directory(home)

    def pulling_the_rug():
        if stop():
            shutil.rmtree(directory)

    with open_run(squares, tiny.RECIPE, Machine(**tiny.OPTIONS)) as run, tiny.scaled_down(), \
            mock.patch.object(tempfile, "gettempdir", return_value=str(home)), \
            pytest.raises(StorageError, match="was written to") as raised:
        list(loop.train(run, should_stop=pulling_the_rug))
    path = Path(str(raised.value).rpartition("written to ")[2])
    assert path.parent == home
    assert checkpoint.load_model(path, CPU).training.step in (2, 3)
    assert not directory.exists()
    assert (tmp_path / "tiny-00000003.safetensors").read_text() == "not ours"


def test_neither_log_nor_best_weights_nor_previews_are_worth_a_training(trained, squares, home):
    with mock.patch.object(durable, "append", side_effect=StorageError("full")), _full_disk(1, of="best"), \
            _full_disk(1, of="step-00000008.png"):
        stream = tiny.train(squares)
    assert stream[-1].complete
    assert results(tiny.run_directory(home)) == results(trained[0])


def test_too_little_memory_makes_the_pictures_at_once_fewer(squares, home):
    accumulate = Trainer._accumulate

    def scarce(self, start, count):
        result = accumulate(self, start, count)
        if count > 2:
            raise torch.OutOfMemoryError
        return result

    with mock.patch.object(Trainer, "_accumulate", scarce):
        stream = tiny.train(squares)
    assert warnings(stream) == ["out of memory: from now on 2 pictures at once"]
    reached = results(tiny.run_directory(home))
    tiny.train(squares, micro_batch=2, fresh=True)
    assert results(tiny.run_directory(home)) == reached


# ── What changed since ──────────────────────────────────────────────────────────────────────────────────────────────


def test_changed_pictures_are_refused_unless_accepted(home, tmp_path):
    folder = tiny.draw_squares(tmp_path / "changing", 20)
    tiny.train(folder, stop_at=1)
    (folder / "003.txt").write_text("a violet square")
    with pytest.raises(DataError, match="changed since the run 'tiny' was begun") as caught:
        tiny.train(folder)
    assert "--accept-changes" in caught.value.hint
    tiny.draw_squares(folder, 40)
    with mock.patch.object(estimate, "_images_per_second", return_value=1.0), open_run(
            folder, tiny.RECIPE, Machine(**tiny.OPTIONS, accept_changes=True), rehearsal=True) as run:
        list(loop.rehearse(run))                       # only asking changes nothing
    with pytest.raises(DataError):
        tiny.train(folder)
    stream = tiny.train(folder, accept_changes=True, stop_at=1)
    assert stream[-1].step == 2
    assert dict(tiny.of_kind(events.Started, stream)[0].facts)["pictures"] == "40 used (36 to train on, 4 held out)"
    assert tiny.train(folder)[-1].complete                 # the change was recorded


def test_a_folder_that_was_moved_is_found_again_by_the_name_of_its_run(home, tmp_path):
    folder = tiny.draw_squares(tmp_path / "here", 24)
    tiny.train(folder, stop_at=1)
    folder = folder.rename(tmp_path / "there")
    assert tiny.train(folder)[-1].complete
    stored = run_directory.read_config(tiny.run_directory(home))
    assert stored["request"]["folder"] == str(folder)                              # where `diffuse evaluate` looks
    folder = folder.rename(tmp_path / "elsewhere")
    same = dataclasses.replace(tiny.RECIPE, steps=None, images=32)                 # the same budget in other words
    assert not tiny.of_kind(events.Stepped, tiny.train(folder, same))
    stored = run_directory.read_config(tiny.run_directory(home))
    other = tiny.draw_squares(tmp_path / "other", 25)
    with pytest.raises(DataError, match=f"are not those of {folder} that the run 'tiny' is trained on"):
        tiny.train(other, same)
    assert run_directory.read_config(tiny.run_directory(home)) == stored


@pytest.mark.parametrize("options", [{}, {"fresh": True}])
def test_a_rehearsal_writes_nothing(squares, home, options):
    tiny.train(squares, stop_at=1)
    before = listing(home)
    with mock.patch.object(estimate, "MEASURED_SECONDS", 0), open_run(
            squares, tiny.RECIPE, Machine(**tiny.OPTIONS, **options), rehearsal=True) as run:
        *_, started = loop.rehearse(run)
    changed = {path.name for path, seen in listing(home).items() if before.get(path) != seen}
    assert changed <= {"lock"}
    assert listing(home).keys() == before.keys()
    facts = dict(started.facts)
    assert started.step == (0 if options else 1)
    assert {"arithmetic", "memory", "disk", "speed", "time", "batch", "budget"} <= facts.keys()


def test_a_rehearsal_of_a_new_run_leaves_no_directory(squares, home):
    with mock.patch.object(estimate, "MEASURED_SECONDS", 0), open_run(
            squares, tiny.RECIPE, Machine(**tiny.OPTIONS), rehearsal=True) as run:
        list(loop.rehearse(run))
    assert list((home / "models").iterdir()) == []


# ── Budgets of time, and other models to start from ─────────────────────────────────────────────────────────────────


def test_a_budget_of_time_becomes_a_number_of_steps_once(squares, home):
    recipe = Recipe(resolution=8, preset="nano", time=60.0, batch_size=4)
    with mock.patch.object(estimate, "_images_per_second", return_value=0.5) as measured:
        stream = tiny.train(squares, recipe, stop_at=1)
        steps = tiny.of_kind(events.Started, stream)[0].steps
        assert 3 <= steps <= 4                             # 0.92 of half of 60 s at 0.5 pictures a second, 4 in a step
        plan = json.loads((tiny.run_directory(home) / "config.json").read_text())["plan"]
        assert plan["steps"] == steps
        measured.return_value = 100.0
        again = tiny.train(squares, recipe)
    assert measured.call_count == 1
    assert tiny.of_kind(events.Started, again)[0].steps == steps
    assert again[-1].step == steps


def test_measuring_previews_and_validations_count_as_time_spent():
    with mock.patch.object(estimate, "_images_per_second", return_value=10.0), \
            mock.patch.object(estimate, "_overhead", return_value=120.0), \
            mock.patch.object(estimate.time, "monotonic", side_effect=[100.0, 104.0]):
        assert estimate.images_within(60.0, mock.Mock(), Machine()) == int(estimate.STEPS_TIME_SHARE * (10 * 56 - 120))


@pytest.mark.parametrize("every", ["100%", "50%", "2"])
def test_what_goes_on_overhead_the_steps_is_as_much_as_is_counted_on(squares, home, every):
    seen = 0

    def counted(network, noisy, *arguments, **options):
        nonlocal seen
        seen += 0 if torch.is_grad_enabled() else len(noisy)
        return forward(network, noisy, *arguments, **options)

    forward = Network.forward
    with mock.patch.object(Network, "forward", counted):
        tiny.train(squares, preview_every=every)
    plan = from_dict(Plan, run_directory.read_config(tiny.run_directory(home))["plan"])
    with tiny.scaled_down():
        assert seen == pytest.approx(3 * estimate._overhead(
            plan, Machine(preview_every=every), images=plan.steps * plan.batch_size, seconds=1.0))


@pytest.mark.parametrize(("every", "seconds", "previews"), [("20s", 100.0, 5), ("30s", 10.0, 1), ("5", 1.0, 8)])
def test_previews_are_counted_over_the_time_that_there_is(every, seconds, previews):
    """Not over a plan made before it was known. 8 of them follow from 160 pictures in batches of 4, every 5 steps."""
    network = mock.Mock(resolution=8)
    plan = mock.Mock(batch_size=4, steps=10**6, validation_images=0,
                     model=mock.Mock(conditional=False, network=network))
    found = estimate._overhead(plan, Machine(preview_every=every), images=160, seconds=seconds)
    assert found == pytest.approx(previews * config.PREVIEW_PICTURES * Sampling().number_of_steps / 3)


def test_another_model_to_start_from(trained, squares, home):
    source = trained[0] / "model.safetensors"
    recipe = Recipe(steps=1, batch_size=4, init=str(source), lr=1e-7, captions="sidecar")
    assert tiny.train(squares, recipe, name="next")[-1].complete
    directory = tiny.run_directory(home, "next")
    old, new = (checkpoint.load_model(path, CPU) for path in (source, directory / "model.safetensors"))
    assert new.config == old.config
    assert new.tokenizer.to_str() == old.tokenizer.to_str()
    for name, tensor in old.network.state_dict().items():
        assert torch.allclose(tensor, new.network.state_dict()[name], rtol=1e-5, atol=2e-7)
    assert new.training.init_id == old.sha256


@pytest.mark.parametrize(("changes", "message"), [
    ({"preset": "nano"}, "starts from a network of 8 px"),
    ({"resolution": 16}, "starts from a network of 8 px"),
    ({"prediction": "epsilon"}, "predicts v"),
    ({"variance": "fixed"}, "and a learned variance"),
    ({"schedule": "cosine"}, "schedule interpolated"),
    ({"captions": "none"}, "needs captions"),
])
def test_options_that_contradict_the_model_to_start_from(trained, squares, changes, message):
    recipe = Recipe(**{"steps": 1, "batch_size": 4, "init": str(trained[0] / "model.safetensors"), **changes})
    with pytest.raises((UsageError, ModelError), match=message):
        tiny.train(squares, recipe)


def test_the_model_to_start_from_is_needed_until_the_first_save(trained, squares, home, tmp_path):
    source = tmp_path / "start.safetensors"
    source.write_bytes((trained[0] / "model.safetensors").read_bytes())
    recipe = Recipe(steps=3, batch_size=4, init=str(source))           # of which the resolution is
    with mock.patch.object(loop, "_loop", return_value=()):
        tiny.train(squares, recipe)                        # dies before its first step
    model = checkpoint.load_model(source, CPU)
    checkpoint.save_model(source, config=model.config, tokenizer=model.tokenizer, words={}, training=model.training,
                          weights={name: weight + 1 for name, weight in model.network.state_dict().items()})
    with pytest.raises(ModelError, match="no longer the model"):
        tiny.train(squares, recipe)
    source.write_bytes((trained[0] / "model.safetensors").read_bytes())
    tiny.train(squares, recipe, stop_at=1)
    source.unlink()
    assert tiny.train(squares, recipe)[-1].complete


def test_the_plan_is_written_before_the_first_step(squares, home):
    path = tiny.run_directory(home) / "config.json"
    told = [events.Noticed(message="the first step")]
    with mock.patch.object(loop, "_loop", side_effect=lambda *_: told if path.exists() else []):
        assert told[0] in tiny.train(squares)
    assert json.loads(path.read_text())["plan"]["steps"] == 8
