"""The same numbers as on the CPU: random numbers, and a training step's losses and gradients, without TF32."""

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.contenders import ours
from benchmarks.gpu import Settings, Units
from diffuse_cli.config import Recipe
from diffuse_cli.picture_size import Size
from diffuse_cli.runtime import devices, randomness
from diffuse_cli.training.trainer import Trainer

TOLERANCE = 1e-4                                # of losses and gradients in float32, relative
BF16_TOLERANCE = 0.05                           # of gradients in bf16, relative to their norm: an expectation


def units(settings: Settings) -> Units:
    return [("random numbers", lambda: random_numbers(settings.device)),
            ("losses and gradients, fp32", lambda: compare(settings, "fp32", TOLERANCE)),
            ("losses and gradients, bf16", lambda: compare(settings, "bf16", BF16_TOLERANCE))]


def random_numbers(device: str) -> dict[str, Any]:
    keys = randomness.keys(0, "noise", 3, torch.arange(8))
    here = randomness.normal(keys, (3, 16, 16))
    there = randomness.normal(keys.to(device), (3, 16, 16)).cpu()
    uniform = torch.equal(randomness.uniform(keys, 64), randomness.uniform(keys.to(device), 64).cpu())
    difference = float((here - there).abs().max())
    return {"passed": uniform and difference < 1e-5, "uniform equal": uniform, "normal, largest difference": difference}


def trainer(settings: Settings, device: str, precision: str) -> Trainer:
    preset, resolution, batch = ("nano", 16, 4) if settings.tiny else ("small", 64, 16)
    recipe = Recipe(resolution=Size.of(resolution), preset=preset, batch_size=batch, steps=100)
    pixels = ours.random_pictures(64, resolution, seed=0)
    return ours.make_trainer(ours.dataset_of(pixels, conditional=True), recipe, precision=precision, device=device)


def step(trainer: Trainer, weights: dict[str, Tensor]) -> tuple[Tensor, list[Tensor]]:
    """→ the losses (3,) and the gradients of a step with these weights, on the CPU"""
    trainer.start_from(weights)
    losses = trainer.loss(*trainer.batches.draw(5, 0, trainer.plan.batch_size))
    torch.autograd.backward(losses[0])
    return losses.detach().cpu(), [torch.zeros(1) if one.grad is None else one.grad.cpu()
                                   for one in trainer.network.parameters()]


def compare(settings: Settings, precision: str, tolerance: float) -> dict[str, Any]:
    here, there = trainer(settings, "cpu", "fp32"), trainer(settings, settings.device, precision)
    generator = torch.Generator().manual_seed(0)                       # a new network's last layers are zero
    weights = {name: one + 0.02 * torch.randn(one.shape, generator=generator)
               for name, one in here.network.state_dict().items()}
    begun = time.perf_counter()
    losses, gradients = step(here, weights)
    seconds = time.perf_counter() - begun
    with devices.arithmetic(there.batches.device):
        found, found_gradients = step(there, weights)
    differences = [float((one - other).norm()) for one, other in zip(gradients, found_gradients, strict=True)]
    norms = [float(one.norm()) for one in gradients]
    total = (sum(one**2 for one in differences) / sum(one**2 for one in norms)) ** 0.5
    worst, name = max((difference / max(norm, 1e-3 * max(norms)), name) for difference, norm, (name, _) in zip(
        differences, norms, here.network.named_parameters(), strict=True))
    loss = float(((found - losses).abs() / losses.abs()).max())
    return {"passed": max(loss, total) < tolerance, "losses, relative": loss, "gradients, relative": total,
            "worst parameter": name, "its gradient, relative": worst, "seconds of the CPU": seconds}
