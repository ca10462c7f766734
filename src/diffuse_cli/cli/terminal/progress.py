"""How far something is, and how long it will take: a bar on a terminal, else a line now and then.

Knows the view; knows nothing of what advances.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from . import view


class Advance(Protocol):
    """How far it is now, parts included."""

    def __call__(self, done: float) -> None: ...


@contextlib.contextmanager
def of(description: str, total: int) -> Iterator[Advance]:
    """Show how far something is, and how long it will take: yields `advance_to(done)`."""
    now_at, begun, pace = 0.0, time.monotonic(), Pace(time.monotonic)

    def how_far() -> str:
        left = (time.monotonic() - begun) * (total - now_at) / now_at if 0 < now_at < total else 0.0
        return f"{description} {int(now_at):,}/{total:,}" + (f", eta {view.duration(left)}" if left >= 1 else "")

    def advance_to(done: float) -> None:
        nonlocal now_at
        now_at = done
        if not view.drawn() and pace.due():
            view.say(how_far())

    def render() -> RenderableType:
        return Group(Text(how_far()), bar(now_at, total))

    with view.drawing(render):
        yield advance_to


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str, int, int], None]]:
    """Show the progress of one thing after another: yields `tell(what, done, total)`."""
    with contextlib.ExitStack() as shown:
        current, advance_to = "", None

        def tell(what: str, done: int, total: int) -> None:
            nonlocal current, advance_to
            if what != current or advance_to is None:
                shown.close()
                advance_to = shown.enter_context(of(what, total))
                current = what
            advance_to(done)

        yield tell


def bar(done: float, total: int) -> RenderableType:
    line = Table.grid()                                            # a ProgressBar does not end its line by itself
    line.add_row(ProgressBar(total=max(1, total), completed=done, width=view.width()))
    return line


class Pace:
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
