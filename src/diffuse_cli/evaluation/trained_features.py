"""Features of an encoder that is trained on the data set itself, so that nothing is downloaded.

Knows where an encoder is kept: beside the decoded pictures, until something changes that it was made from.
"""

import contextlib
import hashlib
import json
from collections.abc import Generator
from pathlib import Path

import numpy as np
import torch

from ..data.listing import Dataset
from ..errors import InUseError, ModelError, StorageError
from ..files import durable, locks
from ..picture_size import Size
from ..runtime import devices
from ..storage import checkpoint
from .encoder import VERSION, Encoder, measure_training, size_of, train_encoder
from .features import Features

_FILE = "encoder.safetensors"


def open_features(dataset: Dataset, positions: np.ndarray, *, directory: Path, device: torch.device) -> Generator[
        tuple[int, int], None, Features]:
    """The features of an encoder that is trained on the pictures at `positions`, of which there must be two or more.

    Yields (steps done, number of steps), returns the Features. The encoder is kept in `directory`, that of the decoded
    pictures, under a hash of all that made it: pictures, captions, positions, torch and the device. If it is there
    already, it is not trained again. A damaged file is replaced. Where nothing can be written, nothing is kept.
    """
    folder = _folder(dataset, positions, directory, device)
    encoder = _read(folder / _FILE, size_of(dataset, positions))
    if encoder is None:
        encoder = yield from train_encoder(dataset, positions, device=device)
        lock = directory / f"{folder.name}.lock"
        with contextlib.suppress(InUseError, StorageError), locks.lock(lock, doing="keeping an encoder"):
            durable.make_directory(folder)
            checkpoint.save_state(folder / _FILE, encoder.state_dict(), {"version": VERSION})
    encoder = encoder.to(device).eval().requires_grad_(False)
    return Features("an encoder trained on these pictures", device, encoder.features)


def training_seconds(dataset: Dataset, positions: np.ndarray, *, directory: Path, device: torch.device) -> float | None:
    """About how long `open_features` will train an encoder; None if it finds one."""
    if (_folder(dataset, positions, directory, device) / _FILE).exists():
        return None
    return measure_training(dataset, positions, device=device)


def _folder(dataset: Dataset, positions: np.ndarray, directory: Path, device: torch.device) -> Path:
    made_by = [torch.__version__, devices.describe_device(device), torch.backends.cpu.get_cpu_capability()]
    facts = json.dumps([VERSION, dataset.content_id, positions.tolist(), *made_by])
    return directory / f"encoder-{hashlib.sha256(facts.encode()).hexdigest()[:32]}"


def _read(path: Path, resolution: Size) -> Encoder | None:
    """The encoder in a file for pictures of this size; None if the file is missing or damaged."""
    with torch.device("meta"):
        encoder = Encoder(resolution)
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    try:
        tensors, _ = checkpoint.load_state(path, shapes)
    except ModelError:
        return None
    encoder.load_state_dict(tensors, assign=True)
    return encoder
