"""Which times a sampler visits on its way from 1, noise, to 0, the clean picture.

In formulas rho is the noise level sigma/alpha, λ = -2 ln rho the log-SNR, and R² the number of pixels, so that R is the
side of a square.
"""

import math

import torch
from torch import Tensor

from .schedule import Schedule

FEW_STEPS = 10                  # largest number of steps for which `few_levels` are taken
HIDING_LEVEL = 1.5              # standard deviation of noise that hides the mean of a channel, which is within [-1, 1]
VISIBLE_LEVEL = 0.03            # rho below which the noise in a picture cannot be seen
MEAN_DEVIATION = 0.3            # standard deviation of the mean of pictures, which is in [-1, 1]
VARIANCE = 0.3                  # mean variance of pixels in [-1, 1]
_LEVELS = 4_001                 # at which the density of steps is integrated


def sampling_times(schedule: Schedule, steps: int, resolution: float) -> list[float]:
    """steps + 1 times from 1 to 0: those of `few_levels` for at most 10 steps, otherwise those of `many_levels`."""
    levels = few_levels(schedule, steps, resolution) if steps <= FEW_STEPS else many_levels(schedule, steps, resolution)
    return [1.0, *schedule.time_of(levels).tolist(), 0.0]


def many_levels(schedule: Schedule, steps: int, resolution: float) -> Tensor:
    """One step to rho = 1.5·R, then steps even in log-SNR to 0.03. → (steps - 1,) log-SNRs, float64

    At rho = 1.5·R, the noise in the mean of a channel, which has R² pixels, has the standard deviation 1.5: more than
    any mean. So nothing of the picture is decided at higher noise, and its brightness is decided first below. Below
    0.03 there is no noise left to see.
    """
    coarse, fine = -2 * math.log(HIDING_LEVEL * resolution), -2 * math.log(VISIBLE_LEVEL)       # log-SNRs
    top = schedule.log_snr(torch.ones(1, dtype=torch.float64)).item()
    return torch.linspace(max(coarse, top + 0.5), fine, steps - 1, dtype=torch.float64)


def few_levels(schedule: Schedule, steps: int, resolution: float) -> Tensor:
    """The levels of few steps, where the estimate of a picture changes most. → (steps - 1,) log-SNRs, float64

    A step of DDIM from rho_t to rho_s loses the share v·(rho_t - rho_s)²/((v + rho_s²)(v + rho_t²)) of the variance v
    of a Gaussian: too few steps make grey pictures. In short steps h of ln rho the loss is h²·w per variance, with
    w = v·rho²/(v + rho²)², and v·w is half the derivative of the mean squared error of the best estimate by ln rho.
    The sum of h²·w is least where h is in proportion to 1/√w, so that the levels are even in the integral of √w.

    Natural pictures have variances c/f² at frequency f (Field 1987), from MEAN_DEVIATION²·R² of the mean down to
    VARIANCE/(2 ln R) of the finest. Integrated over all frequencies, w is 1/(1 + rho²/coarse²) - 1/(1 + rho²/fine²) but
    for a factor, where coarse and fine are the standard deviations at these two ends.
    """
    noisiest = -schedule.log_snr(torch.ones(1, dtype=torch.float64)).item() / 2
    coarse = min(math.log(MEAN_DEVIATION * resolution), noisiest - math.log(4))
    fine = math.log(VARIANCE / (2 * math.log(resolution))) / 2
    log_rho = torch.linspace(fine - 10, coarse + 10, _LEVELS, dtype=torch.float64)
    density = (torch.sigmoid(2 * (coarse - log_rho)) - torch.sigmoid(2 * (fine - log_rho))).clamp(min=0).sqrt()
    integral = density.cumsum(0) / density.sum()                       # rises from 0 to 1
    wanted = 1 - torch.arange(1, steps, dtype=torch.float64) / steps
    place = torch.searchsorted(integral, wanted).clamp(1, _LEVELS - 1)
    before, after = integral[place - 1], integral[place]
    return -2 * torch.lerp(log_rho[place - 1], log_rho[place], (wanted - before) / (after - before))
