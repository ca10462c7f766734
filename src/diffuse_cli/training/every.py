"""Intervals: whether something is due that happens every so many steps, seconds or percent of a training."""

import time

from ..checks import parse_interval

MAX_COST = 0.02                                 # largest share of the time that something timed in seconds may take


class Every:
    """An interval as users write it: "500" steps, "5m" or "10%" of the training."""

    def __init__(self, interval: str, option: str, *, steps: int, step: int) -> None:
        """steps: of the whole training; step: at which it begins or resumes. Raises UsageError that names `option`."""
        self.kind, self.every = parse_interval(option, interval)
        if self.kind == "share":
            self.kind, self.every = "steps", max(1, round(self.every * steps))
        self.last: float = time.monotonic() if self.kind == "seconds" else step

    def limit_cost(self, seconds: float) -> None:
        """Make the interval long enough that something which takes `seconds` each time stays below `MAX_COST`.

        An interval in steps stays as it is, because the user asked for it.
        """
        if self.kind == "seconds":
            self.every = max(self.every, seconds / MAX_COST)

    def is_due(self, step: int) -> bool:
        """Whether the interval has passed at `step`; then the next one begins."""
        now = time.monotonic() if self.kind == "seconds" else step
        due = now - self.last >= self.every if self.kind == "seconds" else step % self.every == 0
        self.last = now if due else self.last
        return due

    def next_step(self, step: int) -> int | None:
        """The first step after `step` at which it is due; None if seconds decide on that."""
        return None if self.kind == "seconds" else int((step // self.every + 1) * self.every)
