"""Hashes of the files' contents, remembered so that a file which has not changed is not read again.

    <directory>/seen-<folder>.jsonl     a line for each file: name, size, times and hash; the last line is their hash
"""

import hashlib
import json
import os
import sys
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, islice
from pathlib import Path

from ..events import Scanned
from ..files import durable
from ..files.input_files import open_input
from .containers import Location
from .listing import PictureFiles
from .picture_files import ImageRefused, open_regular, size_and_times
from .spilled import Column, SpilledDict, SpilledList

REFUSED = "!"                                   # begins the text in the place of a hash: a reason follows

_FORMAT = 3                                     # of the JSON lines
_BATCH = 1000                                   # files hashed between two events
_CHUNK = 25                                     # files that a thread hashes before it asks for more
_SMALL = 2**20                                  # bytes of a file that is read at once

Entry = tuple[int, int, int, str]               # size, modified and changed of a file, times in nanoseconds; its hash


class _Entries(SpilledDict[Entry]):
    """Name of a file → its entry."""

    def _encode(self, value: Entry) -> str:
        return "{} {} {} {}".format(*value)

    def _decode(self, stored: str) -> Entry:
        size, modified, changed, digest = stored.split(" ", 3)
        return int(size), int(modified), int(changed), digest


def hash_files(
    folder: Path, pictures: PictureFiles, *, directory: Path, threads: int,
) -> Generator[Scanned, None, Column[str]]:
    """SHA-256 of the contents of the pictures in `folder`, in order; yields progress.

    A file is not read if its size and times are those of the last time. If a file cannot be read, REFUSED and the
    reason are in the place of its hash. `directory` is that of the cache; `threads` read files at the same time.
    """
    folder_hash = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    memory = directory / f"seen-{folder_hash}.jsonl"
    before = _read_memory(memory)
    now = SpilledList()                         # the name of each file, and its entry
    is_same = True
    files = iter(pictures)
    with ThreadPoolExecutor(threads) as pool:
        while batch := list(islice(files, _BATCH)):
            known = [(file.path, before.get(file.name)) for file in batch]
            chunks = [known[first:first + _CHUNK] for first in range(0, len(batch), _CHUNK)]
            entries = chain.from_iterable(pool.map(
                lambda chunk: [_hash_file(path, entry) for path, entry in chunk], chunks))
            for file, (_, old), entry in zip(batch, known, entries, strict=True):
                is_same = is_same and entry == old
                now.append((file.name, *entry))
            yield Scanned(done=0, total=len(pictures))
    if not is_same or len(before) != len(now):
        _write_memory(memory, now)
    return now.column(4, str)


def _hash_file(path: Location, before: Entry | None) -> Entry:
    """The entry of a file; `before` if its size and times still hold."""
    try:
        now = size_and_times(path)
        if before is not None and before[:3] == now:
            return before
        with open_regular(path) as file:
            if now[0] <= _SMALL:                # `file_digest` sets up more than a small file costs
                return *now, hashlib.sha256(file.read()).hexdigest()
            return *now, hashlib.file_digest(file, "sha256").hexdigest()    # type: ignore[arg-type]
    except ImageRefused as error:
        return 0, 0, 0, f"{REFUSED}{error.reason}"
    except OSError as error:
        reason = "not there" if isinstance(error, FileNotFoundError) else "unreadable"
        return 0, 0, 0, f"{REFUSED}{reason}"


def _write_memory(path: Path, now: SpilledList) -> None:
    checksum = hashlib.sha256()
    with durable.stream(path) as write:
        rows = iter(now)
        while batch := list(islice(rows, _BATCH)):
            piece = "".join(f"{json.dumps(row)}\n" for row in batch).encode()
            checksum.update(piece)
            write(piece)
        write(_seal(checksum.hexdigest()))


def _read_memory(path: Path) -> _Entries:
    """Name of each file → its entry of the last time; empty if `path` is missing or damaged, which only costs time."""
    try:
        return _Entries(_lines(path))
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return _Entries()


def _lines(path: Path) -> Iterator[tuple[str, Entry]]:
    """The names and entries in a file. Raises OSError, ValueError and TypeError, also for a damaged file."""
    checksum, last = hashlib.sha256(), b""
    with open_input(path, limit=sys.maxsize) as file:
        for line in file:
            if last:
                name, size, modified, changed, digest = json.loads(last)
                yield name, (int(size), int(modified), int(changed), str(digest))
                checksum.update(last)
            last = line
    if last != _seal(checksum.hexdigest()):
        raise ValueError("damaged")


def _seal(checksum: str) -> bytes:
    """The last line. checksum: SHA-256 of the lines above it."""
    return json.dumps({"format": _FORMAT, "sha256": checksum}).encode() + b"\n"
