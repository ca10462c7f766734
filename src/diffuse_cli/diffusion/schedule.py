"""The noise process: time t → how much picture (alpha) and how much noise (sigma); adding noise and taking it away.

Variance preserving, `noisy = alpha(t)·image + sigma(t)·noise` with alpha² + sigma² = 1, and log-SNR
λ = 2 ln(alpha/sigma) (Kingma et al. 2021, "Variational Diffusion Models"). Times run from 0 (the clean picture) to 1
(noise), pictures live in [-1, 1]. Coefficients are float64 until they meet a picture. Knows no network.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

STEPS = 1000                                    # of the stock discrete process: index i is t = (i + 1) / 1000
FIRST_TIME = 1 / STEPS                          # nothing below is trained


@dataclass(frozen=True)
class Schedule:
    """A noise process, given by its log-SNR λ(t): (N,) float64 times in (0, 1] → (N,) float64.

    λ falls strictly with t, but for the last 3e-5 of `cosine` and `sigmoid`, where the cap on the last beta holds it.
    """

    name: str
    log_snr: Callable[[Tensor], Tensor]

    def alpha_sigma(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Signal and noise amplitudes at times t (any shape), float64."""
        log_snr = self.log_snr(t)
        return torch.sigmoid(log_snr).sqrt(), torch.sigmoid(-log_snr).sqrt()

    # Each of these takes pictures (N, C, H, W) and times (N,), and inverts or combines the first.

    def add_noise(self, image: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """Forward diffusion q(noisy | image) (Ho et al. 2020, eq. 4)."""
        alpha, sigma = self._broadcast(t, image)
        return alpha * image + sigma * noise

    def noise_of(self, image: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The noise that leads from `image` to `noisy`."""
        alpha, sigma = self._broadcast(t, image)
        return (noisy - alpha * image) / sigma

    def target(self, prediction: str, image: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """What a network that predicts v, epsilon or x0 should answer (v: Salimans & Ho 2022, section 4)."""
        if prediction == "epsilon":
            return noise
        if prediction == "x0":
            return image
        alpha, sigma = self._broadcast(t, image)
        return alpha * noise - sigma * image

    def image_of(self, prediction: str, output: Tensor, noisy: Tensor, t: Tensor) -> Tensor:
        """The clean picture that the network's answer implies: the inverse of `target`."""
        if prediction == "x0":
            return output
        alpha, sigma = self._broadcast(t, noisy)
        if prediction == "epsilon":
            return (noisy - sigma * output) / alpha
        return alpha * noisy - sigma * output

    def _broadcast(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        alpha, sigma = self.alpha_sigma(t)
        shape = (-1,) + (1,) * (like.ndim - 1)
        return alpha.to(like).reshape(shape), sigma.to(like).reshape(shape)

    def time_of(self, log_snr: Tensor) -> Tensor:
        """The times in [1/1000, 1] at which λ takes the given values (clamped to that range), by bisection."""
        low, high = torch.full_like(log_snr, FIRST_TIME), torch.ones_like(log_snr)
        for _ in range(60):
            middle = (low + high) / 2
            noisier = self.log_snr(middle) < log_snr
            low, high = torch.where(noisier, low, middle), torch.where(noisier, middle, high)
        return high

    def betas(self) -> Tensor:
        """The same process as the stock 1000 discrete steps: beta_i = 1 - alpha_bar_i / alpha_bar_(i-1). → (1000,)"""
        t = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS
        log_alpha_bar = F.logsigmoid(self.log_snr(t))
        return -torch.expm1(torch.diff(log_alpha_bar, prepend=torch.zeros(1, dtype=torch.float64)))


def make_schedule(name: str, resolution: int) -> Schedule:
    """One of config.SCHEDULES; only `interpolated` depends on the resolution (pixels along a side)."""
    makers: dict[str, Callable[[], Callable[[Tensor], Tensor]]] = {
        "cosine": lambda: _log_snr_of(_cosine),
        "sigmoid": lambda: _log_snr_of(_sigmoid),
        "linear": _linear,
        "interpolated": lambda: _interpolated(resolution),
    }
    return Schedule(name, makers[name]())


# ── The four schedules ──────────────────────────────────────────────────────────────────────────────────────────────


def _cosine(t: Tensor) -> Tensor:
    """alpha_bar of Improved DDPM (Nichol & Dhariwal 2021, eq. 17), offset s = 0.008."""
    angle = math.pi / 2 / 1.008
    return torch.cos((t + 0.008) * angle) ** 2 / math.cos(0.008 * angle) ** 2


def _sigmoid(t: Tensor) -> Tensor:
    """alpha_bar of Jabri et al. 2022 (start -3, end 3, tau 1)."""
    start, end = 1 / (1 + math.exp(3)), 1 / (1 + math.exp(-3))
    return (end - torch.sigmoid(6 * t - 3)) / (end - start)


def _log_snr_of(alpha_bar: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """λ = ln(alpha_bar / (1 - alpha_bar)); the stock cap of 0.999 on the last beta keeps alpha_bar(1) above 0."""
    floor = alpha_bar(torch.tensor(1 - 1 / STEPS, dtype=torch.float64)) * (1 - 0.999)

    def log_snr(t: Tensor) -> Tensor:
        value = torch.maximum(alpha_bar(t), floor)
        return torch.log(value) - torch.log1p(-value)

    return log_snr


def _linear() -> Callable[[Tensor], Tensor]:
    """Betas rising evenly from 1e-4 to 0.02 (Ho et al. 2020); between the 1000 steps ln alpha_bar is interpolated."""
    betas = torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    table = F.pad(torch.log1p(-betas).cumsum(0), (1, 0))                # ln alpha_bar at t = 0, 1/1000, …, 1

    def log_snr(t: Tensor) -> Tensor:
        position = t * STEPS
        left = position.floor().clamp(0, STEPS - 1).long()
        log_alpha_bar = torch.lerp(table[left], table[left + 1], position - left)
        return log_alpha_bar - torch.log(-torch.expm1(log_alpha_bar))

    return log_snr


def _interpolated(resolution: int) -> Callable[[Tensor], Tensor]:
    """Cosine whose noisy end is shifted by 2 ln(32/resolution) (Hoogeboom et al. 2023, "simple diffusion").

    Larger pictures need more noise to drown, smaller ones less. The time axis is stretched, not clipped, so that λ
    falls strictly from +12 to -11 - 2 ln(max(resolution, 64)/64): low enough to drown even the mean brightness.
    """
    shift = 2 * math.log(32 / resolution)

    def shifted(u: Tensor) -> Tensor:
        return -2 * torch.log(torch.tan(math.pi / 2 * u)) + u * shift

    def position_of(log_snr: float) -> float:
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
    """(ln beta, ln beta_tilde) of a jump from time t back to s < t (Ho et al. 2020, eq. 7, for jumps of any length).

    beta = sigma_t² - (alpha_t/alpha_s)² sigma_s² is the variance of q(noisy_t | noisy_s), beta_tilde that of the
    posterior q(noisy_s | noisy_t, image); in log-SNRs beta = (1 - e^(λt - λs)) sigma_t², beta_tilde the same with
    sigma_s². λs may be +inf (the clean picture), where ln beta_tilde is -inf.
    """
    log_step = torch.log(-torch.expm1(log_snr_t - log_snr_s))
    return log_step + F.logsigmoid(-log_snr_t), log_step + F.logsigmoid(-log_snr_s)
