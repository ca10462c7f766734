"""Samplers: reverse diffusion from noise to a picture, written against a function that estimates the clean picture.

A sampler starts from `noisy`, pictures (N, C, H, W) at the first of `times`, and goes through all times, which decrease
from 1 (noise) to 0 (the clean picture). It is an iterator that yields the state after every step, so that a caller can
show, stop or keep any of them. Because samplers know no network, they are tested with the exact denoiser of Gaussian
data, for which each must converge to the closed-form solution at its own order.

In formulas, t → s is the current step, `image` and `noise` are the estimates at t, and λ is the log-SNR.
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
    """A denoiser's output for a noisy picture."""

    image: Tensor                               # (N, C, H, W), estimate of the clean picture
    log_fraction: Tensor | None = None          # (N, C, H, W), learned variance: 0 is beta_tilde, 1 is beta
    guided: bool = False                        # whether guidance acted; a multistep sampler restarts where it changes


class Step(NamedTuple):
    """The state after a step of a sampler."""

    t: float                                    # the time reached
    noisy: Tensor                               # (N, C, H, W), the noisy picture at that time
    image: Tensor                               # (N, C, H, W), the estimate of the clean picture that the step used


Denoiser = Callable[[Tensor, float], Denoised]  # (noisy picture (N, C, H, W), its time) → estimate
FreshNoise = Callable[[int], Tensor]            # number of the step → standard normal noise, (N, C, H, W)


# ── Levels ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Level(NamedTuple):
    """The schedule's coefficients at one time."""

    alpha: float
    sigma: float
    log_snr: float


def _level(schedule: Schedule, t: float) -> _Level:
    """The level at time t. At 0, the clean picture, the log-SNR is infinite."""
    if t == 0:
        return _Level(1.0, 0.0, math.inf)
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = schedule.alpha_sigma(time)
    return _Level(alpha.item(), sigma.item(), schedule.log_snr(time).item())


def _jumps(schedule: Schedule, times: Sequence[float]) -> Iterator[tuple[float, _Level, float, _Level]]:
    """(t, level at t, s, level at s) for each step t → s."""
    for t, s in itertools.pairwise(times):
        yield t, _level(schedule, t), s, _level(schedule, s)


# ── Deterministic samplers in the noise level ───────────────────────────────────────────────────────────────────────


def ddim(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """DDIM: noisy_s = alpha_s·image + sigma_s·noise (Song, Meng & Ermon 2021, eq. 12 with eta = 0).

    The estimated noise is kept, and its level is lowered. The same map is Euler's rule on the probability-flow ODE
    d x / d rho = (x - image) / rho, with x = noisy/alpha and rho = sigma/alpha, whose slope is the estimated noise
    (Karras et al. 2022, algorithm 1 without the correction). First order.
    """
    for t, at_t, s, at_s in _jumps(schedule, times):
        image = denoise(noisy, t).image
        noise = (noisy - at_t.alpha * image) / at_t.sigma
        noisy = at_s.alpha * image + at_s.sigma * noise
        yield Step(s, noisy, image)


def heun(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """Heun's rule on d x / d rho = (x - image) / rho, x = noisy/alpha, rho = sigma/alpha (Karras et al. 2022, alg. 1).

    x_s = x_t + (rho_s - rho_t)·(slope at t + slope at s)/2, with the slope at s taken where Euler's step arrives.
    Second order.

    A step costs two evaluations. The first step, from pure noise, and the last, to the clean picture, are Euler's and
    cost one: the first is so wide that the slope at its end says nothing of the rest, and at its end the last has none.
    """
    for t, at_t, s, at_s in _jumps(schedule, times):
        rho_t, rho_s = at_t.sigma / at_t.alpha, at_s.sigma / at_s.alpha
        image = denoise(noisy, t).image
        slope = (noisy / at_t.alpha - image) / rho_t
        # Euler's step x + (rho_s - rho_t)·slope, in a form that subtracts no two numbers of the size of x: x is in the
        # thousands at the noisy end, and float32 has seven digits.
        reached = image + rho_s * slope
        if t < 1 and s > 0:
            image = denoise(at_s.alpha * reached, s).image
            reached = reached + (rho_s - rho_t) * ((reached - image) / rho_s - slope) / 2
        noisy = at_s.alpha * reached
        yield Step(s, noisy, image)


# ── Deterministic multistep samplers, in half the log-SNR ───────────────────────────────────────────────────────────


class _SolverStep(NamedTuple):
    """A step t → s of a multistep sampler: the state and the estimate at t, and the levels at both ends."""

    noisy: Tensor                               # (N, C, H, W)
    denoised: Denoised
    start: _Level
    end: _Level

    @property
    def h(self) -> float:
        """The step's length, (λs - λt)/2."""
        return (self.end.log_snr - self.start.log_snr) / 2


def dpmpp_2m(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): the estimate is extrapolated in half the log-SNR. Second order.

    noisy_s = sigma_s/sigma_t·noisy_t - alpha_s·(e^(-h) - 1)·(image + h/(2·h_before)·(image - image_before)), where
    h = (λs - λt)/2, and `before` is the step before.

    Some steps are of first order, without the extrapolation: the first one, the one to the clean picture, and the
    first one after each switch of guidance on or off. At a switch the estimate jumps, and an extrapolation across it
    would be wrong. Yields a Step after every step.
    """
    before: _SolverStep | None = None
    for t, at_t, s, at_s in _jumps(schedule, times):
        step = _SolverStep(noisy, denoise(noisy, t), at_t, at_s)
        noisy = _predicted(step, _unless_switched(before, step.denoised))
        before = step
        yield Step(s, noisy, step.denoised.image)


def unipc(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """UniPC-2 (Zhao et al. 2023, algorithms 1 and 2 with B2, for the clean picture): predict, then correct.

    The predictor is the step of DPM-Solver++(2M). The evaluation at the point where it arrives is used twice: it
    corrects the step that led there, and it is the estimate for the next step. So a step costs one evaluation. The
    states that are yielded are not yet corrected, and the last one never is.

    Third order, because the predictor's error enters only through the evaluation. A step across a switch of guidance is
    not corrected, and the step after the switch is of first order.
    """
    before: _SolverStep | None = None
    last: _SolverStep | None = None
    for t, at_t, s, at_s in _jumps(schedule, times):
        denoised = denoise(noisy, t)
        last = _unless_switched(last, denoised)
        if last is not None:
            noisy = _corrected(last, before, denoised.image)
        before, last = last, _SolverStep(noisy, denoised, at_t, at_s)
        noisy = _predicted(last, before)
        yield Step(s, noisy, denoised.image)


def _unless_switched(before: _SolverStep | None, denoised: Denoised) -> _SolverStep | None:
    """The step before, or None if guidance was switched on or off since: the estimates are then not on one curve."""
    return before if before is not None and before.denoised.guided == denoised.guided else None


def _extrapolated(step: _SolverStep, before: _SolverStep | None) -> Tensor:
    """The estimate (N, C, H, W) in the middle of a step, on the straight line through its own and the one before."""
    image = step.denoised.image
    if before is None or step.end.sigma == 0:
        return image
    return image + step.h / (2 * before.h) * (image - before.denoised.image)


def _predicted(step: _SolverStep, before: _SolverStep | None) -> Tensor:
    """sigma_s/sigma_t·noisy_t - alpha_s·(e^(-h) - 1)·estimate (Lu et al. 2022, eq. 8): the state after a step.

    It is exact if the estimate is constant. → (N, C, H, W)
    """
    noisy_factor, image_factor = step.end.sigma / step.start.sigma, -step.end.alpha * math.expm1(-step.h)
    return noisy_factor * step.noisy + image_factor * _extrapolated(step, before)


def _corrected(step: _SolverStep, before: _SolverStep | None, arrived: Tensor) -> Tensor:
    """The state after a step when the estimate `arrived` at its end is known, too. All (N, C, H, W).

    The estimate along the step is treated as a parabola image + slope·u + bend·u², u from 0 to h, through the three
    estimates. For it the step is exact: sigma_s/sigma_t·noisy_t + alpha_s·∫ e^(u - h)·parabola(u) du. The paper solves
    a linear system for the same weights. Without a step before, the mean of two estimates takes the parabola's place.
    """
    image, h = step.denoised.image, step.h
    constant = -math.expm1(-h)                                          # ∫ e^(u - h) du
    if before is None:
        change = constant * (image + arrived) / 2
    else:
        linear = h - constant                                           # ∫ e^(u - h) u du
        quadratic = h * h - 2 * linear                                  # ∫ e^(u - h) u² du
        rise, rise_before = (arrived - image) / h, (image - before.denoised.image) / before.h
        bend = (rise - rise_before) / (h + before.h)
        change = constant * image + linear * (rise - h * bend) + quadratic * bend
    return step.end.sigma / step.start.sigma * step.noisy + step.end.alpha * change


# ── Samplers with fresh noise at every step ─────────────────────────────────────────────────────────────────────────


def ddpm(
    denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *,
    fresh_noise: FreshNoise, variance_rule: str = "linear",
) -> Iterator[Step]:
    """Ancestral sampling: noisy_s is drawn from p(noisy_s | noisy_t) (Ho et al. 2020, algorithm 2).

    noisy_s = alpha_s·kappa·image + alpha_t/alpha_s·sigma_s²/sigma_t²·noisy_t + √variance·fresh noise, where
    kappa = 1 - e^(λt - λs). The step to the clean picture adds no noise.

    The variance is the learned one if the denoiser gives it, otherwise beta_tilde. Its fraction between the bounds was
    learned for fine steps of 1/1000. `variance_rule="log"` uses the same fraction between the *logarithms* of a longer
    jump's bounds (Nichol & Dhariwal 2021, eq. 15), which draws too little noise at few steps. `"linear"` first turns it
    into the fraction between the bounds themselves, which for Gaussian data does not depend on the jump.
    """
    for number, (t, at_t, s, at_s) in enumerate(_jumps(schedule, times)):
        denoised = denoise(noisy, t)
        noisy, _ = _posterior(noisy, denoised.image, at_t, at_s)
        if s > 0:
            deviation = _jump_deviation(schedule, t, at_t, at_s, denoised.log_fraction, rule=variance_rule)
            noisy = noisy + deviation * fresh_noise(number)
        yield Step(s, noisy, denoised.image)


def dpmpp_sde(
    denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *, fresh_noise: FreshNoise
) -> Iterator[Step]:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022, section 5): the step of `ddpm`, with the estimate extrapolated as in 2M.

    The variance of the noise is beta_tilde, even if another one was learned: the extrapolation amplifies the change
    that the last noise made in the estimate, and so makes up for the denoiser's uncertainty. For Gaussian data, the
    variance of the samples is right to second order. A step costs one evaluation. Steps of first order are those of
    `dpmpp_2m`.
    """
    before: _SolverStep | None = None
    for number, (t, at_t, s, at_s) in enumerate(_jumps(schedule, times)):
        step = _SolverStep(noisy, denoise(noisy, t), at_t, at_s)
        image = _extrapolated(step, _unless_switched(before, step.denoised))
        noisy, deviation = _posterior(noisy, image, at_t, at_s)
        if s > 0:
            noisy = noisy + deviation * fresh_noise(number)
        before = step
        yield Step(s, noisy, step.denoised.image)


def _posterior(noisy: Tensor, image: Tensor, at_t: _Level, at_s: _Level) -> tuple[Tensor, float]:
    """Mean (N, C, H, W) and standard deviation of q(noisy_s | noisy_t, image) (Ho et al. 2020, eq. 7, for any s < t).

    With kappa = 1 - e^(λt - λs), the share of the noise that the step removes, the mean is
    alpha_s·kappa·image + alpha_t/alpha_s·sigma_s²/sigma_t²·noisy and the variance is beta_tilde = kappa·sigma_s².
    """
    kappa = -math.expm1(at_t.log_snr - at_s.log_snr)
    mean = at_s.alpha * kappa * image + at_t.alpha / at_s.alpha * (at_s.sigma / at_t.sigma) ** 2 * noisy
    return mean, at_s.sigma * math.sqrt(kappa)


def _jump_deviation(
    schedule: Schedule, t: float, at_t: _Level, at_s: _Level, log_fraction: Tensor | None, *, rule: str
) -> Tensor | float:
    """√variance of p(noisy_s | noisy_t) by a `variance_rule` of `ddpm`, where f is `log_fraction`.

    "log": ln variance = ln beta_tilde + f·(ln beta - ln beta_tilde). "linear": variance = beta_tilde +
    φ·(beta - beta_tilde), where φ is the `linear_fraction` of f on the fine step. → (N, C, H, W), or one number if no
    variance is learned
    """
    log_beta, log_beta_tilde = (
        x.item() for x in jump_log_variances(
            torch.tensor(at_t.log_snr, dtype=torch.float64), torch.tensor(at_s.log_snr, dtype=torch.float64)))
    if log_fraction is None:
        return math.exp(log_beta_tilde / 2)
    if rule == "log":
        return torch.exp((log_beta_tilde + log_fraction * (log_beta - log_beta_tilde)) / 2)
    fine_log_beta, fine_log_beta_tilde = fine_log_variances(schedule, torch.tensor(t, dtype=torch.float64))
    fraction = linear_fraction(log_fraction, (fine_log_beta - fine_log_beta_tilde).to(log_fraction.dtype))
    beta, beta_tilde = math.exp(log_beta), math.exp(log_beta_tilde)
    return torch.sqrt(beta_tilde + fraction * (beta - beta_tilde))


# ── By name ─────────────────────────────────────────────────────────────────────────────────────────────────────────

Sampler = Callable[[Denoiser, Tensor, Sequence[float], Schedule], Iterator[Step]]
DETERMINISTIC: dict[str, Sampler] = {
    "dpmpp-2m": dpmpp_2m, "unipc": unipc, "ddim": ddim, "heun": heun,
    "euler": ddim}                              # the same map under the name that other programs give it


def run_sampler(
    name: str, denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule, *, fresh_noise: FreshNoise
) -> Iterator[Step]:
    """Run the sampler `name` of config.SAMPLERS from `noisy` (N, C, H, W) at times[0] through all times.

    `ddpm` and `dpmpp-sde` draw fresh noise once for each step; the other samplers do not use it.
    """
    if name == "ddpm":
        return ddpm(denoise, noisy, times, schedule, fresh_noise=fresh_noise)
    if name == "dpmpp-sde":
        return dpmpp_sde(denoise, noisy, times, schedule, fresh_noise=fresh_noise)
    return DETERMINISTIC[name](denoise, noisy, times, schedule)
