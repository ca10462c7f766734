"""The training loss: a batch of pictures, captions, times and noise in, the loss of every picture out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import Plan
from ..denoiser import Dropout, Network, encode_captions, network_time, predict
from ..diffusion import losses
from ..diffusion.schedule import Level, Schedule
from ..diffusion.upscaling import LowRes
from ..model_config import ModelConfig
from ..runtime import randomness
from ..runtime.transfer import Packed


class Coefficients(NamedTuple):
    """All that network and losses need to know of N times, (N,) each: computed once in float64, and moved together.

    They are float64 on the CPU, and float32 on any other device.
    """

    time: Tensor                                # `network_time`, float32 everywhere
    level: Level
    fine_step: losses.FineStep

    @classmethod
    def of(cls, schedule: Schedule, t: Tensor) -> "Coefficients":
        """t: (N,) float64 on the CPU, where the coefficients are, too."""
        return cls(network_time(t).float(), schedule.at(t), losses.fine_step(schedule, t))

    def flat(self) -> list[Tensor]:
        """All coefficients in a fixed order, ready to be moved."""
        return [self.time, *self.level, *self.fine_step]

    @classmethod
    def from_flat(cls, tensors: Sequence[Tensor]) -> "Coefficients":
        """The inverse of `flat`."""
        levels = len(Level._fields)
        return cls(tensors[0], Level(*tensors[1 : 1 + levels]), losses.FineStep(*tensors[1 + levels :]))

    def on(self, device: torch.device) -> "Coefficients":
        """The same on a device, moved in one copy."""
        return self.from_flat(Packed(self.flat(), device).send())


@dataclass(frozen=True)
class Batch:
    """N pictures, each with a caption, a time and noise. All tensors but `t` are on one device."""

    image: Tensor                               # (N, C, H, W) float32 in [-1, 1]
    noise: Tensor                               # (N, C, H, W) standard normal
    t: Tensor                                   # (N,) float64 in (0, 1], on the CPU
    tokens: Tensor | None                       # (M, 77) the M distinct captions; None when unconditional
    caption_of: Tensor | None                   # (N,) which of the M captions each picture has
    coefficients: Coefficients | None = None    # of t, if they are already on the pictures' device
    low_res: LowRes | None = None               # the small pictures, of an upscaler
    enlarged: Tensor | None = None              # (N, C, H, W), the same without noise, for the student of an upscaler
    reduction: int = 1                          # by which the sides of pictures and noise were reduced: see `halved`


@dataclass(frozen=True)
class Losses:
    """The losses of every picture, (N,) float32 each."""

    noise_mse: Tensor                           # noise loss, unweighted: mean squared error of the noise
    weighted: Tensor                            # noise loss times the weight of its noise level
    variance: Tensor | None                     # variance loss, bits per dimension and step; None for a fixed variance


def compute_losses(
    network: Network, batch: Batch, *, config: ModelConfig, schedule: Schedule, loss_weighting: str,
    variance_grad: str = "head", dropout: Dropout | None = None, precision: str = "fp32",
) -> Losses:
    """Add noise to the pictures, let the network predict, and compare (Ho et al. 2020, 2006.11239, algorithm 1).

    Training minimises the mean of weighted + variance, w(λ)·‖noise - estimated noise‖²/D + L_t, the hybrid objective of
    Nichol & Dhariwal 2021 (2102.09672, eq. 16).

    loss_weighting: one of config.LOSS_WEIGHTINGS. variance_grad: "head" lets the variance loss train only the layer
    that predicts the variance, "trunk" the whole network. dropout: see `UNet.forward`. precision: of the network,
    "bf16" or "fp32"; the losses are float32.
    """
    # Forward diffusion
    at = batch.coefficients or Coefficients.of(schedule, batch.t).on(batch.image.device)
    noisy = schedule.add_noise(batch.image, batch.noise, at.level)                         # (N, C, H, W)

    # Prediction
    text = encode_captions(network, batch.tokens, batch.caption_of, precision=precision)   # (N, 77, width)
    prediction, variance_channels = predict(
        network, noisy, at.time, text, config=config, precision=precision, low_res=batch.low_res, dropout=dropout,
        detach_variance=variance_grad == "head")

    # Noise loss
    log_snr = at.level.log_snr                                                             # (N,)
    target = schedule.target(config.prediction, batch.image, batch.noise, at.level)
    noise_mse = losses.noise_loss(prediction, target, prediction=config.prediction, log_snr=log_snr)
    side = config.network.schedule_side / batch.reduction
    weight = losses.noise_weight(loss_weighting, log_snr, side).to(noise_mse)

    # Variance loss
    variance = None
    if variance_channels is not None:
        estimate = schedule.image_of(config.prediction, prediction.detach(), noisy, at.level)
        variance = losses.variance_loss(
            schedule, image=batch.image, estimate=estimate, log_fraction=losses.log_fraction(variance_channels),
            t=at.fine_step)
    return Losses(noise_mse, weight * noise_mse, variance)


class TrainingLoss(nn.Module):
    """Network and loss as one module, whose gradients DistributedDataParallel can average over processes."""

    def __init__(self, network: Network, plan: Plan, schedule: Schedule, *, precision: str) -> None:
        super().__init__()
        self.network, self.plan, self.schedule, self.precision = network, plan, schedule, precision

    def forward(self, batch: Batch, dropout_keys: Tensor) -> Tensor:
        """N pictures of a step's batch, and the keys of their dropout masks (N,) → (3,) their part of the losses.

        The parts of all pictures of a batch add up to `StepResult.losses`.
        """
        plan = self.plan
        dropout = randomness.Dropout(dropout_keys, plan.dropout) if plan.dropout else None
        per_picture = compute_losses(
            self.network, batch, config=plan.model, schedule=self.schedule, loss_weighting=plan.loss_weighting,
            variance_grad=plan.variance_grad, dropout=dropout, precision=self.precision)
        weighted, noise_mse, variance = per_picture.weighted, per_picture.noise_mse, per_picture.variance
        if variance is None:
            variance = torch.zeros_like(weighted)
        columns = torch.stack([weighted + variance, noise_mse, variance], dim=1)           # (N, 3)
        return columns.sum(0) / plan.batch_size                                            # (3,)
