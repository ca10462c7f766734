"""An exponential moving average of weights whose memory grows with the run, so that the start leaves no trace."""

import torch
from torch import Tensor, nn

GAMMA = 6.94                                    # the exponent of a relative width of 0.10


def relative_width(gamma: float) -> float:
    """Standard deviation of the averaging profile, as a share of the training (Karras et al. 2024, section 3.1)."""
    return float((gamma + 1) ** 0.5 / ((gamma + 2) * (gamma + 3) ** 0.5))


def decay(step: int) -> float:
    """Weight of the old average at `step` (1, 2, …): (1 - 1/step)^(gamma + 1); 0 at the first step."""
    return float((1 - 1 / step) ** (GAMMA + 1))


@torch.no_grad()
def update(average: list[Tensor], module: nn.Module, step: int) -> None:
    """average ← decay·average + (1 - decay)·weights, in place. `average` is in the order of module.parameters()."""
    torch._foreach_lerp_(average, list(module.parameters()), 1 - decay(step))
