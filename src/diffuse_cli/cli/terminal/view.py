"""The one door to the terminal: data goes to stdout, messages for people go to stderr, and no foreign text unescaped.

`start` decides once whether stderr is a terminal that may be drawn on. If not, no escape sequence is ever written, and
progress becomes plain lines.
"""

import contextlib
import dataclasses
import json
import math
import os
import sys
import traceback
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ...errors import StorageError, system_reason
from .half_blocks import fitted, half_blocks
from .plain_text import clean, visible

if TYPE_CHECKING:
    import numpy as np

MIN_PICTURE_WIDTH = 19                          # columns of each of several pictures: four fit into 80


# ── State ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Settings:
    """What `--quiet`, `--verbose`, `--json` and `--debug` ask for. Each is off until a command turns it on."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    debug: bool = False


class _Stderr:
    """The stderr of the moment, if any. A failure to write to it, such as a closed terminal or a full disk, is ignored.

    Only a BrokenPipeError is raised, because it means that the reader of a pipeline wants no more.
    """

    def write(self, text: str) -> int:
        self._try(lambda stream: stream.write(text))
        return len(text)

    def flush(self) -> None:
        self._try(lambda stream: stream.flush())

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)

    @staticmethod
    def _try(action: Callable[[TextIO], object]) -> None:
        try:
            if sys.stderr is not None:
                action(sys.stderr)
        except BrokenPipeError:
            raise
        except OSError:
            pass


settings = Settings()
_stderr = cast(TextIO, _Stderr())
_console = Console(file=_stderr, force_terminal=False)
_live: Live | None = None                       # the live display, if there is one now
_render: Callable[[], RenderableType] = str     # returns what it shows


def start() -> None:
    """Look at the streams, and forget the settings of an earlier command. Call it once, before anything is printed."""
    global _console
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")              # an ASCII terminal must not cause a crash
    for field in dataclasses.fields(settings):
        setattr(settings, field.name, False)
    drawable = is_drawable(sys.stderr)
    _console = Console(file=_stderr, force_terminal=drawable, force_interactive=drawable, force_jupyter=False,
                       no_color=not drawable, markup=False, emoji=False, highlight=False)


def configure(*, quiet: bool = False, verbose: bool = False, json: bool = False, debug: bool = False) -> None:
    """Turn settings on. A setting that was given before the command's name stays on."""
    settings.quiet |= quiet
    settings.verbose |= verbose
    settings.json |= json
    settings.debug |= debug


def is_drawable(stream: TextIO | None) -> bool:
    """Whether escape sequences may be written: the stream is a terminal that knows them, and NO_COLOR is not set."""
    capable = sys.platform == "win32" or os.environ.get("TERM", "") not in ("", "dumb", "unknown")
    return capable and _is_terminal(stream) and not os.environ.get("NO_COLOR")


def can_draw() -> bool:
    """Whether progress is drawn on stderr; otherwise it is printed in lines."""
    return _console.is_terminal


def is_silent() -> bool:
    """Whether messages are unwanted: with `--quiet`, and where `--json` prints its data to the same terminal."""
    return settings.quiet or (settings.json and _is_terminal(sys.stdout))


def interactive() -> bool:
    """Whether there is a person to ask: both stdin and stderr are terminals."""
    return _is_terminal(sys.stdin) and _is_terminal(sys.stderr)


def _is_terminal(stream: TextIO | None) -> bool:
    """Whether a person sees and answers there.

    A cell of a notebook (`!diffuse …`) looks like a terminal, but moves no cursor and takes no answer. Jupyter tells
    its kernels their parent.
    """
    try:
        return stream is not None and stream.isatty() and "JPY_PARENT_PID" not in os.environ
    except ValueError:                                                 # the stream is closed
        return False


# ── Messages for people, on stderr ──────────────────────────────────────────────────────────────────────────────────


def say(text: str) -> None:
    """Print a message, unless messages are unwanted. Newlines are kept; other control characters become visible."""
    if not is_silent():
        _print(Text(visible(text, keep="\n")))


def listing(pairs: Sequence[tuple[str, str]]) -> None:
    """Print (label, text) pairs, aligned if there is room."""
    if is_silent():
        return
    if not can_draw() or _console.width < 40:
        for label, text in pairs:
            say(f"{label}: {text}")
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in pairs:
        grid.add_row(Text(visible(label)), Text(visible(text)))
    _console.print(grid)


def warn(text: str) -> None:
    """Print a warning, unless `--quiet` is set."""
    if not settings.quiet:
        _print(Text.assemble(("warning: ", "yellow"), visible(text, keep="\n")))


def error(text: str) -> None:
    """Print in one line why the command fails, whatever the settings are."""
    _print(Text.assemble(("error: ", "bold red"), visible(" ".join(text.split()))))


def trace(error: BaseException) -> None:
    """Print the traceback of an error, for `--debug`."""
    _print(Text(visible("".join(traceback.format_exception(error)), keep="\n"), style="dim"), end="")


def confirm(question: str) -> bool:
    """Ask a question. → whether the answer was yes. Call it only if `interactive()`."""
    _print(Text(f"{visible(question)} [y/N] "), end="")
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def show(renderable: RenderableType) -> None:
    """Print what only a terminal can show, such as a curve, if messages are wanted and stderr can be drawn on."""
    if not is_silent() and can_draw():
        _console.print(renderable)


def pictures_in_a_row(count: int) -> int:
    """How many of `count` pictures stand side by side on this terminal, in rows of nearly equal length."""
    most = max(1, min(count, (_console.width + 1) // (MIN_PICTURE_WIDTH + 1)))
    return math.ceil(count / math.ceil(count / most))


def pictures(row: "Sequence[np.ndarray]", *, of: int = 1) -> None:
    """Show pictures of one size, (H, W, C) uint8 each, side by side, if stderr can be drawn on.

    of: places in the row, which are not all taken where the last pictures do not fill it.
    """
    if row and not is_silent() and can_draw() and not ascii_only():
        columns, lines = (_console.width + 1) // of - 1, _console.height - 2
        from ...pictures.channels import opaque

        _console.print(half_blocks([fitted(opaque(pixels), columns, lines) for pixels in row]), end="")


def _print(text: Text, *, end: str = "\n") -> None:
    _console.print(text, end=end, soft_wrap=True)                      # unwrapped, because paths are copied and pasted


# ── Data, on stdout ─────────────────────────────────────────────────────────────────────────────────────────────────


def out(text: str) -> None:
    """Print one line of data and flush it. Raises BrokenPipeError if the reader has left, otherwise StorageError."""
    if sys.stdout is None:
        return
    with _without_live():
        try:
            sys.stdout.write(visible(text) + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise StorageError(f"cannot write to stdout: {system_reason(error)}") from error


def out_json(obj: dict[str, Any]) -> None:
    """Print one JSON line of data with the number of the schema. Non-finite numbers become null, and all is ASCII."""
    from ... import events

    out(json.dumps({"schema": events.SCHEMA, **events.without_non_finite(obj)}, allow_nan=False))


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print aligned columns as data; those named in `right` are flush right."""
    cells = [[clean(cell, limit=80) for cell in row] for row in (columns, *rows)]
    widths = [max(map(cell_len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        padded = []
        for name, cell, width in zip(columns, row, widths, strict=True):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if name in right else cell + space)
        out("  ".join(padded).rstrip())


def labelled(lines: Sequence[tuple[str, str]]) -> None:
    """Print (label, text) as data, aligned.

    On a terminal, a long text goes on below itself. It stays one line elsewhere, and if it holds a path too long for
    that, which can still be copied then.
    """
    indent = 2 + max(len(label) for label, _ in lines)
    room = width() - indent if _is_terminal(sys.stdout) else 0
    for label, text in lines:
        fits = all(cell_len(word) <= room for word in text.split())
        parts = [line.plain.rstrip() for line in Text(text).wrap(_console, room)] if fits and text else [text]
        for number, part in enumerate(parts):
            out(f"{'' if number else clean(label, limit=40):<{indent}}{part}")


# ── The live display ────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def live(render: Callable[[], RenderableType]) -> Iterator[None]:
    """Draw what `render` returns at the bottom of the terminal, again and again until the block ends.

    Nothing is drawn if stderr cannot be drawn on, or if messages are unwanted (see `is_silent`).
    """
    global _live, _render
    if is_silent() or not can_draw():
        yield
        return
    _render = render
    _live = _start_live()
    try:
        yield
    finally:
        _live.stop()
        _live = None


def _start_live() -> Live:
    started = Live(get_renderable=_render, console=_console, transient=True, refresh_per_second=4,
                   redirect_stdout=False, redirect_stderr=False)
    started.start()
    return started


@contextlib.contextmanager
def _without_live() -> Iterator[None]:
    """Remove the live display while data is written to the same terminal."""
    global _live
    if _live is None or not _is_terminal(sys.stdout):
        yield
        return
    _live.stop()
    yield
    _live = _start_live()                       # a new one, because the old would erase as many lines as it had drawn


def leave() -> None:
    """Show the cursor again, where the program ends at once. Takes no lock, so that a signal handler may call it."""
    if can_draw():                              # even if the live display is only about to begin
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), b"\n\x1b[?25h")


def size() -> tuple[int, int]:
    """Columns and lines of the terminal."""
    return _console.width, _console.height


def width() -> int:
    """Columns of the terminal."""
    return _console.width


def abilities() -> dict[str, Any]:
    """What this terminal can do, for `diffuse doctor`."""
    return {"draws": can_draw(), "unicode": not ascii_only(), "columns": _console.width, "lines": _console.height}


def ascii_only() -> bool:
    """Whether the terminal can show nothing but ASCII."""
    return _console.options.ascii_only
