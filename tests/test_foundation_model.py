"""The foundation that comes with the program: a sound model of its shape, with its card and the log of its training."""

import json
import re

import pytest
import torch

from benchmarks.foundation.make import BATCH
from diffuse_cli.network.presets import network_config
from diffuse_cli.network.tokenizer import END, encode
from diffuse_cli.storage import checkpoint, model_info, registry
from diffuse_cli.storage.registry import bundled_files

MODELS = registry._BUNDLED
NAMES = [name for name in bundled_files() if name.startswith("foundation-")]


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_shape_of_its_name(name):
    info = model_info.read_model_info(MODELS / f"{name}.safetensors")
    preset, resolution = re.fullmatch(r"foundation-([a-z]+)-(\d+)", name).groups()
    assert info.config.network == network_config(
        preset, int(resolution), vocabulary=info.config.network.text.vocabulary, learned_variance=True)
    assert (info.config.prediction, info.config.schedule) == ("v", "interpolated")
    assert registry.foundations(preset)[int(resolution)] == name
    assert info.training.batch_size == BATCH


def test_all_files_together_fit_into_a_wheel():
    assert NAMES
    assert sum(path.stat().st_size for path in MODELS.iterdir()) <= 40_000_000


@pytest.mark.parametrize("name", NAMES)
def test_it_is_undamaged(name, command):
    assert command("models", "verify", name)[0] == 0


@pytest.mark.parametrize("name", NAMES)
def test_its_card_and_log_are_those_of_its_training(name):
    training = model_info.read_model_info(MODELS / f"{name}.safetensors").training
    *_, last = map(json.loads, (MODELS / f"{name}.training.jsonl").read_text().splitlines())
    assert (last["event"], last["step"]) == ("finished", training.step)
    text = (MODELS / f"{name}.md").read_text()
    assert f"{training.step:,} steps of {training.batch_size}, seed {training.seed}" in text
    assert "public domain" in text


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_any_caption(name):
    model = checkpoint.load_model(MODELS / f"{name}.safetensors", torch.device("cpu"))
    for caption in ("a red car", "ein Straßenbahnwagen", "猫 🐈", ""):
        tokens = encode(model.tokenizer, [caption])
        assert (tokens == END).sum() == 1
        assert model.network.encode(tokens).isfinite().all()
    whole = encode(model.tokenizer, ["penguin guitar strawberry"])[0].tolist()
    assert whole.index(END) == 3                                           # common words are one token each
