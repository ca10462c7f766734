"""Editing pictures: reverse diffusion that starts from a given picture, or that changes only a part of one.

Both work with any of the samplers. The denoiser that they are given is already guided, and a negative prompt has
already taken the place of the empty caption.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .samplers import Denoised, Denoiser, FreshNoise, Step, run_sampler
from .schedule import FIRST_TIME, Schedule, jump_log_variances

JUMP_STEPS = 2                  # number of steps that each resampling goes back; chosen in docs/decisions.md


def start_from(
    image: Tensor, noise: Tensor, times: Sequence[float], strength: float, schedule: Schedule
) -> tuple[Tensor, list[float]]:
    """Diffuse a picture to the time `strength`, from which a sampler changes it (SDEdit: Meng et al. 2022, alg. 1).

    noisy = alpha·image + sigma·noise. Because the strength is a time, the schedule decides how much of the picture is
    lost, and the number of steps does not. Of the sampler's `times`, the one nearest to the strength is moved to it,
    and the earlier ones are left out. So steps are as fine as without a picture.

    At strength 0, only the time 0 is left: a sampler has nothing to do and yields nothing, and the noisy picture is the
    given picture itself. At strength 1, all times are left. The start is then not pure noise, but the picture at the
    noise level at which training ends: a trace that cannot be seen, and that every picture in training had.

    image: (N, C, H, W) in [-1, 1]; noise: (N, C, H, W); times: falling from 1 to 0; strength: from 0 to 1. → the noisy
    picture (N, C, H, W), and its times
    """
    if strength == 0:
        return image, [0.0]
    start = max(strength, FIRST_TIME)                                   # no network was trained below
    nearest = min(range(len(times) - 1), key=lambda number: abs(times[number] - start))
    return schedule.add_noise(image, noise, torch.tensor(start, dtype=torch.float64)), [start, *times[nearest + 1 :]]


def inpaint(
    name: str, denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *,
    image: Tensor, mask: Tensor, resamplings: int, fresh_noise: FreshNoise,
) -> Iterator[Step]:
    """The sampler `name` of config.SAMPLERS, changing only the masked pixels (RePaint: Lugmayr et al. 2022, alg. 1).

    In every estimate, the known pixels are replaced by the given ones: estimate ← mask·estimate + (1 - mask)·image.
    This keeps the known pixels of the noisy picture on the forward diffusion of the given one, and at the end they are
    the given ones exactly. Each stretch of `JUMP_STEPS` steps is taken `resamplings` times, with the picture diffused
    back to the stretch's start in between, so that the new pixels come to fit. 1 is a single pass without jumps, in
    which a multistep sampler keeps its history throughout.

    noisy (N, C, H, W) and times: from `start_from`, with strength 1 if nothing of the masked pixels is to be kept.
    image: the given picture, (N or 1, C, H, W) in [-1, 1]. mask: (N or 1, 1, H, W) bool, True where new content is
    wanted; there are no degrees. fresh_noise: called with 0, 1, 2, …, a new number for each draw. Yields the state
    after each of the resamplings·(len(times) - 1) steps; the times of these states decrease, except at the jumps.
    """
    draws = itertools.count()

    def draw(_: int = 0) -> Tensor:
        return fresh_noise(next(draws))

    def denoise_unknown(noisy: Tensor, t: float) -> Denoised:
        denoised = denoise(noisy, t)
        fraction = denoised.log_fraction
        return denoised._replace(
            image=torch.where(mask, denoised.image, image),
            log_fraction=None if fraction is None else torch.where(mask, fraction, 0))      # known pixels: beta_tilde

    stretch = JUMP_STEPS if resamplings > 1 else max(len(times) - 1, 1)
    for first in range(0, len(times) - 1, stretch):
        stretch_times = times[first : first + stretch + 1]
        for resampling in range(resamplings):
            if resampling:
                noisy = diffuse_further(noisy, draw(), stretch_times[-1], stretch_times[0], schedule)
            for step in run_sampler(name, denoise_unknown, noisy, stretch_times, schedule, fresh_noise=draw):
                noisy = torch.where(mask, step.noisy, image) if step.t == 0 else step.noisy
                yield step._replace(noisy=noisy)


def diffuse_further(noisy: Tensor, noise: Tensor, s: float, t: float, schedule: Schedule) -> Tensor:
    """√(1 - beta)·noisy_s + √beta·noise: forward diffusion from time s to t > s, a draw from q(noisy_t | noisy_s).

    Ho et al. 2020, eq. 2; RePaint, eq. 1. noisy, noise: (N, C, H, W) → (N, C, H, W).
    """
    log_snr = torch.tensor(math.inf) if s == 0 else schedule.log_snr(torch.tensor(s, dtype=torch.float64))
    log_beta, _ = jump_log_variances(schedule.log_snr(torch.tensor(t, dtype=torch.float64)), log_snr)
    beta = log_beta.exp().item()
    return math.sqrt(1 - beta) * noisy + math.sqrt(beta) * noise
