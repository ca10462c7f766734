"""Estimates of the cost of a training: time, memory and disk, from arithmetic and a short measurement."""

import contextlib
import time
from datetime import timedelta

from .. import config
from ..checks import parse_interval
from ..config import Machine, Plan, Sampling
from ..network.network import flops
from ..runtime.devices import peak_memory
from ..sampling.steps import guided_steps
from .memory import planned_bytes
from .trainer import Trainer

MEASURED_SECONDS = 5.0                          # duration of a measurement of the speed
STEPS_TIME_SHARE = 0.92                         # share of a long run's time that its steps take; validation, previews
#                                                 and saving take the rest

SHARES = 8                                      # processes for which the memory is told where one has no room

Facts = tuple[tuple[str, str], ...]             # (label, text) of each line of the header


def facts(trainer: Trainer, machine: Machine) -> Facts:
    """Arithmetic, memory, disk, speed and remaining time of a run, measured by training for a few seconds.

    A trainer without values measures nothing: its memory is what is planned. No trainer can be used for the run
    afterwards.
    """
    plan, steps = trainer.plan, trainer.plan.steps - trainer.global_step
    per_picture = 3 * flops(plan.model.network)                        # backward costs about twice the forward pass
    arithmetic = ("arithmetic", f"{per_picture / 1e9:.2f} GFLOP for each picture trained on")
    disk = ("disk", f"{disk_bytes(trainer) / 2**20:,.0f} MB for the run")
    if not trainer.has_values:
        alone, shared = (planned_bytes(plan, 1, shares=shares) / 2**20 for shares in (1, SHARES))
        return (arithmetic, ("memory", f"{alone:,.0f} MB planned for one picture at once; {shared:,.0f} MB in each of "
                             f"{SHARES} processes that divide the weights"), disk,
                ("speed", "not measured, because there is no room for the network here"))
    left = max(0, plan.half_side_steps - trainer.global_step)          # steps that see pictures at half their side
    rate, half_rate = _speeds(trainer, MEASURED_SECONDS)
    trained = plan.batch_size * (steps - left + left * rate / half_rate) / STEPS_TIME_SHARE    # as whole pictures
    seconds = (trained + _overhead(plan, machine, images=trained, seconds=trained / rate)) / rate
    return (
        arithmetic,
        ("memory", f"{peak_memory(trainer.batches.device) / 2**20:,.0f} MB at its peak"),
        disk,
        ("speed", f"{rate:,.0f} pictures a second" + (f", {half_rate:,.0f} at half the side" if left else "")),
        ("time", f"about {timedelta(seconds=round(seconds))}" if steps else "none: it is trained to the end"),
    )


def images_within(seconds: float, trainer: Trainer, machine: Machine) -> int:
    """Measure the speed of training, and return how many pictures a run can train on in `seconds`: at least 1.

    The measurement takes some of the `seconds`. Validation, previews and saving get a share of the rest, but training
    steps keep at least 46 % of it. The trainer cannot be used for the run afterwards.
    """
    started = time.monotonic()
    whole, half = _speeds(trainer, min(MEASURED_SECONDS, seconds / 10))
    left, share = seconds - (time.monotonic() - started), trainer.plan.half_side_steps / trainer.plan.steps
    rate = 1 / (share / half + (1 - share) / whole)
    overhead = _overhead(trainer.plan, machine, images=rate * left, seconds=left) / whole
    return max(1, int(STEPS_TIME_SHARE * rate * max(left / 2, left - overhead)))


def _overhead(plan: Plan, machine: Machine, *, images: float, seconds: float) -> float:
    """The cost of a run's previews and smallest validations, as the number of pictures trained on in the same time.

    Training on a picture costs three forward passes. images, seconds: approximate size of the run, because the number
    of steps of a provisional plan is not the run's.
    """
    kind, every = parse_interval("--preview-every", machine.preview_every)
    previews = {"share": 1 / every, "steps": images / plan.batch_size / every, "seconds": max(1, seconds / every)}[kind]
    sampling = Sampling.of(plan.model)
    passes = sampling.number_of_steps + (guided_steps(plan.model, sampling) if plan.model.conditional else 0)
    validated = config.VALIDATIONS * config.VALIDATION_LEVELS * min(
        config.MIN_VALIDATION_PICTURES, plan.validation_images)
    return (validated + previews * config.PREVIEW_PICTURES * passes) / 3


def disk_bytes(trainer: Trainer) -> int:
    """The largest size of a run on the disk: three training states, one more while it is written, and two models."""
    return 4 * sum(tensor.nbytes for tensor in trainer.tensors().values()) + 2 * 4 * trainer.parameters


def _speeds(trainer: Trainer, seconds: float) -> tuple[float, float]:
    """Measure how many pictures are trained on in a second: of whole ones, and of those at half their side.

    If no step at half the side is left, the second is the first.
    """
    left = trainer.global_step < trainer.plan.half_side_steps
    with contextlib.closing(trainer.batches):
        half = _images_per_second(trainer, seconds / 2, stop=trainer.plan.half_side_steps) if left else None
        trainer.global_step = max(trainer.global_step, trainer.plan.half_side_steps)
        whole = _images_per_second(trainer, seconds / 2 if left else seconds, stop=trainer.plan.steps)
        return whole, half or whole


def _images_per_second(trainer: Trainer, seconds: float, *, stop: int) -> float:
    """The speed of steps before `stop`, measured for `seconds`, but for three steps at least."""
    trainer.step()                                                  # the first step also compiles and allocates
    begun, steps = time.monotonic(), 0
    while trainer.world.all_reduce_max(steps < 3 or time.monotonic() - begun < seconds):
        trainer.global_step = min(trainer.global_step, stop - 1)
        trainer.step()
        steps += 1
    return steps * trainer.plan.batch_size / (time.monotonic() - begun)
