"""Wrappers of a denoiser: classifier-free guidance, and clipping of its estimates to the range of pictures."""

import math
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from .samplers import Denoised, Denoiser
from .schedule import Schedule

THRESHOLD_SHARE = 0.995         # dynamic thresholding leaves this share of a picture's values within its limit
Time = TypeVar("Time", float, Tensor)           # one time for a whole batch, or one for each picture
BothDenoisers = Callable[[Tensor, float], tuple[Denoised, Denoised]]    # → with the prompt and without, in one pass


def classifier_free(
    conditional: Denoiser, both: BothDenoisers, *, schedule: Schedule, scale: float, interval: tuple[float, float],
    has_alpha: bool = False,
) -> Denoiser:
    """Classifier-free guidance: image_u + scale·(image_c - image_u) (Ho & Salimans 2021, eq. 6).

    image_c is the estimate of the clean picture with the prompt, image_u the one with the empty caption, or with the
    negative prompt if there is one. The formula is the same for estimates of the noise. The guided picture can leave
    the pixel range, so it is thresholded. The variance is that of the estimate with the prompt.

    interval: (low, high). Guidance acts only where low < sigma/alpha ≤ high; elsewhere the conditional estimate is
    used. Guiding only in the middle gives better pictures for fewer evaluations (Kynkäänniemi et al. 2024). scale: 1 is
    no guidance; 0 is image_u inside the interval. has_alpha: whether the last channel is the opacity.
    """
    low, high = interval

    def denoise(noisy: Tensor, t: float) -> Denoised:
        log_snr = schedule.log_snr(torch.tensor(t, dtype=torch.float64)).item()
        if scale == 1 or not low < math.exp(-log_snr / 2) <= high:
            return conditional(noisy, t)
        prompted, negative = both(noisy, t)
        image = negative.image + scale * (prompted.image - negative.image)
        return Denoised(dynamic_threshold(image, has_alpha=has_alpha), prompted.log_fraction, guided=True)

    return denoise


def dynamic_threshold(image: Tensor, share: float = THRESHOLD_SHARE, *, has_alpha: bool = False) -> Tensor:
    """clip(image, -a, a) / a, which pulls each picture back into [-1, 1] (Saharia et al. 2022, section 2.3).

    a is the limit that `share` of the picture's absolute values do not exceed, and at least 1. For the last channel, if
    it is the opacity, a is 1: divided, what should be invisible would be seen, and what should be opaque seen through.

    image: (N, C, H, W) → the same shape.
    """
    magnitudes = image.abs().flatten(1)                                                 # (N, C·H·W)
    above = magnitudes.shape[1] - math.ceil(share * magnitudes.shape[1])
    limit = magnitudes.topk(above + 1, dim=1).values[:, -1].clamp(min=1)                # (N,)
    limit = limit.reshape(-1, *(1,) * (image.ndim - 1))                                 # (N, 1, 1, 1)
    if has_alpha:
        limit = torch.cat([limit.expand(-1, image.shape[1] - 1, -1, -1), torch.ones_like(limit)], dim=1)
    return image.clamp(-limit, limit) / limit


def within_range(denoise: Callable[[Tensor, Time], Denoised]) -> Callable[[Tensor, Time], Denoised]:
    """The denoiser with its estimates clipped to [-1, 1], the range of pictures (Saharia et al. 2022, "static").

    At the noisy end, an estimate that follows from an estimated noise has that estimate's error sigma/alpha times over.
    Estimates that `dynamic_threshold` has pulled back are not changed again.
    """

    def clipped(noisy: Tensor, t: Time) -> Denoised:
        denoised = denoise(noisy, t)
        return denoised._replace(image=denoised.image.clamp(-1, 1))

    return clipped
