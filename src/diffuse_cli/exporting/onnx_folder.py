"""Exports a model as a folder of ONNX graphs and everything else that sampling needs: tokenizer, numbers, a script.

To use the folder, a program needs onnxruntime, but neither torch nor this package. The script shows how.
"""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from ..config import Export
from ..files import durable
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
from .sampler_numbers import sampler_numbers, sampler_steps

STANDALONE = ("sample.py", "README.md")         # files that are copied unchanged
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
    """Return the content of sampler.json: the numbers of sampling, and a table of steps for each sampler."""
    from .standalone.sample import step_table

    numbers = sampler_numbers(model.config)
    tables = {sampler: step_table(numbers, steps, sampler=sampler).tolist()
              for sampler, steps in sampler_steps(model.config).items()}
    return {**numbers, "steps": {"columns": COLUMNS, **tables}}


def _write_graph(path: Path, graph: Graph) -> None:
    with durable.stream(path, mode=0o666) as add:
        for piece in graph.pieces():
            add(piece)


def _write(path: Path, text: str) -> None:
    durable.write(path, f"{text.rstrip()}\n".encode(), mode=0o666)
