"""The joint of network and noise schedule: noisy pictures, times and captions in, estimates of the pictures out.

Training, sampling and evaluation all call the network through this module.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from .diffusion import losses
from .diffusion.samplers import Denoised
from .diffusion.schedule import STEPS, Schedule
from .diffusion.upscaling import LowRes
from .model_config import ModelConfig

Dropout = Callable[[], Callable[[Tensor], Tensor]]      # see `network.blocks.Dropout`


class Network(Protocol):
    """The interface that this module needs of a network. `network.network.Network` has it."""

    def encode(self, tokens: Tensor, /) -> Tensor:
        """Tokens of captions (M, 77) int64 → text features (M, 77, width)."""

    def __call__(
        self, noisy: Tensor, time: Tensor, text: Tensor | None = None, *,
        low_res: tuple[Tensor, Tensor] | None = None, dropout: Dropout | None = None, detach_variance: bool = False,
    ) -> Tensor:
        """Noisy pictures (N, C, H, W), times (N,) and text features (N, 77, width) → (N, out_channels, H, W).

        low_res: what an upscaler reads as well.
        """


class Seeing(Protocol):
    """The interface of a network that can also say what it sees. `network.network.Network` has it."""

    def features(self, noisy: Tensor, time: Tensor, text: Tensor | None = None) -> list[Tensor]:
        """The arguments of `Network` → what the network sees: a map of each of its levels, and one of its middle."""


def network_time(t: Tensor | float) -> Tensor:
    """c = 1000·t - 1, the form in which the network is given times t in (0, 1]: 0 … 999 are the time steps of DDPM.

    t: a number, or a tensor of any shape → float64 of the same shape.
    """
    return torch.as_tensor(t, dtype=torch.float64) * STEPS - 1


def encode_captions(
    network: Network, tokens: Tensor | None, caption_of: Tensor | None, *, precision: str,
) -> Tensor | None:
    """The text features of each picture's caption, (N, 77, width); None without tokens.

    tokens: (M, 77) int64, the M distinct captions, each of which is encoded once; caption_of: (N,) int64, which of them
    each picture has; precision: "bf16" or "fp32".
    """
    if tokens is None or caption_of is None:
        return None
    with _autocast(tokens.device, precision):
        return network.encode(tokens)[caption_of]


def predict(
    network: Network, noisy: Tensor, time: Tensor, text: Tensor | None, *, config: ModelConfig, precision: str,
    low_res: LowRes | None = None, dropout: Dropout | None = None, detach_variance: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Call the network on noisy pictures (N, C, H, W). → the two tensors of `split_prediction`

    time: (N,) float32 on their device, the `network_time`. text: (N, 77, width), or None. precision: of the network's
    arithmetic, "bf16" or "fp32". low_res: the small pictures that an upscaler enlarges. dropout: see
    `UNet.forward`. detach_variance: let the variance loss train the last layer alone.
    """
    with _autocast(noisy.device, precision):
        output = network(noisy, time, text, low_res=low_res, dropout=dropout, detach_variance=detach_variance)
    return split_prediction(output, config)


def features(
    network: Seeing, noisy: Tensor, time: Tensor, text: Tensor | None, *, precision: str,
) -> list[Tensor]:
    """What a network sees in noisy pictures: a map (N, C, H, W) of each level, float32. Arguments as for `predict`."""
    with _autocast(noisy.device, precision):
        return [seen.float() for seen in network.features(noisy, time, text)]


def split_prediction(output: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor | None]:
    """A network's output (N, out_channels, H, W) → prediction and variance channels, (N, C, H, W) each, in float32.

    The prediction is of the kind `config.prediction`. The variance channels are None if the variance is fixed.
    """
    channels = config.network.channels
    output = output.float()
    return output[:, :channels], output[:, channels:] if config.learned_variance else None


@torch.no_grad()
def denoise(
    network: Network, noisy: Tensor, t: Tensor, text: Tensor | None, *, config: ModelConfig, schedule: Schedule,
    precision: str, low_res: LowRes | None = None,
) -> Denoised:
    """Estimate the clean pictures in noisy ones (N, C, H, W), without gradients.

    t: their times (N,) float64 on the CPU, which are copied to the device; or one time of no dimension, which is not.

    The estimate is `Schedule.image_of` the network's prediction. A learned variance is given as its fraction of the way
    from ln beta_tilde to ln beta, clamped to [0, 1]; without one it is None. Other arguments as of
    `predict`.
    """
    time = network_time(t).float()
    time = time.to(noisy.device) if time.ndim else torch.full((len(noisy),), time.item(), device=noisy.device)
    prediction, variance_channels = predict(
        network, noisy, time, text, config=config, precision=precision, low_res=low_res)
    image = schedule.image_of(config.prediction, prediction, noisy, t)
    fraction = None if variance_channels is None else losses.log_fraction(variance_channels).clamp(0, 1)
    return Denoised(image, fraction)


def _autocast(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
