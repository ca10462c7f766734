"""What the log of a training tells: every step once, however often the run was interrupted, and whatever was torn.

Standard library only. Reads `events.jsonl`; knows neither pages nor curves.
"""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.strict_json import JsonError, loads_strict

LOG_FILE = "events.jsonl"
Entry = dict[str, Any]                          # the fields of an event as they were written down
_SERIES = {"stepped": "steps", "validated": "validations", "previewed": "previews"}


@dataclass
class EventLog:
    """The events of a run in the order of their steps; of a step that was learnt twice, what was told last."""

    started: Entry = field(default_factory=dict)            # the last time
    finished: Entry = field(default_factory=dict)           # the last time, if nothing was begun since
    steps: list[Entry] = field(default_factory=list)
    validations: list[Entry] = field(default_factory=list)
    previews: list[Entry] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0                        # in all processes one after another, what was lost included

    @property
    def step(self) -> int:
        """The last that was told of."""
        told = (self.finished, *self.steps[-1:], *self.validations[-1:])
        return max((entry["step"] for entry in told if entry), default=0)


def read_event_log(directory: Path) -> EventLog:
    """The history of the run in `directory`; empty where there is no log. Lines that are damaged are passed over."""
    history, running = EventLog(), 0.0
    try:
        lines = (directory / LOG_FILE).read_bytes().splitlines()
    except OSError:
        return history
    for line in lines:
        try:
            entry = loads_strict(line)
        except JsonError:
            continue
        if not isinstance(entry, dict):
            continue
        kind, step = entry.get("event"), entry.get("step")
        if kind == "noticed" and entry.get("level") == "warning":
            history.warnings.append(str(entry.get("message")))
        if type(step) is not int or step < 0:
            continue
        if kind == "started":
            _forget(history, step + 1)
            history.started, history.finished = entry, {}
            history.seconds, running = history.seconds + running, 0.0
        elif kind == "finished":
            history.finished = entry
        elif kind in _SERIES:
            series: list[Entry] = getattr(history, _SERIES[kind])
            while series and series[-1]["step"] >= step:
                series.pop()
            series.append(entry)
        if kind in ("stepped", "finished") and math.isfinite(seconds := number(entry.get("seconds"))):
            running = seconds
    history.seconds += running
    return history


def _forget(history: EventLog, step: int) -> None:
    """What was told of this step and later ones: they are learnt again, perhaps with another plan."""
    for name in _SERIES.values():
        series: list[Entry] = getattr(history, name)
        series[:] = [entry for entry in series if entry["step"] < step]


def number(value: Any) -> float:
    """`value` if it is a number, else NaN."""
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else math.nan
