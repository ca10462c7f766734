"""Random tensors, and levels of noise, for tests of the mathematics."""

import torch
from torch import Tensor

from diffuse_cli.diffusion.schedule import Schedule


def random(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers. → shape, float64"""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def level(schedule: Schedule, t: float) -> tuple[float, float]:
    """(alpha, sigma) at the time t, of which 0 is the clean picture."""
    if t == 0:
        return 1.0, 0.0
    alpha, sigma = schedule.alpha_sigma(torch.tensor(t, dtype=torch.float64))
    return alpha.item(), sigma.item()
