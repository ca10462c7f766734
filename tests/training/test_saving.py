"""Models and their delivery, the best weights, and writes that fail: full disks and deleted directories."""

import dataclasses
import json
import shutil
import tempfile
from pathlib import Path
from unittest import mock

import pytest
import runs
import tiny
import torch
from safetensors.torch import load_file

from diffuse_cli import events
from diffuse_cli.config import Machine, Sampling
from diffuse_cli.errors import StorageError
from diffuse_cli.files import durable
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint
from diffuse_cli.training import loop, validation
from diffuse_cli.training.run import open_run

pytestmark = pytest.mark.usefixtures("decoded")

CPU = torch.device("cpu")
QUICK = Sampling(steps=2, batch_size=1)


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


def test_weights_that_were_best_on_other_pictures_are_not_delivered(home, tmp_path):
    folder = tiny.draw_squares(tmp_path / "changing", 20)
    with _validations(0.1):
        tiny.train(folder, stop_at=5)                      # the best, measured on pictures that are no longer held out
    tiny.draw_squares(folder, 40)
    tiny.train(folder, accept_changes=True, stop_at=1)
    with _validations(0.3):
        assert tiny.train(folder)[-1].delivered == "last step: validation loss 0.3000"


def test_the_delivered_model_stays_when_nothing_is_left_to_train(home, tmp_path):
    folder = tiny.draw_squares(tmp_path / "changing", 24)
    with _validations(0.1, 0.3):
        assert tiny.train(folder)[-1].delivered.startswith("best step, 4")
    model = (tiny.run_directory(home) / "model.safetensors").read_bytes()
    (folder / "003.txt").write_text("a violet square")
    assert tiny.train(folder, accept_changes=True)[-1].delivered.startswith("best step, 4")
    assert (tiny.run_directory(home) / "model.safetensors").read_bytes() == model


def test_best_weights_whose_file_was_replaced_in_a_forgotten_cool_down_are_not_delivered(squares, home):
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
    model, state = load_file(directory / "model.safetensors"), load_file(directory / runs.STATE)
    for name, tensor in model.items():
        assert torch.equal(tensor, state[f"average.{name}"])
    assert any(not torch.equal(tensor, state[f"weights.{name}"]) for name, tensor in model.items())
    loaded = checkpoint.load_model(directory / "model.safetensors", CPU)
    held_out = 24 // 10
    assert sum(loaded.words[colour] for colour in tiny.COLOURS) == loaded.words["square"] == 24 - held_out
    assert loaded.training.images_seen == 32
    assert "squares" not in json.dumps(loaded.training.to_json())    # folder names stay private


def test_a_copy_of_the_model_goes_where_it_was_asked_for(squares, home, tmp_path):
    out = tmp_path / "copy.safetensors"
    tiny.train(squares, out=str(out))
    assert out.read_bytes() == (tiny.run_directory(home) / "model.safetensors").read_bytes()


# ── Writes that fail ────────────────────────────────────────────────────────────────────────────────────────────────


def _full_disk(times, of=runs.STATE[:5]):
    """As if the disk were full at the first `times` writes of files whose names begin with `of`."""
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
    assert runs.steps_of(events.Saved, stream) == [8]
    assert len([line for line in runs.warnings(stream) if "no space left" in line]) == 2
    assert runs.results(tiny.run_directory(home)) == runs.results(trained[0])


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
        (tmp_path / f"tiny-{step:08d}.safetensors").write_text("not ours")     # an existing file, not to be replaced
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
    assert runs.results(tiny.run_directory(home)) == runs.results(trained[0])
