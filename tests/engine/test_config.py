"""Choices are refused with a message that names the option, and survive the way through JSON unchanged."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffuse_cli.engine import config
from diffuse_cli.engine.config import Machine, ModelConfig, NetworkConfig, Recipe, TextConfig, from_dict, to_dict
from diffuse_cli.engine.errors import UsageError

TEXT = {"vocabulary": 1000, "width": 64, "layers": 2}
NETWORK = {"resolution": 32, "widths": (32, 64), "depths": (1, 1), "attention": ("none", "text"), "head_dim": 32,
           "groups": 8, "time_width": 128, "text": TextConfig(**TEXT)}


def _model(**change) -> ModelConfig:
    return ModelConfig(network=NetworkConfig(**{**NETWORK, **change}), schedule="cosine", prediction="v")


# ── Ranges and choices ──────────────────────────────────────────────────────────────────────────────────────────────

BAD_RECIPES = [
    ({"resolution": 7}, "--resolution"), ({"resolution": 513}, "--resolution"), ({"resolution": 60}, "multiple of 8"),
    ({"preset": "smal"}, "--preset"), ({"steps": 0}, "--steps"), ({"steps": -1}, "--steps"),
    ({"images": 0}, "--images"), ({"time": 0.5}, "--time"), ({"time": math.nan}, "--time"),
    ({"batch_size": 0}, "--batch-size"), ({"lr": 0.0}, "--lr"), ({"lr": math.nan}, "--lr"), ({"lr": math.inf}, "--lr"),
    ({"seed": 2**70}, "--seed"), ({"seed": -1}, "--seed"), ({"captions": "x"}, "--captions"),
    ({"objective": "x"}, "--objective"), ({"prediction": "x"}, "--prediction"), ({"schedule": "x"}, "--schedule"),
    ({"variance": "x"}, "--variance"), ({"variance_grad": "x"}, "--variance-grad"), ({"times": "x"}, "--times"),
    ({"optimizer": "x"}, "--optimizer"), ({"caption_template": "a photo"}, "--caption-template"),
    ({"steps": 1, "images": 1}, "budget"), ({"time": 60, "steps": 1}, "budget"),
]


@pytest.mark.parametrize(("change", "option"), BAD_RECIPES)
def test_a_bad_recipe_names_the_option(change, option):
    with pytest.raises(UsageError, match=option) as caught:
        Recipe(**change)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(("change", "option"), [
    ({"precision": "fp8"}, "--precision"), ({"micro_batch": 0}, "--micro-batch"), ({"gpus": "-1"}, "--gpus"),
    ({"gpus": "two"}, "--gpus"), ({"save_every": "often"}, "--save-every"), ({"preview_every": "0%"}, "--preview-ev"),
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
    assert "nano, micro, small, base, large" in caught.value.hint


@pytest.mark.parametrize("change", [
    {"resolution": 33}, {"widths": (32,)}, {"widths": (30, 64)}, {"widths": (32, 48)}, {"depths": (0, 1)},
    {"widths": (), "depths": (), "attention": ()}, {"attention": ("none", "some")}, {"groups": 0}, {"head_dim": 0},
    {"channels": 0}, {"out_channels": 5}, {"text": None}, {"widths": (10**9, 10**9)}, {"time_width": 10**9},
])
def test_an_impossible_network_is_refused(change):
    with pytest.raises(UsageError):
        _model(**change)


def test_what_follows_from_a_network():
    assert _model().conditional
    assert _model().learned_variance
    assert not _model(out_channels=3).learned_variance
    assert not _model(text=None, attention=("none", "full")).conditional


@pytest.mark.parametrize(("width", "heads", "feed_forward"),
                         [(32, 1, 96), (64, 1, 192), (192, 3, 512), (768, 12, 2048)])
def test_the_text_encoder_follows_from_its_width(width, heads, feed_forward):
    text = TextConfig(vocabulary=1000, width=width, layers=1)
    assert (text.heads, text.feed_forward) == (heads, feed_forward)


# ── Durations and intervals ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400),
                                               ("1h0m1s", 3601), ("0.5h", 1800), (" 1m ", 60)])
def test_durations(text, seconds):
    assert config.parse_duration("--time", text) == seconds


@pytest.mark.parametrize("text", ["", " ", "90", "1d", "m", "30m1h", "-1h", "1e3s", "1:30"])
def test_durations_not_understood(text):
    with pytest.raises(UsageError, match="--time does not understand"):
        config.parse_duration("--time", text)


@pytest.mark.parametrize(("text", "interval"), [("500", ("steps", 500)), ("5m", ("seconds", 300)),
                                                ("10%", ("share", 0.1)), ("0s", ("seconds", 1))])
def test_intervals(text, interval):
    assert config.parse_interval("--save-every", text) == interval


@pytest.mark.parametrize("text", ["", "0", "-5", "0%", "101%", "nan%", "x%", "5x", "9" * 5000])
def test_intervals_not_understood(text):
    with pytest.raises(UsageError, match="--save-every"):
        config.parse_interval("--save-every", text)


# ── Dictionaries ────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.builds(Recipe, steps=st.none() | st.integers(1, 10**8), lr=st.none() | st.floats(1e-7, 1.0),
                 flip=st.none() | st.booleans(), seed=st.integers(0, 2**63 - 1), caption=st.none() | st.text()))
def test_a_recipe_survives_json(recipe):
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize("model", [_model(), _model(text=None, attention=("none", "full"), out_channels=3)])
def test_a_model_survives_json(model):
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(model)))) == model


def _changed(path: str, value: object) -> dict:
    data = json.loads(json.dumps(to_dict(_model())))
    *parents, last = path.split(".")
    inner = data
    for name in parents:
        inner = inner[name]
    inner[last] = value
    return data


@pytest.mark.parametrize(("path", "value"), [
    ("network", None), ("network", []), ("network.resolution", "32"), ("network.resolution", 32.0),
    ("network.resolution", True), ("network.resolution", None), ("network.widths", 32), ("network.widths", [32, "64"]),
    ("network.widths", [32] * 20_000), ("network.text", {}), ("network.text.width", -64), ("network.text.evil", 1),
    ("network.channels", 10**9), ("schedule", "x"), ("schedule", 1), ("evil", 1), ("network.resolution", 10**400),
])
def test_hostile_configurations_are_refused_by_name(path, value):
    with pytest.raises(UsageError) as caught:
        from_dict(ModelConfig, _changed(path, value))
    assert caught.value.what.count("\n") == 0
    assert len(caught.value.what) < 400


def test_a_missing_entry_is_named():
    data = to_dict(_model())
    del data["network"]["groups"]
    with pytest.raises(UsageError, match=r"config\.network\.groups is missing"):
        from_dict(ModelConfig, data)


@pytest.mark.parametrize("data", [None, [], "x", 1])
def test_what_is_no_dictionary_is_refused(data):
    with pytest.raises(UsageError, match="not a dictionary"):
        from_dict(ModelConfig, data)


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "0.1", True])
def test_numbers_must_be_finite_numbers(value):
    with pytest.raises(UsageError, match="lr"):
        from_dict(Recipe, {"lr": value})


def test_whole_numbers_will_do_for_fractions():
    assert from_dict(Recipe, {"time": 60}).time == 60.0
