"""How well a denoiser explains pictures: its noise loss by noise level, bits per dimension, and its variances.

All estimators take a function `denoise(noisy, t)`, not a network: for Gaussian data the best denoiser is a closed form,
so every figure can be tested. A figure is first computed for each picture; an `Estimate` is the mean of these numbers
with its standard error. Noise and times are functions of the seed and the position of a picture, so that two
measurements differ only by their models.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.losses import noise_loss, prior_bits, variance_excesses, variance_loss
from ..diffusion.samplers import Denoised
from ..diffusion.schedule import FIRST_TIME, STEPS, Schedule, make_schedule
from ..runtime import randomness

LEVELS = 24                                     # noise levels of the noise-loss curve; also steps drawn for the bound
REFERENCE = make_schedule("cosine", 64)         # is the same schedule at every resolution
_MIDDLES = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000          # of 20,000 equal parts of [0, 1]
BatchDenoiser = Callable[[Tensor, Tensor], Denoised]        # called with noisy (N, C, H, W) and times t (N,) float64


# ── Estimates ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Estimate:
    """An estimate from a sample of pictures. A single picture gives no standard error, which is then None."""

    value: float
    standard_error: float | None


def mean_of(values: Tensor) -> Estimate:
    """The mean over pictures with its standard error. values: (N,)"""
    values = values.double()
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(values.mean().item(), error)


def ratio_of(numerators: Tensor, denominators: Tensor) -> Estimate:
    """The ratio of two means, with its standard error to first order (the delta method). (N,) each"""
    ratio = (numerators.double().mean() / denominators.double().mean()).item()
    error = mean_of(numerators.double() - ratio * denominators.double()).standard_error
    return Estimate(ratio, None if error is None else error / abs(denominators.double().mean().item()))


# ── The noise-loss curve ────────────────────────────────────────────────────────────────────────────────────────────


def level_log_snrs(schedule: Schedule) -> Tensor:
    """The log-SNRs of the curve, evenly spaced from that of t = 1/1000 to that of t = 1. → (24,) float64, falling"""
    first, last = schedule.log_snr(torch.tensor([FIRST_TIME, 1], dtype=torch.float64)).tolist()
    return torch.linspace(first, last, LEVELS, dtype=torch.float64)


def noise_losses(
    denoise: BatchDenoiser, image: Tensor, *, schedule: Schedule, times: Tensor, seed: int, purpose: str, index: Tensor,
) -> Tensor:
    """Mean squared error of the predicted noise for each picture at each time. → (N, L) float64 on the CPU

    image: (N, C, H, W) in [-1, 1]; times: (L,) float64; index: (N,) the global positions of the pictures. The noise is
    a function of seed, purpose, level and position, so a picture has the same noise in every batch.
    """
    columns = []
    for level, time in enumerate(times):
        noise = randomness.normal(randomness.keys(seed, purpose, level, index).to(image.device), tuple(image.shape[1:]))
        t = time.expand(len(image))
        estimate = denoise(schedule.add_noise(image, noise, t), t).image
        columns.append(noise_loss(estimate, image, prediction="x0", log_snr=schedule.log_snr(t)).cpu().double())
    return torch.stack(columns, dim=1)


def curve_weights(levels: Tensor, log_snr: Tensor) -> Tensor:
    """Weights with which the losses at the levels sum to the mean of the interpolated curve over `log_snr`.

    The curve is cubic between levels and constant beyond their ends. levels: (24,) evenly spaced, falling; log_snr:
    (M,) → (24,), with sum 1
    """
    position = ((levels[0] - log_snr) / (levels[0] - levels[-1]) * (LEVELS - 1)).clamp(0, LEVELS - 1)
    first = (position.floor().long() - 1).clamp(0, LEVELS - 4)         # first of four nodes of Lagrange's cubic
    x = position - first
    basis = [math.prod((x - other) / (node - other) for other in range(4) if other != node) for node in range(4)]
    weights = torch.zeros(LEVELS, dtype=torch.float64)
    for node, values in enumerate(basis):
        weights.index_add_(0, first + node, torch.as_tensor(values))
    return weights / len(log_snr)


def schedule_weights(schedule: Schedule) -> Tensor:
    """The `curve_weights` for the mean over the times of the schedule, uniform in [1/1000, 1]. → (24,)"""
    times = FIRST_TIME + _MIDDLES * (1 - FIRST_TIME)
    return curve_weights(level_log_snrs(schedule), schedule.log_snr(times))


# ── The variational bound ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Bound:
    """The parts of the variational bound for each picture, (N,) float64 on the CPU.

    All but the excesses are in bits per dimension. An excess is the part of a step's variance above beta_tilde, in
    units of beta - beta_tilde, summed over the drawn steps (`variance_excesses`). The squared error of a step's mean is
    an unbiased observation of the excess that its variance should have. So if the learned variance is right, both
    excesses have the same expectation.
    """

    prior: Tensor                               # the distance of the noisiest level from N(0, 1)
    steps: Tensor                               # 999 of the 1000 steps back, estimated from the drawn ones
    decoder: Tensor                             # the last step: from the cleanest level to the 8-bit picture
    lower: Tensor                               # the whole bound if the variance were beta_tilde everywhere
    upper: Tensor                               # the whole bound if the variance were beta everywhere
    observed_excess: Tensor                     # the squared errors of the means of the steps
    learned_excess: Tensor                      # the denoiser's own variances; 0 where it gives none

    @property
    def total(self) -> Tensor:
        """The whole bound, in bits per dimension."""
        return self.prior + self.steps + self.decoder


def stratified_steps(schedule: Schedule, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """A random sample of the steps 2 … 1000, stratified: draw j is from the j-th of K even intervals of the log-SNR.

    The probability of a step is its length in log-SNR, as its bits are nearly proportional to that. uniform: (K, N) in
    [0, 1) → (times at which the drawn steps back begin, weights), (K, N) each. The sum of the drawn steps' bits with
    these weights is an unbiased estimate of the sum over all steps.
    """
    log_snr = schedule.log_snr(torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS)
    share = (log_snr[0] - log_snr) / (log_snr[0] - log_snr[-1])        # (1000,) of the range of the log-SNR, 0 … 1
    count = len(uniform)
    point = (torch.arange(count)[:, None] + uniform) / count           # (K, N)
    end = torch.searchsorted(share, point, right=True).clamp(1, STEPS - 1)       # share[end - 1] <= point < share[end]
    return (end.double() + 1) / STEPS, 1 / (count * (share[end] - share[end - 1]))


def variational_bound(denoise: BatchDenoiser, image: Tensor, *, schedule: Schedule, seed: int, index: Tensor) -> Bound:
    """An unbiased estimate of the variational bound on -log2 p(picture) for each picture (Ho et al. 2020, eq. 5).

    24 of the steps 2 … 1000 are drawn for each picture. Step 1, the last one back, is always included. If the denoiser
    gives no variance, it is beta_tilde. Arguments as in `noise_losses`.
    """
    uniform = torch.stack([randomness.uniform(randomness.keys(seed, "evaluation step", draw, index), 1)[:, 0]
                           for draw in range(LEVELS)])
    times, weights = stratified_steps(schedule, uniform)
    first = torch.full((1, len(image)), FIRST_TIME, dtype=torch.float64)
    parts = []
    for draw, (t, weight) in enumerate(zip(torch.cat([first, times]), torch.cat([torch.ones_like(first), weights]),
                                           strict=True)):
        keys = randomness.keys(seed, "evaluation noise", draw, index)
        noise = randomness.normal(keys.to(image.device), tuple(image.shape[1:]))
        denoised = denoise(schedule.add_noise(image, noise, t), t)
        narrow, wide = torch.tensor([0.0, 1.0], device=image.device)   # log-fractions of beta_tilde and of beta
        learned = narrow if denoised.log_fraction is None else denoised.log_fraction
        bits = [variance_loss(schedule, image=image, estimate=denoised.image, log_fraction=fraction, t=t)
                for fraction in (learned, narrow, wide)]
        excesses = variance_excesses(schedule, image=image, estimate=denoised.image, log_fraction=learned, t=t)
        parts.append(torch.cat([weight * torch.stack(bits).cpu().double(), torch.stack(excesses).cpu().double()]))
    prior = prior_bits(schedule, image).cpu().double()
    decoder, *fixed_decoders = parts[0][:3]
    steps, *fixed_steps, observed_excess, learned_excess = torch.stack(parts[1:]).sum(0)
    lower, upper = (prior + bits + last for bits, last in zip(fixed_steps, fixed_decoders, strict=True))
    return Bound(prior, steps, decoder, lower, upper, observed_excess, learned_excess)


# ── Summary ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Likelihood:
    """How well a model explains pictures. The last two figures are None if its variance is fixed."""

    log_snr: tuple[float, ...]                  # of the noise levels
    noise_mse_at: tuple[Estimate, ...]          # noise loss at each of these levels
    noise_mse: Estimate                         # mean noise loss over the times of the model's schedule
    noise_mse_ref: Estimate                     # mean noise loss over the cosine schedule with 1000 steps
    bound: Estimate                             # bits per dimension with 1000 steps
    area: Estimate                              # bits per dimension with infinitely many steps between the same ends
    variance_gain: Estimate | None              # bits per dimension saved against the better of two fixed variances
    variance_calibration: Estimate | None       # observed over learned excess of the variance; 1 is right


def summarise(curves: Tensor, bounds: Sequence[Bound], schedule: Schedule, *, learned: bool) -> Likelihood:
    """The figures over all pictures. `learned`: whether the model's variance is learned.

    curves: (N, 24) noise losses at `level_log_snrs`; bounds: of the batches of the same N pictures. The area is that of
    Kingma et al. 2021, section 5, between the ends of the bound: half the integral of the noise loss over the log-SNR,
    in nats, plus the same prior and decoder.
    """
    levels = level_log_snrs(schedule)
    whole = Bound(*(torch.cat([getattr(bound, field.name) for bound in bounds]) for field in dataclasses.fields(Bound)))
    over_levels = curves @ curve_weights(levels, torch.lerp(levels[0], levels[-1], _MIDDLES))
    integral = (levels[0] - levels[-1]) * over_levels / (2 * math.log(2))
    steps = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS
    best_fixed = min(whole.lower, whole.upper, key=lambda bits: bits.mean().item())
    return Likelihood(
        log_snr=tuple(levels.tolist()),
        noise_mse_at=tuple(mean_of(column) for column in curves.T),
        noise_mse=mean_of(curves @ schedule_weights(schedule)),
        noise_mse_ref=mean_of(curves @ curve_weights(levels, REFERENCE.log_snr(steps))),
        bound=mean_of(whole.total),
        area=mean_of(whole.prior + integral + whole.decoder),
        variance_gain=mean_of(best_fixed - whole.total) if learned else None,
        variance_calibration=ratio_of(whole.observed_excess, whole.learned_excess) if learned else None)
