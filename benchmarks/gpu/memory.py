"""Full memory: the micro-batch is halved until it fits, and what never fits ends with the documented error.

On a GPU its memory is limited; elsewhere the loss of many pictures fails as if memory were full.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from benchmarks.gpu import Settings, Units
from benchmarks.gpu.throughput import make_trainer
from diffuse_cli.errors import OutOfMemoryError
from diffuse_cli.training.trainer import Trainer

CASE = ("small", 64, 512)                       # preset, resolution in pixels, batch size: all at once
FRACTION = 0.06                                 # of the device's memory in which some of them fit
TOO_SMALL = 0.008                               # in which the weights fit, but no picture


def units(settings: Settings) -> Units:
    return [("halved", lambda: halved(settings)), ("nothing fits", lambda: nothing_fits(settings)),
            ("goes on", lambda: goes_on(settings))]


def trainer(settings: Settings) -> Trainer:
    made = make_trainer(settings, *(("nano", 16, 8) if settings.tiny else CASE))
    made.micro_batch = made.plan.batch_size
    return made


@contextlib.contextmanager
def limited(settings: Settings, trainer: Trainer, fraction: float, fitting: int) -> Iterator[None]:
    """Memory for a fraction of what there is; without a GPU, for so many pictures at once."""
    if settings.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(fraction)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return

    def fail(module: torch.nn.Module, args: Any) -> None:
        if len(args[0].image) > fitting:
            raise torch.OutOfMemoryError("imitated")

    handle = trainer.loss.register_forward_pre_hook(fail)
    try:
        yield
    finally:
        handle.remove()


def halved(settings: Settings) -> dict[str, Any]:
    made = trainer(settings)
    with limited(settings, made, FRACTION, 2):
        losses = made.step().losses.tolist()
    made.batches.close()
    return {"passed": made.micro_batch < made.plan.batch_size, "asked": made.plan.batch_size,
            "fits": made.micro_batch, "losses": losses}


def nothing_fits(settings: Settings) -> dict[str, Any]:
    made = trainer(settings)
    with limited(settings, made, TOO_SMALL, 0):
        try:
            made.step()
            return {"passed": False, "fits": made.micro_batch}
        except OutOfMemoryError as error:
            return {"passed": error.exit_code == 7, "message": str(error), "at once": made.micro_batch}
        finally:
            made.batches.close()


def goes_on(settings: Settings) -> dict[str, Any]:
    """After both, a step takes as much memory as there is."""
    made = make_trainer(settings, *(("nano", 16, 8) if settings.tiny else CASE))
    result = made.step()
    made.batches.close()
    return {"passed": result.gradient_norm.item() > 0, "micro-batch": made.micro_batch}
