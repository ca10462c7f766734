"""What a run takes: time, memory and disk, from arithmetic and a short measurement of this machine.

Knows a learner and no files.
"""

import sys
import time
from datetime import timedelta

from ..checks import parse_interval
from ..config import LEVELS, Machine, Plan, Sampling
from ..network.presets import flops
from ..runtime.devices import peak_memory
from ..sampling.generate import guided_steps
from . import plan as planning
from .trainer import Learner

MEASURED_SECONDS = 5.0                          # that finding out the speed takes
SHARE_OF_STEPS = 0.92                           # of the time of a long run; the rest is validation, previews and saving
if sys.platform != "win32":
    pass

Facts = tuple[tuple[str, str], ...]


def facts(learner: Learner, machine: Machine) -> Facts:
    """What a run would take: arithmetic, disk, and time at this machine's measured speed. Uses the learner up."""
    plan = learner.plan
    per_picture = 3 * flops(plan.model.network)                        # backward costs about twice the forward pass
    rate = _images_per_second(learner, MEASURED_SECONDS)
    learnt = plan.steps * plan.batch_size / SHARE_OF_STEPS
    seconds = (learnt + _beside(plan, machine, images=learnt, seconds=learnt / rate)) / rate
    return (
        ("arithmetic", f"{per_picture / 1e9:.2f} GFLOP for each picture learnt from"),
        ("memory", f"{peak_memory(learner.batches.device) / 2**20:,.0f} MB at its peak"),
        ("disk", f"{disk_bytes(learner) / 2**20:,.0f} MB for the run"),
        ("speed", f"{rate:,.0f} pictures a second"),
        ("time", f"about {timedelta(seconds=round(seconds))}"),
    )


def images_within(seconds: float, learner: Learner, machine: Machine) -> int:
    """Pictures that can be learnt from in that time, by measuring this machine; uses the learner up.

    Some of it is kept for validation, previews and saving, but of a very short time no more than half.
    """
    started = time.monotonic()
    rate = _images_per_second(learner, min(MEASURED_SECONDS, seconds / 10))
    left = seconds - (time.monotonic() - started)
    beside = _beside(learner.plan, machine, images=rate * left, seconds=left)
    return max(1, int(SHARE_OF_STEPS * max(rate * left / 2, rate * left - beside)))


def _beside(plan: Plan, machine: Machine, *, images: float, seconds: float) -> float:
    """What the previews and the smallest validations of a run take, in pictures learnt from: three forward passes.

    images, seconds: of the run, about; the plan's own number of steps may be another's.
    """
    kind, every = parse_interval("--preview-every", machine.preview_every)
    previews = {"share": 1 / every, "steps": images / plan.batch_size / every, "seconds": max(1, seconds / every)}[kind]
    sampling = Sampling()
    passes = sampling.number_of_steps + (guided_steps(plan.model, sampling) if plan.model.conditional else 0)
    validated = planning.VALIDATIONS * LEVELS * min(planning.FEWEST_PROBED, plan.validation_images)
    return (validated + previews * planning.PREVIEWED * passes) / 3


def disk_bytes(learner: Learner) -> int:
    """Three training states, one more while it is written, and two models."""
    return 4 * sum(tensor.nbytes for tensor in learner.tensors().values()) + 2 * 4 * learner.parameters


def _images_per_second(learner: Learner, seconds: float) -> float:
    learner.advance()                                                  # the first step also compiles and allocates
    begun, steps = time.monotonic(), 0
    while learner.world.largest(steps < 3 or time.monotonic() - begun < seconds):
        learner.advance()
        steps += 1
    return steps * learner.plan.batch_size / (time.monotonic() - begun)
