"""The pictures that a run with `--held-out FOLDER` was ever trained on, by which no later change can hold them out.

    trained-pictures.bin    SHA-256 of the rest; the first 8 bytes of the hash of each picture's pixels, ascending

Of 10 million pictures, another has the same 8 bytes with a probability of 1 in a million million.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StorageError, system_reason
from ..files import durable
from ..files.input_files import read_input

TRAINED_FILE = "trained-pictures.bin"
_CHECKSUM = 32                                  # bytes at the beginning
_MAX_BYTES = 2**32                              # of the file: 500 million pictures

_Positions = np.ndarray[Any, np.dtype[np.int64]]
_Shortened = np.ndarray[Any, np.dtype[np.uint64]]


def record(directory: Path, hashes: Sequence[str], positions: _Positions, *, anew: bool) -> None:
    """Add the pictures at `positions` to the record of a run, durably. hashes: of all pictures of the data set.

    anew: forget what is in the record. Raises StorageError, also if it is damaged.
    """
    pictures = _shortened(hashes)[positions]
    if not anew:
        pictures = np.concatenate([_read(directory), pictures])
    data = np.unique(pictures).astype("<u8").tobytes()
    durable.write(directory / TRAINED_FILE, hashlib.sha256(data).digest() + data)


def once_trained(directory: Path, hashes: Sequence[str], positions: _Positions) -> list[int]:
    """Those of the pictures at `positions` that are in the record of a run. hashes: of all pictures of the data set.

    Raises StorageError if the record is damaged. Without a record there are none.
    """
    known = _read(directory)
    return positions[np.isin(_shortened(hashes)[positions], known)].tolist() if len(known) else []


def _shortened(hashes: Sequence[str]) -> _Shortened:
    return np.fromiter((int(digest[:16], 16) for digest in hashes), np.uint64)


def _read(directory: Path) -> _Shortened:
    path = directory / TRAINED_FILE
    try:
        data = read_input(path, limit=_MAX_BYTES)
    except FileNotFoundError:
        return np.empty(0, np.uint64)
    except OSError as error:
        raise StorageError(f"cannot read {path}: {system_reason(error)}") from error
    if hashlib.sha256(data[_CHECKSUM:]).digest() != data[:_CHECKSUM]:
        raise StorageError(f"{path} is damaged", hint=f"To start anew: --name {directory.name} --fresh")
    return np.frombuffer(data[_CHECKSUM:], "<u8").astype(np.uint64)
