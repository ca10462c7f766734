"""A training as seen: its events drawn live on a terminal, told in lines in a pipe, printed as JSON with `--json`.

Knows the events, not the training that sends them; all printing goes through `view`.
"""

import contextlib
import dataclasses
import itertools
import math
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.text import Text

from ... import events
from ...checks import from_dict
from ...errors import UsageError
from ...storage import registry
from . import progress, view
from .previews import Strip

KEPT = 2048                                     # losses kept for the curve
LEVEL_WIDTH = 7                                 # columns that the loss at one noise level takes


class TrainingView:
    """Shows the events of a training, one by one: drawn live on a terminal, as lines in a pipe, as JSON with `--json`.

    A context manager: the live display is taken away on leaving, however the training ends.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = progress.Pace(clock)
        self._stack = contextlib.ExitStack()
        self._advance: Callable[[int], None] | None = None
        self._name = ""
        self._stepped: events.Stepped | None = None
        self._validated: events.Validated | None = None
        self._best: events.Validated | None = None
        self._saved: events.Saved | None = None
        self._strip: Strip | None = None
        self._doing = ""
        self._noise: list[float] = []

    def __enter__(self) -> "TrainingView":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, event: events.Event) -> None:
        """Show one event."""
        if view.settings.json:
            view.out_json(events.to_dict(event))
        self._doing = event.doing if isinstance(event, events.Paused) else ""
        match event:
            case events.Noticed():
                self._notice(event)
            case events.Scanned():
                self._scan(event)
            case events.Started():
                self._begin(event)
            case events.Stepped():
                self._step(event)
            case events.Validated():
                self._validate(event)
            case events.Previewed():
                self._detail(f"step {event.step:,}: preview {event.path}")
                if view.drawn() and not view.ascii_only():
                    self._strip = Strip.read(event)
            case events.Saved():
                self._saved = event
                self._detail(f"step {event.step:,}: saved {event.path} "
                             f"({_bytes(event.bytes)} in {event.seconds:.1f} s)")
            case events.Finished():
                self._end(event)

    def _notice(self, event: events.Noticed) -> None:
        if event.level == "warning":
            view.warn(event.message)
        else:
            view.say(event.message)

    def _scan(self, event: events.Scanned) -> None:
        if self._advance is None:
            self._advance = self._stack.enter_context(progress.of("reading pictures", event.total))
        self._advance(event.done)

    def _begin(self, event: events.Started) -> None:
        self._stack.close()                                        # the pictures are read
        self._name = event.name
        going_on = f", going on at step {event.step:,}" if event.step else ""
        view.say(f"training {view.clean(event.name)}: {event.parameters / 1e6:.1f} M parameters, "
                 f"{event.steps:,} steps of {event.batch_size:,}, {event.device} {event.precision}{going_on}")
        view.listing(event.facts)
        if event.step and view.drawn():
            self._recall(event.directory)
        self._stack.enter_context(view.drawing(self._render))

    def _recall(self, directory: str) -> None:
        """What the log tells of the run before it was interrupted."""
        from ...storage.event_log import number, read_event_log

        told = read_event_log(Path(directory))
        for entry in told.steps:
            self._add(number(entry.get("noise_mse")))
        for entry in told.validations:
            known = {field.name: entry.get(field.name) for field in dataclasses.fields(events.Validated)}
            with contextlib.suppress(UsageError):                      # a log may be damaged
                self._validate(from_dict(events.Validated, known))

    def _validate(self, event: events.Validated) -> None:
        self._validated = event
        if self._best is None or event.noise_mse < self._best.noise_mse:
            self._best = event

    def _add(self, noise_mse: float) -> None:
        if math.isfinite(noise_mse):
            self._noise.append(noise_mse)
        if len(self._noise) > KEPT:                                # keep the whole run, at half the detail
            self._noise = _averaged(self._noise, KEPT // 2)

    def _step(self, event: events.Stepped) -> None:
        first, self._stepped = self._stepped is None, event
        self._add(event.noise_mse)
        if not view.drawn() and (self._pace.due() or first or event.step == event.steps):
            view.say("  ".join((f"step {event.step}/{event.steps}", *self._figures(event), *_speed(event))))

    def _end(self, event: events.Finished) -> None:
        self._stack.close()
        if event.complete:
            view.say(f"finished {event.steps:,} steps in {view.duration(event.seconds)}")
            view.say(f"the model has the weights of the {event.delivered}")
        else:
            view.say(f"stopped ({event.reason}) at step {event.step:,} of {event.steps:,} after "
                     f"{view.duration(event.seconds)}, saved")
        if (report := Path(event.path).with_name(registry.REPORT_FILE)).exists():
            view.say(f"how it went: {report}")
        again = ["diffuse", "sample", *([event.prompt] if event.prompt else []), "-m", self._name]
        view.say(f"sample it: {view.clean(shlex.join(again))}")

    def _detail(self, text: str) -> None:
        if view.settings.verbose:
            view.say(text)

    def _figures(self, event: events.Stepped) -> list[str]:
        figures = [f"noise {event.noise_mse:.4f}"]
        if event.variance_loss is not None:
            figures.append(f"variance {event.variance_loss:.4f}")
        if self._validated is not None:
            figures.append(f"validation {self._validated.noise_mse:.4f}")
            if view.drawn() and self._best is not None and self._best is not self._validated:
                figures.append(f"best {self._best.noise_mse:.4f} at step {self._best.step:,}")
        if event.skipped:
            figures.append(f"skipped {event.skipped:,}")
        return [*figures, f"lr {_scientific(event.lr)}"]

    def _render(self) -> RenderableType:
        event = self._stepped
        if event is None:
            return Text(f"{self._doing or 'the first steps are slow'} ...", style="dim")
        position = [f"step {event.step:,}/{event.steps:,}", f"{event.step / max(1, event.steps):.0%}"]
        lines: list[RenderableType] = [
            _flowing((*position, *_speed(event), _bytes(event.memory)), "bold"),
            progress.bar(event.step, event.steps),
            _flowing(self._figures(event), ""),
            self._curve(),
            *self._levels(),
        ]
        if self._strip is not None:
            lines += self._strip.drawn(room=view.room(), taken=len(lines) + 4)     # some lines may have broken in two
        saved = "" if self._saved is None else f"saved at step {self._saved.step:,}"
        lines.append(Text(f"{self._doing} ..." if self._doing else saved, style="dim", no_wrap=True))
        return Group(*lines)

    def _curve(self) -> Text:
        """The noise loss of the whole run, by its logarithm, with the largest and the smallest that are drawn."""
        if not self._noise:
            return Text("")
        scale = f"  noise {max(self._noise):.3f} to {min(self._noise):.3f}"
        marks = view.width() - len(scale)
        if marks < 20:
            scale, marks = "", view.width()
        logarithms = [math.log(max(value, 1e-9)) for value in self._noise]
        curve = _sparkline(logarithms, marks, ascii_only=view.ascii_only())
        return Text.assemble((curve, "cyan"), (scale, "dim"), no_wrap=True)

    def _levels(self) -> list[RenderableType]:
        """The newest validation by noise level, where there is room for it."""
        if self._validated is None:
            return []
        pairs = list(zip(self._validated.log_snr, self._validated.noise_mse_at, strict=False))
        count = min(len(pairs), (view.width() - 12) // LEVEL_WIDTH)
        if count < 3:
            return []
        shown = [pairs[index * (len(pairs) - 1) // (count - 1)] for index in range(count)]
        rows = (("log-SNR", [f"{level:+.1f}" for level, _ in shown]),
                ("validation", [f"{loss:.3f}" for _, loss in shown]))
        return [Text(f"{label:<12}" + "".join(f"{cell:>{LEVEL_WIDTH}}" for cell in cells), style="dim", no_wrap=True)
                for label, cells in rows]


def _speed(event: events.Stepped) -> list[str]:
    digits = 0 if event.images_per_second >= 10 else 1
    return [f"{event.images_per_second:.{digits}f} img/s", f"eta {view.duration(event.remaining)}"]


def _flowing(parts: Sequence[str], style: str) -> Text:
    """Parts in one line, or broken between them, never within, when the terminal is narrow."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}  {part}".strip()
        if len(longer) <= view.width():
            lines[-1] = longer
        else:
            lines.append(part)
    return Text("\n".join(lines).strip("\n"), style=style)


def _averaged(values: Sequence[float], count: int) -> list[float]:
    """`values` as at most `count` means over neighbours."""
    count = min(count, len(values))
    edges = [len(values) * index // count for index in range(count + 1)] if count else [0]
    return [sum(values[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]


def _sparkline(values: Sequence[float], width: int, *, ascii_only: bool) -> str:
    marks = "_.-=+*#" if ascii_only else "▁▂▃▄▅▆▇█"
    means = _averaged(values, width)
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((mean - low) * scale)] for mean in means)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
