"""The pictures of every sampler against the CPU's, in fp32 and in bf16, and the seconds of 8 and of 64."""

import time
from typing import Any

import numpy as np

from benchmarks.gpu import Settings, Units
from diffuse_cli import api
from diffuse_cli.config import SAMPLERS, Sampling
from diffuse_cli.sampling.generate import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage.checkpoint import Model

STEPS = 20                                      # of every sampler
COMPARED = 2                                    # pictures of each sampler
TOLERANCE = 4                                   # levels of 255 by which a pixel may differ in fp32


def units(settings: Settings) -> Units:
    here, there = (api.load("demo", device=device).model for device in ("cpu", settings.device))
    samplers, counts = (SAMPLERS[:1], (2,)) if settings.tiny else (SAMPLERS, (8, 64))
    return [*((sampler, lambda sampler=sampler: compare(settings, here, there, sampler)) for sampler in samplers),
            *((f"{count} pictures", lambda count=count: seconds(settings, there, count)) for count in counts)]


def draw(model: Model, count: int, sampling: Sampling) -> np.ndarray:
    """→ (N, R, R, 3) float64, levels from 0 to 255"""
    requests = [SampleRequest(prompt="a red car", count=count, seed=7, sampling=sampling)]
    return np.stack([sample.pixels for sample in generate(model, requests)]).astype(float)


def compare(settings: Settings, here: Model, there: Model, sampler: str) -> dict[str, Any]:
    steps = 3 if settings.tiny else STEPS
    exact, rounded = (Sampling(sampler=sampler, steps=steps, batch_size=COMPARED, precision=precision)
                      for precision in ("fp32", "bf16"))
    expected, facts = draw(here, COMPARED, exact), dict[str, Any]()
    for name, sampling in (("fp32", exact), ("bf16", rounded)):
        moved = np.abs(draw(there, COMPARED, sampling) - expected)
        facts[name] = {"mean": float(moved.mean()), "largest": float(moved.max())}
    return {"passed": facts["fp32"]["largest"] <= TOLERANCE, **facts}


def seconds(settings: Settings, model: Model, count: int) -> dict[str, Any]:
    """Of a batch of pictures with the default settings, the second time."""
    facts = {}
    for precision in ("fp32", "bf16"):
        sampling = Sampling(batch_size=count, precision=precision, steps=2 if settings.tiny else None)
        draw(model, count, sampling)
        begun = time.perf_counter()
        draw(model, count, sampling)
        facts[f"{precision}, s"] = time.perf_counter() - begun
    return facts
