"""Shows a training in a notebook while it runs: how far it is, the curve of the loss, and the newest preview.

Charts and previews are pictures inside the HTML, which notebooks also show where they remove styles and scripts.
"""

import importlib
import io
import math
import sys
import time
from collections.abc import Iterable
from datetime import timedelta
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..events import Event, Finished, Noticed, Paused, Previewed, Scanned, Started, Stepped, Validated
from ..storage.event_log import EventLog, number, read_event_log
from . import page, report
from .svg_curves import svg

PAUSE = 1.0                                     # seconds between two displays, at least
MAX_COST = 0.05                                 # largest share of the time that displays take
_WIDTH = 561                                    # of the chart, in pixels
_COLOURS = {"var(--curve-1)": "#2f80d0", "var(--curve-2)": "#e07820", "currentColor": "#808080"}   # on white and black


def show(events: Iterable[Event]) -> Finished | None:
    """Show in a notebook what a training does: `finished = show(train("./images", time="10m"))`.

    events: what `train` yields. They are read to the end; the last one, which has the path of the model, is returned,
    or None if there is none. An error of the training, or the notebook's stop button, ends this function too, and what
    was shown last stays. Raises UsageError, before the training begins, where there is no IPython to display anything.
    """
    display = _display_function()
    view, finished, due = _View(), None, 0.0
    handle = display(view, display_id=True)
    try:
        for event in events:
            view.take(event)
            finished = event if isinstance(event, Finished) else finished
            if time.monotonic() >= due or isinstance(event, Validated | Previewed):
                started = time.monotonic()
                handle.update(view)
                due = time.monotonic() + max(PAUSE, (time.monotonic() - started) / MAX_COST)
    except KeyboardInterrupt:
        view.doing = "interrupted: the same call resumes from the last save"
        raise
    finally:
        handle.update(view)
    return finished


def _display_function() -> Any:
    """IPython's `display`. Raises UsageError outside of IPython, which a notebook has imported."""
    ipython = sys.modules.get("IPython")
    if ipython is None or ipython.get_ipython() is None:
        raise UsageError("show draws in a notebook, and this is none",
                         hint="Loop over the events: for event in train(...): print(event)")
    return importlib.import_module("IPython.display").display


class _View:
    """What is shown. Notebooks take the HTML, other displays the line of text."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.stepped: Stepped | None = None
        self.preview: Previewed | None = None
        self.finished: Finished | None = None
        self.warnings: list[str] = []
        self.doing = "preparing"                # what else than steps happens now; empty for nothing

    def take(self, event: Event) -> None:
        """Note an event."""
        self.doing = ""
        match event:
            case Started():
                self.started = event
            case Stepped():
                self.stepped = event
            case Previewed():
                self.preview = event
            case Finished():
                self.finished = event
            case Paused():
                self.doing = event.doing
            case Scanned():
                self.doing = f"reading pictures: {event.done:,} of {event.total:,}"
            case Noticed(level="warning"):
                self.warnings.append(event.message)

    def __repr__(self) -> str:
        return self._line(self._log())

    def _repr_html_(self) -> str:
        log = self._log()
        name = facts = ""
        if self.started:
            name = f"<b>{page.text(self.started.name)}</b> · "
            facts = f"<details><summary>what was chosen</summary>{page.pairs(self.started.facts)}</details>"
        return (f"<div>{name}{page.text(self._line(log))}</div>{page.remarks(self.warnings)}{_chart(log)}"
                f"{_sheet(self.preview)}{facts}")

    def _log(self) -> EventLog:
        """The log of the run, which has the steps before this start as well."""
        return read_event_log(Path(self.started.directory)) if self.started else EventLog()

    def _line(self, log: EventLog) -> str:
        """Where the training stands."""
        parts = []
        if self.started:
            parts.append(f"step {max(log.step, self.started.step):,} of {self.started.steps:,}")
        if self.stepped:
            parts.append(f"training loss {self.stepped.noise_mse:.4f}")
        if losses := [number(entry.get("noise_mse")) for entry in log.validations]:
            parts.append(f"held out {losses[-1]:.4f}, best {min(losses):.4f}")
        if self.finished:
            end = "finished" if self.finished.complete else f"stopped ({self.finished.reason})"
            parts.append(f"{end} after {_duration(self.finished.seconds)}")
        elif self.stepped:
            parts.append(f"{_duration(self.stepped.remaining)} to go")
        return " · ".join([*parts, *filter(None, [self.doing])])


def _duration(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) else "unknown time"


def _chart(log: EventLog) -> str:
    """The curves of the loss as a picture; empty if there is no number yet."""
    chart = report.curve_charts(log)[0]
    if not chart.known:
        return ""
    lines = svg(chart.known, name=chart.title, x_label=chart.x_label, log=chart.log)
    for name, colour in _COLOURS.items():
        lines = lines.replace(name, colour)
    root = f'<svg xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" fill="{_COLOURS["currentColor"]}" '
    drawn = page.picture(lines.replace("<svg ", root, 1).encode(), chart.title, f' width="{_WIDTH}"', kind="svg+xml")
    return f"<div>{chart.title} by step</div><div>{drawn}</div>"


def _sheet(preview: Previewed | None) -> str:
    """The pictures of a preview, with their prompts; empty if there is none that can be read."""
    if preview is None or not (data := page.read_png(Path(preview.path))):
        return ""
    from ..pictures import image_files, sheets

    pictures = sheets.read_strip(io.BytesIO(data))
    sheet = sheets.captioned_sheet(pictures, [[prompt] for prompt in preview.prompts]) if any(preview.prompts) else \
        image_files.encode(sheets.grid(pictures))
    return f"<div>Samples at step {preview.step:,}</div><div>{page.picture(sheet, 'samples')}</div>"
