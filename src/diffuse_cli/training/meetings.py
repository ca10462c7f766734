"""Meetings of the processes of a training: they agree on a signal, and wait for one that works alone.

From one meeting to the next a process waits for the gradients of the others, and for nothing else.
"""

import signal
import time
from collections.abc import Callable, Generator
from typing import TypeVar

from ..errors import DiffuseError, WorkerError
from ..runtime.distributed import World

SECONDS = 0.5                                   # about, from meeting to meeting; so long may a signal go unnoticed
WORKING_SECONDS = 20.0                          # between the meetings of a process that others wait for

_DONE, _WORKING, _FAILED = range(3)             # what a process says while others wait; the largest counts

Event = TypeVar("Event")
Result = TypeVar("Result")


def first_of_each_machine(
    world: World, work: Callable[[bool], Generator[Event, None, Result]],
) -> Generator[Event, None, Result]:
    """Let the first process of each machine work, and then the others; yields what they yield. → what `work` returns

    It may take longer than any timeout, as long as it yields something from time to time.

    work: gets whether another process of this machine has just done the same. If one fails, the others do not wait and
    get False.
    """
    if world.size == 1:
        return (yield from work(False))
    state, result = _WORKING, None
    if world.process.local_rank == 0:
        met, progress = time.monotonic(), work(False)
        try:
            while True:
                try:
                    event = next(progress)
                except StopIteration as end:
                    result = (end.value,)
                    break
                yield event
                if state != _FAILED and time.monotonic() - met >= WORKING_SECONDS:
                    state, met = world.all_reduce_max(_WORKING, patient=True), time.monotonic()
        except DiffuseError as error:
            if state != _FAILED and not isinstance(error, WorkerError):
                world.all_reduce_max(_FAILED, patient=True)
            raise
    while state == _WORKING:
        state = world.all_reduce_max(_DONE, patient=True)
    return result[0] if result else (yield from work(state == _DONE))


class Meetings:
    """The meetings of one process with the others of its world. All have the same ones.

    step: at which the training begins or is resumed.
    """

    def __init__(self, world: World, *, step: int) -> None:
        self.world, self.next = world, step + 1
        self.last, self.ended = step, time.monotonic()          # of the last meeting: its step, and when it ended

    def is_due(self, step: int) -> bool:
        """Whether all processes meet after `step` steps. A single one may do what it likes after each."""
        return self.world.size == 1 or step >= self.next

    def hold(self, step: int, name: str | None, *, latest: int) -> str | None:
        """Meet, and agree on the next meeting. → the signal that any of the processes got, or None

        It waits patiently, because the main process may still be working alone. Its pace decides on the next meeting.

        name: of the signal that this process got. latest: the step after which the main process will work alone, at
        which they meet at the latest; only its own counts.
        """
        if self.world.size == 1:
            return name
        pace = (time.monotonic() - self.ended) / (step - self.last)                         # seconds for each step
        wanted = min(latest, step + max(1, int(SECONDS / max(pace, 1e-9)))) if self.world.is_main else 0
        number, self.next = self.world.all_reduce_maxima(
            [signal.Signals[name] if name else 0, wanted], patient=True)
        self.last, self.ended = step, time.monotonic()
        return signal.Signals(number).name if number else None
