"""Exports a model as a folder of ONNX graphs and everything else that sampling needs: tokenizer, numbers, a script.

To use the folder, a program needs onnxruntime, but neither torch nor this package. The script shows how.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..config import SAMPLER_STEPS, Export, Sampling
from ..diffusion.guidance import THRESHOLD_SHARE
from ..diffusion.sampling_times import FEW_STEPS, many_levels
from ..diffusion.schedule import make_schedule
from ..files import durable
from ..model_config import ModelConfig
from ..network.tokenizer import END, LENGTH, PAD
from ..sampling.steps import sampling_times_of
from ..storage.checkpoint import Model
from .onnx_graphs import (
    CONSTANTS_FILE,
    SAMPLER_FILE,
    TEXT_ENCODER_FILE,
    TOKENIZER_FILE,
    UNET_FILE,
    Graph,
    check_extra,
    text_encoder_graph,
    unet_graph,
)
from .onnx_sampler import sampler_graph

STANDALONE = ("sample.py", "README.md")         # files that are copied unchanged
TABULATED_TIMES = 4001                          # so many that linear interpolation is as exact as float32
COLUMNS = ("time", "from_noisy", "from_output", "guided", "memory", "keep", "gain")      # of `step_table` in the script


def write(model: Model, folder: Path, settings: Export) -> None:
    """Fill the folder, which exists and is empty. The format has no settings of its own.

    Raises UsageError if the libraries of the extra are missing, and StorageError.
    """
    check_extra()
    text_encoder = None
    if model.tokenizer is not None:
        text_encoder = text_encoder_graph(model.network)
        _write_graph(folder / TEXT_ENCODER_FILE, text_encoder)
        _write(folder / TOKENIZER_FILE, model.tokenizer.to_str(pretty=True))
    unet = unet_graph(model.network, model.config)
    _write_graph(folder / UNET_FILE, unet)
    _write_graph(folder / SAMPLER_FILE, sampler_graph(unet, text_encoder, model.config))
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in constants(model).items())
    _write(folder / CONSTANTS_FILE, "{\n" + ",\n".join(lines) + "\n}")
    for name in STANDALONE:
        _write(folder / name, (resources.files(__package__) / "standalone" / name).read_text(encoding="utf-8"))


def constants(model: Model) -> dict[str, Any]:
    """Return the content of sampler.json: all numbers that sampling needs beside the weights."""
    from .standalone.sample import step_table

    config, network, defaults = model.config, model.config.network, Sampling.of(model.config)
    schedule = make_schedule(config.schedule, network.resolution.side)
    unguided = not config.conditional or config.student is not None    # no prompts, or guidance is built in
    interval = (0, 0) if unguided else defaults.interval_at(network.resolution.side)
    first = schedule.log_snr(torch.ones(1, dtype=torch.float64)).item()
    levels = many_levels(schedule, 3, network.resolution.side)
    times = schedule.time_of(torch.from_numpy(np.linspace(levels[0].item(), levels[-1].item(), TABULATED_TIMES)))
    numbers: dict[str, Any] = {
        "resolution": network.resolution.width if network.resolution.is_square else network.shape[1:],
        "channels": network.channels,
        "prediction": config.prediction,
        "learned_variance": config.learned_variance,
        "text": None if network.text is None else {
            "length": LENGTH, "pad": PAD, "end": END, "vocabulary": network.text.vocabulary,
            "width": network.text.width},
        "guidance": {"scale": defaults.guidance if config.conditional else 1.0, "interval": interval},
        "threshold_share": THRESHOLD_SHARE,
        "range": 1.0 if config.student is None else None,
        "distilled": config.student is not None,
        "schedule": {"name": config.schedule, "first_level": first, "levels": levels.tolist(),
                     "times": [round(time, 10) for time in times.tolist()],
                     "few": _few_levels(config)},
    }
    samplers = {defaults.sampler: defaults.number_of_steps} if config.student is not None else {
        sampler: SAMPLER_STEPS[sampler] for sampler in ("dpmpp-2m", "ddim")}
    for sampler, steps in samplers.items():
        table = step_table(numbers, steps, sampler=sampler)
        numbers.setdefault("steps", {"columns": COLUMNS})[sampler] = table.tolist()
    return numbers


def _few_levels(config: ModelConfig) -> dict[str, list[float]]:
    """The log-SNRs between the first and the last time, for the numbers of steps whose levels are not even.

    A distilled model has no other number of steps.
    """
    schedule = make_schedule(config.schedule, config.network.resolution.side)
    numbers = range(1, FEW_STEPS + 1) if config.student is None else [config.student.evaluations]
    times = {str(steps): sampling_times_of(config, Sampling(steps=steps))[1:-1] for steps in numbers}
    return {steps: schedule.log_snr(torch.tensor(inner, dtype=torch.float64)).tolist()
            for steps, inner in times.items()}


def _write_graph(path: Path, graph: Graph) -> None:
    with durable.stream(path, mode=0o666) as add:
        for piece in graph.pieces():
            add(piece)


def _write(path: Path, text: str) -> None:
    durable.write(path, f"{text.rstrip()}\n".encode(), mode=0o666)
