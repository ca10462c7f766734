"""Pictures per second of training, where the time of a step goes, and the memory that it takes.

A step as the program makes it gives the rate. The parts of a step are measured one by one, each until the device has
finished, so that their sum is more than the step.
"""

import functools
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from benchmarks.contenders import finish, ours
from benchmarks.gpu import Settings, Units, per_call, stopwatch
from benchmarks.gpu.facts import matrix_rate
from diffuse_cli.config import Recipe
from diffuse_cli.network.network import flops
from diffuse_cli.picture_size import Size
from diffuse_cli.runtime import devices
from diffuse_cli.training import ema
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.memory import planned_bytes
from diffuse_cli.training.trainer import Trainer

CASES = (("small", 64, 256), ("base", 64, 128), ("micro", 32, 512))    # preset, resolution in pixels, batch size
PICTURES = 2048                                 # in the data set
SPLIT_STEPS = 5                                 # steps that are measured in parts


def units(settings: Settings) -> Units:
    cases = (("nano", 16, 4),) if settings.tiny else CASES
    preset, resolution, batch = cases[0]
    return [*((f"{case[0]}, {case[1]} px, batches of {case[2]}", lambda case=case: measure(settings, *case))
              for case in cases),
            (f"diffusers example, {preset}, {resolution} px, batches of {batch}",
             lambda: diffusers(settings, preset, resolution, batch))]


def as_in_training(measure: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A measurement, with the kernels that a training chooses."""
    @functools.wraps(measure)
    def measured(settings: Settings, *args: Any) -> dict[str, Any]:
        with devices.arithmetic(torch.device(settings.device), search=True):
            return measure(settings, *args)
    return measured


def make_trainer(settings: Settings, preset: str, resolution: int, batch: int, *, compiled: bool = False) -> Trainer:
    pixels = ours.random_pictures(64 if settings.tiny else PICTURES, resolution, seed=0)
    recipe = Recipe(resolution=Size.of(resolution), preset=preset, batch_size=batch, images=ours.EPOCHS * len(pixels))
    return ours.make_trainer(ours.dataset_of(pixels, conditional=True), recipe, precision="bf16",
                             device=settings.device, compiled=compiled)


def rate(trainer: Trainer, settings: Settings, seconds: float = 6.0) -> dict[str, Any]:
    """Pictures per second of whole steps, after one that allocates and one that moves the pictures."""
    begun = time.perf_counter()
    trainer.step()
    trainer.step()
    finish(settings.device)
    first = time.perf_counter() - begun
    step = per_call(trainer.step, settings.device, seconds=settings.seconds(seconds))
    return {"pictures/s": trainer.plan.batch_size / step, "ms a step": 1e3 * step, "first two steps, s": first,
            "micro-batch": trainer.micro_batch}


@as_in_training
def measure(settings: Settings, preset: str, resolution: int, batch: int) -> dict[str, Any]:
    cuda = settings.device == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    trainer = make_trainer(settings, preset, resolution, batch)
    facts = rate(trainer, settings)
    peak = torch.cuda.max_memory_allocated() if cuda else 0
    used = 3 * flops(trainer.plan.model.network) * facts["pictures/s"]
    best = matrix_rate(settings, seconds=0.5)
    facts |= {"parts, ms": parts(trainer, settings), "wait for the batch, ms": wait(trainer),
              "TFLOP/s": used / 1e12, "share of the matrix rate": used / best, "peak memory, bytes": peak,
              "planned, bytes": planned_bytes(trainer.plan, trainer.micro_batch)}
    trainer.batches.close()
    return facts


def parts(trainer: Trainer, settings: Settings) -> dict[str, float]:
    """Milliseconds of a step's parts, each until the device has finished."""
    device, spent = settings.device, dict[str, float]()
    steps = 1 if settings.tiny else SPLIT_STEPS
    for step in range(steps):
        trainer.optimizer.zero_grad()
        for start in range(0, trainer.plan.batch_size, trainer.micro_batch):
            count = min(trainer.micro_batch, trainer.plan.batch_size - start)
            with stopwatch(device, spent, "draw"):
                batch, keys = trainer.batches.draw(10**6 + step, start, count)
            with stopwatch(device, spent, "network, forward"):
                losses = trainer.loss(batch, keys)
            with stopwatch(device, spent, "network, backward"):
                torch.autograd.backward(losses[0])
        with stopwatch(device, spent, "clip"):
            torch.nn.utils.clip_grad_norm_(trainer.network.parameters(), 1.0)
        with stopwatch(device, spent, "optimiser"):
            trainer.optimizer.step(1e-6)
        with stopwatch(device, spent, "average"):
            ema.update(list(trainer.averaged.parameters()), trainer.network, trainer.verdicts.updates + 1)
    return {name: 1e3 * seconds / steps for name, seconds in spent.items()}


def wait(trainer: Trainer) -> float:
    """Milliseconds of a step in which the program waits for its batch, the launches of the noise included."""
    spent, draw, steps = 0.0, Batches.draw, 3

    def timed(*args: Any) -> Any:
        nonlocal spent
        begun = time.perf_counter()
        drawn = draw(*args)
        spent += time.perf_counter() - begun
        return drawn

    with mock.patch.object(Batches, "draw", timed):
        for _ in range(steps):
            trainer.step()
    return 1e3 * spent / steps


def diffusers(settings: Settings, preset: str, resolution: int, batch: int) -> dict[str, Any]:
    """The same network in the loop of diffusers' training example, if its packages are there."""
    try:
        from benchmarks.contenders.diffusers_example import training
    except ImportError as error:
        return {"left out": str(error)}

    contender = training(shape=ours.shape(preset, resolution, conditional=True), batch=batch, mixed_precision="bf16",
                         device=settings.device)
    contender.work(2)
    step = per_call(lambda: contender.work(1), settings.device, seconds=settings.seconds(4.0))
    return {"pictures/s": batch / step, "ms a step": 1e3 * step}
