"""A model as a folder of ONNX graphs, with all else that drawing takes: tokenizer, constants, and a script that draws.

Whoever opens it needs onnxruntime, not torch, and none of our code but the script's, which is there to be read.
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

STANDALONE = ("sample.py", "README.md")         # copied as they are
FINEST = 4001                                   # tabulated times: between them a straight line is exact to float32
COLUMNS = ("time", "from_noisy", "from_output", "guided", "memory", "keep", "gain")


def write(model: Model, folder: Path, how: Export) -> None:
    """Write the folder, which is there and empty; `how` leaves nothing open.

    Raises UsageError when the extra is not installed, StorageError.
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
    """Every number that drawing takes, beside the weights: what sampler.json holds."""
    from .standalone.sample import step_table

    config, network, usual = model.config, model.config.network, Sampling()
    schedule = make_schedule(config.schedule, network.resolution)
    interval = usual.interval_at(network.resolution) if config.conditional else (0, 0)      # nowhere without prompts
    first, second, *_, last, _ = sampling_times(schedule, 3, network.resolution)
    levels = schedule.log_snr(torch.tensor([first, second, last], dtype=torch.float64)).tolist()
    times = schedule.time_of(torch.from_numpy(np.linspace(levels[1], levels[2], FINEST)))
    known: dict[str, Any] = {
        "resolution": network.resolution,
        "channels": network.channels,
        "prediction": config.prediction,
        "learned_variance": config.learned_variance,
        "text": None if network.text is None else {
            "length": LENGTH, "pad": PAD, "end": END, "vocabulary": network.text.vocabulary,
            "width": network.text.width},
        "guidance": {"scale": usual.guidance if config.conditional else 1.0, "interval": interval},
        "threshold_share": THRESHOLD_SHARE,
        "schedule": {"name": config.schedule, "first_level": levels[0], "levels": levels[1:],
                     "times": [round(time, 10) for time in times.tolist()]},
    }
    for sampler in ("dpmpp-2m", "ddim"):
        table = step_table(known, SAMPLER_STEPS[sampler], sampler=sampler)
        known.setdefault("steps", {"columns": COLUMNS})[sampler] = table.tolist()
    return known


def _write_graph(path: Path, graph: Graph) -> None:
    with durable.stream(path, mode=0o666) as add:
        for piece in graph.pieces():
            add(piece)


def _write(path: Path, text: str) -> None:
    durable.write(path, f"{text.rstrip()}\n".encode(), mode=0o666)
