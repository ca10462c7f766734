"""What training minimises: the noise loss, its weight over noise levels, and the variance loss.

Every function returns one number for each picture; means are the caller's. Knows no network: it is given answers.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .schedule import FIRST_TIME, STEPS, Schedule, jump_log_variances

# ── Times ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def training_times(uniform: Tensor, *, index: Tensor, batch_size: int, times: str) -> Tensor:
    """Stratified training times: picture `index` of a global batch gets the index-th of batch_size equal intervals.

    uniform: (N,) in [0, 1) → (N,) float64 in [1/1000, 1]. `times="discrete"` rounds to the stock grid i/1000, on which
    every value is equally likely (Kingma et al. 2021, appendix I.1, for the stratification).
    """
    u = (index + uniform) / batch_size                                  # rounding can make it 1
    if times == "discrete":
        return (torch.floor(u * STEPS).clamp(max=STEPS - 1) + 1) / STEPS
    return FIRST_TIME + u * (1 - FIRST_TIME)


# ── Noise loss ──────────────────────────────────────────────────────────────────────────────────────────────────────


def noise_loss(output: Tensor, target: Tensor, *, prediction: str, log_snr: Tensor) -> Tensor:
    """Mean squared error of the noise, ‖noise - estimate‖²/dimensions, whatever the network predicts.

    The error of v is the noise's over alpha, that of x0 the noise's times sigma/alpha. output, target: (N, C, H, W);
    log_snr: (N,) → (N,) float32 (Ho et al. 2020, eq. 14; Salimans & Ho 2022, section 4).
    """
    error = (output.float() - target.float()).square().flatten(1).mean(1)
    scale = {
        "epsilon": torch.ones_like(log_snr),
        "v": torch.sigmoid(log_snr),
        "x0": torch.exp(log_snr),
    }[prediction]
    return error * scale.to(error)


def noise_weight(loss_weighting: str, log_snr: Tensor, resolution: int) -> Tensor:
    """The weight of the noise loss at each noise level. log_snr: (N,) → (N,), same type.

    `sigmoid`: sigmoid(b - λ), bias b shifted with the resolution (Hoogeboom et al. 2024), times √(1 + 1/SNR): halfway,
    as a geometric mean, between the error of the noise and that of v, which is 1 + 1/SNR times as large. What a caption
    can tell of a picture that cannot be seen is an error of v at high noise: weighed as an error of the noise captions
    were hardly learnt, weighed in full it slowed all else (docs/decisions.md).
    `min-snr`: min(SNR, 5)/SNR (Hang et al. 2023, in noise units); `simple`: 1.
    """
    if loss_weighting == "sigmoid":
        return torch.sigmoid(2 - 2 * math.log(resolution / 64) - log_snr) * (1 + torch.exp(-log_snr)).sqrt()
    if loss_weighting == "min-snr":
        return torch.clamp(5 * torch.exp(-log_snr), max=1)
    return torch.ones_like(log_snr)


# ── Variance loss ───────────────────────────────────────────────────────────────────────────────────────────────────


def log_fraction(channels: Tensor) -> Tensor:
    """The network's variance channels as the fraction of the way from ln beta_tilde (0) to ln beta (1).

    Not clamped here, so that the loss can pull back an answer that left [0, 1]; sampling clamps it.
    """
    return (channels + 1) / 2


def fine_log_variances(schedule: Schedule, t: Tensor) -> tuple[Tensor, Tensor]:
    """(ln beta, ln beta_tilde) of the fine step t → t - 1/1000, between which the variance channels interpolate.

    The last step, t < 2/1000, goes straight to the clean picture; its beta_tilde of 0 is replaced by that of the step
    before (Nichol & Dhariwal 2021, section 3.1). t: (N,) float64 → (N,) float64 each.
    """
    last = _is_last(t)
    log_snr_s = schedule.log_snr(torch.where(last, t, t - 1 / STEPS))
    log_beta, log_beta_tilde = jump_log_variances(
        schedule.log_snr(t), torch.where(last, math.inf, log_snr_s))
    second = torch.tensor([2 / STEPS, 1 / STEPS], dtype=t.dtype, device=t.device)
    floor = jump_log_variances(*schedule.log_snr(second))[1]
    return log_beta, torch.where(last, floor, log_beta_tilde)


def variance_loss(schedule: Schedule, *, image: Tensor, estimate: Tensor, log_fraction: Tensor, t: Tensor) -> Tensor:
    """The variational bound of one fine step, in bits per dimension (Nichol & Dhariwal 2021, eq. 4 to 7, 14 to 16).

    KL(q(noisy_s | noisy_t, image) ‖ p(noisy_s | noisy_t)) with s = t - 1/1000, and for the last step the negative log
    likelihood of the 8-bit picture. Its sum over the 1000 steps is the bound; as L_vlb enters the hybrid objective with
    0.001·1000 times its mean step, it is added to the noise loss with weight 1. `estimate` is the clean picture implied
    by the network, detached: this loss teaches the variance alone.

    image, estimate: (N, C, H, W); log_fraction: the same, or one number, 0 for beta_tilde and 1 for beta; t: (N,)
    float64 → (N,) in the type of `image`.
    """
    last = _is_last(t)
    log_beta, log_beta_tilde = (_column(x, image) for x in fine_log_variances(schedule, t))
    log_variance = torch.lerp(log_beta_tilde, log_beta, log_fraction)
    difference = _column(_mean_coefficient(schedule, t), image) * (image - estimate)
    divergence = gaussian_kl(difference, log_beta_tilde, log_variance)
    decoder = -discretised_log_likelihood(image, mean=estimate, log_variance=log_variance)
    nats = torch.where(_column(last, image).bool(), decoder, divergence)
    return nats.flatten(1).mean(1) / math.log(2)


def variance_shares(
    schedule: Schedule, *, image: Tensor, estimate: Tensor, log_fraction: Tensor, t: Tensor,
) -> tuple[Tensor, Tensor]:
    """How much wider than beta_tilde a fine step back should be, and how much it is, in units of beta - beta_tilde.

    The first is the squared error of its mean, which is what the variance must make up for; where the variance is
    right, the two have the same expectation. Arguments as of `variance_loss`, but t ≥ 2/1000: the last step has no
    beta_tilde. → (N,) each, means over the picture
    """
    log_beta, log_beta_tilde = fine_log_variances(schedule, t)
    width = log_beta.exp() - log_beta_tilde.exp()
    error = _column(_mean_coefficient(schedule, t) / width.sqrt(), image) * (image - estimate)
    log_ratio = _column(log_beta - log_beta_tilde, image)
    share = linear_fraction(log_fraction, log_ratio)
    return error.square().flatten(1).mean(1), share.flatten(1).mean(1)


def linear_fraction(log_fraction: Tensor, log_ratio: Tensor) -> Tensor:
    """The fraction of the way between ln beta_tilde and ln beta as that between beta_tilde and beta themselves.

    log_ratio: ln(beta/beta_tilde), of a shape that broadcasts. For Gaussian data it does not depend on the jump.
    """
    return torch.expm1(log_fraction * log_ratio) / torch.expm1(log_ratio)


def _mean_coefficient(schedule: Schedule, t: Tensor) -> Tensor:
    """The means of the two Gaussians of a fine step differ by this times (image - estimate). (N,) → (N,) float64"""
    last = _is_last(t)
    log_snr_t, log_snr_s = schedule.log_snr(t), schedule.log_snr(torch.where(last, t, t - 1 / STEPS))
    return torch.where(last, 1.0, -torch.expm1(log_snr_t - log_snr_s) * torch.sigmoid(log_snr_s).sqrt())


def gaussian_kl(difference: Tensor, log_variance_q: Tensor, log_variance_p: Tensor) -> Tensor:
    """KL(N(mean_q, variance_q) ‖ N(mean_p, variance_p)) elementwise, in nats; `difference` is mean_q - mean_p."""
    gap = log_variance_q - log_variance_p
    return 0.5 * (torch.expm1(gap) - gap + difference.square() * torch.exp(-log_variance_p))


def discretised_log_likelihood(image: Tensor, *, mean: Tensor, log_variance: Tensor) -> Tensor:
    """ln of the mass that a Gaussian puts on each 8-bit pixel's bin of width 2/255 (Ho et al. 2020, eq. 13), in nats.

    The outermost bins reach to infinity; masses below 1e-12 count as that. All (N, C, H, W); image in [-1, 1].
    """
    inverse_deviation = torch.exp(-0.5 * log_variance)
    centre, half = (image - mean) * inverse_deviation, inverse_deviation / 255
    # By symmetry a bin above the mean has the mass of the one as far below, where float32 still tells its edges apart.
    below = -centre.abs()
    mass = _normal_cdf(below + half) - _normal_cdf(below - half)
    mass = torch.where(image < -0.999, _normal_cdf(centre + half), mass)
    mass = torch.where(image > 0.999, _normal_cdf(half - centre), mass)
    return torch.log(mass.clamp(min=1e-12))


def _normal_cdf(x: Tensor) -> Tensor:
    """As torch.special.ndtr, which loses its digits below -3, and whose logarithm's gradient overflows in float32."""
    return torch.erfc(x * -math.sqrt(0.5)) / 2


def prior_bits(schedule: Schedule, image: Tensor) -> Tensor:
    """KL(q(noisy at t = 1 | image) ‖ N(0, 1)) in bits per dimension: what the bound pays before the first step."""
    log_snr = schedule.log_snr(torch.ones(1, dtype=torch.float64))
    alpha = torch.sigmoid(log_snr).sqrt().to(image)
    nats = gaussian_kl(alpha * image, F.logsigmoid(-log_snr).to(image), torch.zeros(1).to(image))
    return nats.flatten(1).mean(1) / math.log(2)


def _is_last(t: Tensor) -> Tensor:
    return t < 2 / STEPS - 1e-9                 # 2/1000 itself has a step before the last


def _column(values: Tensor, like: Tensor) -> Tensor:
    """(N,) → (N, 1, 1, 1), in the type of `like`."""
    return values.to(like).reshape(-1, *(1,) * (like.ndim - 1))
