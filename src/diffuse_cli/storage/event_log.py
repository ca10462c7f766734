"""Reads `events.jsonl`, the log of a run: every step once, whether or not the run was interrupted or lines are torn."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..files.input_files import read_input
from ..files.strict_json import JsonError, loads_strict

LOG_FILE = "events.jsonl"
MAX_LOG_BYTES = 2**30
MAX_SECONDS = 1e9                               # of training, thirty years: a log that was made up says anything
Entry = dict[str, Any]                          # the fields of an event as they were written
_SERIES = {"stepped": "steps", "validated": "validations", "previewed": "previews"}    # event → field of EventLog


@dataclass
class EventLog:
    """The events of a run in the order of their steps. Of a step that was trained twice, the last events count."""

    started: Entry = field(default_factory=dict)            # the last "started"
    finished: Entry = field(default_factory=dict)           # the last "finished", if no training was started since
    steps: list[Entry] = field(default_factory=list)
    validations: list[Entry] = field(default_factory=list)
    previews: list[Entry] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0                        # of training in all starts together, with the steps that were lost

    @property
    def step(self) -> int:
        """The last step of which an event tells."""
        latest = (self.finished, *self.steps[-1:], *self.validations[-1:])
        return max((entry["step"] for entry in latest if entry), default=0)


def read_event_log(directory: Path) -> EventLog:
    """Read the log of the run in `directory`. → an empty one if there is no log. Damaged lines are skipped."""
    log, running = EventLog(), 0.0              # seconds of the start that is being read
    try:
        lines = read_input(directory / LOG_FILE, limit=MAX_LOG_BYTES).splitlines()
    except OSError:
        return log
    for line in lines:
        try:
            entry = loads_strict(line)
        except JsonError:
            continue
        if not isinstance(entry, dict):
            continue
        kind, step = str(entry.get("event")), entry.get("step")
        if kind == "noticed" and entry.get("level") == "warning":
            log.warnings.append(str(entry.get("message")))
        if type(step) is not int or step < 0:
            continue
        if kind == "started":
            _drop_from(log, step + 1)
            log.started, log.finished = entry, {}
            log.seconds, running = log.seconds + running, 0.0
        elif kind == "finished":
            log.finished = entry
        elif kind in _SERIES:
            series: list[Entry] = getattr(log, _SERIES[kind])
            while series and series[-1]["step"] >= step:
                series.pop()
            series.append(entry)
        if kind in ("stepped", "finished") and (seconds := number(entry.get("seconds"))) >= 0:
            running = seconds
    log.seconds = min(log.seconds + running, MAX_SECONDS)
    return log


def _drop_from(log: EventLog, step: int) -> None:
    """Drop the events of this step and of later ones: these steps are trained again, perhaps with another plan."""
    for name in _SERIES.values():
        series: list[Entry] = getattr(log, name)
        series[:] = [entry for entry in series if entry["step"] < step]


def number(value: Any) -> float:
    """`value` as a float if it is an int or a float of size below 1e300; else NaN, also for a bool."""
    return float(value) if type(value) in (int, float) and abs(value) < 1e300 else math.nan
