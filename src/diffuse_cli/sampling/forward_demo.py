"""Forward diffusion on one picture, level by level; what a model makes of each level; what a schedule leaves visible.

Pixels in, pixels and numbers out. Knows no files and no terminal.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import Sampling
from ..diffusion.schedule import FIRST_TIME, Schedule
from ..pictures.pixels import from_pixels, to_pixels
from ..runtime import randomness
from ..storage.checkpoint import Model
from .generate import encode_prompts, guided_denoiser

# The mean of R×R values has R² times their SNR: -11 at 64 pixels is what the default schedule ends with.
MAX_BRIGHTNESS_LOG_SNR = -11 + 2 * math.log(64)


@dataclass(frozen=True)
class Level:
    """A picture at one noise level. Pixels are (H, W, 3) uint8; what lies outside their range is cut."""

    t: float
    alpha: float
    sigma: float
    log_snr: float
    noisy: np.ndarray
    estimate: np.ndarray | None = None          # of the clean picture, by a model, in one step
    noise_mse: float | None = None              # mean squared error of the noise that the estimate implies

    @property
    def snr(self) -> float:
        """The signal-to-noise ratio alpha²/sigma²."""
        return math.exp(self.log_snr)

    @property
    def decibels(self) -> float:
        """The same, in dB."""
        return _decibels(self.log_snr)


def even_times(count: int) -> Tensor:
    """`count` times from 1/1000 to 1, evenly spaced. → (count,) float64"""
    return torch.linspace(FIRST_TIME, 1, count, dtype=torch.float64)


def forward_diffusion(
    pixels: np.ndarray, schedule: Schedule, times: Tensor, *, seed: int, model: Model | None = None, caption: str = "",
) -> Iterator[Level]:
    """The picture (H, W, 3) at each of the times, under the same noise; with a model, its one-step estimates.

    A conditional model is told the caption, without guidance. The picture must have the model's resolution.
    """
    image = from_pixels(pixels[None])
    noise = randomness.normal(torch.tensor([randomness.key(seed, "noise-demo")]), tuple(image.shape[1:]))
    denoise = None
    if model is not None:
        text, null = encode_prompts(model, [caption])
        denoise = guided_denoiser(model.network, model.config, schedule, text=text, null=null,
                                  sampling=Sampling(guidance=1.0))
    for t in times[:, None]:
        noisy = schedule.add_noise(image, noise, t)
        estimate, noise_mse = None, None
        if denoise is not None and model is not None:
            guess = denoise(noisy.to(next(model.network.parameters()).device), t.item()).image.cpu()
            noise_mse = (schedule.noise_of(guess, noisy, t) - noise).square().mean().item()
            estimate = to_pixels(guess)[0]
        alpha, sigma = schedule.alpha_sigma(t)
        yield Level(t.item(), alpha.item(), sigma.item(), schedule.log_snr(t).item(), to_pixels(noisy)[0], estimate,
                    noise_mse)


def brightness_decibels(schedule: Schedule, resolution: int) -> float:
    """SNR in dB, at t = 1, of the mean of all pixels: averaging R² of them leaves the signal and 1/R² of the noise."""
    return _decibels(_brightness_log_snr(schedule, resolution))


def leaks_brightness(schedule: Schedule, resolution: int) -> bool:
    """Whether pictures still differ in brightness when all should be noise: sampling starts without it."""
    return _brightness_log_snr(schedule, resolution) > MAX_BRIGHTNESS_LOG_SNR + 0.01


def _brightness_log_snr(schedule: Schedule, resolution: int) -> float:
    return schedule.log_snr(torch.ones(1, dtype=torch.float64)).item() + 2 * math.log(resolution)


def _decibels(log_ratio: float) -> float:
    return log_ratio * 10 / math.log(10)
