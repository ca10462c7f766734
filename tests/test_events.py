"""Events as JSON lines: everything in them, and nothing that JSON cannot express."""

import dataclasses
import json
import math

from diffuse_cli import events


def test_an_event_names_itself_and_carries_its_fields():
    event = events.Saved(step=5, path="/x", bytes=10, seconds=0.5)
    assert events.to_dict(event) == {"schema": 1, "event": "saved", **dataclasses.asdict(event)}


def test_non_finite_numbers_are_null_at_any_depth():
    event = events.Validated(step=1, noise_mse=math.nan, log_snr=(0.5, -math.inf), noise_mse_at=(), best=False)
    text = json.dumps(events.to_dict(event), allow_nan=False)
    assert json.loads(text) == {"schema": 1, "event": "validated", "step": 1, "noise_mse": None,
                                "log_snr": [0.5, None], "noise_mse_at": [], "best": False}
    assert events.without_non_finite({"a": [{"b": math.inf}]}) == {"a": [{"b": None}]}
