"""The network compiled: the seconds that compiling takes, what it and CUDA graphs gain, and how often it happens again.
"""

import contextlib
import functools
import time
from typing import Any
from unittest import mock

import torch
from torch._dynamo.utils import counters

from benchmarks.contenders import finish
from benchmarks.gpu import Settings, Units
from benchmarks.gpu.throughput import as_in_training, make_trainer, rate
from diffuse_cli.training import captured


def units(settings: Settings) -> Units:
    cases = (("nano", 8, 2),) if settings.tiny else (("micro", 32, 512), ("small", 64, 256), ("nano", 32, 64))
    return [(f"{preset}, {resolution} px, batches of {batch}",
             functools.partial(measure, settings, preset, resolution, batch)) for preset, resolution, batch in cases]


def backend(settings: Settings) -> contextlib.AbstractContextManager[Any]:
    """In a rehearsal the graphs run as they are: compiling them takes a CPU minutes."""
    if not settings.tiny:
        return contextlib.nullcontext()
    return mock.patch.object(torch, "compile", functools.partial(torch.compile, backend="eager"))


def capture(settings: Settings, preset: str, resolution: int, batch: int) -> dict[str, Any]:
    """The same with CUDA graphs, of networks that have them in a training."""
    with backend(settings):
        trainer = make_trainer(settings, preset, resolution, batch, compiled=True)
    network = trainer.compiled
    if network is None or not network.captured:
        return {}
    facts = rate(trainer, settings, seconds=3.0) | {"given up": network.capture_failure}
    trainer.batches.close()
    return facts


@as_in_training
def measure(settings: Settings, preset: str, resolution: int, batch: int) -> dict[str, Any]:
    eager = make_trainer(settings, preset, resolution, batch)
    plain = rate(eager, settings, seconds=2.0)
    eager.batches.close()
    del eager
    counters.clear()
    with backend(settings), mock.patch.object(captured, "PARAMETERS", 0):
        trainer = make_trainer(settings, preset, resolution, batch, compiled=True)
    compiled, graphs = rate(trainer, settings, seconds=4.0), counters["stats"]["unique_graphs"]
    facts = {"eager": plain, "compiled": compiled, "gain": compiled["pictures/s"] / plain["pictures/s"],
             "graphs": graphs, "breaks": sum(counters["graph_break"].values()),
             "captured": capture(settings, preset, resolution, batch)}
    if not settings.tiny:                       # a smaller micro-batch, as after a full memory
        trainer.micro_batch //= 2
        begun = time.perf_counter()
        trainer.step()
        finish(settings.device)
        facts |= {"half the micro-batch, first step, s": time.perf_counter() - begun,
                  "graphs then": counters["stats"]["unique_graphs"]}
    trainer.batches.close()
    return facts
