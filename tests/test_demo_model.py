"""The model that comes with the program: small, whole, judged as it is, and what the README's first command draws."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import demo_model
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.storage import model_info, registry

PLACE = Path(registry.__file__).parents[1] / "models"
GRID = Path(__file__).parents[1] / "docs" / "pictures" / "red-cars.png"
SIDE, GAP, SEED = 64, 2, 0                      # of the pictures in GRID


@pytest.fixture(scope="module")
def demo():
    return model_info.read_model_info(PLACE / "demo.safetensors")


def test_it_is_small_and_knows_words_and_variances(demo):
    assert demo.bytes <= 12_000_000
    assert demo.config.network.resolution == SIDE
    assert demo.config.learned_variance
    assert {*scenes.OBJECTS, *scenes.COLOURS} <= set(demo.words)


def test_the_script_that_makes_it_asks_for_this_training(demo):
    made = demo.training
    assert (made["steps"], made["batch_size"], made["seed"]) == (demo_model.STEPS, demo_model.BATCH, demo_model.SEED)
    assert (made["step"], demo.config.network.resolution) == (demo_model.STEPS, demo_model.RESOLUTION)


def test_it_is_whole(command):
    assert command("models", "verify", "demo")[0] == 0


def test_its_figures_are_those_of_this_very_file(demo):
    """Colours and objects as a classifier of other scenes sees them, over 1,000 prompts each; nothing learnt by heart.
    """
    accuracy = json.loads((PLACE / "demo.accuracy.json").read_text())
    assert accuracy["sha256"] == demo.sha256
    found = {one["pairs"]: one for one in accuracy["results"] if one.get("guidance", 3.0) == 3.0}
    assert found["seen"]["count"] == found["held-out"]["count"] == 1_000
    assert found["seen"]["colour"] >= 0.97
    assert found["seen"]["object"] >= 0.9
    assert found["held-out"]["colour"] >= 0.85
    assert found["held-out"]["object"] >= 0.75
    evaluation = json.loads((PLACE / "demo.evaluation.json").read_text())
    assert evaluation["memorisation"]["verdict"] == "not memorising"
    *_, last = map(json.loads, (PLACE / "demo.training.jsonl").read_text().splitlines())
    assert (last["event"], last["step"]) == ("finished", demo.training["step"])
    text = (PLACE / "demo.md").read_text()
    assert f"| seen | 1,000 | {100 * found['seen']['colour']:.1f} % | {100 * found['seen']['object']:.1f} % |" in text


def test_the_first_command_draws_the_picture_of_the_readme(command, tmp_path):
    """Two of its eight, in an empty home: nothing is trained, nothing is fetched, and it says what was used."""
    code, out, err = command("sample", "a red car", "-n", "2", "-s", SEED, "-o", tmp_path)
    assert code == 0
    assert "demo, which comes with the program" in err
    drawn = [np.asarray(Image.open(path)).astype(int) for path in out.split()]
    grid = np.asarray(Image.open(GRID).convert("RGB")).astype(int)
    for number, picture in enumerate(drawn):
        left = GAP + number * (SIDE + GAP)
        assert np.abs(picture - grid[GAP : GAP + SIDE, left : left + SIDE]).mean() < 2


def test_its_words_are_listed(command):
    code, out, _ = command("models", "show", "demo")
    assert code == 0
    assert {*scenes.OBJECTS, *scenes.COLOURS} <= {*out.replace(",", " ").split()}
