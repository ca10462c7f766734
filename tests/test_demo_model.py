"""The model that comes with the program: its size, its figures, and the pictures of the README's first command."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import demo_model
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.storage import model_info, registry

MODELS = Path(registry.__file__).parents[1] / "models"
GRID = Path(__file__).parents[1] / "docs" / "pictures" / "red-cars.png"
SIDE, GAP, SEED = 64, 2, 0                      # pixels of a picture in GRID and between two; their seed


@pytest.fixture(scope="module")
def demo():
    return model_info.read_model_info(MODELS / "demo.safetensors")


def test_it_is_small_and_has_words_and_a_learned_variance(demo):
    assert demo.bytes <= 12_000_000
    assert demo.config.network.resolution == SIDE
    assert demo.config.learned_variance
    assert {*scenes.OBJECTS, *scenes.COLOURS} <= set(demo.words)


def test_the_script_that_makes_it_has_the_settings_of_its_training(demo):
    training = demo.training
    assert (training.steps, training.batch_size, training.seed) == (
        demo_model.STEPS, demo_model.BATCH, demo_model.SEED)
    assert (training.step, demo.config.network.resolution) == (demo_model.STEPS, demo_model.RESOLUTION)


def test_its_file_is_intact(command):
    assert command("models", "verify", "demo")[0] == 0


def test_its_figures_were_measured_on_this_file(demo):
    """A classifier of other scenes sees the right colours and objects in 1,000 pictures of each kind of pairs.

    And the model has not memorised its training pictures.
    """
    accuracy = json.loads((MODELS / "demo.accuracy.json").read_text())
    assert accuracy["sha256"] == demo.sha256
    shares = {one["pairs"]: one for one in accuracy["results"] if one.get("guidance", 3.0) == 3.0}
    assert shares["seen"]["count"] == shares["held-out"]["count"] == 1_000
    assert shares["seen"]["colour"] >= 0.97
    assert shares["seen"]["object"] >= 0.9
    assert shares["held-out"]["colour"] >= 0.85
    assert shares["held-out"]["object"] >= 0.75
    evaluation = json.loads((MODELS / "demo.evaluation.json").read_text())
    assert evaluation["memorisation"]["verdict"] == "not memorising"
    *_, last = map(json.loads, (MODELS / "demo.training.jsonl").read_text().splitlines())
    assert (last["event"], last["step"]) == ("finished", demo.training.step)
    text = (MODELS / "demo.md").read_text()
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


def test_its_words_are_listed(command):
    code, out, _ = command("models", "show", "demo")
    assert code == 0
    assert {*scenes.OBJECTS, *scenes.COLOURS} <= {*out.replace(",", " ").split()}
