"""The display of a training: its events as a live display on a terminal, as lines in a pipe, as JSON with `--json`."""

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
from .plain_text import clean, duration
from .previews import Strip

MAX_LOSSES = 2048                               # losses that are kept for the curve
LEVEL_WIDTH = 7                                 # columns for the loss at one noise level
MIN_CURVE_WIDTH = 20                            # columns of the curve, below which its scale is left out
MIN_LEVELS = 3                                  # noise levels, below which none is shown
LEVEL_ENDS = "nearly clean", "  nearly noise"   # what the first and the last noise level mean
LABELLED_WIDTH = 60                             # columns of the terminal, below which these are left out
SPARKS, ASCII_SPARKS = "▁▂▃▄▅▆▇█", "_.-=+*#"    # characters of the curve, from the lowest value to the highest


class TrainingView:
    """Shows the events of a training one by one.

    It is a context manager, which removes the live display however the training ends.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = progress.Pace(clock)
        self._stack = contextlib.ExitStack()
        self._advance: Callable[[int], None] | None = None
        self._name = ""
        self._models: list[str] = []                                   # the options that name the model
        self._enlarges = False                                         # whether it is used with `upscale` alone
        self._stepped: events.Stepped | None = None
        self._validated: events.Validated | None = None
        self._best: events.Validated | None = None
        self._saved: events.Saved | None = None
        self._strip: Strip | None = None
        self._doing = ""                                               # what the steps wait for
        self._loss = "noise"                                            # what the losses measure
        self._losses: list[float] = []                                 # noise loss, averaged over neighbours

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
                self._say_detail(f"step {event.step:,}: preview {event.path}")
                if view.can_draw() and not view.ascii_only():
                    self._strip = Strip.read(event)
            case events.Saved():
                self._saved = event
                self._say_detail(f"step {event.step:,}: saved {event.path} "
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
        self._stack.close()                                            # ends the progress of reading pictures
        self._name, self._loss = event.name, "distance" if event.student else "noise"
        self._models = ["-m", event.name] if event.upscaler_for is None else [
            "-m", event.upscaler_for, "--upscaler", event.name]
        self._enlarges = event.upscaler and event.upscaler_for is None
        name = clean(event.name)
        doing = f"resuming {name} at step {event.step:,}" if event.step else f"training {name}"
        view.say(f"{doing}: {event.parameters / 1e6:.1f} M parameters, {event.steps:,} steps of {event.batch_size:,}, "
                 f"{event.device} {event.precision}")
        view.listing(event.facts)
        if event.step and view.can_draw():
            self._read_log(event.directory)
        self._stack.enter_context(view.live(self._render))

    def _read_log(self, directory: str) -> None:
        """Take the losses before an interruption from the log of the run."""
        from ...storage.event_log import number, read_event_log

        log = read_event_log(Path(directory))
        for entry in log.steps:
            self._add_loss(number(entry.get("noise_mse")))
        for entry in log.validations:
            fields = {field.name: entry.get(field.name) for field in dataclasses.fields(events.Validated)}
            with contextlib.suppress(UsageError):                      # a log may be damaged
                self._validate(from_dict(events.Validated, fields))

    def _validate(self, event: events.Validated) -> None:
        self._validated = event
        if self._best is None or event.noise_mse < self._best.noise_mse:
            self._best = event

    def _add_loss(self, noise_mse: float) -> None:
        if math.isfinite(noise_mse):
            self._losses.append(noise_mse)
        if len(self._losses) > MAX_LOSSES:                             # keep the whole run, at half the detail
            self._losses = _averaged(self._losses, MAX_LOSSES // 2)

    def _step(self, event: events.Stepped) -> None:
        is_first, self._stepped = self._stepped is None, event
        self._add_loss(event.noise_mse)
        if not view.can_draw() and (self._pace.due() or is_first or event.step == event.steps):
            view.say("  ".join((f"step {event.step}/{event.steps}", *self._figures(event), *_speed(event))))

    def _end(self, event: events.Finished) -> None:
        self._stack.close()
        if self._stepped is not None:                                  # what the live display showed last
            columns, lines = view.size()
            strip = [] if self._strip is None else self._strip.render(columns, lines, max_rows=1)
            view.show(Group(self._curve(), *strip))
        if self._validated is not None and self._best is not None:
            view.say(f"validation {self._validated.noise_mse:.4f} at step {self._validated.step:,}, "
                     f"best {self._best.noise_mse:.4f} at step {self._best.step:,}")
        if event.complete:
            view.say(f"finished {event.steps:,} steps in {duration(event.seconds)}")
            view.say(f"the model has the weights of the {event.delivered}")
        else:
            view.say(f"stopped ({event.reason}) at step {event.step:,} of {event.steps:,} after "
                     f"{duration(event.seconds)}, and saved")
        if (report := Path(event.path).with_name(registry.REPORT_FILE)).exists():
            view.say(f"report: {report}")
        if self._enlarges:
            view.say(f"use it: {clean(shlex.join(['diffuse', 'upscale', 'picture.png', *self._models]))}")
            return
        command = ["diffuse", "sample", *([event.prompt] if event.prompt else []), *self._models]
        view.say(f"sample it: {clean(shlex.join(command))}")

    def _say_detail(self, text: str) -> None:
        if view.settings.verbose:
            view.say(text)

    def _figures(self, event: events.Stepped) -> list[str]:
        figures = [f"{self._loss} {event.noise_mse:.4f}"]
        if event.variance_loss is not None:
            figures.append(f"variance {event.variance_loss:.4f}")
        if self._validated is not None:
            figures.append(f"validation {self._validated.noise_mse:.4f}")
            if view.can_draw() and self._best is not None and self._best is not self._validated:
                figures.append(f"best {self._best.noise_mse:.4f} at step {self._best.step:,}")
        if event.skipped:
            figures.append(f"skipped {event.skipped:,}")
        return [*figures, f"lr {_scientific(event.lr)}"]

    def _render(self) -> RenderableType:
        event = self._stepped
        if event is None:
            return Text(f"{self._doing or 'starting (the first steps are slow)'} ...", style="dim")
        position = [f"step {event.step:,}/{event.steps:,}", f"{event.step / max(1, event.steps):.0%}"]
        lines: list[RenderableType] = [
            _flowing((*position, *_speed(event), f"memory {_bytes(event.memory)}"), "bold"),
            progress.bar(event.step, event.steps),
            _flowing(self._figures(event), ""),
            self._curve(),
            *self._levels(),
        ]
        if self._strip is not None:
            columns, room = view.size()
            lines += self._strip.render(columns, room - len(lines) - 4)                # some lines may be broken in two
        saved = "" if self._saved is None else f"saved at step {self._saved.step:,}"
        lines.append(Text(f"{self._doing} ..." if self._doing else saved, style="dim", no_wrap=True))
        return Group(*lines)

    def _curve(self) -> Text:
        """The loss of the whole run on a logarithmic scale, with its largest and smallest value."""
        if not self._losses:
            return Text("")
        scale = f"  {self._loss} max {max(self._losses):.3f}, min {min(self._losses):.3f}"
        curve_width = view.width() - len(scale)
        if curve_width < MIN_CURVE_WIDTH:
            scale, curve_width = "", view.width()
        logarithms = [math.log(max(value, 1e-9)) for value in self._losses]
        curve = _sparkline(logarithms, curve_width, ascii_only=view.ascii_only())
        return Text.assemble((curve, "cyan"), (scale, "dim"), no_wrap=True)

    def _levels(self) -> list[RenderableType]:
        """The newest validation by noise level, if there is room for it."""
        if self._validated is None:
            return []
        pairs = list(zip(self._validated.log_snr, self._validated.noise_mse_at, strict=False))
        ends = LEVEL_ENDS if view.width() >= LABELLED_WIDTH else ("", "")
        count = min(len(pairs), (view.width() - 12 - len("".join(ends))) // LEVEL_WIDTH)
        if count < MIN_LEVELS:
            return []
        shown = [pairs[index * (len(pairs) - 1) // (count - 1)] for index in range(count)]
        levels = "".join(f"{level:>+{LEVEL_WIDTH}.1f}" for level, _ in shown)
        losses = "".join(f"{loss:>{LEVEL_WIDTH}.3f}" for _, loss in shown)
        rows = (f"{'log-SNR':<12}{ends[0]}{levels}{ends[1]}", f"{'validation':<12}{' ' * len(ends[0])}{losses}")
        return [Text(row, style="dim", no_wrap=True) for row in rows]


def _speed(event: events.Stepped) -> list[str]:
    digits = 0 if event.images_per_second >= 10 else 1
    return [f"{event.images_per_second:.{digits}f} img/s", f"eta {duration(event.remaining)}"]


def _flowing(parts: Sequence[str], style: str) -> Text:
    """Parts in one line. On a narrow terminal the line is broken between two parts, never within one."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}  {part}".strip()
        if len(longer) <= view.width():
            lines[-1] = longer
        else:
            lines.append(part)
    return Text("\n".join(lines).strip("\n"), style=style)


def _averaged(values: Sequence[float], count: int) -> list[float]:
    """At most `count` means over neighbouring values."""
    count = min(count, len(values))
    edges = [len(values) * index // count for index in range(count + 1)] if count else [0]
    return [sum(values[low:high]) / (high - low) for low, high in itertools.pairwise(edges)]


def _sparkline(values: Sequence[float], width: int, *, ascii_only: bool) -> str:
    """Values in their order as a curve of at most `width` characters, each the mean of neighbouring values.

    The lowest mean gets the lowest mark, and the highest mean the highest one.
    """
    marks = ASCII_SPARKS if ascii_only else SPARKS
    means = _averaged(values, width)
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((mean - low) * scale)] for mean in means)


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _scientific(value: float) -> str:
    """2.0e-4 and the like, without zeros in the exponent."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
