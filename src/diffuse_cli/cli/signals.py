"""Signals answered by a function for a while, and only those that the caller of the program has not switched off.

Knows nothing of what the answer is, but for commands that have nothing to save: they end in good order.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import typer


@contextlib.contextmanager
def answered(names: Sequence[str], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` for the signals of these names, as far as the system has them.

    A signal that was ignored when the program started (nohup, a background job) stays ignored.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def tidied() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block as Ctrl-C does, so that it removes what it began, and end by them."""
    came: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt                 # no Exception: libraries let it pass

    with answered(("SIGTERM", "SIGHUP"), interrupt):
        try:
            yield
        except KeyboardInterrupt:
            if came:
                raise typer.Exit(128 + came[0]) from None
            raise
