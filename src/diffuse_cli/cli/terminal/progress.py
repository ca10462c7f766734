"""Progress and the time that is left: a bar on a terminal, otherwise a line from time to time."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from . import view
from .plain_text import duration

FAST_SECONDS = 10                               # between two lines in the first SLOW_AFTER seconds
SLOW_SECONDS = 60                               # between two lines later
SLOW_AFTER = 300                                # seconds


class Advance(Protocol):
    """A function that is called with how much is done, where an unfinished part counts as a fraction."""

    def __call__(self, done: float) -> None: ...


@contextlib.contextmanager
def of(description: str, total: int) -> Iterator[Advance]:
    """Show how much of `total` is done and the time that is left. Yields `advance_to(done)`."""
    now_at, begun, pace = 0.0, time.monotonic(), Pace(time.monotonic)

    def position() -> str:
        left = (time.monotonic() - begun) * (total - now_at) / now_at if 0 < now_at < total else 0.0
        return f"{description} {int(now_at):,}/{total:,}" + (f", eta {duration(left)}" if left >= 1 else "")

    def advance_to(done: float) -> None:
        nonlocal now_at
        now_at = done
        if not view.can_draw() and pace.due():
            view.say(position())

    def render() -> RenderableType:
        return Group(Text(position()), bar(now_at, total))

    with view.live(render):
        yield advance_to


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of one task after another. Yields `tell(task, done, total)`."""
    with contextlib.ExitStack() as stack:
        current, advance_to = "", None

        def tell(task: str, done: int, total: int) -> None:
            nonlocal current, advance_to
            if task != current or advance_to is None:
                stack.close()
                advance_to = stack.enter_context(of(task, total))
                current = task
            advance_to(done)

        yield tell


def bar(done: float, total: int) -> RenderableType:
    """A bar as wide as the terminal."""
    line = Table.grid()                                                # because a ProgressBar does not end its line
    line.add_row(ProgressBar(total=max(1, total), completed=done, width=view.width()))
    return line


class Pace:
    """Says when the next plain line is due: often in the first minutes, then less often."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = self._last = clock()

    def due(self) -> bool:
        now = self._clock()
        if now - self._last < (FAST_SECONDS if now - self._start < SLOW_AFTER else SLOW_SECONDS):
            return False
        self._last = now
        return True
