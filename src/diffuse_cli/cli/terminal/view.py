"""The one door to the terminal: data to stdout, everything for people to stderr, and no foreign text unescaped.

Decides once whether stderr is a terminal that may be drawn on; if not, no escape
byte is ever written and progress becomes plain lines. Knows nothing of commands, models,
trainings or pictures.
"""

import contextlib
import dataclasses
import json
import os
import sys
import traceback
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.cells import cell_len
from rich.color import Color
from rich.console import Console, RenderableType
from rich.live import Live
from rich.segment import Segment, Segments
from rich.style import Style
from rich.table import Table
from rich.text import Text

from ...errors import StorageError

if TYPE_CHECKING:
    import numpy as np

_INVISIBLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))      # Unicode categories that can deceive the eye


@dataclass
class Settings:
    """What `--quiet`, `--verbose`, `--json` and `--debug` ask for; each is off until some command turns it on."""

    quiet: bool = False
    verbose: bool = False
    json: bool = False
    debug: bool = False


class _Audience:
    """stderr, whatever it is now, if any. What cannot be heard, in a closed terminal or on a full disk, stops nobody.

    A BrokenPipeError is left: it says that the reader of a pipeline wants no more.
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
_audience = cast(TextIO, _Audience())
_console = Console(file=_audience, force_terminal=False)
_live: Live | None = None                       # what is being drawn now; at most one
_render: Callable[[], RenderableType] = str     # makes it


def start() -> None:
    """Look at the streams once, and forget what an earlier command set."""
    global _console
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")          # an ASCII terminal must not be a crash
    for field in dataclasses.fields(settings):
        setattr(settings, field.name, False)
    live = drawable(sys.stderr)
    _console = Console(file=_audience, force_terminal=live, force_interactive=live, force_jupyter=False,
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
    """Tell a person something, unless hushed. Newlines are kept, other control characters made visible."""
    if not hushed():
        _tell(Text(_visible(text, keep="\n")))


def listing(pairs: Sequence[tuple[str, str]]) -> None:
    """Tell a person (label, text) pairs, aligned where there is room."""
    if hushed():
        return
    if not drawn() or _console.width < 40:
        for label, text in pairs:
            say(f"{label}: {text}")
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="dim", no_wrap=True)
    grid.add_column(overflow="fold")
    for label, text in pairs:
        grid.add_row(Text(_visible(label)), Text(_visible(text)))
    _console.print(grid)


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


def hushed() -> bool:
    """Whether talk is unwanted: with `--quiet`, and where `--json` prints its data to the same terminal."""
    return settings.quiet or (settings.json and _is_terminal(sys.stdout))


def interactive() -> bool:
    """Whether there is a person to ask: both stdin and stderr are terminals."""
    return _is_terminal(sys.stdin) and _is_terminal(sys.stderr)


def _tell(text: Text, *, end: str = "\n") -> None:
    _console.print(text, end=end, soft_wrap=True)                  # no wrapping: paths must survive copy and paste


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
    from ... import events

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
    global _live
    if _live is None or not _is_terminal(sys.stdout):
        yield
        return
    _live.stop()
    yield
    _live = _started()                          # a new one: the old would erase as many lines as it had drawn


def leave() -> None:
    """Give the terminal its cursor back, where the program ends at once. Takes no lock: a signal may call it."""
    if drawn():                                 # even if the display is only about to begin
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), b"\n\x1b[?25h")


def _started() -> Live:
    live = Live(get_renderable=_render, console=_console, transient=True, refresh_per_second=4, redirect_stdout=False,
                redirect_stderr=False)
    live.start()
    return live


# ── Drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    if not 0 <= seconds < 1e9:
        return "-:--:--"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def picture(pixels: "np.ndarray") -> None:
    """Show (H, W, 3) uint8 in the terminal, if there is one to draw on, as wide as it has room for."""
    if hushed() or not drawn() or ascii_only():
        return
    height, broad, _ = pixels.shape
    columns = min(_console.width, broad)
    rows = max(1, round(height * columns / broad / 2))
    xs = [column * broad // columns for column in range(columns)]
    ys = [row * height // (2 * rows) for row in range(2 * rows)]
    _console.print(half_blocks([pixels[ys][:, xs]]), end="")


def half_blocks(pictures: "Sequence[np.ndarray]") -> Segments:
    """Pictures (H, W, 3) uint8 of one even H side by side: two pixels in each character, one above the other."""
    marks = []
    for row in range(0, len(pictures[0]), 2):
        for number, pixels in enumerate(pictures):
            marks += [Segment(" ")] if number else []
            marks += [Segment("▀", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
                      for top, bottom in zip(pixels[row].tolist(), pixels[row + 1].tolist(), strict=True)]
        marks.append(Segment.line())
    return Segments(marks)


def width() -> int:
    """Columns that bars and curves may take: as many as a line of text."""
    return min(_console.width, 100)


def room() -> tuple[int, int]:
    """Columns and lines of the terminal."""
    return _console.width, _console.height


def ascii_only() -> bool:
    """Whether the terminal can show nothing but ASCII."""
    return _console.options.ascii_only


def drawn() -> bool:
    """Whether progress is drawn on a terminal; if not, it is told in lines."""
    return _console.is_terminal


@contextlib.contextmanager
def drawing(render: Callable[[], RenderableType]) -> Iterator[None]:
    """Keep what `render` returns at the bottom of the terminal, if there is one to draw on."""
    global _live, _render
    if hushed() or not drawn():
        yield
        return
    _render = render
    _live = _started()
    try:
        yield
    finally:
        _live.stop()
        _live = None
