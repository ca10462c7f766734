"""Giving a model away: written beside its place, compared with the original, and put there only if it is the same.

Knows the formats by name, and of each how to write it and how to compare. Whatever happens before the last moment, the
place is as it was.
"""

import dataclasses
import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ... import __version__
from .. import durable
from ..checkpoint import Model
from ..config import Export
from ..errors import UsageError
from ..evaluation import Tell
from ..events import finite
from ..stock_folder import REPORT_FILE
from . import diffusers_folder, model_card, single_file, stock_check
from .verification import Comparison, judge

SCHEMA = 1                                      # of export.json
LIBRARIES = ("torch", "tokenizers", "safetensors", "numpy")


@dataclass(frozen=True)
class Format:
    """How one form of a model is written to a place that is not there yet, and compared with the original there."""

    suffix: str                                 # of its file; "" for a folder
    write: Callable[[Model, Path, Export], None]
    compare: Callable[[Model, Path, Export], list[Comparison]]


FORMATS = {
    "diffusers": Format("", diffusers_folder.write, lambda model, folder, how: diffusers_folder.compare(model, folder)),
    "safetensors": Format(".safetensors", single_file.write, single_file.compare),
}


@dataclass(frozen=True)
class Exported:
    """What came of it: ready for JSON by `dataclasses.asdict`."""
