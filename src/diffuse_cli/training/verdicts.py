"""Which steps change the weights. The device decides, so that nothing waits for it; the CPU hears of it one step later.
"""

import math
import statistics
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from ..config import Plan
from ..errors import DivergedError
from ..runtime.transfer import Fetched

SPIKE_FACTOR = 8.0              # a gradient whose norm is more than this many times the recent median is skipped
NORM_WINDOW = 128               # number of recent gradient norms in that median
MAX_BAD_STEPS = 3               # number of non-finite steps in a row that end the training


class Verdicts:
    """Judges steps, and counts them. A step is skipped if a number of it is not finite, or its gradient is a spike.

    `updates`, `bad_steps` and `norms` are those of all steps up to the last one that was heard of.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.updates = 0                        # number of steps that changed the weights
        self.bad_steps = 0                      # number of steps in a row, the last ones, that were not finite
        self.norms: deque[float] = deque(maxlen=NORM_WINDOW)
        self.pending: tuple[int, Fetched] | None = None         # the number of the newest step, and its verdict

    def judge(self, norm: Tensor, losses: Tensor, *, step: int) -> Tensor:
        """Judge the `step` = 0, 1, … by its gradient's norm () and its losses (3,). → () float32, 1 to skip it, else 0

        All are on the device. The step before is heard of first, because its norm counts. Raises DivergedError.
        """
        self.hear()
        numbers = torch.cat((norm.reshape(1), losses))
        skip = (~torch.isfinite(numbers).all() | (norm > self._highest_norm(step))).float()
        self.pending = step, Fetched(torch.cat((numbers, skip.reshape(1))))
        return skip

    def hear(self) -> None:
        """Wait for the verdict on the newest step, and count it. Raises DivergedError at the `MAX_BAD_STEPS`-th."""
        if self.pending is None:
            return
        (step, fetched), self.pending = self.pending, None
        *numbers, skipped = fetched.tolist()
        finite = all(map(math.isfinite, numbers))
        self.updates += not skipped
        if finite:
            self.norms.append(numbers[0])
        self.bad_steps = 0 if finite else self.bad_steps + 1
        if self.bad_steps == MAX_BAD_STEPS:
            last = step + 1
            raise DivergedError(f"training diverged: {MAX_BAD_STEPS} steps in a row were not finite, the last {last}; "
                                f"{last - MAX_BAD_STEPS} was good",
                                hint=f"Try --lr {self.plan.lr / 4:.1e} --fresh")

    def restore(self, updates: int, bad_steps: int, norms: Sequence[float]) -> None:
        """Go on from the counts of a saved state."""
        self.updates, self.bad_steps, self.pending = updates, bad_steps, None
        self.norms = deque(norms, maxlen=NORM_WINDOW)

    def _highest_norm(self, step: int) -> float:
        """The norm above which a gradient is a spike: infinite during the warm-up, or with too few norms."""
        settled = step >= self.plan.warmup_steps and len(self.norms) >= NORM_WINDOW // 4
        return SPIKE_FACTOR * statistics.median(self.norms) if settled else math.inf
