"""The models that come with the program: their size, their figures, and the pictures of the README's first command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import demo_model
from benchmarks.foundation import upscaler
from diffuse_cli.config import Sampling
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.model_config import Upscaling
from diffuse_cli.picture_size import Size
from diffuse_cli.storage import model_info, registry

MODELS = Path(registry.__file__).parents[1] / "models"
GRID = Path(__file__).parents[1] / "docs" / "pictures" / "red-cars.png"
SIDE, GAP, SEED = 64, 2, 0                      # pixels of a picture in GRID and between two; their seed


@pytest.fixture(scope="module")
def demo():
    return model_info.read_model_info(MODELS / "demo.safetensors")


def test_it_is_small_and_has_words_and_a_learned_variance(demo):
    assert demo.bytes <= 12_000_000
    assert demo.config.network.resolution == (SIDE, SIDE)
    assert demo.config.learned_variance
    assert {*scenes.OBJECTS, *scenes.COLOURS} <= set(demo.words)


def test_the_script_that_makes_it_has_the_settings_of_its_training(demo):
    training = demo.training
    assert (training.steps, training.batch_size, training.seed) == (
        demo_model.STEPS, demo_model.BATCH, demo_model.SEED)
    assert (training.step, demo.config.network.resolution.width) == (demo_model.STEPS, demo_model.RESOLUTION)


@pytest.fixture(scope="module")
def fast():
    return model_info.read_model_info(MODELS / "demo-fast.safetensors")


def test_the_student_is_that_of_demo_and_of_the_script(demo, fast):
    assert fast.config.network == demo.config.network
    assert (fast.config.student.evaluations, fast.config.student.guidance) == (4, Sampling.guidance)
    assert fast.training.init_id == demo.sha256
    assert (fast.training.steps, fast.training.batch_size, fast.training.seed) == (
        demo_model.FAST_STEPS, demo_model.BATCH, demo_model.SEED)


def test_the_upscaler_is_trained_to_the_end():
    made = model_info.read_model_info(MODELS / "upscaler-x4.safetensors")
    assert made.bytes <= 12_000_000
    assert made.config.network.upscaling == Upscaling(factor=upscaler.FACTOR, small=Size(SIDE, SIDE))
    assert made.training.steps == made.training.step
    *_, last = map(json.loads, (MODELS / "upscaler-x4.training.jsonl").read_text().splitlines())
    assert (last["event"], last["step"]) == ("finished", made.training.steps)
    assert f"{made.training.steps:,} steps" in (MODELS / "upscaler-x4.md").read_text()


@pytest.mark.parametrize("name", ["demo", "demo-fast", "upscaler-x4"])
def test_their_files_are_intact(name, command):
    assert command("models", "verify", name)[0] == 0


@pytest.mark.parametrize("name", ["demo", "demo-fast"])
def test_their_figures_were_measured_on_these_files(name, demo, fast):
    """A classifier of other scenes sees the right colours and objects in 1,000 pictures of each kind of pairs.

    And the model has not memorised its training pictures.
    """
    model = {"demo": demo, "demo-fast": fast}[name]
    accuracy = json.loads((MODELS / f"{name}.accuracy.json").read_text())
    assert accuracy["sha256"] == model.sha256
    shares = {one["pairs"]: one for one in accuracy["results"] if one.get("guidance", 3.0) == 3.0}
    assert shares["seen"]["count"] == shares["held-out"]["count"] == 1_000
    for pairs in ("seen", "held-out"):
        assert shares[pairs]["colour"] >= 0.97
        assert shares[pairs]["object"] >= 0.97
    evaluation = json.loads((MODELS / f"{name}.evaluation.json").read_text())
    assert evaluation["memorisation"]["verdict"] == "not memorising"
    *_, last = map(json.loads, (MODELS / f"{name}.training.jsonl").read_text().splitlines())
    assert (last["event"], last["step"]) == ("finished", model.training.steps)
    text = (MODELS / f"{name}.md").read_text()
    assert f"| seen | 1,000 | {100 * shares['seen']['colour']:.1f} % | {100 * shares['seen']['object']:.1f} % |" in text


def test_the_first_command_generates_the_pictures_of_the_readme(command, tmp_path):
    """Two of its eight, in an empty home: nothing is trained, nothing is fetched, and the command names the model."""
    code, out, err = command("sample", "a red car", "-n", "2", "-s", SEED, "-o", tmp_path)
    assert code == 0
    assert "demo, which comes with the program" in err
    generated = [np.asarray(Image.open(path)).astype(int) for path in out.split()]
    grid = np.asarray(Image.open(GRID).convert("RGB")).astype(int)
    for number, picture in enumerate(generated):
        left = GAP + number * (SIDE + GAP)
        assert np.abs(picture - grid[GAP : GAP + SIDE, left : left + SIDE]).mean() < 2


def test_the_student_samples_in_four_steps(command, tmp_path):
    code, out, err = command("sample", "a red car", "-m", "demo-fast", "-s", SEED, "-o", tmp_path)
    assert code == 0
    assert "demo-fast, which comes with the program" in err
    assert "distilled to 4 steps" in err
    colour = np.asarray(Image.open(out.strip())).astype(float)[20:44, 16:48].reshape(-1, 3).mean(0)
    assert colour[0] > colour[1:].max() + 40                            # red


@pytest.mark.parametrize("name", ["demo", "demo-fast"])
def test_their_words_are_listed(name, command):
    code, out, _ = command("models", "show", name)
    assert code == 0
    assert {*scenes.OBJECTS, *scenes.COLOURS} <= {*out.replace(",", " ").split()}
