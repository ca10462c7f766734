"""Impossible options and configurations are refused with a message that names the option."""

import math

import pytest

from diffuse_cli.config import Machine, Recipe
from diffuse_cli.errors import UsageError
from diffuse_cli.model_config import ModelConfig, NetworkConfig, TextConfig

TEXT = {"vocabulary": 1000, "width": 64, "layers": 2}
NETWORK = {"resolution": 32, "widths": (32, 64), "depths": (1, 1), "attention": ("none", "text"), "head_dim": 32,
           "groups": 8, "time_width": 128, "text": TextConfig(**TEXT)}


def _model(**change) -> ModelConfig:
    return ModelConfig(network=NetworkConfig(**{**NETWORK, **change}), schedule="cosine", prediction="v")


BAD_RECIPES = [
    ({"resolution": 7}, "--resolution"), ({"resolution": 513}, "--resolution"), ({"resolution": 60}, "multiple of 8"),
    ({"preset": "smal"}, "--preset"), ({"steps": 0}, "--steps"), ({"steps": -1}, "--steps"),
    ({"images": 0}, "--images"), ({"time": 0.5}, "--time"), ({"time": math.nan}, "--time"),
    ({"batch_size": 0}, "--batch-size"), ({"lr": 0.0}, "--lr"), ({"lr": math.nan}, "--lr"),
    ({"lr": math.inf}, "--lr"),
    ({"seed": 2**70}, "--seed"), ({"seed": -1}, "--seed"), ({"captions": "x"}, "--captions"),
    ({"loss_weighting": "x"}, "--loss-weighting"), ({"prediction": "x"}, "--prediction"),
    ({"schedule": "x"}, "--schedule"),
    ({"variance": "x"}, "--variance"), ({"variance_grad": "x"}, "--variance-grad"), ({"times": "x"}, "--times"),
    ({"variance": "fixed", "variance_grad": "trunk"}, "--variance fixed learns none"),
    ({"optimizer": "x"}, "--optimizer"), ({"caption_template": "a photo"}, "--caption-template"),
    ({"caption": " "}, "--caption is empty"), ({"caption": "a cat", "captions": "none"}, "Leave one of them out"),
    ({"caption": "a cat", "captions": "folder"}, "--captions folder is another choice"),
    ({"shuffle_tags": True, "captions": "none"}, "--captions none leaves them out"),
    ({"tag_dropout": 0.1, "captions": "none"}, "--captions none leaves them out"),
    ({"steps": 1, "images": 1}, "budget"), ({"time": 60, "steps": 1}, "budget"),
]


@pytest.mark.parametrize(("change", "option"), BAD_RECIPES)
def test_a_bad_recipe_names_the_option(change, option):
    with pytest.raises(UsageError, match=option) as caught:
        Recipe(**change)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("change", "option"), [
    ({"precision": "fp8"}, "--precision"), ({"micro_batch": 0}, "--micro-batch"), ({"gpus": "-1"}, "--gpus"),
    ({"gpus": "two"}, "--gpus"), ({"gpus": "00"}, "--gpus"), ({"gpus": "0", "device": "cuda"}, "contradict"),
    ({"procs": 2, "device": "cuda"}, "--procs"),
    ({"gpus": "2", "device": "cpu"}, "contradict"), ({"gpus": "all", "device": "mps"}, "contradict"),
    ({"save_every": "often"}, "--save-every"), ({"preview_every": "0%"}, "--preview-ev"),
])
def test_a_bad_machine_names_the_option(change, option):
    with pytest.raises(UsageError, match=option):
        Machine(**change)


def test_defaults_are_valid_and_leave_the_rest_open():
    recipe = Recipe()
    assert recipe.resolution is recipe.preset is recipe.steps is recipe.batch_size is recipe.lr is None
    assert Machine().gpus is None


def test_a_misspelt_choice_is_corrected():
    with pytest.raises(UsageError) as caught:
        Recipe(preset="smal")
    assert "Did you mean 'small'?" in caught.value.hint
    assert "nano, micro, small, base, large, huge" in caught.value.hint


@pytest.mark.parametrize("change", [
    {"resolution": 33}, {"widths": (32,)}, {"widths": (30, 64)}, {"widths": (32, 48)}, {"depths": (0, 1)},
    {"widths": (), "depths": (), "attention": ()}, {"attention": ("none", "some")}, {"groups": 0}, {"head_dim": 0},
    {"channels": 0}, {"channels": 1}, {"channels": 4, "out_channels": 6}, {"channels": 5, "out_channels": 5},
    {"out_channels": 5}, {"text": None}, {"widths": (10**9, 10**9)}, {"time_width": 10**9},
    {"widths": (33, 66), "groups": 3, "head_dim": 3},
])
def test_an_impossible_network_is_refused(change):
    with pytest.raises(UsageError):
        _model(**change)


def test_properties_of_a_network():
    assert _model().conditional
    assert _model().learned_variance
    assert not _model(out_channels=3).learned_variance
    assert not _model(text=None, attention=("none", "full")).conditional


@pytest.mark.parametrize(("width", "heads", "feed_forward"),
                         [(32, 1, 96), (64, 1, 192), (192, 3, 512), (768, 12, 2048)])
def test_the_text_encoder_follows_from_its_width(width, heads, feed_forward):
    text = TextConfig(vocabulary=1000, width=width, layers=1)
    assert (text.heads, text.feed_forward) == (heads, feed_forward)
