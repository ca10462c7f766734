"""An exponential moving average (EMA) of the weights, with a memory that grows with the run.

So the random start leaves no trace in it.
"""

import torch
from torch import Tensor, nn

from ..runtime import sharding
from . import descent

GAMMA = 16.97                                   # exponent of the averaging profile, which makes its relative width 0.05


def relative_width(gamma: float) -> float:
    """√(gamma + 1) / ((gamma + 2)·√(gamma + 3)) (Karras et al. 2024, section 3.1).

    It is the standard deviation of the averaging profile, as a share of the training so far.
    """
    return float((gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5))


def decay(step: int) -> float:
    """(1 - 1/step)^(gamma + 1), the weight of the old average at `step` = 1, 2, … (Karras et al. 2024, section 3.1).

    It is 0 at the first step.
    """
    return float((1 - 1 / step) ** (GAMMA + 1))


@torch.no_grad()
def update(average: list[Tensor], module: nn.Module, step: int, skip: Tensor | None = None) -> None:
    """average ← decay·average + (1 - decay)·weights, in place, with the decay of `step` = 1, 2, ….

    `average` has the tensors of module.parameters(), in the same order. skip: as in `descent.descend`. Before the first
    update, average and weights are equal.
    """
    averages, weights = list(map(sharding.local, average)), list(map(sharding.local, module.parameters()))
    if decay(step) == 0:                        # a copy is exact, and changes nothing if the weights were skipped
        torch._foreach_copy_(averages, weights)
    else:
        descent.approach(averages, weights, 1 - decay(step), skip)
