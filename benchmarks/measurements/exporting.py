"""Time and memory of the export of a model of 23.6 million parameters (`small` at 32 px, untrained) to each format.

The time includes reading the model and all comparisons. A model of 1.2 million parameters is exported first, so that
all libraries are imported and initialised; memory is the peak beyond the memory that the process has then.
"""

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness.figures import format_spread
from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import table
from diffuse_cli.data import caption_words

FORMATS = ("diffusers", "safetensors", "onnx")
CAPTIONS = ("a red car", "a blue fish")
MIB = 2**20


def write_model(path: Path, preset: str, resolution: int) -> None:
    """Write a model file with untrained weights."""
    import torch

    from diffuse_cli.model_config import ModelConfig
    from diffuse_cli.network.network import Network
    from diffuse_cli.network.presets import network_config
    from diffuse_cli.network.tokenizer import train_tokenizer
    from diffuse_cli.storage import checkpoint
    from diffuse_cli.storage.model_info import TrainingSummary

    tokenizer = train_tokenizer(CAPTIONS)
    network = Network(network_config(preset, resolution, vocabulary=tokenizer.get_vocab_size(), learned_variance=True))
    network.initialise(torch.Generator().manual_seed(0))
    checkpoint.save_model(
        path, config=ModelConfig(network=network.config, schedule="interpolated", prediction="v"),
        weights=network.state_dict(), tokenizer=tokenizer, words=caption_words.count_words(CAPTIONS),
        training=TrainingSummary(name=preset))


def measure(settings: Settings, report: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as work:
        model, small = Path(work) / "small.safetensors", Path(work) / "nano.safetensors"
        write_model(model, "small", 32)
        write_model(small, "nano", 16)
        report["bytes"] = model.stat().st_size
        report["seeds"], report["cases"] = [], [{"title": "small at 32 px", "sides": interleave(
            {name: Side("exporting_side:export", {"form": name, "model": str(model), "small": str(small)})
             for name in FORMATS}, settings, count=1)}]


def render(report: dict[str, Any]) -> list[str]:
    (case,), size = report["cases"], report["bytes"]
    rows = [[f"`{name}`", *(format_spread([one[clock] for one in side["repetitions"]]) for clock in ("cpu", "wall")),
             f"{(side['peak'] - side['resting']) / MIB:.0f}", f"{(side['peak'] - side['resting']) / size:.1f}"]
            for name, side in case["sides"].items()]
    return [f"The model's file has {size / MIB:.0f} MiB.", "",
            *table(["", "CPU s", "wall s", "peak memory, MiB", "times the model"], rows)]
