"""Wrappers that make of a denoiser one that follows its condition more closely, or that stays within the pixel range.

Knows no network.
"""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from .samplers import Denoised, Denoiser
from .schedule import Schedule

THRESHOLD_SHARE = 0.995                         # of a guided picture's values are left as bright as they are
Time = TypeVar("Time", float, Tensor)           # one for a batch, or one for each picture
BothDenoisers = Callable[[Tensor, float], tuple[Denoised, Denoised]]     # (with the condition, without), in one pass


def classifier_free(
    conditional: Denoiser, both: BothDenoisers, *, schedule: Schedule, scale: float, interval: tuple[float, float]
) -> Denoiser:
    """Classifier-free guidance (Ho & Salimans 2021, eq. 6) where low < sigma/alpha ≤ high, none elsewhere.

    Guiding only in the middle gives better pictures for fewer evaluations (Kynkäänniemi et al. 2024). The formula in
    noise or in clean pictures is the same; the guided picture leaves the pixel range, so it is thresholded. The
    variance is that of the conditional half. scale 1 is no guidance; 0, inside the interval, the
    unconditional model.
    """
    low, high = interval

    def denoise(noisy: Tensor, t: float) -> Denoised:
        log_snr = schedule.log_snr(torch.tensor(t, dtype=torch.float64)).item()
        if scale == 1 or not low < math.exp(-log_snr / 2) <= high:
            return conditional(noisy, t)
        with_condition, without = both(noisy, t)
        image = without.image + scale * (with_condition.image - without.image)
        return Denoised(dynamic_threshold(image), with_condition.log_fraction, guided=True)

    return denoise


def dynamic_threshold(image: Tensor, share: float = THRESHOLD_SHARE) -> Tensor:
    """Pull each picture back into [-1, 1] (Saharia et al. 2022, section 2.3).

    s is the value below which `share` of the picture's absolute pixels lie, at least 1; clip to [-s, s], divide by s.
    image: (N, C, H, W) → the same.
    """
    magnitudes = image.abs().flatten(1)
    above = magnitudes.shape[1] - math.ceil(share * magnitudes.shape[1])
    limit = magnitudes.topk(above + 1, dim=1).values[:, -1].clamp(min=1)                  # (N,)
    limit = limit.reshape(-1, *(1,) * (image.ndim - 1))
    return image.clamp(-limit, limit) / limit


def within_range(denoise: Callable[[Tensor, Time], Denoised]) -> Callable[[Tensor, Time], Denoised]:
    """The same denoiser with its pictures clipped to [-1, 1], where all clean ones are (Saharia et al. 2022, "static").

    At the noisy end the picture that follows from an estimated noise is that estimate's error, sigma/alpha times over.
    What was thresholded above stays as it is.
    """

    def clipped(noisy: Tensor, t: Time) -> Denoised:
        now = denoise(noisy, t)
        return now._replace(image=now.image.clamp(-1, 1))

    return clipped
