"""A budget of time is a deadline: how many steps it allows is counted again before the learning rate falls."""

import dataclasses
import time
from dataclasses import dataclass, field

from ..config import Plan
from .half_side import work
from .plan import cooldown_steps

COUNT_SHARE = 0.72                              # share of --time after which its steps are counted again


@dataclass
class Pace:
    """How long the steps of a session have taken, with all that was done between them.

    The steps before `first`, at which it began or resumed, count as if they had been as fast.
    """

    first: int
    begun: float                                # when it did, on the monotonic clock, in seconds
    whole_from: int = field(init=False)         # its first step with whole pictures
    whole_begun: float = field(init=False)      # when that began

    def __post_init__(self) -> None:
        self.whole_from, self.whole_begun = self.first, self.begun

    def pictures_grow(self, plan: Plan, step: int) -> bool:
        """To be called before each step. → whether it is the first with whole pictures, after smaller ones here"""
        grow = step == plan.half_side_steps > self.first
        if grow:
            self.whole_from, self.whole_begun = step, time.monotonic()
        return grow

    def spent(self, plan: Plan, step: int) -> float:
        """The seconds of the first `step` steps of the run."""
        here = time.monotonic() - self.begun
        return here * work(plan, step) / (work(plan, step) - work(plan, self.first))

    def is_count_due(self, plan: Plan, step: int) -> bool:
        """Whether the steps of --time are to be counted again after `step` steps: once, before the cool-down."""
        if plan.deadline is None or step == self.first:
            return False
        return step >= plan.cooldown_start or self.spent(plan, step) >= COUNT_SHARE * plan.deadline

    def steps_within(self, plan: Plan, step: int) -> int:
        """The number of steps that the deadline allows at the speed of whole pictures: at least one more than `step`.

        As long as pictures are at half their side, that speed is estimated.
        """
        assert plan.deadline is not None
        if step > max(self.whole_from, plan.half_side_steps):
            seconds = (time.monotonic() - self.whole_begun) / (step - self.whole_from)
        else:
            seconds = self.spent(plan, step) / work(plan, step)
        return max(step + 1, step + round((plan.deadline - self.spent(plan, step)) / seconds))


def with_steps(plan: Plan, step: int, steps: int) -> Plan:
    """The plan, of which `step` steps are trained, with another end and no deadline any more.

    No picture is at half its side any more.
    """
    cooldown = max(1, min(cooldown_steps(plan.model, steps), steps - step))
    return dataclasses.replace(plan, steps=steps, cooldown_steps=cooldown, deadline=None,
                               half_side_steps=min(plan.half_side_steps, step))
