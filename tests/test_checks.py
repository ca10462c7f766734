"""Durations, intervals and dictionaries are read strictly; messages name the option or entry that is refused."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffuse_cli.checks import from_dict, parse_duration, parse_interval, to_dict
from diffuse_cli.config import Recipe, Sampling
from diffuse_cli.errors import UsageError
from diffuse_cli.model_config import ModelConfig, NetworkConfig, TextConfig

MODEL = ModelConfig(schedule="cosine", prediction="v", network=NetworkConfig(
    resolution=32, widths=(32, 64), depths=(1, 1), attention=("none", "text"), head_dim=32, groups=8, time_width=128,
    text=TextConfig(vocabulary=1000, width=64, layers=2)))
UNCONDITIONAL = ModelConfig(schedule="cosine", prediction="v", network=NetworkConfig(
    resolution=32, widths=(32, 64), depths=(1, 1), attention=("none", "full"), head_dim=32, groups=8, time_width=128,
    text=None, out_channels=3))


# ── Durations and intervals ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400),
                                               ("1h0m1s", 3601), ("0.5h", 1800), (" 1m ", 60)])
def test_durations(text, seconds):
    assert parse_duration("--time", text) == seconds


@pytest.mark.parametrize("text", ["", " ", "90", "1d", "m", "30m1h", "-1h", "1e3s", "1:30"])
def test_durations_not_understood(text):
    with pytest.raises(UsageError, match="--time does not understand"):
        parse_duration("--time", text)


@pytest.mark.parametrize(("text", "interval"), [("500", ("steps", 500)), ("5m", ("seconds", 300)),
                                                ("10%", ("share", 0.1)), ("0s", ("seconds", 1))])
def test_intervals(text, interval):
    assert parse_interval("--save-every", text) == interval


@pytest.mark.parametrize("text", ["", "0", "-5", "0%", "101%", "nan%", "x%", "5x", "9" * 5000])
def test_intervals_not_understood(text):
    with pytest.raises(UsageError, match="--save-every"):
        parse_interval("--save-every", text)


@pytest.mark.parametrize(("option", "value", "said"), [
    ("guidance", -1.0, "--guidance must be between 0 and 100, not -1"), ("lr", 2.0, "between 1e-07 and 1, not 2"),
    ("steps", 10**9, "between 1 and 100,000,000, not 1,000,000,000"), ("lr", 1.0000001, "not 1.0000001")])
def test_numbers_in_messages_are_written_as_people_do(option, value, said):
    with pytest.raises(UsageError) as caught:
        (Sampling if option == "guidance" else Recipe)(**{option: value})
    assert caught.value.what.endswith(said)


# ── Dictionaries ────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.builds(Recipe, steps=st.none() | st.integers(1, 10**8), lr=st.none() | st.floats(1e-7, 1.0),
                 flip=st.none() | st.booleans(), seed=st.integers(0, 2**63 - 1),
                 caption=st.none() | st.text().filter(str.strip)))
def test_a_recipe_survives_json(recipe):
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize("model", [MODEL, UNCONDITIONAL])
def test_a_model_survives_json(model):
    assert from_dict(ModelConfig, json.loads(json.dumps(to_dict(model)))) == model


def _changed(path: str, value: object) -> dict:
    data = json.loads(json.dumps(to_dict(MODEL)))
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
    data = to_dict(MODEL)
    del data["network"]["groups"]
    with pytest.raises(UsageError, match=r"config\.network\.groups is missing"):
        from_dict(ModelConfig, data)


@pytest.mark.parametrize("data", [None, [], "x", 1])
def test_data_that_is_no_dictionary_is_refused(data):
    with pytest.raises(UsageError, match="not a dictionary"):
        from_dict(ModelConfig, data)


@pytest.mark.parametrize("value", [math.nan, math.inf, 10**400, "0.1", True])
def test_numbers_must_be_finite_numbers(value):
    with pytest.raises(UsageError, match="lr"):
        from_dict(Recipe, {"lr": value})


def test_whole_numbers_will_do_for_fractions():
    assert from_dict(Recipe, {"time": 60}).time == 60.0
