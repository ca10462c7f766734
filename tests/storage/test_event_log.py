"""The log of a run may come from a stranger: whatever it says can be shown."""

import json
from datetime import timedelta

import pytest

from diffuse_cli.storage.event_log import MAX_SECONDS, read_event_log


@pytest.mark.parametrize(("seconds", "read"), [
    ([1.5, 2.5], 4.0), ([1e250], MAX_SECONDS), ([1e12] * 200, MAX_SECONDS), ([-1e250], 0.0), ([2.0, -1.0], 2.0),
    (["x", None, [1], True], 0.0)])
def test_the_time_of_a_training_is_a_time(tmp_path, seconds, read):
    events = [event for value in seconds for event in ({"event": "started", "step": 0},
                                                       {"event": "stepped", "step": 1, "seconds": value})]
    (tmp_path / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert read_event_log(tmp_path).seconds == read
    assert timedelta(seconds=round(read_event_log(tmp_path).seconds)) >= timedelta(0)
