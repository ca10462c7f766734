"""Exports a model as one safetensors file: averaged weights, in full or half precision, with all that their use needs.

The format is that of every model file (`storage.checkpoint`). So `-m` reads it, and so does any safetensors library.
"""

from pathlib import Path
from typing import Any

import torch

from ..config import Export
from ..errors import UsageError
from ..storage.checkpoint import Model, save_model

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def write(model: Model, path: Path, settings: Export, *, report: dict[str, Any] | None = None) -> None:
    """Write the file; the report of the export, if there is one yet, goes into its header.

    Raises UsageError for a weight that is too large for half precision, and StorageError.
    """
    precision = settings.precision or "fp32"
    weights = {name: weight.to(DTYPES[precision]) for name, weight in model.network.state_dict().items()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise UsageError(f"the weight {name} is too large for {precision}", hint="Use --precision fp32")
    save_model(path, config=model.config, weights=weights, tokenizer=model.tokenizer, words=model.words,
               training=model.training, report=report, mode=0o666)
