"""A model of several sizes, in every command: trained, resumed, shown, drawn, measured, distilled and exported."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from diffuse_cli import api, events
from diffuse_cli.config import Recipe
from diffuse_cli.errors import UsageError
from diffuse_cli.exporting import diffusers_comparison
from diffuse_cli.picture_size import Size
from diffuse_cli.storage import checkpoint, registry, safetensors_file
from diffuse_cli.storage.model_info import read_model_info
from diffuse_cli.training.sizes import choose_fit, choose_sizes

CPU = torch.device("cpu")
SIZES = (Size(16, 16), Size(32, 8), Size(8, 32))
TEXTS = ("16", "32x8", "8x32")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tiny.Trained:
    """A training on pictures of three shapes."""
    directory = tmp_path_factory.mktemp("buckets")
    return tiny.trained(tiny.draw_shapes(directory / "shapes"), directory / "home", tiny.BUCKETS, save_every="1",
                        preview_every="50%")


@pytest.fixture
def diffuse(command, trained):
    return tiny.runner(command, trained.home)


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.array(image)


# ── Training ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_plan_and_the_model_say_the_sizes(diffuse, trained):
    started = next(event for event in trained.events if isinstance(event, events.Started))
    facts = dict(started.facts)
    assert facts["resolution"].startswith("16 px")
    assert facts["fit"] == ("buckets — as asked; 3 shapes, to which a crop keeps 100% of a picture on average; to 16 "
                            "alone it would keep 62%")
    assert facts["shapes"] == "16 px: 20 pictures, 32x8 px: 10, 8x32 px: 10"
    assert read_model_info(trained.model).config.network.sizes == SIZES
    shown = json.loads(diffuse("models", "show", "tiny", "--json"))
    assert shown["config"]["network"]["buckets"] == [16, "32x8", "8x32"]
    assert "16 x 16 pixels, 32 x 8 pixels, 8 x 32 pixels" in diffuse("models", "show", "tiny")
    diffuse("models", "verify", "tiny")


@pytest.mark.slow
def test_a_recipe_with_buckets_is_saved_and_read(diffuse, trained, tmp_path):
    pytest.importorskip("tomli_w")
    saved = tmp_path / "recipe.toml"
    diffuse("train", trained.pictures, "--resolution", "16", "--fit", "buckets", "--preset", "nano", "--steps", "2",
            "--dry-run", "--device", "cpu", "--name", "other", "--save", saved)
    assert {'resolution = 16', 'fit = "buckets"'} <= set(saved.read_text().splitlines())
    assert "16 px: 20 pictures, 32x8 px: 10, 8x32 px: 10" in diffuse(
        "train", "--config", saved, "--dry-run", "--device", "cpu", "--name", "x")


def test_a_resumed_training_ends_as_one_that_was_not_stopped(trained, tmp_path):
    with tiny.at_home(tmp_path):
        for stop_at in (1, 3, None):
            tiny.train(trained.pictures, tiny.BUCKETS, save_every="1", preview_every="50%", stop_at=stop_at)
    assert (tiny.run_directory(tmp_path) / registry.MODEL_FILE).read_bytes() == trained.model.read_bytes()


def test_pictures_of_one_shape_make_a_model_of_one(tmp_path):
    with tiny.at_home(tmp_path / "home"):
        tiny.train(tiny.draw_squares(tmp_path / "squares"), dataclasses.replace(tiny.BUCKETS, steps=1))
    path = tiny.run_directory(tmp_path / "home") / registry.MODEL_FILE
    assert read_model_info(path).config.network.sizes == SIZES[:1]
    assert "buckets" not in safetensors_file.read_header(path).metadata["diffuse.config"]       # as in earlier versions


def test_a_training_from_a_model_of_several_sizes_keeps_them(trained, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(trained.home, home)
    recipe = Recipe(init="tiny", steps=1, batch_size=4)
    with tiny.at_home(home):
        tiny.train(trained.pictures, recipe, name="second")
        assert read_model_info(registry.resolve("second")).config.network.sizes == SIZES
        tiny.train(trained.pictures, dataclasses.replace(recipe, fit="crop"), name="third")
        assert read_model_info(registry.resolve("third")).config.network.sizes == SIZES[:1]


def test_a_student_has_the_sizes_of_its_teacher(diffuse, trained, tmp_path):
    home = tmp_path / "home"
    shutil.copytree(trained.home, home)
    diffuse("distill", "tiny", trained.pictures, "--steps", "3", "--batch-size", "4", "--device", "cpu", "--name",
            "student", "--preview-every", "100%", home=home)
    with tiny.at_home(home):
        student = Recipe(init="tiny", evaluations=2)
        assert choose_fit(None, student, SIZES[0]) == ("buckets", "that of its teacher")
        assert choose_sizes(None, student, SIZES[0], "buckets")[0] == SIZES
        assert read_model_info(registry.resolve("student")).config.network.sizes == SIZES
    diffuse("sample", "a red bar", "-m", "student", "--size", "8x32", "-o", tmp_path / "out.png", home=home)
    assert tiny.size_of(tmp_path / "out.png") == (8, 32)


# ── Data ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_data_commands_tell_and_show_the_sizes(diffuse, trained, tmp_path):
    told = "shapes: 16 px: 20 pictures, 32x8 px: 10, 8x32 px: 10"
    assert told in diffuse("data", "check", trained.pictures, "--fit", "buckets", "--resolution", "16")
    assert told in diffuse("data", "preview", trained.pictures, "--fit", "buckets", "--resolution", "16", "-o",
                           tmp_path / "sheet.png")
    sheet, seen = pixels_of(tmp_path / "sheet.png"), set()
    for top in range(8, sheet.shape[0] - 128, 4 * 32 + 3 * 14 + 8):   # cells of 32 x 32 pixels, 4 times as large
        for left in range(8, sheet.shape[1] - 128, 4 * 32 + 8):
            rows, columns = np.nonzero((sheet[top:top + 128, left:left + 128] < 250).any(axis=2))
            if len(rows) and rows.max() < 127:
                seen.add((int(np.ptp(columns) + 1) // 4, int(np.ptp(rows) + 1) // 4))
    assert {(16, 16), (32, 8)} <= seen


# ── Sampling ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("text", "size"), [(None, SIZES[0]), *zip(TEXTS, SIZES, strict=True)])
def test_every_size_is_drawn_in_every_form_and_drawn_again(diffuse, tmp_path, text, size):
    out, chosen = tmp_path / "out", () if text is None else ("--size", text)
    diffuse("sample", "a red bar", "-m", "tiny", "-n", "3", "-s", "5", "--steps", "2", "--grid", "--sheet", *chosen,
            "-o", out)
    pictures = [path for path in sorted(out.iterdir()) if not re.search("grid|sheet", path.name)]
    assert [tiny.size_of(path) for path in pictures] == [tuple(size)] * 3
    diffuse("sample", "a red bar", "-m", "tiny", "--steps", "2", "--animate", *chosen, "-o", tmp_path / "a.webp")
    width, height = tiny.size_of(tmp_path / "a.webp")
    assert (width * (size.height + 4), width % (2 * size.width + 4)) == (height * (2 * size.width + 4), 0)
    diffuse("sample", "--from", pictures[1], "-o", tmp_path / "again.png")
    assert np.array_equal(pixels_of(pictures[1]), pixels_of(tmp_path / "again.png"))
    again = tmp_path / "alone.png"
    diffuse("sample", "a red bar", "-m", "tiny", "-s", "6", "--steps", "2", *chosen, "-o", again)
    assert np.array_equal(pixels_of(pictures[1]), pixels_of(again))     # whatever is drawn beside it


@pytest.mark.parametrize("size", SIZES)
def test_a_picture_to_start_from_gets_the_nearest_size(diffuse, trained, tmp_path, size):
    whole = np.random.default_rng(0).integers(0, 256, (size.height, size.width, 3), np.uint8)
    Image.fromarray(whole).save(tmp_path / "init.png")
    half = np.zeros((size.height, size.width), np.uint8)
    half[:, size.width // 2:] = 255
    Image.fromarray(half).save(tmp_path / "mask.png")
    diffuse("sample", "a red bar", "-m", "tiny", "--steps", "2", "-s", "0", "--init", tmp_path / "init.png", "--mask",
            tmp_path / "mask.png", "-o", tmp_path / "out.png")
    drawn = pixels_of(tmp_path / "out.png")
    assert np.array_equal(drawn[:, :size.width // 2], whole[:, :size.width // 2])
    with tiny.at_home(trained.home):
        (same,) = api.load("tiny", device="cpu").sample(
            "a red bar", seed=0, steps=2, init=Image.fromarray(whole), mask=Image.fromarray(half))
    assert np.array_equal(np.asarray(same), drawn)
    diffuse("sample", "-m", "tiny", "--steps", "2", "--init", tmp_path / "init.png", "--size", "32x8", "-o",
            tmp_path / "other.png")
    assert tiny.size_of(tmp_path / "other.png") == (32, 8)


def test_other_sizes_are_refused_with_those_that_were_trained(diffuse, trained, tmp_path):
    answer = ("this model was not trained on pictures of 24x8 px", "It draws 16, 32x8, 8x32")
    for arguments in (("sample", "-m", "tiny", "-o", tmp_path / "x.png"), ("evaluate", "tiny")):
        error = diffuse(*arguments, "--size", "24x8", expect=2)
        assert all(part in error for part in answer)
    assert "--size does not understand 'wide'" in diffuse("sample", "-m", "tiny", "--size", "wide", expect=2)
    with tiny.at_home(trained.home):
        model = api.load("tiny", device="cpu")
        assert (model.size, model.sizes) == (SIZES[0], SIZES)
        assert [model.sample(steps=2, size=text)[0].size for text in (16, "32x8", Size(8, 32))] == [*map(tuple, SIZES)]
        with pytest.raises(UsageError, match=answer[0]):
            model.sample(size="24x8")


def test_noise_demo_takes_every_size(diffuse, tmp_path):
    for text in TEXTS:
        diffuse("noise-demo", "-m", "tiny", "--resolution", text, "-n", "2", "-o", tmp_path / f"{text}.png")
    error = diffuse("noise-demo", "-m", "tiny", "--resolution", "24x8", "-o", tmp_path / "x.png", expect=2)
    assert "the model generates pictures of 16, 32x8, 8x32 pixels, not 24x8" in error


# ── Evaluation and export ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("text", "count", "num"), [
    (None, 20, 0), ("32x8", 10, 0), pytest.param("32x8", 10, 4, marks=pytest.mark.slow)])
def test_an_evaluation_measures_one_size(diffuse, trained, text, count, num):
    chosen = () if text is None else ("--size", text)
    output = diffuse("evaluate", "tiny", trained.pictures, "-n", num, "--images", "8", "--device", "cpu", "--json",
                     *chosen)
    result = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    assert result["bits_per_dim"] is not None
    assert (result["distances"] is not None) == (result["memorisation"] is not None) == (num > 0)
    assert f"the {count} of 40 pictures that are of {text or 16} px are measured" in output


def test_exports_keep_the_sizes(diffuse, tmp_path):
    """The export compares itself with the model; where stock diffusers is installed, each size within 1/255."""
    diffuse("export", "tiny", "--to", "safetensors", "-o", tmp_path / "slim.safetensors")
    assert read_model_info(tmp_path / "slim.safetensors").config.network.sizes == SIZES
    diffuse("export", "tiny", "--to", "diffusers", "-o", tmp_path / "stock")
    folder = tmp_path / "stock"
    assert json.loads((folder / "unet/config.json").read_text())["sample_size"] == 16
    card = (folder / "README.md").read_text()
    assert "pictures of 16 × 16 or 32 × 8 or 8 × 32 pixels" in card
    assert "height=16, width=16" in card
    read = checkpoint.load_model(folder / "model_index.json", CPU)
    assert read.config.network.sizes == SIZES
    if diffusers_comparison.versions():
        compared = {entry["what"]: entry for entry in json.loads((folder / "export.json").read_text())["comparisons"]}
        for text in TEXTS:
            assert compared[f"diffusers: pixels of the pipeline's pictures of {text} px"]["max_abs"] <= 1 / 255
    report = json.loads((folder / "export.json").read_text())
    for impossible in (["24x8", 16], [16, 9], [16, "x"], "16", [16] * 2000):
        (folder / "export.json").write_text(json.dumps(report | {"sizes": impossible}))
        assert read_model_info(folder / "model_index.json").config.network.sizes == SIZES[:1]


def test_a_web_page_draws_the_first_size(diffuse, tmp_path):
    said = diffuse("export", "tiny", "--to", "web", "-o", tmp_path / "page.html")
    assert (tmp_path / "page.html").exists()
    assert "the export draws pictures of 16 px alone, not of 32x8, 8x32" in said


@pytest.mark.slow
def test_an_onnx_folder_draws_the_first_size(diffuse, tmp_path):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    diffuse("export", "tiny", "--to", "onnx", "-o", tmp_path / "onnx")
    subprocess.run([sys.executable, tmp_path / "onnx/sample.py", "a red bar", "--steps", "2", "-o", tmp_path / "out"],
                   check=True, capture_output=True)
    (path,) = (tmp_path / "out").iterdir()
    assert tiny.size_of(path) == (16, 16)
