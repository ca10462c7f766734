"""A batch to its losses."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..config import ModelConfig, Plan
from ..denoiser import ask, read
from ..diffusion import losses
from ..diffusion.schedule import Schedule
from ..network.network import Network
from ..runtime import randomness
from .loss import Batch, compute_losses


@dataclass(frozen=True)
class Batch:
    """Pictures with their noise, all on one device but `t`."""

    image: Tensor                               # (N, C, H, W) float32 in [-1, 1]
    noise: Tensor                               # (N, C, H, W) standard normal
    t: Tensor                                   # (N,) float64, on the CPU
    tokens: Tensor | None                       # (M, 77) of the M distinct captions; None when unconditional
    caption_of: Tensor | None                   # (N,) which of them each picture has


@dataclass(frozen=True)
class Losses:
    """For every picture, (N,) float32."""

    noise_mse: Tensor                           # unweighted
    weighted: Tensor                            # the same under the objective's weight
    variance: Tensor | None                     # bits per dimension and step; None when the variance is fixed


def compute_losses(
    network: Network, batch: Batch, *, config: ModelConfig, schedule: Schedule, objective: str,
    variance_grad: str = "head", dropout: Callable[[Tensor], Tensor] | None = None, precision: str = "fp32",
) -> Losses:
    """Noise the pictures, ask the network, compare. The mean of weighted + variance over a batch is minimised.

    `precision` is that of the network alone: losses are float32.
    """
    noisy = schedule.add_noise(batch.image, batch.noise, batch.t)
    text = read(network, batch.tokens, batch.caption_of, precision=precision)
    answer, channels = ask(network, noisy, batch.t, text, config=config, precision=precision, dropout=dropout,
                           detach_variance=variance_grad == "head")

    log_snr = schedule.log_snr(batch.t)
    target = schedule.target(config.prediction, batch.image, batch.noise, batch.t)
    noise_mse = losses.noise_loss(answer, target, prediction=config.prediction, log_snr=log_snr)
    weight = losses.noise_weight(objective, log_snr, config.network.resolution).to(noise_mse)
    variance = None
    if channels is not None:
        estimate = schedule.image_of(config.prediction, answer.detach(), noisy, batch.t)
        variance = losses.variance_loss(
            schedule, image=batch.image, estimate=estimate, log_fraction=losses.log_fraction(channels), t=batch.t)
    return Losses(noise_mse, weight * noise_mse, variance)


class Shares(nn.Module):
    """A network with the question that it is trained on, as the one module whose gradients are shared."""

    def __init__(self, network: Network, plan: Plan, schedule: Schedule, *, precision: str) -> None:
        super().__init__()
        self.network, self.plan, self.schedule, self.precision = network, plan, schedule, precision

    def forward(self, batch: Batch, keys: Tensor) -> Tensor:
        """A part of a batch, and its dropout's keys → (3,) its share of the batch's totals; see `Measured`."""
        plan = self.plan
        dropout = randomness.Dropout(keys, plan.dropout) if plan.dropout else None
        losses = compute_losses(
            self.network, batch, config=plan.model, schedule=self.schedule, objective=plan.objective,
            variance_grad=plan.variance_grad, dropout=dropout, precision=self.precision)
        variance = torch.zeros_like(losses.weighted) if losses.variance is None else losses.variance
        per_picture = torch.stack([losses.weighted + variance, losses.noise_mse, variance], dim=1)     # (N, 3)
        return per_picture.sum(0) / plan.batch_size
