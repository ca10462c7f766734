"""Where the network meets the mathematics: one batch in, the losses of every picture out.

Used by training, and by everything that measures a model. Knows no optimiser and no files.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .config import ModelConfig
from .diffusion import losses
from .diffusion.samplers import Denoised
from .diffusion.schedule import STEPS, Schedule
from .network.network import Network


def network_time(t: Tensor | float) -> Tensor:
    """The stock index c = 1000·t - 1 that the network is told, so that 0 … 999 mean what they mean elsewhere."""
    return torch.as_tensor(t, dtype=torch.float64) * STEPS - 1


# ── Questions to the network ────────────────────────────────────────────────────────────────────────────────────────


def read(network: Network, tokens: Tensor | None, caption_of: Tensor | None, *, precision: str) -> Tensor | None:
    """The features of each picture's caption: tokens (M, 77), caption_of (N,) → (N, 77, width); None without."""
    if tokens is None or caption_of is None:
        return None
    with _rounding(tokens.device, precision):
        return network.encode(tokens)[caption_of]


def ask(
    network: Network, noisy: Tensor, t: Tensor, text: Tensor | None, *, config: ModelConfig, precision: str,
    dropout: Callable[[Tensor], Tensor] | None = None, detach_variance: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """The network's prediction and its variance channels for (N, C, H, W) at times (N,): see `split_output`."""
    with _rounding(noisy.device, precision):
        output = network(noisy, network_time(t).float().to(noisy.device), text, dropout=dropout,
                         detach_variance=detach_variance)
    return split_output(output, config)


@torch.no_grad()
def denoise(
    network: Network, noisy: Tensor, t: Tensor, text: Tensor | None, *, config: ModelConfig, schedule: Schedule,
    precision: str,
) -> Denoised:
    """What the network takes the clean pictures to be, and the fraction of its variance, clamped to [0, 1]."""
    prediction, channels = ask(network, noisy, t, text, config=config, precision=precision)
    image = schedule.image_of(config.prediction, prediction, noisy, t)
    return Denoised(image, None if channels is None else losses.log_fraction(channels).clamp(0, 1))


def _rounding(device: torch.device, precision: str) -> torch.autocast:
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def split_output(output: Tensor, config: ModelConfig) -> tuple[Tensor, Tensor | None]:
    """(N, out_channels, H, W) → prediction and variance channels (None when the variance is fixed), float32."""
    channels = config.network.channels
    output = output.float()
    return output[:, :channels], output[:, channels:] if config.learned_variance else None
