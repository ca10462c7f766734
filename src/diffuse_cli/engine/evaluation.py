"""Measuring a model: the noise loss at fixed noise levels with fixed noise, on pictures it was not trained on."""

import torch
from torch import Tensor

from . import randomness
from .config import ModelConfig
from .diffusion.schedule import FIRST_TIME, Schedule
from .network.model import Network
from .objective import Batch, compute_losses

LEVELS = 8


def validation_times() -> Tensor:
    """Middles of 8 equal intervals of [1/1000, 1]: their mean is the mean over the run's schedule. → (8,) float64"""
    return FIRST_TIME + (torch.arange(LEVELS, dtype=torch.float64) + 0.5) / LEVELS * (1 - FIRST_TIME)


@torch.no_grad()
def noise_curve(
    network: Network, *, config: ModelConfig, schedule: Schedule, images: Tensor, tokens: Tensor | None,
    device: torch.device, micro_batch: int, precision: str,
) -> list[float]:
    """Mean squared error of the noise at each of `validation_times`, over all pictures.

    The noise of picture k at a level is always the same, so that two measurements differ only by their models.
    images: (N, C, H, W) in [-1, 1]; tokens: (N, 77), or None when unconditional.
    """
    curve = []
    for level, time in enumerate(validation_times().tolist()):
        total = 0.0
        for start in range(0, len(images), micro_batch):
            image = images[start : start + micro_batch].to(device)
            index = torch.arange(start, start + len(image))
            noise = randomness.normal(randomness.keys(0, "validation", level, index).to(device), tuple(image.shape[1:]))
            distinct, caption_of = None, None
            if tokens is not None:
                distinct, caption_of = torch.unique(  # type: ignore[no-untyped-call]
                    tokens[start : start + len(image)].to(device), dim=0, return_inverse=True)
            batch = Batch(image, noise, torch.full((len(image),), time, dtype=torch.float64), distinct, caption_of)
            losses = compute_losses(network, batch, config=config, schedule=schedule, objective="simple",
                                    precision=precision)
            total += losses.noise_mse.sum().item()
        curve.append(total / len(images))
    return curve
