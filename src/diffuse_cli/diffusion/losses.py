"""The training losses: the noise loss, its weight at each noise level, and the variance loss.

Every function returns one number for each picture; the caller takes the mean over a batch.
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .schedule import FIRST_TIME, STEPS, Schedule, column, jump_log_variances

# ── Times ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def training_times(uniform: Tensor, *, index: Tensor, batch_size: int, times: str) -> Tensor:
    """Stratified training times: picture `index` of a global batch draws from the index-th of batch_size equal parts.

    t = 1/1000 + (index + uniform)/batch_size·(1 - 1/1000) (Kingma et al. 2021, appendix I.1). `times="discrete"` rounds
    up to the papers' grid i/1000 instead, on which every value is equally likely.

    uniform: (N,) float64 in [0, 1); index: (N,) int64 → (N,) float64 in [1/1000, 1].
    """
    u = (index + uniform) / batch_size                                  # rounding can make it 1
    if times == "discrete":
        return (torch.floor(u * STEPS).clamp(max=STEPS - 1) + 1) / STEPS
    return FIRST_TIME + u * (1 - FIRST_TIME)


# ── Noise loss ──────────────────────────────────────────────────────────────────────────────────────────────────────


def noise_loss(output: Tensor, target: Tensor, *, prediction: str, log_snr: Tensor) -> Tensor:
    """‖noise - estimated noise‖² / D, the mean squared error over the D values of a picture (Ho et al. 2020, eq. 14).

    It is the error of the noise whatever the network predicts: alpha² times the error of v, or alpha²/sigma² times the
    error of x0 (Salimans & Ho 2022, section 4).

    output, target: (N, C, H, W), the network's prediction and the right one; log_snr: (N,) → (N,) float32.
    """
    error = (output.float() - target.float()).square().flatten(1).mean(1)                       # (N,)
    scale = {
        "epsilon": torch.ones_like(log_snr),
        "v": torch.sigmoid(log_snr),
        "x0": torch.exp(log_snr),
    }[prediction]
    return error * scale.to(error)


def noise_weight(loss_weighting: str, log_snr: Tensor, resolution: float) -> Tensor:
    """The weight w(λ) of the noise loss at log-SNR λ, for pictures of resolution² pixels.

    `simple`: 1 (Ho et al. 2020). `min-snr`: min(SNR, 5)/SNR (Hang et al. 2023, written for the error of the noise).
    `sigmoid`: sigmoid(b - λ)·√(1 + 1/SNR), where the bias b shifts with the resolution (Hoogeboom et al. 2024).

    The square root is a compromise: the error of v is 1 + 1/SNR times the error of the noise, and `sigmoid` weighs
    their geometric mean. At high noise, nothing of a picture can be seen and the error of the noise is nearly 0, but a
    caption still lowers the error of v. With a weight for the error of the noise alone, captions were hardly learned;
    with the full weight for the error of v, everything else was learned more slowly (docs/decisions.md).

    log_snr: (N,) → (N,) of the same type.
    """
    if loss_weighting == "sigmoid":
        return torch.sigmoid(2 - 2 * math.log(resolution / 64) - log_snr) * (1 + torch.exp(-log_snr)).sqrt()
    if loss_weighting == "min-snr":
        return torch.clamp(5 * torch.exp(-log_snr), max=1)
    return torch.ones_like(log_snr)


# ── Variance loss ───────────────────────────────────────────────────────────────────────────────────────────────────


def log_fraction(channels: Tensor) -> Tensor:
    """f = (channels + 1)/2, the learned variance's fraction of the way from ln beta_tilde (0) to ln beta (1).

    ln variance = ln beta_tilde + f·(ln beta - ln beta_tilde) (Nichol & Dhariwal 2021, eq. 15). f is not clamped to
    [0, 1] here, so that the loss can pull back an output that left the interval; sampling clamps it.

    channels: the network's variance channels, of any shape → the same shape.
    """
    return (channels + 1) / 2


def fine_log_variances(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """(ln beta, ln beta_tilde) of the fine step t → t - 1/1000, between which the variance channels interpolate.

    The last step, from t < 2/1000, goes straight to the clean picture. Its beta_tilde is 0 and has no logarithm, so the
    beta_tilde of the step before takes its place (Nichol & Dhariwal 2021, section 3.1).

    t: (N,) float64 → (N,) float64 each.
    """
    last = _is_last(t)
    log_snr_s = schedule.log_snr(torch.where(last, t, t - 1 / STEPS))
    log_beta, log_beta_tilde = jump_log_variances(
        schedule.log_snr(t), torch.where(last, math.inf, log_snr_s))
    second = torch.tensor([2 / STEPS, 1 / STEPS], dtype=t.dtype, device=t.device)
    floor = jump_log_variances(*schedule.log_snr(second))[1]
    return log_beta, torch.where(last, floor, log_beta_tilde)


class FineStep(NamedTuple):
    """The coefficients of the fine steps t → t - 1/1000 of N pictures, (N,) each; see `schedule.Level`."""

    log_beta: Tensor
    log_beta_tilde: Tensor
    mean_coefficient: Tensor                    # the factor of (image - estimate) in the difference of two means
    last: Tensor                                # 1 where the step goes to the clean picture, otherwise 0


def fine_step(schedule: Schedule, t: Tensor | FineStep) -> FineStep:
    """The coefficients of the fine steps from times t (N,), float64. Coefficients are returned as they are."""
    if isinstance(t, FineStep):
        return t
    return FineStep(*fine_log_variances(schedule, t), _mean_coefficient(schedule, t), _is_last(t))


def variance_loss(
    schedule: Schedule, *, image: Tensor, estimate: Tensor, log_fraction: Tensor, t: Tensor | FineStep,
) -> Tensor:
    """The variational bound of one fine step, in bits per dimension (Nichol & Dhariwal 2021, eq. 4 to 7, 14 to 16).

    KL(q(noisy_s | noisy_t, image) ‖ p(noisy_s | noisy_t)) with s = t - 1/1000; for the last step, the negative log
    likelihood of the 8-bit picture. The sum over the 1000 steps is the bound L_vlb. The hybrid objective adds
    0.001·L_vlb to the noise loss, and with one random step in place of the sum that is 0.001·1000 = 1 times this loss.

    image: (N, C, H, W). estimate: (N, C, H, W), the clean picture that the network's prediction implies, detached,
    because this loss trains the variance alone. log_fraction: (N, C, H, W), or one number, 0 for beta_tilde and 1 for
    beta. t: (N,) float64, or the coefficients at these times. → (N,) in the type of `image`
    """
    step = FineStep(*(column(values, image) for values in fine_step(schedule, t)))              # (N, 1, 1, 1) each
    log_variance = torch.lerp(step.log_beta_tilde, step.log_beta, log_fraction)                 # (N, C, H, W)
    difference = step.mean_coefficient * (image - estimate)
    divergence = gaussian_kl(difference, step.log_beta_tilde, log_variance)
    decoder = -discretised_log_likelihood(image, mean=estimate, log_variance=log_variance)
    nats = torch.where(step.last.bool(), decoder, divergence)
    return nats.flatten(1).mean(1) / math.log(2)                                                # (N,)


def variance_excesses(
    schedule: Schedule, *, image: Tensor, estimate: Tensor, log_fraction: Tensor, t: Tensor,
) -> tuple[Tensor, Tensor]:
    """By how much the variance of a fine step should exceed beta_tilde, and by how much it does.

    Both are in units of beta - beta_tilde. The first is the squared error of the step's mean, for which the variance
    must make up: where the variance is right, the two have the same expectation.

    Arguments as of `variance_loss`, but t ≥ 2/1000, because the last step has no beta_tilde. → (N,) each, means over
    the picture
    """
    log_beta, log_beta_tilde = fine_log_variances(schedule, t)
    width = log_beta.exp() - log_beta_tilde.exp()                                               # (N,)
    error = column(_mean_coefficient(schedule, t) / width.sqrt(), image) * (image - estimate)
    log_ratio = column(log_beta - log_beta_tilde, image)
    excess = linear_fraction(log_fraction, log_ratio)                                           # (N, C, H, W)
    return error.square().flatten(1).mean(1), excess.flatten(1).mean(1)


def linear_fraction(log_fraction: Tensor, log_ratio: Tensor) -> Tensor:
    """The variance's fraction φ of the way from beta_tilde to beta, given its fraction f between their logarithms.

    φ = (e^(f·r) - 1) / (e^r - 1) with r = ln(beta/beta_tilde). For Gaussian data, φ does not depend on the jump.

    log_fraction: (N, C, H, W), f; log_ratio: r, of a shape that broadcasts with it.
    """
    return torch.expm1(log_fraction * log_ratio) / torch.expm1(log_ratio)


def _mean_coefficient(schedule: Schedule, t: Tensor) -> Tensor:
    """The factor of (image - estimate) in the difference between the means of a fine step's two Gaussians.

    alpha_s·(1 - e^(λt - λs)), or 1 for the last step. (N,) → (N,), both float64.
    """
    last = _is_last(t)
    log_snr_t, log_snr_s = schedule.log_snr(t), schedule.log_snr(torch.where(last, t, t - 1 / STEPS))
    return torch.where(last, 1.0, -torch.expm1(log_snr_t - log_snr_s) * torch.sigmoid(log_snr_s).sqrt())


def gaussian_kl(difference: Tensor, log_variance_q: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(N(mean_q, variance_q) ‖ N(mean_p, variance_p)) of each element, in nats; `difference` is mean_q - mean_p.

    ½·(variance_q/variance_p - 1 - ln(variance_q/variance_p) + difference²/variance_p).
    """
    log_ratio = log_variance_q - log_variance_p
    return 0.5 * (torch.expm1(log_ratio) - log_ratio + difference.square() * torch.exp(-log_variance_p))


def discretised_log_likelihood(image: Tensor, *, mean: Tensor, log_variance: Tensor) -> Tensor:
    """ln of the mass that a Gaussian puts on each 8-bit value's bin, which is 2/255 wide (Ho et al. 2020, eq. 13).

    In nats. The outermost bins reach to infinity. A mass below 1e-12 counts as 1e-12.

    image: in [-1, 1]; all (N, C, H, W).
    """
    inverse_deviation = torch.exp(-0.5 * log_variance)
    centre, half = (image - mean) * inverse_deviation, inverse_deviation / 255
    # By symmetry, a bin above the mean has the mass of the bin as far below it, where float32 can still tell the two
    # edges apart.
    below = -centre.abs()
    mass = _normal_cdf(below + half) - _normal_cdf(below - half)
    mass = torch.where(image < -0.999, _normal_cdf(centre + half), mass)
    mass = torch.where(image > 0.999, _normal_cdf(half - centre), mass)
    return torch.log(mass.clamp(min=1e-12))


def _normal_cdf(x: Tensor) -> Tensor:
    """The standard normal distribution function of each element.

    torch.special.ndtr loses its digits below -3, and the gradient of its logarithm overflows in float32.
    """
    return torch.erfc(x * -math.sqrt(0.5)) / 2


def prior_bits(schedule: Schedule, image: Tensor) -> Tensor:
    """KL(q(noisy at t = 1 | image) ‖ N(0, 1)) in bits per dimension: the bound's cost before the first step.

    image: (N, C, H, W) → (N,).
    """
    log_snr = schedule.log_snr(torch.ones(1, dtype=torch.float64))
    alpha = torch.sigmoid(log_snr).sqrt().to(image)
    nats = gaussian_kl(alpha * image, F.logsigmoid(-log_snr).to(image), torch.zeros(1).to(image))
    return nats.flatten(1).mean(1) / math.log(2)


def _is_last(t: Tensor) -> Tensor:
    """Whether the fine step from t goes to the clean picture. The step from 2/1000 itself does not."""
    return t < 2 / STEPS - 1e-9                 # the margin allows for rounding
