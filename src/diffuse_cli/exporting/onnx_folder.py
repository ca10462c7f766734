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
from ..diffusion.samplers import sampling_times
from ..diffusion.schedule import make_schedule
from ..files import durable
from ..network.tokenizer import END, LENGTH, PAD
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
    _write_graph(folder / SAMPLER_FILE, sampler_graph(unet, text_encoder, model.config.network))
    lines = (f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in constants(model).items())
    _write(folder / CONSTANTS_FILE, "{\n" + ",\n".join(lines) + "\n}")
    for name in STANDALONE:
        _write(folder / name, (resources.files(__package__) / "standalone" / name).read_text(encoding="utf-8"))


def constants(model: Model) -> dict[str, Any]:
    """Return the content of sampler.json: all numbers that sampling needs beside the weights."""
    from .standalone.sample import step_table

    config, network, defaults = model.config, model.config.network, Sampling()
    schedule = make_schedule(config.schedule, network.resolution)
    interval = defaults.interval_at(network.resolution) if config.conditional else (0, 0)    # no prompts, no guidance
    first, second, *_, last, _ = sampling_times(schedule, 3, network.resolution)
    levels = schedule.log_snr(torch.tensor([first, second, last], dtype=torch.float64)).tolist()
    times = schedule.time_of(torch.from_numpy(np.linspace(levels[1], levels[2], TABULATED_TIMES)))
    numbers: dict[str, Any] = {
        "resolution": network.resolution,
        "channels": network.channels,
        "prediction": config.prediction,
        "learned_variance": config.learned_variance,
        "text": None if network.text is None else {
            "length": LENGTH, "pad": PAD, "end": END, "vocabulary": network.text.vocabulary,
            "width": network.text.width},
        "guidance": {"scale": defaults.guidance if config.conditional else 1.0, "interval": interval},
        "threshold_share": THRESHOLD_SHARE,
        "schedule": {"name": config.schedule, "first_level": levels[0], "levels": levels[1:],
                     "times": [round(time, 10) for time in times.tolist()]},
    }
    for sampler in ("dpmpp-2m", "ddim"):
        table = step_table(numbers, SAMPLER_STEPS[sampler], sampler=sampler)
        numbers.setdefault("steps", {"columns": COLUMNS})[sampler] = table.tolist()
    return numbers


def _write_graph(path: Path, graph: Graph) -> None:
    with durable.stream(path, mode=0o666) as add:
        for piece in graph.pieces():
            add(piece)


def _write(path: Path, text: str) -> None:
    durable.write(path, f"{text.rstrip()}\n".encode(), mode=0o666)
