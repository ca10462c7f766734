"""Reverse diffusion: from noise to a picture, by five samplers over one `denoise` function.

Each sampler is an iterator: it yields the state after every step, so that a caller can show, stop or keep any of them.
Written against functions, never a network: with the exact denoiser of Gaussian data each must converge to the closed
form at its own order, which is how they are tested. Times fall from 1 to 0; time 0 is the clean picture.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .losses import fine_log_variances
from .schedule import Schedule, jump_log_variances


class Denoised(NamedTuple):
    """What a denoiser says of a noisy picture."""

    image: Tensor                               # estimate of the clean picture, (N, C, H, W)
    log_fraction: Tensor | None = None          # learned variance, from beta_tilde (0) to beta (1), (N, C, H, W)
    guided: bool = False                        # whether guidance acted: a multistep solver restarts where this changes


class Step(NamedTuple):
    """The state after a step."""

    t: float                                    # the time reached
    noisy: Tensor                               # (N, C, H, W)
    image: Tensor                               # the estimate of the clean picture that led here


Denoiser = Callable[[Tensor, float], Denoised]
FreshNoise = Callable[[int], Tensor]            # number of the step → standard normal noise, (N, C, H, W)


# ── Times and levels ────────────────────────────────────────────────────────────────────────────────────────────────


def sampling_times(schedule: Schedule, steps: int, resolution: int) -> list[float]:
    """steps + 1 times from 1 to 0: one step to sigma/alpha = 8·resolution/64, then evenly in log-SNR to 0.03, then 0.

    Above that level a picture holds only its mean, and a single step does; below 0.03 there is nothing left to see.
    """
    coarse, fine = -2 * math.log(8 * resolution / 64), -2 * math.log(0.03)
    top = schedule.log_snr(torch.ones(1, dtype=torch.float64)).item()
    log_snr = torch.linspace(max(coarse, top + 0.5), fine, max(steps - 1, 0), dtype=torch.float64)
    return [1.0, *schedule.time_of(log_snr).tolist(), 0.0]


class _Level(NamedTuple):
    alpha: float
    sigma: float
    log_snr: float


def _level(schedule: Schedule, t: float) -> _Level:
    if t == 0:
        return _Level(1.0, 0.0, math.inf)
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(time)
    return _Level(alpha.item(), sigma.item(), schedule.log_snr(time).item())


def _jumps(schedule: Schedule, times: Sequence[float]) -> Iterator[tuple[float, _Level, float, _Level]]:
    """(t, level at t, s, level at s) for each step t → s."""
    for t, s in itertools.pairwise(times):
        yield t, _level(schedule, t), s, _level(schedule, s)


# ── Deterministic samplers ──────────────────────────────────────────────────────────────────────────────────────────


def ddim(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """Song, Meng & Ermon 2021, eq. 12 with eta = 0: keep the estimated noise, lower its level. First order."""
    for t, at_t, s, at_s in _jumps(schedule, times):
        image = denoise(noisy, t).image
        noise = (noisy - at_t.alpha * image) / at_t.sigma
        noisy = at_s.alpha * image + at_s.sigma * noise
        yield Step(s, noisy, image)


def euler(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """Euler's rule on the probability-flow ODE of Karras et al. 2022 (their algorithm 1 without the correction).

    In the variable noisy/alpha it is the same map as DDIM; both names are in use. First order.
    """
    yield from _probability_flow(denoise, noisy, times, schedule, corrected=False)


def heun(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """Karras et al. 2022, algorithm 1: Euler's step, then the mean of the slopes at both ends. Second order.

    Two evaluations for each step but the one to the clean picture.
    """
    yield from _probability_flow(denoise, noisy, times, schedule, corrected=True)


def _probability_flow(
    denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *, corrected: bool
) -> Iterator[Step]:
    """d x / d rho = (x - image) / rho with x = noisy/alpha and rho = sigma/alpha.

    Written so that x, thousands at the noisy end, is not cancelled by a step of its own size: float32 has seven digits.
    """
    for t, at_t, s, at_s in _jumps(schedule, times):
        rho_t, rho_s = at_t.sigma / at_t.alpha, at_s.sigma / at_s.alpha
        image = denoise(noisy, t).image
        slope = (noisy / at_t.alpha - image) / rho_t
        reached = image + rho_s * slope                                 # x + (rho_s - rho_t)·slope
        if corrected and s > 0:
            image = denoise(at_s.alpha * reached, s).image
            reached = reached + (rho_s - rho_t) * ((reached - image) / rho_s - slope) / 2
        noisy = at_s.alpha * reached
        yield Step(s, noisy, image)


def dpmpp_2m(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): the estimate is extrapolated in half the log-SNR. Second order.

    The first step, the step to the clean picture and the first after guidance is switched on or off are of first
    order: an extrapolation across a jump of the denoiser would be wrong.
    """
    previous: Denoised | None = None
    previous_h = 0.0
    for t, at_t, s, at_s in _jumps(schedule, times):
        now = denoise(noisy, t)
        h = (at_s.log_snr - at_t.log_snr) / 2
        image = now.image
        if previous is not None and previous.guided == now.guided and s > 0:
            image = now.image + h / (2 * previous_h) * (now.image - previous.image)
        noisy = at_s.sigma / at_t.sigma * noisy - at_s.alpha * math.expm1(-h) * image
        previous, previous_h = now, h
        yield Step(s, noisy, now.image)


# ── Ancestral sampling ──────────────────────────────────────────────────────────────────────────────────────────────


def ddpm(
    denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *,
    fresh_noise: FreshNoise, variance_rule: str = "linear",
) -> Iterator[Step]:
    """Ancestral sampling (Ho et al. 2020, algorithm 2), with the learned variance where the denoiser gives one.

    For jumps t → s the fraction learned on the fine grid is used as it is between *logarithms* of the jump's bounds
    (`variance_rule="log"`, Nichol & Dhariwal 2021, eq. 15), or turned into the fraction between the bounds themselves
    (`"linear"`), which for Gaussian data does not depend on the jump: the logarithmic rule draws too little noise at
    few steps. Without a learned variance beta_tilde is used. The step to the clean picture adds no noise.
    """
    for number, (t, at_t, s, at_s) in enumerate(_jumps(schedule, times)):
        now = denoise(noisy, t)
        kept = -math.expm1(at_t.log_snr - at_s.log_snr)                 # share of the noise that this jump removes
        noisy = (at_s.alpha * kept * now.image
                 + at_t.alpha / at_s.alpha * (at_s.sigma / at_t.sigma) ** 2 * noisy)
        if s > 0:
            deviation = _jump_deviation(schedule, t, at_t, at_s, now.log_fraction, rule=variance_rule)
            noisy = noisy + deviation * fresh_noise(number)
        yield Step(s, noisy, now.image)


def _jump_deviation(
    schedule: Schedule, t: float, at_t: _Level, at_s: _Level, log_fraction: Tensor | None, *, rule: str
) -> Tensor | float:
    """The standard deviation of p(noisy_s | noisy_t)."""
    log_beta, log_beta_tilde = (
        x.item() for x in jump_log_variances(
            torch.tensor(at_t.log_snr, dtype=torch.float64), torch.tensor(at_s.log_snr, dtype=torch.float64)))
    if log_fraction is None:
        return math.exp(log_beta_tilde / 2)
    if rule == "log":
        return torch.exp((log_beta_tilde + log_fraction * (log_beta - log_beta_tilde)) / 2)
    fine_log_beta, fine_log_beta_tilde = fine_log_variances(schedule, torch.tensor([t], dtype=torch.float64))
    log_ratio = (fine_log_beta - fine_log_beta_tilde).item()
    fraction = torch.expm1(log_fraction * log_ratio) / math.expm1(log_ratio)
    beta, beta_tilde = math.exp(log_beta), math.exp(log_beta_tilde)
    return torch.sqrt(beta_tilde + fraction * (beta - beta_tilde))


# ── By name ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Sampler = Callable[[Denoiser, Tensor, Sequence[float], Schedule], Iterator[Step]]
DETERMINISTIC: dict[str, Sampler] = {"dpmpp-2m": dpmpp_2m, "ddim": ddim, "heun": heun, "euler": euler}


def run_sampler(
    name: str, denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *, fresh_noise: FreshNoise
) -> Iterator[Step]:
    """The sampler `name` of config.SAMPLERS; only `ddpm` draws fresh noise."""
    if name == "ddpm":
        return ddpm(denoise, noisy, times, schedule, fresh_noise=fresh_noise)
    return DETERMINISTIC[name](denoise, noisy, times, schedule)
