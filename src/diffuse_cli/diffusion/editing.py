"""Editing: reverse diffusion that starts from a picture, or that may change only a part of one.

Both work with any of the samplers, and know no network: the guided denoiser, whose negative prompt has already taken
the place of the empty caption, comes in as a function.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .samplers import Denoised, Denoiser, FreshNoise, Step, run_sampler
from .schedule import FIRST_TIME, Schedule, jump_log_variances

JUMP = 2                                        # steps that a resampling goes back: docs/decisions.md


def start_from(
    image: Tensor, noise: Tensor, times: Sequence[float], strength: float, schedule: Schedule
) -> tuple[Tensor, list[float]]:
    """Where a sampler starts in order to change a given picture: (noisy, its times) (SDEdit: Meng et al. 2022, alg. 1).

    The strength is the time that the picture is diffused to, so how much of it is lost depends on the schedule, never
    on the number of steps. The times are those of the whole way, `times`, from there on: the one nearest to the
    strength is moved to it, those before are left out, so steps are as fine as without a picture. At strength 0 only
    the time 0 is left: a sampler has nothing to do and yields nothing, and `noisy` is the picture itself. At 1 all are
    left. The start is then no pure noise, but the picture at the level of noise where training ends: a trace that
    cannot be seen, and that every picture in training had.

    image, noise: (N, C, H, W), the picture in [-1, 1]; times: falling from 1 to 0; strength: from 0 to 1.
    """
    if strength == 0:
        return image, [0.0]
    start = max(strength, FIRST_TIME)                                   # no network was trained below
    nearest = min(range(len(times) - 1), key=lambda number: abs(times[number] - start))
    return schedule.add_noise(image, noise, torch.tensor([start], dtype=torch.float64)), [start, *times[nearest + 1 :]]


def inpaint(
    name: str, denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *,
    image: Tensor, mask: Tensor, resamplings: int, fresh_noise: FreshNoise,
) -> Iterator[Step]:
    """The sampler `name` of config.SAMPLERS, changing only the masked pixels (RePaint: Lugmayr et al. 2022, alg. 1).

    The known pixels of every estimate are put right, which keeps those of the noisy picture on the forward diffusion of
    the given one. At the end they are the given ones, exactly. So that the new pixels come to fit, each stretch of JUMP
    steps is taken `resamplings` times, with the picture diffused back to the stretch's start in between; 1 is a single
    pass without jumps, in which a multistep sampler keeps its history throughout.

    noisy, times: from `start_from`, with strength 1 if nothing of the masked pixels is to be kept. image: the given
    picture, (N or 1, C, H, W) in [-1, 1]. mask: (N or 1, 1, H, W) bool, True where new content is wanted; there are no
    degrees of it. fresh_noise is called with 0, 1, 2, …, a new number for each draw. Yields the state after each of the
    resamplings·(len(times) - 1) steps; their times fall, but for the jumps.
    """
    draws = itertools.count()

    def draw(_: int = 0) -> Tensor:
        return fresh_noise(next(draws))

    def denoise_unknown(noisy: Tensor, t: float) -> Denoised:
        now = denoise(noisy, t)
        fraction = now.log_fraction
        return now._replace(image=torch.where(mask, now.image, image),
                            log_fraction=None if fraction is None else torch.where(mask, fraction, 0))    # no doubt

    stretch = JUMP if resamplings > 1 else max(len(times) - 1, 1)
    for first in range(0, len(times) - 1, stretch):
        part = times[first : first + stretch + 1]
        for resampling in range(resamplings):
            if resampling:
                noisy = diffuse_further(noisy, draw(), part[-1], part[0], schedule)
            for step in run_sampler(name, denoise_unknown, noisy, part, schedule, fresh_noise=draw):
                noisy = torch.where(mask, step.noisy, image) if step.t == 0 else step.noisy
                yield step._replace(noisy=noisy)


def diffuse_further(noisy: Tensor, noise: Tensor, s: float, t: float, schedule: Schedule) -> Tensor:
    """Forward diffusion from time s to t > s: q(noisy_t | noisy_s) (Ho et al. 2020, eq. 2; RePaint, eq. 1)."""
    log_snr = torch.tensor(math.inf) if s == 0 else schedule.log_snr(torch.tensor(s, dtype=torch.float64))
    log_beta, _ = jump_log_variances(schedule.log_snr(torch.tensor(t, dtype=torch.float64)), log_snr)
    beta = log_beta.exp().item()
    return math.sqrt(1 - beta) * noisy + math.sqrt(beta) * noise
