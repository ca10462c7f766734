"""What a training costs: time, memory and disk, from arithmetic and a short measurement of this machine."""

import time
from datetime import timedelta

from .. import config
from ..checks import parse_interval
from ..config import Machine, Plan, Sampling
from ..network.network import flops
from ..runtime.devices import peak_memory
from ..sampling.steps import guided_steps
from .trainer import Trainer

MEASURED_SECONDS = 5.0                          # that finding out the speed takes
SHARE_OF_STEPS = 0.92                           # of the time of a long run; the rest is validation, previews and saving

Facts = tuple[tuple[str, str], ...]


def facts(trainer: Trainer, machine: Machine) -> Facts:
    """What a run would take: arithmetic, disk, and time at this machine's measured speed. Uses the learner up."""
    plan = trainer.plan
    per_picture = 3 * flops(plan.model.network)                        # backward costs about twice the forward pass
    rate = _images_per_second(trainer, MEASURED_SECONDS)
    learnt = plan.steps * plan.batch_size / SHARE_OF_STEPS
    seconds = (learnt + _beside(plan, machine, images=learnt, seconds=learnt / rate)) / rate
    return (
        ("arithmetic", f"{per_picture / 1e9:.2f} GFLOP for each picture learnt from"),
        ("memory", f"{peak_memory(trainer.batches.device) / 2**20:,.0f} MB at its peak"),
        ("disk", f"{disk_bytes(trainer) / 2**20:,.0f} MB for the run"),
        ("speed", f"{rate:,.0f} pictures a second"),
        ("time", f"about {timedelta(seconds=round(seconds))}"),
    )


def images_within(seconds: float, trainer: Trainer, machine: Machine) -> int:
    """Pictures that can be learnt from in that time, by measuring this machine; uses the learner up.

    Some of it is kept for validation, previews and saving, but of a very short time no more than half.
    """
    started = time.monotonic()
    rate = _images_per_second(trainer, min(MEASURED_SECONDS, seconds / 10))
    left = seconds - (time.monotonic() - started)
    beside = _beside(trainer.plan, machine, images=rate * left, seconds=left)
    return max(1, int(SHARE_OF_STEPS * max(rate * left / 2, rate * left - beside)))


def _beside(plan: Plan, machine: Machine, *, images: float, seconds: float) -> float:
    """What the previews and the smallest validations of a run take, in pictures learnt from: three forward passes.

    images, seconds: of the run, about; the plan's own number of steps may be another's.
    """
    kind, every = parse_interval("--preview-every", machine.preview_every)
    previews = {"share": 1 / every, "steps": images / plan.batch_size / every, "seconds": max(1, seconds / every)}[kind]
    sampling = Sampling()
    passes = sampling.number_of_steps + (guided_steps(plan.model, sampling) if plan.model.conditional else 0)
    validated = config.VALIDATIONS * config.VALIDATION_LEVELS * min(
        config.MIN_VALIDATION_PICTURES, plan.validation_images)
    return (validated + previews * config.PREVIEW_PICTURES * passes) / 3


def disk_bytes(trainer: Trainer) -> int:
    """Three training states, one more while it is written, and two models."""
    return 4 * sum(tensor.nbytes for tensor in trainer.tensors().values()) + 2 * 4 * trainer.parameters


def _images_per_second(trainer: Trainer, seconds: float) -> float:
    trainer.step()                                                  # the first step also compiles and allocates
    begun, steps = time.monotonic(), 0
    while trainer.world.all_reduce_max(steps < 3 or time.monotonic() - begun < seconds):
        trainer.step()
        steps += 1
    return steps * trainer.plan.batch_size / (time.monotonic() - begun)
