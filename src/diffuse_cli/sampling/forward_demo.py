"""Demonstrates forward diffusion: one picture at each noise level, and a model's estimates of the clean picture.

Also measures how much of a picture's mean brightness a noise schedule leaves at its last level.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import Sampling
from ..diffusion.schedule import FIRST_TIME, Schedule
from ..pictures.channels import to_channels
from ..pictures.pixels import from_pixels, to_pixels
from ..runtime import randomness
from ..storage.checkpoint import Model
from .generate import encode_prompts
from .guided import guided_denoiser

# Natural logarithm of the highest SNR of the mean brightness at t = 1 that does not count as a leak. The mean of R²
# pixels has R² times their SNR; the default schedule ends with a log-SNR of -11 at 64 pixels.
MAX_BRIGHTNESS_LOG_SNR = -11 + 2 * math.log(64)


@dataclass(frozen=True)
class Level:
    """A picture at one noise level. Pixels are (H, W, C) uint8, clipped to their range."""

    t: float                                    # diffusion time, 1/1000 to 1
    alpha: float
    sigma: float
    log_snr: float                              # ln(alpha²/sigma²)
    noisy: np.ndarray                           # alpha·picture + sigma·noise
    estimate: np.ndarray | None = None          # a model's one-step estimate of the clean picture
    noise_mse: float | None = None              # mean squared error of the noise that the estimate implies

    @property
    def snr(self) -> float:
        """The signal-to-noise ratio alpha²/sigma²."""
        return math.exp(self.log_snr)

    @property
    def snr_db(self) -> float:
        """The signal-to-noise ratio in dB."""
        return _decibels(self.log_snr)


def evenly_spaced_times(count: int) -> Tensor:
    """→ `count` evenly spaced times from 1/1000 to 1, (count,) float64"""
    return torch.linspace(FIRST_TIME, 1, count, dtype=torch.float64)


def forward_diffusion(
    pixels: np.ndarray, schedule: Schedule, times: Tensor, *, seed: int, model: Model | None = None, caption: str = "",
) -> Iterator[Level]:
    """Add the same noise to a picture (H, W, 3 or 4) at each of the times; with a model, which gets a picture of
    its own channels, estimate the clean picture as well.

    A conditional model gets the caption, without guidance. The picture must have the model's size.
    """
    if model is not None:
        pixels = to_channels(pixels, model.config.network.channels)
    image = from_pixels(pixels[None])
    noise = randomness.normal(torch.tensor([randomness.key(seed, "noise-demo")]), tuple(image.shape[1:]))
    denoise = None
    if model is not None:
        text, null = encode_prompts(model, [caption])
        denoise = guided_denoiser(model.network, model.config, schedule, text=text, negative=null,
                                  sampling=Sampling(guidance=1.0))
    for t in times[:, None]:
        noisy = schedule.add_noise(image, noise, t)
        estimated_pixels, noise_mse = None, None
        if denoise is not None and model is not None:
            estimate = denoise(noisy.to(next(model.network.parameters()).device), t.item()).image.cpu()
            noise_mse = (schedule.noise_of(estimate, noisy, t) - noise).square().mean().item()
            estimated_pixels = to_pixels(estimate)[0]
        alpha, sigma = schedule.alpha_sigma(t)
        yield Level(t.item(), alpha.item(), sigma.item(), schedule.log_snr(t).item(), to_pixels(noisy)[0],
                    estimated_pixels, noise_mse)


def brightness_decibels(schedule: Schedule, resolution: float) -> float:
    """Return the signal-to-noise ratio, in dB at t = 1, of a picture's mean brightness.

    The mean of R² pixels (R: `resolution`, the side of a square) keeps the whole signal, but its noise has only 1/R² of
    a pixel's variance.
    """
    return _decibels(_brightness_log_snr(schedule, resolution))


def leaks_brightness(schedule: Schedule, resolution: float) -> bool:
    """Whether pictures at t = 1 still show their mean brightness, which the noise that sampling starts from lacks."""
    return _brightness_log_snr(schedule, resolution) > MAX_BRIGHTNESS_LOG_SNR + 0.01


def _brightness_log_snr(schedule: Schedule, resolution: float) -> float:
    return schedule.log_snr(torch.ones(1, dtype=torch.float64)).item() + 2 * math.log(resolution)


def _decibels(log_ratio: float) -> float:
    return log_ratio * 10 / math.log(10)
