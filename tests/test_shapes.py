"""Pictures that are no squares, in every command: what is read, learnt, shown, drawn, measured and exported has their
shape. WxH is width x height everywhere.
"""

import base64
import dataclasses
import io
import json
import os
import re
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from diffuse_cli import api, events
from diffuse_cli.cli.terminal.previews import Strip
from diffuse_cli.config import Recipe
from diffuse_cli.evaluation import encoder
from diffuse_cli.exporting import diffusers_comparison
from diffuse_cli.network.network import flops
from diffuse_cli.network.presets import network_config
from diffuse_cli.picture_size import Size
from diffuse_cli.pictures import sheets
from diffuse_cli.reporting import report
from diffuse_cli.storage import checkpoint, registry

SHAPES = ("16x8", pytest.param("8x16", marks=pytest.mark.slow))         # width x height
CPU = torch.device("cpu")


@pytest.fixture(scope="module", params=SHAPES)
def size(request) -> Size:
    return Size(*map(int, request.param.split("x")))


@pytest.fixture(scope="module")
def trained(size, tmp_path_factory) -> tiny.Trained:
    """A training of two steps on bars; half of them lie, half of them stand."""
    directory = tmp_path_factory.mktemp(str(size))
    folder = tiny.draw_bars(directory / "bars", 40)
    for path in sorted(folder.glob("*.png"))[::2]:
        Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    recipe = Recipe(resolution=size, preset="nano", steps=2, batch_size=4)
    return tiny.trained(folder, directory / "home", recipe, save_every="1", preview_every="50%")


@pytest.fixture
def diffuse(command, trained):
    return tiny.runner(command, trained.home)


# ── Training ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_model_has_the_shape_and_says_so(diffuse, trained, size):
    model = checkpoint.load_model(trained.model, CPU)
    assert model.config.network.resolution == size
    assert model.config.network.shape == (3, size.height, size.width)
    shown = json.loads(diffuse("models", "show", "tiny", "--json"))
    assert shown["config"]["network"]["resolution"] == str(size)
    assert f"{size.width} x {size.height} pixels" in diffuse("models", "show", "tiny")
    assert any(str(size) in line for line in diffuse("models", "ls").splitlines())
    diffuse("models", "verify", "tiny")
    started = next(event for event in trained.events if isinstance(event, events.Started))
    assert dict(started.facts)["resolution"].startswith(f"{size} px")


def test_a_resumed_training_ends_as_one_that_was_not_stopped(trained, size, tmp_path):
    with tiny.at_home(tmp_path):
        recipe = Recipe(resolution=size, preset="nano", steps=2, batch_size=4)
        tiny.train(trained.pictures, recipe, save_every="1", preview_every="50%", stop_at=1)
        tiny.train(trained.pictures, recipe, save_every="1", preview_every="50%")
    assert (tiny.run_directory(tmp_path) / registry.MODEL_FILE).read_bytes() == trained.model.read_bytes()


def test_previews_report_and_live_display_have_the_shape(trained, size):
    strips = sorted((trained.run / "previews").glob("*.png"))
    pictures = sheets.read_strip(strips[-1])
    assert pictures.shape == (2, size.height, size.width, 3)
    with tiny.at_home(trained.home):
        page = report.build(trained.run).decode()
        assert "Samples during training" in page
        found = [tiny.size_of(io.BytesIO(base64.b64decode(data)))
                 for data in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)]
        assert found.count(tuple(size)) >= 2
        assert '"data:image/png' in api.load("tiny", device="cpu")._repr_html_()
    event = next(event for event in trained.events if isinstance(event, events.Previewed))
    strip = Strip.read(event)
    assert strip is not None
    width, height = strip._size(16)
    assert (width, height) == (16, 8) if str(size) == "16x8" else (8, 16)
    assert strip.render(60, 20)


@pytest.mark.slow
def test_a_dry_run_counts_the_pixels(diffuse, trained, size):
    output = diffuse("train", trained.pictures, "--resolution", str(size), "--preset", "nano", "--steps",
                     "2", "--dry-run", "--device", "cpu", "--name", "other")
    assert f"{size} px" in output
    for key in ("arithmetic", "memory", "disk"):
        assert key in output
    nano = {size: flops(network_config("nano", size, vocabulary=None, learned_variance=True))
            for size in (Size(16, 8), Size(8, 16), Size(8, 8))}
    assert nano[Size(16, 8)] == nano[Size(8, 16)]
    assert 1.7 < nano[Size(16, 8)] / nano[Size(8, 8)] <= 2.1


@pytest.mark.slow
def test_a_recipe_with_a_shape_is_saved_and_read(diffuse, trained, size, tmp_path):
    pytest.importorskip("tomli_w")
    saved = tmp_path / "recipe.toml"
    diffuse("train", trained.pictures, "--resolution", str(size), "--preset", "nano", "--steps", "2",
            "--dry-run", "--device", "cpu", "--name", "other", "--save", saved)
    assert f'resolution = "{size}"' in saved.read_text()
    assert str(size) in diffuse("train", "--config", saved, "--dry-run", "--device", "cpu", "--name", "x")


def test_a_run_without_a_name_is_called_by_its_shape(trained, size, tmp_path):
    with tiny.at_home(tmp_path):
        tiny.train(trained.pictures, Recipe(resolution=size, preset="nano", steps=1, batch_size=4), name=None)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [f"bars-{size}"]


# ── Data ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_the_sheet_of_the_data_shows_each_fit(diffuse, trained, size, tmp_path, fit):
    out = tmp_path / "sheet.png"
    diffuse("data", "preview", trained.pictures, "--resolution", str(size), "--fit", fit, "-o", out)
    scale = 128 // size.width
    sheet = np.array(Image.open(out))
    first = sheet[8:8 + size.height * scale, 8:8 + size.width * scale]
    assert first.shape[:2] == (size.height * scale, size.width * scale)
    assert (first < 250).all(axis=2).any()
    checked = diffuse("data", "check", trained.pictures, "--fit", fit, "--resolution", str(size))
    assert f"over three times as wide or as high as the shape {size}" in checked        # those of 1:3


def test_the_fit_is_chosen_for_the_shape(command, tmp_path, home):
    for index in range(12):
        picture = Image.new("RGB", (60, 30), "white")
        picture.paste("red", (2, 10, 58, 20))
        picture.save(tmp_path / f"{index}.png")
    said = {shape: command("data", "preview", tmp_path, "--resolution", shape, "-o", home / f"{shape}.png")[2]
            for shape in ("32x16", "16x32", "16")}
    assert "crop — all pictures that were looked at are of shape 32x16" in said["32x16"]
    assert "pad — 12 of 12 pictures that are not of shape 16x32" in said["16x32"]
    assert "the crop would cut off 73% of what is on it" in said["16x32"]         # it keeps 15 of 56 pixels
    assert "the centre square would cut off 47%" in said["16"]                     # 30 of 56


# ── Sampling ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_samples_sheets_and_animations_have_the_shape(diffuse, trained, size, tmp_path):
    out = tmp_path / "out"
    diffuse("sample", "a red bar", "-m", "tiny", "-n", "3", "-s", "1", "--steps", "2", "--grid", "--sheet",
            "-o", out)
    files = {path.name: tiny.size_of(path) for path in sorted(out.iterdir())}
    (grid,) = (size for name, size in files.items() if "grid" in name)
    assert [size for name, size in files.items() if not re.search("grid|sheet", name)] == [tuple(size)] * 3
    scale = 10                                                                     # 112 / √128
    assert grid == (scale * (3 * (size.width + 2) + 2), scale * (size.height + 4))
    diffuse("sample", "a red bar", "-m", "tiny", "--steps", "2", "--animate", "-o", tmp_path / "a.webp")
    film = (scale * (2 * size.width + 4), scale * (size.height + 4))
    assert tiny.size_of(tmp_path / "a.webp") == film


def test_the_text_in_a_png_draws_it_again(diffuse, trained, size, tmp_path):
    first, second = tmp_path / "first.png", tmp_path / "second.png"
    diffuse("sample", "a red bar", "-m", "tiny", "-s", "5", "--steps", "2", "-o", first)
    with Image.open(first) as image:
        assert f"Size: {size}" in image.text["parameters"]
    diffuse("sample", "--from", first, "-o", second)
    assert np.array_equal(np.array(Image.open(first)), np.array(Image.open(second)))


def test_a_picture_to_start_from_and_a_mask_are_fitted(diffuse, trained, size, tmp_path):
    width, height = size
    whole = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(whole).save(tmp_path / "init.png")
    half = np.zeros((height, width), np.uint8)
    half[:, width // 2:] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    diffuse("sample", "a red bar", "-m", "tiny", "--steps", "2", "--init", tmp_path / "init.png", "--mask",
            tmp_path / "mask.png", "-o", tmp_path / "out.png")
    drawn = np.array(Image.open(tmp_path / "out.png"))
    assert drawn.shape == whole.shape
    assert np.array_equal(drawn[:, :width // 2], whole[:, :width // 2])
    assert (drawn[:, width // 2:] != whole[:, width // 2:]).any()


def test_python_draws_the_shape(trained, size):
    with tiny.at_home(trained.home):
        model = api.load("tiny", device="cpu")
        (picture,) = model.sample("a red bar", sampling=None, steps=2, seed=0)
    assert picture.size == model.size == size
    assert model.resolution == str(size)
    assert str(size) in repr(model)


@pytest.mark.slow
def test_several_processes_draw_the_same(trained, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    environment = {**os.environ, "DIFFUSE_HOME": str(trained.home)}
    for out, more in ((alone, ()), (shared, ("--procs", "2"))):
        subprocess.run([sys.executable, "-m", "diffuse_cli", "sample", "a red bar", "-m", "tiny", "-n", "4", "-s", "0",
                        "--steps", "2", "--batch-size", "2", "-o", str(out), *more], env=environment, check=True,
                       capture_output=True)
    for path in alone.iterdir():
        assert np.array_equal(np.array(Image.open(path)), np.array(Image.open(shared / path.name)))


def test_noise_demo_shows_the_shape(diffuse, trained, size, tmp_path):
    for number, arguments in enumerate((("-m", "tiny"), ("--resolution", str(size)))):
        for image in ((), (trained.pictures / "000.png",)):
            out = tmp_path / f"{number}{len(image)}.png"
            diffuse("noise-demo", *image, *arguments, "-n", "2", "-o", out)
            assert out.exists()
    error = diffuse("noise-demo", "-m", "tiny", "--resolution", "24x8", "-o", tmp_path / "x.png", expect=2)
    assert f"the model generates pictures of {size} pixels, not 24x8" in error


# ── Evaluation, distillation, export ────────────────────────────────────────────────────────────────────────────────


def test_a_model_is_evaluated_and_compared(diffuse, trained, size, tmp_path):
    with mock.patch.object(encoder, "STEPS", 2):
        output = diffuse("evaluate", "tiny", "-n", "4", "--images", "8", "--device", "cpu", "--json")
    result = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    assert result["distances"] is not None
    diffuse("models", "compare", "tiny", "demo", "-o", tmp_path / "page.html")
    assert f"{size} px" in (tmp_path / "page.html").read_text()


def test_a_student_has_the_shape(diffuse, trained, size, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(trained.home, home)
    diffuse("distill", "tiny", trained.pictures, "--steps", "1", "--batch-size", "4", "--device", "cpu", "--name",
            "student", "--preview-every", "100%", home=home)
    assert checkpoint.load_model(tiny.run_directory(home, "student") / registry.MODEL_FILE,
                                 CPU).config.network.resolution == size


def test_exports_draw_the_shape(diffuse, trained, size, tmp_path):
    """Each export compares itself with the model; where stock diffusers is installed, its pictures within 1/255."""
    diffuse("export", "tiny", "--to", "safetensors", "-o", tmp_path / "slim.safetensors")
    assert checkpoint.load_model(tmp_path / "slim.safetensors", CPU).config.network.resolution == size
    diffuse("export", "tiny", "--to", "diffusers", "-o", tmp_path / "stock")
    unet = json.loads((tmp_path / "stock/unet/config.json").read_text())
    assert unet["sample_size"] == [size.height, size.width]
    card = (tmp_path / "stock/README.md").read_text()
    assert f"height={size.height}, width={size.width}" in card
    read = checkpoint.load_model(tmp_path / "stock/model_index.json", CPU)
    assert read.config.network.resolution == size
    compared = [entry["what"] for entry in json.loads((tmp_path / "stock/export.json").read_text())["comparisons"]]
    assert "diffusers: pixels of the pipeline's pictures" in compared or not diffusers_comparison.versions()


@pytest.mark.slow
def test_a_model_without_captions_is_drawn_by_a_stock_pipeline(diffuse, trained, size, tmp_path):
    with tiny.at_home(tmp_path / "home"):
        tiny.train(trained.pictures, dataclasses.replace(tiny.UNCONDITIONAL, resolution=size, steps=1))
    diffuse("export", "tiny", "--to", "diffusers", "-o", tmp_path / "stock", home=tmp_path / "home")
    pipeline = pytest.importorskip("diffusers").DDPMPipeline.from_pretrained(str(tmp_path / "stock"))
    (picture,) = pipeline(num_inference_steps=2).images
    assert picture.size == size


@pytest.mark.slow
def test_an_onnx_folder_draws_the_shape(diffuse, trained, size, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    diffuse("export", "tiny", "--to", "onnx", "-o", tmp_path / "onnx")
    subprocess.run([sys.executable, tmp_path / "onnx/sample.py", "a red bar", "--steps", "2", "-o", tmp_path / "out"],
                   check=True, capture_output=True)
    (path,) = (tmp_path / "out").iterdir()
    assert tiny.size_of(path) == tuple(size)
    diffuse("sample", "a red bar", "-m", "tiny", "-s", "0", "--steps", "2", "-o", tmp_path / "ours.png")
    difference = np.array(Image.open(path)).astype(int) - np.array(Image.open(tmp_path / "ours.png"))
    assert abs(difference).max() <= 1
