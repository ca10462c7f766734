"""Reverse diffusion: from noise to a picture, by seven samplers over one `denoise` function.

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

from .losses import fine_log_variances, linear_fraction
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

DROWNED = 1.5                                   # noise in the mean of a channel, which is within [-1, 1]


# ── Times and levels ────────────────────────────────────────────────────────────────────────────────────────────────


def sampling_times(schedule: Schedule, steps: int, resolution: int) -> list[float]:
    """steps + 1 times from 1 to 0: one step to sigma/alpha = 1.5·resolution, then evenly in log-SNR to 0.03, then 0.

    The noise in the mean of a channel, one of resolution² pixels, is then 1.5, more than any mean: nothing is decided
    above, everything below, the picture's brightness first. Below 0.03 there is nothing left to see.
    """
    coarse, fine = -2 * math.log(DROWNED * resolution), -2 * math.log(0.03)
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

    Two evaluations for each step but the first, from pure noise, over which no slope is a straight line's, and the one
    to the clean picture.
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
        if corrected and t < 1 and s > 0:
            image = denoise(at_s.alpha * reached, s).image
            reached = reached + (rho_s - rho_t) * ((reached - image) / rho_s - slope) / 2
        noisy = at_s.alpha * reached
        yield Step(s, noisy, image)


# ── Deterministic, in half the log-SNR ──────────────────────────────────────────────────────────────────────────────


class _Taken(NamedTuple):
    """A step as it was taken: the state and the estimate it began with, and both its levels."""

    noisy: Tensor
    denoised: Denoised
    start: _Level
    end: _Level

    @property
    def h(self) -> float:
        return (self.end.log_snr - self.start.log_snr) / 2


def dpmpp_2m(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): the estimate is extrapolated in half the log-SNR. Second order.

    The first step, the step to the clean picture and the first after guidance is switched on or off are of first
    order: an extrapolation across a jump of the denoiser would be wrong.
    """
    before: _Taken | None = None
    for t, at_t, s, at_s in _jumps(schedule, times):
        taken = _Taken(noisy, denoise(noisy, t), at_t, at_s)
        noisy = _predicted(taken, _unless_switched(before, taken.denoised))
        before = taken
        yield Step(s, noisy, taken.denoised.image)


def unipc(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """UniPC-2 (Zhao et al. 2023, algorithms 1 and 2 with B2, for the clean picture): predict, then correct.

    The predictor is DPM-Solver++(2M)'s step. The evaluation where it arrives serves twice: it corrects the step that
    led there, and then it is the estimate for the next. So a step costs one evaluation; what is yielded is not yet
    corrected, and the last step never is. Third order, because the predictor's error enters only by way of the
    evaluation. A step across a switch of guidance is not corrected, and the next is of first order.
    """
    before: _Taken | None = None
    last: _Taken | None = None
    for t, at_t, s, at_s in _jumps(schedule, times):
        now = denoise(noisy, t)
        last = _unless_switched(last, now)
        if last is not None:
            noisy = _corrected(last, before, now.image)
        before, last = last, _Taken(noisy, now, at_t, at_s)
        noisy = _predicted(last, before)
        yield Step(s, noisy, now.image)


def _unless_switched(before: _Taken | None, now: Denoised) -> _Taken | None:
    """The step before, but None where guidance was switched on or off in between: the estimates are not in line."""
    return before if before is not None and before.denoised.guided == now.guided else None


def _extrapolated(taken: _Taken, before: _Taken | None) -> Tensor:
    """The estimate in the middle of a step, on the straight line through its own and the one before."""
    image = taken.denoised.image
    if before is None or taken.end.sigma == 0:
        return image
    return image + taken.h / (2 * before.h) * (image - before.denoised.image)


def _predicted(taken: _Taken, before: _Taken | None) -> Tensor:
    """The state after a step. With a constant estimate it would be exact (Lu et al. 2022, eq. 8)."""
    kept, gained = taken.end.sigma / taken.start.sigma, -taken.end.alpha * math.expm1(-taken.h)
    return kept * taken.noisy + gained * _extrapolated(taken, before)


def _corrected(taken: _Taken, before: _Taken | None, arrived: Tensor) -> Tensor:
    """The same with the estimate `arrived` at the step's end known: a parabola through three, or the mean of two.

    On the parabola image + slope·u + bend·u², u from 0 to h, the step is exact; the paper's linear system solves for
    the same weights.
    """
    image, h = taken.denoised.image, taken.h
    constant = -math.expm1(-h)                                          # ∫ e^(u - h) du
    if before is None:
        change = constant * (image + arrived) / 2
    else:
        linear = h - constant                                           # ∫ e^(u - h) u du
        quadratic = h * h - 2 * linear                                  # ∫ e^(u - h) u² du
        rise, rise_before = (arrived - image) / h, (image - before.denoised.image) / before.h
        bend = (rise - rise_before) / (h + before.h)
        change = constant * image + linear * (rise - h * bend) + quadratic * bend
    return taken.end.sigma / taken.start.sigma * taken.noisy + taken.end.alpha * change


# ── With fresh noise at every step ────────────────────────────────────────────────────────────────────────────────────


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
        noisy, _ = _posterior(noisy, now.image, at_t, at_s)
        if s > 0:
            deviation = _jump_deviation(schedule, t, at_t, at_s, now.log_fraction, rule=variance_rule)
            noisy = noisy + deviation * fresh_noise(number)
        yield Step(s, noisy, now.image)


def dpmpp_sde(
    denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *, fresh_noise: FreshNoise
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, section 5): ancestral steps with the estimate extrapolated as in 2M.

    The noise drawn is beta_tilde's, whatever variance was learned: the extrapolation amplifies what the last noise
    changed in the estimate, and so makes up for the denoiser's doubt. For Gaussian data the variance of the samples is
    right to second order. One evaluation for each step; it restarts at first order where `dpmpp_2m` does.
    """
    before: _Taken | None = None
    for number, (t, at_t, s, at_s) in enumerate(_jumps(schedule, times)):
        taken = _Taken(noisy, denoise(noisy, t), at_t, at_s)
        image = _extrapolated(taken, _unless_switched(before, taken.denoised))
        noisy, deviation = _posterior(noisy, image, at_t, at_s)
        if s > 0:
            noisy = noisy + deviation * fresh_noise(number)
        before = taken
        yield Step(s, noisy, taken.denoised.image)


def _posterior(noisy: Tensor, image: Tensor, at_t: _Level, at_s: _Level) -> tuple[Tensor, float]:
    """Mean and standard deviation of q(noisy_s | noisy_t, image) (Ho et al. 2020, eq. 7, for jumps of any length)."""
    kept = -math.expm1(at_t.log_snr - at_s.log_snr)                     # share of the noise that this jump removes
    mean = at_s.alpha * kept * image + at_t.alpha / at_s.alpha * (at_s.sigma / at_t.sigma) ** 2 * noisy
    return mean, at_s.sigma * math.sqrt(kept)


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
    fraction = linear_fraction(log_fraction, (fine_log_beta - fine_log_beta_tilde).to(log_fraction))
    beta, beta_tilde = math.exp(log_beta), math.exp(log_beta_tilde)
    return torch.sqrt(beta_tilde + fraction * (beta - beta_tilde))


# ── By name ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Sampler = Callable[[Denoiser, Tensor, Sequence[float], Schedule], Iterator[Step]]
DETERMINISTIC: dict[str, Sampler] = {
    "dpmpp-2m": dpmpp_2m, "unipc": unipc, "ddim": ddim, "heun": heun, "euler": euler}


def run_sampler(
    name: str, denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *, fresh_noise: FreshNoise
) -> Iterator[Step]:
    """The sampler `name` of config.SAMPLERS; `ddpm` and `dpmpp-sde` draw fresh noise once for each step."""
    if name == "ddpm":
        return ddpm(denoise, noisy, times, schedule, fresh_noise=fresh_noise)
    if name == "dpmpp-sde":
        return dpmpp_sde(denoise, noisy, times, schedule, fresh_noise=fresh_noise)
    return DETERMINISTIC[name](denoise, noisy, times, schedule)
