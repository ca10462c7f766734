"""Whether the decoded pictures in the cache are still, bit for bit, those that were written there.

Disks and memory decay, and programs that repair disks cut files or fill them with zeros. A training would learn the
noise that is left. So every picture's hash is compared before the array is used.
"""

import hashlib
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from ..events import Scanned

_PIECE = 4 * 2**20                              # bytes that a thread reads at once, at most
_PICTURES = 500                                 # pictures that it reads at once, at most
_TOLD = 64                                      # pieces between two events


def verify(path: Path, hashes: Iterable[str], *, total: int, size: int, threads: int) -> Generator[Scanned, None, bool]:
    """Whether the file holds exactly the pictures with these `total` SHA-256, `size` bytes each, in order.

    Yields progress.
    """
    count, rows = min(_PICTURES, max(1, _PIECE // size)), iter(hashes)
    pieces = ((start, list(islice(rows, count))) for start in range(0, total, count))
    try:
        if path.stat().st_size != size * total:
            return False
        with ThreadPoolExecutor(threads) as pool:
            while batch := list(islice(pieces, _TOLD)):
                if not all(pool.map(lambda piece: _are_intact(path, piece[0], piece[1], size), batch)):
                    return False
                if batch[0][0]:
                    yield Scanned(done=batch[0][0], total=total)
    except OSError:
        return False
    return True


def _are_intact(path: Path, start: int, hashes: Sequence[str], size: int) -> bool:
    """Whether the pictures from number `start` have these hashes. Raises OSError."""
    with open(path, "rb") as file:
        file.seek(start * size)
        piece = memoryview(file.read(size * len(hashes)))
    return all(hashlib.sha256(piece[size * k:size * (k + 1)]).hexdigest() == expected
               for k, expected in enumerate(hashes))
