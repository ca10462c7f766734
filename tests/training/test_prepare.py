"""The beginning of a training: changed pictures, a budget of time, another model to start from, the plan's file."""

import dataclasses
import json
import shutil
from unittest import mock

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from diffuse_cli import events
from diffuse_cli.config import Machine, Recipe
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.fitting import fitted_pixels
from diffuse_cli.errors import DataError, ModelError, StorageError, UsageError
from diffuse_cli.evaluation.held_out import open_held_out
from diffuse_cli.picture_size import Size
from diffuse_cli.storage import checkpoint, run_directory, trained_pictures
from diffuse_cli.storage.model_info import TrainingSummary, read_model_info
from diffuse_cli.training import estimate, loop
from diffuse_cli.training.run import open_run
from diffuse_cli.training.sizes import choose_fit

pytestmark = pytest.mark.usefixtures("decoded")

CPU = torch.device("cpu")


# ── Pictures that changed ───────────────────────────────────────────────────────────────────────────────────────────


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
        list(loop.rehearse(run))                       # a rehearsal changes nothing
    with pytest.raises(DataError):
        tiny.train(folder)
    stream = tiny.train(folder, accept_changes=True, stop_at=1)
    assert stream[-1].step == 2
    assert dict(tiny.of_kind(events.Started, stream)[0].facts)["pictures"] == "40 used (38 to train on, 2 held out)"
    assert tiny.train(folder)[-1].complete                 # the change was recorded


def test_a_run_keeps_its_fit_and_all_that_compares_pictures_has_it(home, tmp_path):
    folder = tiny.draw_bars(tmp_path / "bars")
    stream = tiny.train(folder, stop_at=1)
    told = dict(tiny.of_kind(events.Started, stream)[0].facts)["fit"]
    assert told.startswith("pad — 24 of 24 pictures that are not square stand on a plain or transparent ground, ")
    random = np.random.default_rng(1)                      # of these pictures, some are held out
    for path in folder.glob("*.png"):                      # of which a new run would take the centre
        Image.fromarray(random.integers(0, 256, (8, 24, 3), dtype=np.uint8)).save(path)
    with pytest.raises(DataError, match="changed since the run 'tiny' was begun"):
        tiny.train(folder)
    stream = tiny.train(folder, accept_changes=True)
    assert stream[-1].complete
    assert dict(tiny.of_kind(events.Started, stream)[0].facts)["fit"] == "pad — that of the run"

    path = tiny.run_directory(home) / "model.safetensors"
    assert read_model_info(path).training.fit == "pad"
    assert choose_fit(find_pictures(folder), Recipe(init=str(path), evaluations=2), Size(8, 8)) == (
        "pad", "that of its teacher")
    assert choose_fit(find_pictures(folder), Recipe(), Size(8, 8))[0] == "crop"
    other = tiny.draw_bars(tmp_path / "other", 3)
    for found, source in ((held_out(path, None), folder), (held_out(path, other), other)):
        for name, image in zip(found.dataset.names, found.dataset.images, strict=True):
            padded = fitted_pixels(Image.open(source / name), 8, Rendering(fit="pad"))
            np.testing.assert_array_equal(image, padded)


def held_out(path, folder):
    steps = open_held_out(path, folder, resolution=8)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_picture_that_was_trained_on_is_never_held_out_in_a_folder(home, tmp_path):
    folder = tiny.draw_squares(tmp_path / "pictures", 24)
    (folder / "test").mkdir()
    for number in range(4):
        (folder / f"{number:03d}.png").rename(folder / "test" / f"{number:03d}.png")
    recipe = dataclasses.replace(tiny.RECIPE, captions="none", held_out="test")
    tiny.train(folder, recipe, stop_at=1)
    for number in (4, 5):                                  # one moves, of the other a copy under another name appears
        shutil.copy(folder / f"{number:03d}.png", folder / "test" / f"new-{number}.png")
        (folder / f"{number:03d}.png").unlink()
    shutil.copy(folder / "test" / "000.png", folder / "test" / "999.png")
    Image.new("RGB", (16, 16), "orange").save(folder / "test" / "fresh.png")

    stream = tiny.train(folder, recipe, accept_changes=True, stop_at=1)
    assert dict(tiny.of_kind(events.Started, stream)[0].facts)["pictures"] == "26 used (18 to train on, 6 held out)"
    warnings = [event.message for event in tiny.of_kind(events.Noticed, stream) if event.level == "warning"]
    assert "2 pictures in test were trained on before, so they are not held out: for example test/new-4.png" in warnings

    (folder / "000.png").write_bytes((folder / "test" / "000.png").read_bytes())     # no longer held out
    tiny.train(folder, recipe, accept_changes=True, stop_at=1)
    (folder / "000.png").unlink()
    tiny.train(folder, recipe, accept_changes=True, stop_at=1)                             # what is recorded adds up
    found = list_held_out(tiny.run_directory(home))
    assert [found.dataset.names[position] for position in found.positions] == [
        "test/001.png", "test/002.png", "test/003.png", "test/fresh.png"]

    record = tiny.run_directory(home) / trained_pictures.TRAINED_FILE
    record.write_bytes(record.read_bytes()[:-8])
    with pytest.raises(StorageError, match="is damaged"):
        tiny.train(folder, recipe)


def list_held_out(directory):
    """The pictures on which `diffuse evaluate` would measure a run."""
    steps = open_held_out(directory / "model.safetensors", None, resolution=8)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_a_folder_that_was_moved_is_found_again_by_the_name_of_its_run(home, tmp_path):
    folder = tiny.draw_squares(tmp_path / "here", 24)
    tiny.train(folder, stop_at=1)
    folder = folder.rename(tmp_path / "there")
    assert tiny.train(folder)[-1].complete
    stored = run_directory.read_config(tiny.run_directory(home))
    assert stored["request"]["folder"] == str(folder)                              # where `diffuse evaluate` looks
    folder = folder.rename(tmp_path / "elsewhere")
    same = dataclasses.replace(tiny.RECIPE, steps=None, images=32)                 # the same budget, by another option
    assert not tiny.of_kind(events.Stepped, tiny.train(folder, same))
    stored = run_directory.read_config(tiny.run_directory(home))
    other = tiny.draw_squares(tmp_path / "other", 25)
    with pytest.raises(DataError, match=f"are not those of {folder} that the run 'tiny' is trained on"):
        tiny.train(other, same)
    assert run_directory.read_config(tiny.run_directory(home)) == stored


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
        again = tiny.train(squares, recipe, stop_at=1)
    assert measured.call_count == 1
    assert tiny.of_kind(events.Started, again)[0].steps == again[-1].steps == steps


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
    recipe = Recipe(steps=3, batch_size=4, init=str(source))           # which also decides on the resolution
    with mock.patch.object(loop, "_loop", return_value=()):
        tiny.train(squares, recipe)                        # dies before its first step
    model = checkpoint.load_model(source, CPU)
    checkpoint.save_model(source, config=model.config, tokenizer=model.tokenizer, words={}, training=TrainingSummary(),
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
