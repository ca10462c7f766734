"""The one door to the terminal: data to stdout, everything for people to stderr, and no foreign text unescaped.

The only place that knows Rich. Decides once whether stderr is a terminal that may be drawn on; if not, no escape
byte is ever written and progress becomes plain lines. Knows nothing of commands, models or pictures.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import sys
import time
import traceback
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..engine import events
from ..engine.errors import StorageError

_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))      # Unicode categories that can deceive the eye


@dataclass
class Settings:
    """What `--quiet`, `--verbose`, `--json` and `--debug` ask for; each is off until some command turns it on."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    debug: bool = False


settings = Settings()
_console = Console(stderr=True, force_terminal=False)
_live: Live | None = None                       # what is being drawn now; at most one


def start() -> None:
    """Look at the streams once, and forget what an earlier command set."""
    global _console
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")          # an ASCII terminal must not be a crash
    for field in dataclasses.fields(settings):
        setattr(settings, field.name, False)
    live = drawable(sys.stderr)
    _console = Console(stderr=True, force_terminal=live, force_interactive=live, force_jupyter=False,
                       no_color=not live, markup=False, emoji=False, highlight=False)


def drawable(stream: TextIO | None) -> bool:
    """Whether escape sequences may be written: a terminal that knows them, whose owner has not set NO_COLOR."""
    capable = sys.platform == "win32" or os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return capable and _is_terminal(stream) and not os.environ.get("NO_COLOR")


def configure(*, quiet: bool = False, verbose: bool = False, json: bool = False, debug: bool = False) -> None:
    """Turn settings on; whatever was on already, because it stood before the command's name, stays on."""
    settings.quiet |= quiet
    settings.verbose |= verbose
    settings.json |= json
    settings.debug |= debug


# ── Text for people, on stderr ──────────────────────────────────────────────────────────────────────────────────────


def clean(text: str, *, limit: int = 200) -> str:
    """Foreign text made safe to show in one line: invisible characters as `\\x1b`, at most `limit` characters."""
    shown = _visible(text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def say(text: str) -> None:
    """Tell a person something; silent with `--quiet`. Newlines are kept, other control characters made visible."""
    if not settings.quiet:
        _tell(Text(_visible(text, keep="\n")))


def warn(text: str) -> None:
    """Tell a person about something doubtful; silent with `--quiet`."""
    if not settings.quiet:
        _tell(Text.assemble(("warning: ", "yellow"), _visible(text, keep="\n")))


def error(text: str) -> None:
    """Say in one line why the command fails; never silent."""
    _tell(Text.assemble(("error: ", "bold red"), _visible(" ".join(text.split()))))


def trace(error: BaseException) -> None:
    """Show where an error came from, for `--debug`."""
    _tell(Text(_visible("".join(traceback.format_exception(error)), keep="\n"), style="dim"), end="")


def confirm(question: str) -> bool:
    """Ask a person; only after `interactive()` said there is one."""
    _tell(Text(f"{_visible(question)} [y/N] "), end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def interactive() -> bool:
    """Whether there is a person to ask: both stdin and stderr are terminals."""
    return _is_terminal(sys.stdin) and _is_terminal(sys.stderr)


def _tell(text: Text, *, end: str = "\n") -> None:
    try:
        _console.print(text, end=end, soft_wrap=True)              # no wrapping: paths must survive copy and paste
    except BrokenPipeError:
        raise
    except OSError:                                                # talk that cannot be heard stops nobody
        pass


def _visible(text: str, *, keep: str = "") -> str:
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escape(character) if unicodedata.category(character) in _INVISIBLE and character not in keep
                   else character for character in text)


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:                                   # a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:                                             # closed
        return False


# ── Data, on stdout ─────────────────────────────────────────────────────────────────────────────────────────────────


def out(text: str) -> None:
    """One line of data, flushed. Raises BrokenPipeError when the reader has left, StorageError when it cannot be."""
    if sys.stdout is None:
        return
    with _live_aside():
        try:
            sys.stdout.write(_visible(text) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write to stdout: {(error.strerror or str(error)).lower()}") from error


def out_json(obj: dict[str, Any]) -> None:
    """One JSON line of data with the schema's number; non-finite numbers as null, everything else as ASCII."""
    out(json.dumps({"schema": events.SCHEMA, **events.finite(obj)}, allow_nan=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Aligned columns as data; those named in `right` are flush right."""
    cells = [[clean(cell, limit=80) for cell in row] for row in (columns, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = []
        for name, cell, width in zip(columns, row, widths, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if name in right else cell + space)
        out("  ".join(padded).rstrip())


@contextlib.contextmanager
def _live_aside() -> Iterator[None]:
    """Take the live display away while data is written to the same terminal."""
    if _live is None or not _is_terminal(sys.stdout):
        yield
        return
    _live.stop()
    yield
    _live.start()


# ── Progress ────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show how far something is: yields `advance_to(done)`. A bar on a terminal, else a line now and then."""
    done, pace = 0, _Pace(time.monotonic)

    def advance_to(now_done: int) -> None:
        nonlocal done
        done = now_done
        if not _console.is_terminal and pace.due():
            say(f"{description} {done:,}/{total:,}")

    def render() -> RenderableType:
        return Group(Text(f"{description} {done:,}/{total:,}"), _bar(done, total))

    with _drawing(render):
        yield advance_to


def _bar(done: int, total: int) -> RenderableType:
    line = Table.grid()                                            # a ProgressBar does not end its line by itself
    line.add_row(ProgressBar(total=max(1, total), completed=done, width=_width()))
    return line


def _width() -> int:
    """Of bars and curves: as wide as a line of text may be."""
    return min(_console.width, 100)


@contextlib.contextmanager
def _drawing(render: Callable[[], RenderableType]) -> Iterator[None]:
    """Keep what `render` returns at the bottom of the terminal, if there is one to draw on."""
    global _live
    if settings.quiet or not _console.is_terminal or (settings.json and _is_terminal(sys.stdout)):
        yield
        return
    _live = Live(get_renderable=render, console=_console, transient=True, refresh_per_second=4,
                 redirect_stdout=False, redirect_stderr=False)
    try:
        with _live:
            yield
    finally:
        _live = None


class _Pace:
    """When the next plain line is due: every 10 s during the first five minutes, then every 60 s."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = self._last = clock()

    def due(self) -> bool:
        now = self._clock()
        if now - self._last < (10 if now - self._start < 300 else 60):
            return False
        self._last = now
        return True


# ── Training ────────────────────────────────────────────────────────────────────────────────────────────────────────


class TrainingView:
    """Shows the events of a training, one by one: drawn live on a terminal, as lines in a pipe, as JSON with `--json`.

    A context manager: the live display is taken away on leaving, however the training ends.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._pace = _Pace(clock)
        self._stack = contextlib.ExitStack()
        self._advance: Callable[[int], None] | None = None
        self._name = ""
        self._stepped: events.Stepped | None = None
        self._validated: events.Validated | None = None
        self._noise: list[float] = []

    def __enter__(self) -> "TrainingView":
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, event: events.Event) -> None:
        """Show one event."""
        if settings.json:
            out_json(events.to_dict(event))
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
                self._validated = event
            case events.Previewed():
                self._detail(f"step {event.step:,}: preview {event.path}")
            case events.Saved():
                self._detail(f"step {event.step:,}: saved {event.path} "
                             f"({_bytes(event.bytes)} in {event.seconds:.1f} s)")
            case events.Finished():
                self._end(event)

    def _notice(self, event: events.Noticed) -> None:
        if event.level == "warning":
            warn(event.message)
        else:
            self._say(event.message)

    def _scan(self, event: events.Scanned) -> None:
        if self._advance is None:
            self._advance = self._stack.enter_context(progress("reading pictures", event.total))
        self._advance(event.done)

    def _begin(self, event: events.Started) -> None:
        self._stack.close()                                        # the pictures are read
        self._name = event.name
        going_on = f", going on at step {event.step:,}" if event.step else ""
        self._say(f"training {clean(event.name)}: {event.parameters / 1e6:.1f} M parameters, {event.steps:,} steps of "
                  f"{event.batch_size:,}, {event.device} {event.precision}{going_on}")
        if not settings.quiet and self._human:
            _facts(event.facts)
        self._stack.enter_context(_drawing(self._render))

    def _step(self, event: events.Stepped) -> None:
        first, self._stepped = self._stepped is None, event
        self._noise.append(event.noise_mse)
        if len(self._noise) > 2048:                                # keep the whole run, at half the detail
            self._noise = _averaged(self._noise, 1024)
        if not _console.is_terminal and (self._pace.due() or first or event.step == event.steps):
            say("  ".join((f"step {event.step}/{event.steps}", *self._figures(event), *_speed(event))))

    def _end(self, event: events.Finished) -> None:
        self._stack.close()
        self._say(f"{'finished' if event.complete else f'stopped: {event.reason};'} at step {event.step:,} of "
                  f"{event.steps:,} after {_duration(event.seconds)}; the model has the {event.delivered} weights")
        if not event.complete:
            self._say("run the same command again to go on")
        self._say(f'sample it: diffuse sample "a prompt" -m {clean(self._name)}')

    @property
    def _human(self) -> bool:
        """JSON and talk do not mix on one terminal."""
        return not (settings.json and _is_terminal(sys.stdout))

    def _say(self, text: str) -> None:
        if self._human:
            say(text)

    def _detail(self, text: str) -> None:
        if settings.verbose:
            self._say(text)

    def _figures(self, event: events.Stepped) -> list[str]:
        figures = [f"noise {event.noise_mse:.4f}"]
        if event.variance_loss is not None:
            figures.append(f"variance {event.variance_loss:.4f}")
        if self._validated is not None:
            figures.append(f"validation {self._validated.noise_mse:.4f}")
        if event.skipped:
            figures.append(f"skipped {event.skipped:,}")
        return [*figures, f"lr {_scientific(event.lr)}"]

    def _render(self) -> RenderableType:
        event = self._stepped
        if event is None:
            return Text("the first steps are slow ...", style="dim")
        share = event.step / max(1, event.steps)
        position = [f"step {event.step:,}/{event.steps:,}", f"{share:.0%}"]
        return Group(
            _flowing((*position, *_speed(event), _bytes(event.memory)), "bold"),
            _bar(event.step, event.steps),
            _flowing(self._figures(event), ""),
            Text(_sparkline(self._noise, _width(), ascii_only=_console.options.ascii_only), style="cyan"),
        )


def _facts(facts: Sequence[tuple[str, str]]) -> None:
    if not _console.is_terminal or _console.width < 40:
        for label, text in facts:
            say(f"{label}: {text}")
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in facts:
        grid.add_row(Text(_visible(label)), Text(_visible(text)))
    _console.print(grid)


def _speed(event: events.Stepped) -> list[str]:
    digits = 0 if event.images_per_second >= 10 else 1
    return [f"{event.images_per_second:.{digits}f} img/s", f"eta {_duration(event.remaining)}"]


def _flowing(parts: Sequence[str], style: str) -> Text:
    """Parts in one line, or broken between them, never within, when the terminal is narrow."""
    lines = [""]
    for part in parts:
        longer = f"{lines[-1]}  {part}".strip()
        if len(longer) <= _console.width:
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
    known = [value for value in values if abs(value) < float("inf")]           # also drops NaN
    means = _averaged(known, width)
    low, high = min(means, default=0.0), max(means, default=0.0)
    scale = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((mean - low) * scale)] for mean in means)


def _duration(seconds: float) -> str:
    if not 0 <= seconds < 1e9:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa
