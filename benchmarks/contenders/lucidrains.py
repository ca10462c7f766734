"""denoising-diffusion-pytorch as its `Trainer` uses it, restated: Adam, clipping, and an EMA every ten steps."""

from typing import Any

import torch
from accelerate import Accelerator
from ema_pytorch import EMA
from torch import Tensor

from . import Contender, torchvision_operators, training_gflop  # noqa: F401  (before the next line)

from denoising_diffusion_pytorch import GaussianDiffusion, Unet  # isort: skip

MULTIPLES = (1, 2, 4, 8)                        # width of each level / width of the network: the library's default


def network_of(parameters: int) -> tuple[Unet, int]:
    """The default network with the width that brings it nearest to that many parameters, and this width."""
    counts = {width: sum(one.numel() for one in Unet(width, dim_mults=MULTIPLES).parameters())
              for width in range(8, 81, 8)}
    width = min(counts, key=lambda width: abs(counts[width] - parameters))
    return Unet(width, dim_mults=MULTIPLES), width


class Trainer:
    """The library's training loop without its files. `lr` is an option of the library; amp is off by default."""

    def __init__(self, *, parameters: int, resolution: int, lr: float, sampling_steps: int, seed: int) -> None:
        torch.manual_seed(seed)
        self.accelerator = Accelerator(cpu=True)
        network, self.width = network_of(parameters)
        self.gflop = training_gflop(
            lambda: network(torch.zeros(1, 3, resolution, resolution), torch.zeros(1).long()))
        diffusion = GaussianDiffusion(network, image_size=resolution, sampling_timesteps=sampling_steps)
        self.ema = EMA(diffusion, beta=0.995, update_every=10)
        self.parameters = sum(one.numel() for one in network.parameters())
        self.diffusion, self.optimizer = self.accelerator.prepare(
            diffusion, torch.optim.Adam(diffusion.parameters(), lr=lr, betas=(0.9, 0.99)))

    def step(self, images: Tensor) -> float:
        """Train on images (N, 3, R, R) in [0, 1], which the library scales itself. → the loss"""
        with self.accelerator.autocast():
            loss = self.diffusion(images)
        value = loss.item()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.diffusion.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()
        return value

    @torch.no_grad()
    def generate(self, count: int) -> Tensor:
        """`count` pictures by DDIM with the averaged weights, (N, R, R, 3) uint8."""
        images = self.ema.ema_model.sample(batch_size=count)
        return (images.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)


def training(*, parameters: int, resolution: int, batch: int, seed: int = 0) -> Contender:
    """A unit is a training step, on pictures that lie ready in memory."""
    trainer = Trainer(parameters=parameters, resolution=resolution, lr=1e-4, sampling_steps=250, seed=seed)
    images = torch.rand(batch, 3, resolution, resolution)

    def work(steps: int) -> None:
        for _ in range(steps):
            trainer.step(images)

    facts: dict[str, Any] = {"pictures": batch, "parameters": trainer.parameters, "gflop": trainer.gflop,
                             "precision": "fp32", "width": trainer.width}
    return Contender(work, facts)
