"""A model as one slim file: its averaged weights and all that is needed to use them, in full or half precision.

The codec is that of every model file (`checkpoint`), so `-m` reads it, and so does whatever reads safetensors.
"""

from pathlib import Path
from typing import Any

import torch

from ..config import Export
from ..errors import UsageError
from ..storage.checkpoint import Model, save_model

TYPES = {"fp32": torch.float32, "fp16": torch.float16}


def write(model: Model, path: Path, how: Export, *, report: dict[str, Any] | None = None) -> None:
    """Write the file, and in its header the report of its export, if there is one yet.

    Raises UsageError where a weight is too large for half precision, StorageError.
    """
    precision = how.precision or "fp32"
    weights = {name: weight.to(TYPES[precision]) for name, weight in model.network.state_dict().items()}
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise UsageError(f"the weight {name} is too large for {precision}", hint="Use --precision fp32")
    save_model(path, config=model.config, weights=weights, tokenizer=model.tokenizer, words=model.words,
               training=model.training, report=report, mode=0o666)
