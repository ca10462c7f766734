"""Which model a training starts from: a foundation of its shape, the model that it names, or none."""

import dataclasses
import json

import pytest
import tiny
import torch

from diffuse_cli import events
from diffuse_cli.config import Recipe
from diffuse_cli.errors import UsageError
from diffuse_cli.network.presets import network_config
from diffuse_cli.picture_size import Size
from diffuse_cli.storage import checkpoint, registry, run_directory
from diffuse_cli.training import start

pytestmark = pytest.mark.usefixtures("decoded")
CPU = torch.device("cpu")
SHORT = dataclasses.replace(tiny.RECIPE, steps=1)


@pytest.fixture
def foundation(trained, tmp_path, monkeypatch):
    """A foundation for `nano` at 8 px comes with the program. → its hash"""
    path = tmp_path / "bundled" / "foundation-nano-8.safetensors"
    path.parent.mkdir()
    path.write_bytes((trained[0] / "model.safetensors").read_bytes())
    monkeypatch.setattr(registry, "_BUNDLED", path.parent)
    return checkpoint.load_model(path, CPU).sha256


def start_of(home, folder, recipe=SHORT, **options):
    """Train. → the hash of the model that the training started from, and the line of the header about it."""
    stream = tiny.train(folder, recipe, **options)
    facts = dict(tiny.of_kind(events.Started, stream)[0].facts)
    model = checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", CPU)
    return model.training.init_id, facts["starts from"]


def test_a_training_starts_from_the_foundation_of_its_shape(squares, home, foundation):
    start, told = start_of(home, squares)
    assert start == foundation
    assert told.startswith("foundation-nano-8 — ")
    assert "--init none" in told


@pytest.mark.parametrize(("changes", "reason"), [
    ({"init": "none"}, "as asked"),
    ({"resolution": 32}, "there is no foundation for nano at 32 px"),
    ({"preset": "micro"}, "there is no foundation for micro at 8 px"),
    ({"captions": "none"}, "reads captions"),
    ({"prediction": "epsilon"}, "--prediction"),
    ({"variance": "fixed"}, "--variance"),
    ({"schedule": "cosine"}, "--schedule"),
])
def test_another_shape_starts_from_a_new_network(squares, home, foundation, changes, reason):
    start, told = start_of(home, squares, dataclasses.replace(SHORT, **changes))
    assert start is None
    assert told.startswith("a new network — ")
    assert reason in told


@pytest.mark.parametrize("resolution", [16, Size(16, 8)])
def test_pictures_of_another_size_start_from_a_foundation_of_the_same_layers(squares, home, foundation, resolution):
    begun_from, told = start_of(home, squares, dataclasses.replace(SHORT, resolution=resolution, lr=1e-7))
    assert begun_from == foundation
    assert told.startswith("foundation-nano-8 — ")
    original = checkpoint.load_model(registry._BUNDLED / "foundation-nano-8.safetensors", CPU)
    model = checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", CPU)
    assert model.config.network.resolution == Size.of(resolution)
    for name, weight in original.network.state_dict().items():
        torch.testing.assert_close(model.network.state_dict()[name], weight, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("preset", "resolution", "name"), [
    ("nano", 32, "foundation-nano-32"), ("nano", 40, "foundation-nano-32"),
    ("nano", Size(48, 32), "foundation-nano-32"),
    ("nano", 48, "foundation-nano-64"), ("nano", 64, "foundation-nano-64"), ("nano", 88, "foundation-nano-64"),
    ("nano", Size(64, 96), "foundation-nano-64"), ("nano", 16, None), ("nano", 128, None),
    ("nano", Size(64, 256), None), ("micro", 32, "foundation-micro-32"), ("micro", 64, None), ("small", 32, None)])
def test_a_foundation_serves_all_sizes_for_which_its_layers_are_made(preset, resolution, name):
    assert start._foundation(preset, Size.of(resolution)) == name
    if name is not None:
        shape = checkpoint.load_model(registry.resolve(name), CPU).config.network
        assert network_config(preset, resolution, vocabulary=shape.text.vocabulary, learned_variance=True) == \
            dataclasses.replace(shape, resolution=Size.of(resolution))


def test_a_begun_run_keeps_its_start(squares, home, foundation, monkeypatch):
    bundled, absent = registry._BUNDLED, registry._BUNDLED / "absent"
    monkeypatch.setattr(registry, "_BUNDLED", absent)
    tiny.train(squares, stop_at=1)
    monkeypatch.setattr(registry, "_BUNDLED", bundled)
    assert start_of(home, squares, tiny.RECIPE) == (None, "a new network — as the run was begun")


@pytest.mark.parametrize("init", ["auto", "none"])
def test_a_run_of_an_earlier_version_resumes_without_a_foundation(squares, home, foundation, init):
    none = dataclasses.replace(tiny.RECIPE, init="none")
    tiny.train(squares, none, stop_at=1)
    stored = run_directory.read_config(tiny.run_directory(home))
    stored["request"]["recipe"]["init"] = None                         # as it was written before there were any
    (tiny.run_directory(home) / run_directory.CONFIG_FILE).write_text(json.dumps(stored))
    assert start_of(home, squares, dataclasses.replace(none, init=init))[0] is None


def test_another_start_is_another_recipe(squares, home, foundation):
    tiny.train(squares, stop_at=1)
    with pytest.raises(UsageError, match="init: auto → none"):
        tiny.train(squares, dataclasses.replace(tiny.RECIPE, init="none"))



def test_a_foundation_is_a_model_like_any_other(foundation):
    assert registry.resolve("foundation-nano-8") == registry._BUNDLED / "foundation-nano-8.safetensors"
    assert "foundation-nano-8" in registry.model_files()
    with pytest.raises(UsageError, match="reserved"):
        registry.check_name("foundation-nano-8")
    with pytest.raises(UsageError, match="part of the program"):
        registry.remove("foundation-nano-8")
    assert Recipe().init == "auto"
