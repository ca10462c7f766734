"""How well a denoiser explains pictures: the noise loss by noise level, bits per dimension, and its variances judged.

Written against a function `denoise(noisy, t)`, not a network: for Gaussian data the best one is a closed form, and all
figure is then known. All numbers are first one for each picture; a `Estimate` is their mean, with its standard error.
Noise and times are functions of seed and position, so that two measurements differ only by their models.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..diffusion.losses import noise_loss, prior_bits, variance_loss, variance_shares
from ..diffusion.samplers import Denoised
from ..diffusion.schedule import FIRST_TIME, STEPS, Schedule, make_schedule
from ..runtime import randomness

LEVELS = 24                                     # of the noise-loss curve
REFERENCE = make_schedule("cosine", 64)         # the same at every resolution
_MIDDLES = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000          # of equal parts of [0, 1]
BatchDenoiser = Callable[[Tensor, Tensor], Denoised]        # of noisy (N, C, H, W) at times t (N,) float64


# ── Figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Estimate:
    """An estimate. `standard_error` is None for a single picture."""

    value: float
    standard_error: float | None


def mean_of(values: Tensor) -> Estimate:
    """The mean over pictures. values: (N,)"""
    values = values.double()
    error = values.std().item() / math.sqrt(len(values)) if len(values) > 1 else None
    return Estimate(values.mean().item(), error)


def ratio_of(numerators: Tensor, denominators: Tensor) -> Estimate:
    """The mean of one over the mean of the other, (N,) each; its standard error to first order (the delta method)."""
    ratio = (numerators.double().mean() / denominators.double().mean()).item()
    error = mean_of(numerators.double() - ratio * denominators.double()).standard_error
    return Estimate(ratio, None if error is None else error / abs(denominators.double().mean().item()))


# ── The noise-loss curve ────────────────────────────────────────────────────────────────────────────────────────────


def level_log_snrs(schedule: Schedule) -> Tensor:
    """The log-SNRs of the curve: evenly spaced over the schedule, from t = 1/1000 to 1. → (24,) float64, falling"""
    first, last = schedule.log_snr(torch.tensor([FIRST_TIME, 1], dtype=torch.float64)).tolist()
    return torch.linspace(first, last, LEVELS, dtype=torch.float64)


def noise_losses(
    denoise: BatchDenoiser, image: Tensor, *, schedule: Schedule, times: Tensor, seed: int, purpose: str, index: Tensor,
) -> Tensor:
    """Mean squared error of the noise of each picture at each time.

    image: (N, C, H, W) in [-1, 1]; times: (L,) float64; index: (N,) names the pictures: the noise of a picture at a
    level is always the same. → (N, L) float64 on the CPU
    """
    columns = []
    for level, time in enumerate(times):
        noise = randomness.normal(randomness.keys(seed, purpose, level, index).to(image.device), tuple(image.shape[1:]))
        t = time.expand(len(image))
        estimate = denoise(schedule.add_noise(image, noise, t), t).image
        columns.append(noise_loss(estimate, image, prediction="x0", log_snr=schedule.log_snr(t)).cpu().double())
    return torch.stack(columns, dim=1)


def curve_weights(levels: Tensor, log_snr: Tensor) -> Tensor:
    """Weights of the levels in the mean of the curve over other log-SNRs: cubic between levels, constant beyond them.

    levels: (24,) evenly spaced, falling; log_snr: (M,) → (24,), which sum to 1.
    """
    position = ((levels[0] - log_snr) / (levels[0] - levels[-1]) * (LEVELS - 1)).clamp(0, LEVELS - 1)
    first = (position.floor().long() - 1).clamp(0, LEVELS - 4)         # of the four nodes of Lagrange's cubic
    x = position - first
    basis = [math.prod((x - other) / (node - other) for other in range(4) if other != node) for node in range(4)]
    weights = torch.zeros(LEVELS, dtype=torch.float64)
    for node, values in enumerate(basis):
        weights.index_add_(0, first + node, torch.as_tensor(values))
    return weights / len(log_snr)


def schedule_weights(schedule: Schedule) -> Tensor:
    """Weights of the levels in the mean of the curve over the times of the schedule, uniform in [1/1000, 1]. → (24,)"""
    times = FIRST_TIME + _MIDDLES * (1 - FIRST_TIME)
    return curve_weights(level_log_snrs(schedule), schedule.log_snr(times))


# ── The variational bound ───────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Bound:
    """The parts of the bound for each picture, (N,) float64 on the CPU: bits per dimension, but for the last two."""

    prior: Tensor                               # what is paid before the first step
    steps: Tensor                               # 999 of the 1000 steps, estimated
    decoder: Tensor                             # the last: 8-bit picture from the cleanest level
    lower: Tensor                               # the whole bound, were the variance beta_tilde everywhere
    upper: Tensor                               # were it beta
    wanted: Tensor                              # by how much steps should be wider than beta_tilde: `variance_shares`
    taken: Tensor                               # by how much they are; 0 for a fixed variance

    @property
    def total(self) -> Tensor:
        return self.prior + self.steps + self.decoder


def drawn_steps(schedule: Schedule, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Steps 2 … 1000 of the bound, stratified: the j-th draw is from the j-th of K even intervals of the log-SNR.

    A step's chance is its length in log-SNR, to which its bits are nearly proportional. uniform: (K, N) in [0, 1) →
    the times (K, N) from which the steps go back, and weights (K, N) with which their bits add up to those of all.
    """
    log_snr = schedule.log_snr(torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS)
    share = (log_snr[0] - log_snr) / (log_snr[0] - log_snr[-1])        # (1000,) of the way, 0 … 1
    count = len(uniform)
    drawn = (torch.arange(count)[:, None] + uniform) / count
    end = torch.searchsorted(share, drawn, right=True).clamp(1, STEPS - 1)       # share[end - 1] <= drawn < share[end]
    return (end.double() + 1) / STEPS, 1 / (count * (share[end] - share[end - 1]))


def variational_bound(denoise: BatchDenoiser, image: Tensor, *, schedule: Schedule, seed: int, index: Tensor) -> Bound:
    """An unbiased estimate of the bound on -log2 p(picture) (Ho et al. 2020, eq. 5) for each picture.

    24 of the steps 2 … 1000 are drawn for each picture; the last step is always asked. Where the denoiser gives no
    variance it is beta_tilde. Arguments as of `noise_losses`.
    """
    uniform = torch.stack([randomness.uniform(randomness.keys(seed, "evaluation step", draw, index), 1)[:, 0]
                           for draw in range(LEVELS)])
    times, weights = drawn_steps(schedule, uniform)
    first = torch.full((1, len(image)), FIRST_TIME, dtype=torch.float64)
    parts = []
    for draw, (t, weight) in enumerate(zip(torch.cat([first, times]), torch.cat([torch.ones_like(first), weights]),
                                           strict=True)):
        keys = randomness.keys(seed, "evaluation noise", draw, index)
        noise = randomness.normal(keys.to(image.device), tuple(image.shape[1:]))
        answer = denoise(schedule.add_noise(image, noise, t), t)
        narrow, wide = torch.tensor([0.0, 1.0], device=image.device)
        fraction = narrow if answer.log_fraction is None else answer.log_fraction
        bits = [variance_loss(schedule, image=image, estimate=answer.image, log_fraction=one, t=t)
                for one in (fraction, narrow, wide)]
        shares = variance_shares(schedule, image=image, estimate=answer.image, log_fraction=fraction, t=t)
        parts.append(torch.cat([weight * torch.stack(bits).cpu().double(), torch.stack(shares).cpu().double()]))
    prior = prior_bits(schedule, image).cpu().double()
    decoder, *fixed_decoders = parts[0][:3]
    steps, *fixed_steps, wanted, taken = torch.stack(parts[1:]).sum(0)
    lower, upper = (prior + some + last for some, last in zip(fixed_steps, fixed_decoders, strict=True))
    return Bound(prior, steps, decoder, lower, upper, wanted, taken)


# ── All of it ───────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Likelihood:
    """How well held-out pictures are explained. The last two are None where the variance is fixed."""

    log_snr: tuple[float, ...]
    noise_mse_at: tuple[Estimate, ...]            # at each of them
    noise_mse: Estimate                           # mean over the times of the schedule
    noise_mse_ref: Estimate                       # over those of the cosine schedule with 1000 steps
    bound: Estimate                               # bits per dimension: 1000 steps
    area: Estimate                                # infinitely many steps between the same ends
    variance_gain: Estimate | None                # bits per dimension won over the better fixed variance
    variance_calibration: Estimate | None         # squared error that was over that expected; 1 is right


def summarise(curves: Tensor, bounds: Sequence[Bound], schedule: Schedule, *, learned: bool) -> Likelihood:
    """The figures of all pictures. curves: (N, 24), noise losses at `level_log_snrs`; bounds: of parts of the pictures.

    The area is Kingma et al. 2021, section 5, with the ends of the bound: half the integral of the noise loss over
    log-SNR, in nats, beside the same prior and decoder.
    """
    levels = level_log_snrs(schedule)
    whole = Bound(*(torch.cat([getattr(part, field.name) for part in bounds]) for field in dataclasses.fields(Bound)))
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
        variance_calibration=ratio_of(whole.wanted, whole.taken) if learned else None)
