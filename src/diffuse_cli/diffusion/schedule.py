"""The noise schedule: how much picture and how much noise there is at time t, and how noise is added and removed.

The process is variance preserving: noisy = alpha(t)·image + sigma(t)·noise, with alpha² + sigma² = 1. A schedule is its
log signal-to-noise ratio (log-SNR) λ(t) = ln(alpha²/sigma²) (Kingma et al. 2021, "Variational Diffusion Models").
Times run from 0 (the clean picture) to 1 (noise); pictures have values in [-1, 1]. Coefficients are computed in float64
and cast to a picture's type when they meet one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 1000                                    # steps of the papers' discrete process: index i is t = (i + 1) / 1000
FIRST_TIME = 1 / STEPS                          # smallest time on which a network is trained


class Level(NamedTuple):
    """The noise levels of N pictures, (N,) each, or one level of all, of no dimension.

    They are computed in float64 on the CPU. Moved to a device, they are float32.
    """

    alpha: Tensor                               # amplitude of the picture
    sigma: Tensor                               # amplitude of the noise
    log_snr: Tensor


@dataclass(frozen=True)
class Schedule:
    """A noise process, given by its log-SNR λ(t): times (N,) in (0, 1] → (N,), both float64.

    λ decreases strictly with t, except over the last 3e-5 of `cosine` and `sigmoid`, where the cap on the last beta
    keeps it constant.
    """

    name: str
    log_snr: Callable[[Tensor], Tensor]

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """(alpha, sigma), the amplitudes of picture and noise at times t of any shape: √sigmoid(λ), √sigmoid(-λ).

        Both are float64.
        """
        log_snr = self.log_snr(t)
        return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()

    def at(self, t: Tensor | Level) -> Level:
        """The level at times t, (N,) or one time of no dimension, float64. Levels are returned as they are."""
        return t if isinstance(t, Level) else Level(*self.alpha_sigma(t), self.log_snr(t))

    # The next four functions take pictures (N, C, H, W) and their times or levels, and return pictures (N, C, H, W).

    def add_noise(self, image: Tensor, noise: Tensor, t: Tensor | Level) -> Tensor:
        """alpha·image + sigma·noise: a draw from the forward process q(noisy_t | image) (Ho et al. 2020, eq. 4)."""
        alpha, sigma = self._amplitudes(t, image)
        return alpha * image + sigma * noise

    def noise_of(self, image: Tensor, noisy: Tensor, t: Tensor | Level) -> Tensor:
        """(noisy - alpha·image) / sigma: the noise for which `add_noise` turns `image` into `noisy`."""
        alpha, sigma = self._amplitudes(t, image)
        return (noisy - alpha * image) / sigma

    def target(self, prediction: str, image: Tensor, noise: Tensor, t: Tensor | Level) -> Tensor:
        """The output that a network should give: the noise for `epsilon`, the image for `x0`, and for `v` the velocity.

        v = alpha·noise - sigma·image (Salimans & Ho 2022, section 4).
        """
        if prediction == "epsilon":
            return noise
        if prediction == "x0":
            return image
        alpha, sigma = self._amplitudes(t, image)
        return alpha * noise - sigma * image

    def image_of(self, prediction: str, output: Tensor, noisy: Tensor, t: Tensor | Level) -> Tensor:
        """The clean picture that a network's output implies: the inverse of `target`.

        (noisy - sigma·output) / alpha for `epsilon`, output for `x0`, alpha·noisy - sigma·output for `v`.
        """
        if prediction == "x0":
            return output
        alpha, sigma = self._amplitudes(t, noisy)
        if prediction == "epsilon":
            return (noisy - sigma * output) / alpha
        return alpha * noisy - sigma * output

    def _amplitudes(self, t: Tensor | Level, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma of times or levels, as `column` makes them."""
        level = self.at(t)
        return column(level.alpha, like), column(level.sigma, like)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The inverse of λ(t), by bisection. log_snr: float64 → times of the same shape, clamped to [1/1000, 1]."""
        low, high = torch.full_like(log_snr, FIRST_TIME), torch.ones_like(log_snr)
        for _ in range(60):
            middle = (low + high) / 2
            noisier = self.log_snr(middle) < log_snr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return high

    def betas(self) -> Tensor:
        """The same process in 1000 discrete steps: beta_i = 1 - alpha_bar_i / alpha_bar_(i-1), alpha_bar = alpha².

        → (1000,) float64
        """
        t = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS
        log_alpha_bar = F.logsigmoid(self.log_snr(t))
        return -torch.expm1(torch.diff(log_alpha_bar, prepend=torch.zeros(1, dtype=torch.float64)))


def make_schedule(name: str, resolution: float) -> Schedule:
    """The schedule `name` of model_config.SCHEDULES for pictures of resolution² pixels.

    Only `interpolated` depends on the resolution.
    """
    makers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        "cosine": lambda: _log_snr_of(_cosine),
        "sigmoid": lambda: _log_snr_of(_sigmoid),
        "linear": _linear,
        "interpolated": lambda: _interpolated(resolution),
    }
    return Schedule(name, makers[name]())


def column(values: Tensor, like: Tensor) -> Tensor:
    """One number for each picture, (N,) → (N, 1, 1, 1), in the type and on the device of the pictures `like`.

    One number for all, of no dimension, stays on the CPU: every device takes it as it is, without a copy.
    """
    if values.ndim == 0:
        return values.to(like.dtype)
    return values.to(like).reshape(-1, *(1,) * (like.ndim - 1))


# ── The four schedules ──────────────────────────────────────────────────────────────────────────────────────────────


def _cosine(t: Tensor) -> Tensor:
    """alpha_bar(t) of Improved DDPM (Nichol & Dhariwal 2021, eq. 17), with offset s = 0.008."""
    angle = math.pi / 2 / 1.008
    return torch.cos((t + 0.008) * angle) ** 2 / math.cos(0.008 * angle) ** 2


def _sigmoid(t: Tensor) -> Tensor:
    """alpha_bar(t) of Jabri et al. 2022, with start -3, end 3 and temperature 1."""
    start, end = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))
    return (end - torch.sigmoid(6 * t - 3)) / (end - start)


def _log_snr_of(alpha_bar: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """λ = ln(alpha_bar / (1 - alpha_bar)), with alpha_bar(t) ≥ 0.001·alpha_bar(0.999).

    The floor is the continuous form of the papers' cap of 0.999 on the last beta. Without it, alpha_bar(1) would be 0.
    """
    floor = alpha_bar(torch.tensor(1 - 1 / STEPS, dtype=torch.float64)) * (1 - 0.999)

    def log_snr(t: Tensor) -> Tensor:
        value = torch.maximum(alpha_bar(t), floor)
        return torch.log(value) - torch.log1p(-value)

    return log_snr


def _linear() -> Callable[[Tensor], Tensor]:
    """λ for betas that rise evenly from 1e-4 to 0.02 (Ho et al. 2020, section 4).

    Between the times of the 1000 steps, ln alpha_bar is interpolated linearly.
    """
    betas = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    table = F.pad(torch.log1p(-betas).cumsum(0), (1, 0))                # (1001,): ln alpha_bar at t = 0, 1/1000, …, 1

    def log_snr(t: Tensor) -> Tensor:
        position = t * STEPS
        left = position.floor().clamp(0, STEPS - 1).long()
        log_alpha_bar = torch.lerp(table[left], table[left + 1], position - left)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    return log_snr


def _interpolated(resolution: float) -> Callable[[Tensor], Tensor]:
    """λ(u) = -2 ln tan(πu/2) + u·2 ln(32/resolution): cosine with a shifted noisy end (Hoogeboom et al. 2023).

    Larger pictures need more noise before nothing can be seen in them, smaller ones less. u runs linearly with t,
    between the places where λ is +12 and -11 - 2 ln(max(resolution, 64)/64). At that lower end, noise hides even the
    mean brightness. Stretching u instead of clipping λ keeps λ strictly decreasing.
    """
    shift = 2 * math.log(32 / resolution)

    def shifted(u: Tensor) -> Tensor:
        return -2 * torch.log(torch.tan(math.pi / 2 * u)) + u * shift

    def position_of(log_snr: float) -> float:
        """The u at which λ(u) = log_snr, by bisection."""
        low, high = 1e-9, 1 - 1e-9
        for _ in range(80):
            middle = (low + high) / 2
            noisier = shifted(torch.tensor(middle, dtype=torch.float64)).item() < log_snr
            low, high = (low, middle) if noisier else (middle, high)
        return low

    start, end = position_of(12.0), position_of(-11.0 - 2 * math.log(max(resolution, 64) / 64))
    return lambda t: shifted(start + (end - start) * t)


# ── One step back: the variances of a jump t → s ────────────────────────────────────────────────────────────────────


def jump_log_variances(log_snr_t: Tensor, log_snr_s: Tensor) -> tuple[Tensor, Tensor]:
    """(ln beta, ln beta_tilde) of a jump, a step of any length from time t back to s < t (Ho et al. 2020, eq. 7).

    beta = (1 - e^(λt - λs))·sigma_t² = sigma_t² - (alpha_t/alpha_s)²·sigma_s² is the variance of q(noisy_t | noisy_s).
    beta_tilde = (1 - e^(λt - λs))·sigma_s² is the variance of the posterior q(noisy_s | noisy_t, image).
    Tensors of any shape, float64. λs may be +inf (the clean picture); ln beta_tilde is then -inf.
    """
    log_step = torch.log(-torch.expm1(log_snr_t - log_snr_s))
    return log_step + F.logsigmoid(-log_snr_t), log_step + F.logsigmoid(-log_snr_s)
