"""Meetings of the processes of a training, between steps: they agree on a signal, and wait for one that works alone.

From one meeting to the next a process waits for the gradients of the others, and for nothing else.
"""

import signal
import time

from ..runtime.distributed import World

SECONDS = 0.5                                   # about, from meeting to meeting; so long may a signal go unnoticed


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
