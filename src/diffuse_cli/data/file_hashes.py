"""Hashes of the files' contents, remembered so that a file which has not changed is not read again.

    <directory>/seen-<folder>.json      a line with the hash of the rest; size, times and hash of each file of a folder
"""

import hashlib
import json
import os
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

from ..events import Scanned
from ..files import durable
from . import garbage
from .containers import Location
from .picture_files import ImageRefused, open_regular, size_and_times

REFUSED = "!"                                   # begins the text in the place of a hash: a reason follows

_FORMAT = 2                                     # of the JSON file
_BATCH = 1000                                   # files hashed between two events
_CHUNK = 25                                     # files that a thread hashes before it asks for more
_SMALL = 2**20                                  # bytes of a file that is read at once


def hash_files(
    folder: Path, files: Sequence[tuple[str, Location]], *, directory: Path, threads: int,
) -> Generator[Scanned, None, list[str]]:
    """SHA-256 of the contents of `files`, (name, path) in `folder`, in order; yields progress.

    A file is not read if its size and times are those of the last time. If a file cannot be read, REFUSED and the
    reason are in the place of its hash. `directory` is that of the cache; `threads` read files at the same time.
    """
    folder_hash = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    memory = directory / f"seen-{folder_hash}.json"
    before = _read_memory(memory)
    total, hashes, now = len(files), [], {}
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, total, _BATCH):
            batch = files[start:start + _BATCH]
            chunks = [batch[first:first + _CHUNK] for first in range(0, len(batch), _CHUNK)]
            with garbage.paused():
                entries = chain.from_iterable(pool.map(
                    lambda chunk: [_hash_file(path, before.get(name)) for name, path in chunk], chunks))
                for (name, _), entry in zip(batch, entries, strict=True):
                    hashes.append(entry[-1])
                    now[name] = entry
            yield Scanned(done=0, total=total)
    if now != before:
        body = json.dumps(now).encode()
        durable.write(memory, [_header(body), body])
    return hashes


def _hash_file(path: Location, before: list[Any] | None) -> list[Any]:
    """[size, modified, changed, hash] of a file, times in nanoseconds; `before` if its size and times still hold."""
    try:
        now = size_and_times(path)
        if before is not None and before[:3] == now:
            return before
        with open_regular(path) as file:
            if now[0] <= _SMALL:                # `file_digest` sets up more than a small file costs
                return [*now, hashlib.sha256(file.read()).hexdigest()]
            return [*now, hashlib.file_digest(file, "sha256").hexdigest()]  # type: ignore[arg-type]
    except ImageRefused as error:
        return [0, 0, 0, f"{REFUSED}{error.reason}"]
    except OSError as error:
        reason = "not there" if isinstance(error, FileNotFoundError) else "unreadable"
        return [0, 0, 0, f"{REFUSED}{reason}"]


@garbage.paused()
def _read_memory(path: Path) -> dict[str, list[Any]]:
    """Name of each file → its entry of the last time; empty if `path` is missing or damaged, which only costs time."""
    try:
        header, end, body = path.read_bytes().partition(b"\n")
        return json.loads(body) if header + end == _header(body) else {}
    except (OSError, ValueError):
        return {}


def _header(body: bytes) -> bytes:
    return json.dumps({"format": _FORMAT, "sha256": hashlib.sha256(body).hexdigest()}).encode() + b"\n"
