"""The one joint of network and noise schedule: noisy pictures, times and captions in, estimates of the pictures out.

Training, sampling and evaluation all ask the network through here.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .config import ModelConfig
from .diffusion import losses
from .diffusion.samplers import Denoised
from .diffusion.schedule import STEPS, Schedule


class Network(Protocol):
    """What is needed of a network: that of `network.network`, or another with the same two calls."""

    def encode(self, tokens: Tensor, /) -> Tensor:
        """Captions (M, 77) int64 → text features (M, 77, width)."""

    def __call__(
        self, noisy: Tensor, time: Tensor, text: Tensor | None = None, *,
        dropout: Callable[[Tensor], Tensor] | None = None, detach_variance: bool = False,
    ) -> Tensor:
        """Noisy pictures (N, C, H, W), times (N,) and text (N, 77, width) → (N, out_channels, H, W)."""


def network_time(t: Tensor | float) -> Tensor:
    """The time as the network is told it: c = 1000·t - 1, so that 0 … 999 mean what they mean in other programs."""
    return torch.as_tensor(t, dtype=torch.float64) * STEPS - 1


def encode_captions(
    network: Network, tokens: Tensor | None, caption_of: Tensor | None, *, precision: str,
) -> Tensor | None:
    """The text features of each picture's caption; None for an unconditional model.

    tokens: (M, 77) the distinct captions; caption_of: (N,) which of them each picture has. → (N, 77, width)
    """
    if tokens is None or caption_of is None:
        return None
    with _autocast(tokens.device, precision):
        return network.encode(tokens)[caption_of]


def predict(
    network: Network, noisy: Tensor, t: Tensor, text: Tensor | None, *, config: ModelConfig, precision: str,
    dropout: Callable[[Tensor], Tensor] | None = None, detach_variance: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The network's answer for noisy pictures (N, C, H, W) at times (N,): see `split_prediction`.

    text: (N, 77, width), or None. detach_variance: keep the variance loss from training more than the last layer.
    """
    with _autocast(noisy.device, precision):
        output = network(noisy, network_time(t).float().to(noisy.device), text, dropout=dropout,
                         detach_variance=detach_variance)
    return split_prediction(output, config)


def split_prediction(output: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor | None]:
    """(N, out_channels, H, W) → the prediction (N, C, H, W), and the variance channels if learned; float32."""
    channels = config.network.channels
    output = output.float()
    return output[:, :channels], output[:, channels:] if config.learned_variance else None


@torch.no_grad()
def denoise(
    network: Network, noisy: Tensor, t: Tensor, text: Tensor | None, *, config: ModelConfig, schedule: Schedule,
    precision: str,
) -> Denoised:
    """The network's estimate of the clean pictures, and its variance as a fraction in [0, 1], (N, C, H, W) each.

    The fraction lies between the smallest and the largest possible variance of a step; None if it is not learned.
    """
    prediction, variance_channels = predict(network, noisy, t, text, config=config, precision=precision)
    image = schedule.image_of(config.prediction, prediction, noisy, t)
    fraction = None if variance_channels is None else losses.log_fraction(variance_channels).clamp(0, 1)
    return Denoised(image, fraction)


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
