"""Measures the noise loss of a network, which is the mean squared error of the noise that it predicts.

The noise levels and the noise are always the same, so two measurements differ only by their networks. Validation
during training uses this measurement.
"""

import torch
from torch import Tensor

from ..config import VALIDATION_LEVELS
from ..denoiser import Network, denoise, encode_captions
from ..diffusion.schedule import FIRST_TIME, Schedule
from ..diffusion.upscaling import LowRes
from ..model_config import ModelConfig
from . import likelihood
from .likelihood import BatchDenoiser


def denoiser_for_captions(
    network: Network, tokens: Tensor | None, *, config: ModelConfig, schedule: Schedule, precision: str,
    low_res: LowRes | None = None,
) -> BatchDenoiser:
    """The denoiser for a batch of pictures with these captions: a function of the noisy pictures and their times.

    tokens: (N, 77), or None for an unconditional model. Each distinct caption is encoded once. low_res: the small
    pictures of an upscaler.
    """
    text = None
    if tokens is not None:
        distinct, caption_of = torch.unique(  # type: ignore[no-untyped-call]
            tokens.cpu(), dim=0, return_inverse=True)                  # not all devices have this operation
        with torch.no_grad():
            text = encode_captions(
                network, distinct.to(tokens.device), caption_of.to(tokens.device), precision=precision)

    return lambda noisy, t: denoise(
        network, noisy, t, text, config=config, schedule=schedule, precision=precision, low_res=low_res)


def validation_times() -> Tensor:
    """The middles of 8 equal intervals of [1/1000, 1]. → (8,) float64

    So the mean of the losses at these times approximates the mean over the schedule.
    """
    middles = (torch.arange(VALIDATION_LEVELS, dtype=torch.float64) + 0.5) / VALIDATION_LEVELS
    return FIRST_TIME + middles * (1 - FIRST_TIME)


def noise_curve(
    network: Network, *, config: ModelConfig, schedule: Schedule, images: Tensor, tokens: Tensor | None,
    device: torch.device, micro_batch: int, precision: str, low_res: LowRes | None = None,
) -> list[float]:
    """Mean squared error of the predicted noise over all pictures, at each of `validation_times`. → 8 losses

    images: (N, C, H, W) in [-1, 1]; tokens: (N, 77), or None for an unconditional model; low_res: of the same N, for an
    upscaler. The noise of picture k at a
    level is always the same, so that two measurements differ only by their models.
    """
    parts = []
    for start in range(0, len(images), micro_batch):
        chosen = slice(start, start + micro_batch)
        denoiser = denoiser_for_captions(
            network, None if tokens is None else tokens[chosen].to(device), config=config, schedule=schedule,
            precision=precision, low_res=None if low_res is None else low_res.of(chosen).on(device))
        image = images[chosen].to(device)
        parts.append(likelihood.noise_losses(
            denoiser, image, schedule=schedule, times=validation_times(), seed=0, purpose="validation",
            index=torch.arange(start, start + len(image))))
    return torch.cat(parts).mean(0).tolist()
