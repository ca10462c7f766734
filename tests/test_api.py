"""The Python interface: the same pictures and events as those of the commands, and an import that costs nothing."""

import contextlib
import dataclasses
import inspect
import io
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image

import diffuse_cli
from diffuse_cli import api, events
from diffuse_cli.cli import app
from diffuse_cli.cli.terminal import view
from diffuse_cli.config import RENAMED_FIELDS, Machine, Recipe
from diffuse_cli.errors import InUseError, ModelError, UsageError
from diffuse_cli.storage import registry
from diffuse_cli.training import loop
from diffuse_cli.training import run as training_run

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
QUICK = {"steps": 2, "batch_size": 2}


@pytest.fixture(scope="module")
def loaded(trained):
    return diffuse_cli.load(trained[0] / "model.safetensors", device="cpu")


def test_importing_is_light():
    code = ("import sys, diffuse_cli; assert diffuse_cli.__version__; from diffuse_cli import Sampling; "
            "print(sorted({'torch', 'numpy', 'PIL', 'typer', 'rich'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_sampling_does_not_import_the_compiler(trained):
    """Torch imports it for some functions on the meta device; with sympy that costs as much as torch itself."""
    code = ("import sys, torch, diffuse_cli; before = set(sys.modules)\n"            # old versions of torch need sympy
            f"diffuse_cli.load({str(trained[0] / 'model.safetensors')!r}, device='cpu').sample(steps=2, batch_size=1)\n"
            "print(sorted({'torch._dynamo', 'sympy'} & set(sys.modules) - before))")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_exporting_gives_the_report_and_replaces_nothing(trained, tmp_path):
    model, out = trained[0] / "model.safetensors", tmp_path / "half.safetensors"
    report = diffuse_cli.export(model, out, to="safetensors", precision="fp16")
    assert report["verified"]
    assert {entry["what"] for entry in report["comparisons"]} >= {"weights", "pictures of a seed"}
    assert diffuse_cli.load(out, device="cpu").resolution == 8
    before = out.read_bytes()
    for wrong in ({"to": "safetensors"}, {"to": "diffusers"}, {"to": "difusers"}):
        with pytest.raises(UsageError):
            diffuse_cli.export(model, out, **wrong)
    assert out.read_bytes() == before
    assert list(tmp_path.iterdir()) == [out]


def test_every_public_name_exists():
    for name in diffuse_cli.__all__:
        assert getattr(diffuse_cli, name)
    with pytest.raises(AttributeError, match="nothing"):
        _ = diffuse_cli.nothing


def test_public_names_are_listed_before_they_are_first_used():
    code = ("import sys, diffuse_cli; assert set(diffuse_cli.__all__) <= set(dir(diffuse_cli)); "
            "assert '__name__' in dir(diffuse_cli); print('torch' in sys.modules)")
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_pictures_are_those_of_the_command_line(loaded, trained, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = loaded.sample("a red square", n=2, seed=3, negative="a blue square", guidance=2.0, **QUICK)
    view.start()
    assert app._run(["sample", "a red square", "-n", "2", "-s", "3", "--negative", "a blue square", "--guidance", "2",
                     "--steps", "2", "--batch-size", "2", "-m", str(trained[0] / "model.safetensors")]) == 0
    for image, path in zip(drawn, capsys.readouterr().out.split(), strict=True):
        with Image.open(path) as written:
            assert (image.size, image.mode) == ((8, 8), "RGB")
            assert np.array_equal(np.asarray(written), np.asarray(image))
            assert written.text == image.info


def test_pictures_and_models_show_themselves_in_a_notebook(trained):
    loaded = diffuse_cli.load(trained[0] / "model.safetensors", device="cpu")
    pictures = loaded.sample("a red square", n=2, seed=3, **QUICK)
    with Image.open(io.BytesIO(pictures._repr_png_())) as sheet:
        assert sheet.size == ((2 * 10 + 2) * 14, (10 + 2) * 14)        # side by side, enlarged
    assert isinstance(pictures, list)
    assert type(pictures)()._repr_png_() is None
    assert repr(loaded) == "<LoadedModel tiny, 8 px>"
    page = loaded._repr_html_()
    assert "<th>trained on</th>" in page
    assert "red" in page
    assert page.count("<img") == 1
    assert "<img" not in dataclasses.replace(loaded, path=None)._repr_html_()
    renamed = dataclasses.replace(loaded.model, training=dataclasses.replace(loaded.model.training, name="<b>"))
    assert "<b>" not in dataclasses.replace(loaded, model=renamed)._repr_html_()


def test_a_model_shows_the_name_that_loads_it(trained):
    assert repr(diffuse_cli.load("demo-fast", device="cpu")) == "<LoadedModel demo-fast, 64 px>"
    elsewhere = registry.model_directory("tiny-old")                   # as --fresh moves a run aside
    shutil.copytree(trained[0], elsewhere)
    moved = diffuse_cli.load("tiny-old", device="cpu")
    assert repr(moved) == "<LoadedModel tiny-old, 8 px>"
    assert "<h4>tiny-old</h4>" in moved._repr_html_()
    (picture,) = moved.sample("a red square", **QUICK)
    assert json.loads(picture.info["diffuse"])["model"] == "tiny-old"
    assert diffuse_cli.load(str(trained[0] / "model.safetensors"), device="cpu").model.training.name == "tiny"


def test_progress_is_shown_if_it_is_asked_for(loaded, capsys, monkeypatch):
    loaded.sample("a red square", **QUICK)
    assert capsys.readouterr() == ("", "")
    loaded.sample("a red square", progress=True, **QUICK)
    assert "sampling: 100%" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    with pytest.raises(UsageError, match="pip install tqdm"):
        loaded.sample("a red square", progress=True, **QUICK)


def test_the_typed_options_of_train_are_those_of_the_configs():
    fields = {field.name for config in (Recipe, Machine) for field in dataclasses.fields(config)}
    assert set(api.TrainingOptions.__annotations__) == fields - {"log"} | set(RENAMED_FIELDS)


def test_the_signature_of_train_names_every_option_with_its_default():
    shown = inspect.signature(diffuse_cli.train).parameters
    assert list(shown)[:2] == ["folder", "should_stop"]
    assert set(shown) == {"folder", "should_stop", *api.TrainingOptions.__annotations__} - set(RENAMED_FIELDS)
    assert (shown["preset"].default, shown["save_every"].default) == (None, "5m")
    assert shown["lr"].annotation == float | None


def test_numpys_numbers_are_numbers(loaded):
    one = loaded.sample("a red square", n=np.int64(2), seed=np.int32(7), **QUICK)
    again = loaded.sample("a red square", n=2, seed=7, **QUICK)
    assert [picture.tobytes() for picture in one] == [picture.tobytes() for picture in again]
    assert one[0].info == again[0].info


def test_seeds_are_random_unless_given(loaded):
    (one,), (other,) = loaded.sample(**QUICK), loaded.sample(**QUICK)
    assert json.loads(one.info["diffuse"])["seed"] != json.loads(other.info["diffuse"])["seed"]


def test_an_init_image_may_come_from_memory_or_a_file(loaded, squares):
    path = squares / "000.png"
    with Image.open(path) as image:
        (kept,) = loaded.sample(init=image, strength=0.0, seed=1, **QUICK)
        (same,) = loaded.sample(init=str(path), strength=0.0, seed=2, **QUICK)
    assert np.array_equal(np.asarray(kept), np.asarray(same))
    mask = Image.new("L", (16, 16), 0)
    (kept,) = loaded.sample(init=path, mask=mask, seed=1, **QUICK)
    assert np.array_equal(np.asarray(kept), np.asarray(same))


@pytest.mark.parametrize(("options", "said"), [
    ({"guidence": 3}, "Did you mean 'guidance'"), ({"negativ": "y"}, "Did you mean 'negative'"),
    ({"guidance": "much"}, "guidance should be a number"), ({"steps": 0}, "--steps"), ({"n": 0}, "--num"),
    ({"strength": 0.5}, "need a picture"), ({"seed": -1}, "--seed"), ({"n": "2"}, "--num must be a whole number"),
    ({"n": 2.5}, "--num"), ({"seed": "1"}, "--seed"), ({"negative": 3}, "--negative must be text"),
    ({"strength": "much", "init": Image.new("RGB", (8, 8))}, "--strength must be a number")])
def test_invalid_arguments_are_refused(loaded, options, said):
    with pytest.raises(UsageError) as caught:
        loaded.sample("x", **options)
    assert said in str(caught.value)


def test_no_such_model(home):
    with pytest.raises(ModelError, match="no model 'nowhere'"):
        diffuse_cli.load("nowhere")


@pytest.mark.usefixtures("decoded")
def test_training_is_a_stream_of_the_same_events(squares, trained):
    options = {**tiny.OPTIONS, "resolution": 8, "preset": "nano", "steps": 8, "batch_size": 4}
    with tiny.scaled_down():
        stream = diffuse_cli.train(squares, **options)
        first = next(event for event in stream if isinstance(event, events.Started))
        with pytest.raises(InUseError):
            list(diffuse_cli.train(squares, **options))    # it is locked while events are still to come
        rest = list(stream)
        asked = tiny.StopAfter(3)
        *_, stopped = diffuse_cli.train(squares, should_stop=asked, **{**options, "name": "other"})
    lasting = (events.Started, events.Validated, events.Previewed, events.Finished)    # the rest depends on the clock
    assert [type(event) for event in (first, *rest) if isinstance(event, lasting)] == [
        type(event) for event in trained[1] if isinstance(event, lasting)]
    assert rest[-1].complete
    assert Path(rest[-1].path).read_bytes() == (trained[0] / "model.safetensors").read_bytes()
    assert (stopped.complete, stopped.reason, stopped.step) == (False, "SIGINT", 3)


def test_training_refuses_unknown_and_invalid_options(squares):
    with pytest.raises(UsageError, match="'stepps'"):
        next(diffuse_cli.train(squares, stepps=3))
    for several in ({"procs": 2}, {"log": "tensorboard"}):
        with pytest.raises(UsageError, match="command line"):
            next(diffuse_cli.train(squares, **several))
    for option, value in (("steps", "1"), ("lr", "fast"), ("time", "soon"), ("fresh", 1), ("preview_prompt", "a cat")):
        with pytest.raises(UsageError, match=option):
            next(diffuse_cli.train(squares, **{option: value}))


@pytest.fixture
def requested(monkeypatch):
    """(recipe, machine) of every training that was asked for; none is run."""
    runs = []
    monkeypatch.setattr(training_run, "open_run", lambda folder, recipe, machine: runs.append((recipe, machine)) or
                        contextlib.nullcontext())
    monkeypatch.setattr(loop, "train", lambda run, should_stop: iter(()))
    return runs


def test_training_takes_what_the_command_line_takes(squares, requested):
    list(diffuse_cli.train(squares, time="1h30m", gpus=0, preview_prompt=["a cat"]))
    list(diffuse_cli.train(squares, time=5400))
    assert [recipe.time for recipe, _ in requested] == [5400, 5400]
    assert requested[0][1] == Machine(gpus="0", preview_prompt=("a cat",))


def test_training_takes_the_former_name_of_an_option(squares, requested):
    for name in ("objective", "loss_weighting"):
        list(diffuse_cli.train(squares, **{name: "simple"}))
    assert [recipe.loss_weighting for recipe, _ in requested] == ["simple", "simple"]
    with pytest.raises(UsageError, match="--loss-weighting"):
        next(diffuse_cli.train(squares, objective="simpel"))


@pytest.mark.usefixtures("decoded")
def test_the_examples_run(squares, trained, home, tmp_path, monkeypatch):
    """Every block of docs/python.md, one after another, with a small model and folder in the place of the reader's."""
    (tmp_path / "images").symlink_to(squares)
    (home / "models" / "cars").mkdir(parents=True)
    (home / "models" / "cars" / "model.safetensors").symlink_to(trained[0] / "model.safetensors")
    Image.new("RGB", (20, 10), "red").save(tmp_path / "photo.jpg")
    Image.new("L", (20, 10), 255).save(tmp_path / "sky.png")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 4
    names: dict[str, object] = {}
    with tiny.scaled_down():
        for block in blocks:
            quick = block.replace("steps=20_000", "steps=4, preset='nano', device='cpu'").replace("96x64", "16x8")
            exec(compile(quick.replace('to="diffusers"', 'to="diffusers", verify=False'), str(PAGE), "exec"), names)
