"""The noise loss of a network at fixed noise levels, on given pictures with fixed noise."""

import torch
from torch import Tensor

from ..config import VALIDATION_LEVELS, ModelConfig
from ..denoiser import Network, denoise, encode_captions
from ..diffusion.schedule import FIRST_TIME, Schedule
from . import likelihood
from .likelihood import BatchDenoiser


def denoiser_for_captions(
    network: Network, tokens: Tensor | None, *, config: ModelConfig, schedule: Schedule, precision: str
) -> BatchDenoiser:
    """The network as a function of noisy pictures and times, for pictures with these captions.

    tokens: (N, 77); None without captions.
    """
    text = None
    if tokens is not None:
        distinct, caption_of = torch.unique(  # type: ignore[no-untyped-call]
            tokens.cpu(), dim=0, return_inverse=True)                  # some devices lack it
        with torch.no_grad():
            text = encode_captions(
                network, distinct.to(tokens.device), caption_of.to(tokens.device), precision=precision)

    return lambda noisy, t: denoise(network, noisy, t, text, config=config, schedule=schedule, precision=precision)


def validation_times() -> Tensor:
    """The middles of 8 equal intervals of [1/1000, 1], whose mean is the mean over the schedule. → (8,) float64"""
    middles = (torch.arange(VALIDATION_LEVELS, dtype=torch.float64) + 0.5) / VALIDATION_LEVELS
    return FIRST_TIME + middles * (1 - FIRST_TIME)


def noise_curve(
    network: Network, *, config: ModelConfig, schedule: Schedule, images: Tensor, tokens: Tensor | None,
    device: torch.device, micro_batch: int, precision: str,
) -> list[float]:
    """Mean squared error of the noise at each of `validation_times`, over all pictures.

    The noise of picture k at a level is always the same, so that two measurements differ only by their models.
    images: (N, C, H, W) in [-1, 1]; tokens: (N, 77), or None when unconditional.
    """
    parts = []
    for start in range(0, len(images), micro_batch):
        chosen = slice(start, start + micro_batch)
        denoiser = denoiser_for_captions(
            network, None if tokens is None else tokens[chosen].to(device), config=config, schedule=schedule,
            precision=precision)
        image = images[chosen].to(device)
        parts.append(likelihood.noise_losses(
            denoiser, image, schedule=schedule, times=validation_times(), seed=0, purpose="validation",
            index=torch.arange(start, start + len(image))))
    return torch.cat(parts).mean(0).tolist()
