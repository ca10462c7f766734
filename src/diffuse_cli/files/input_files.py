"""The one door to files that others may have written: a regular file of limited size is opened, others are refused.

A pipe in the place of a file would wait for ever, and a device such as /dev/zero has no end. So kind and size are
judged on the opened file, before a byte is read; and no more is read than that size, even if the file grows.
All errors are `OSError`s, whose `strerror` is a short reason, such as "not a regular file".
"""

import errno
import io
import os
import stat
from typing import Any

NOT_REGULAR, GREW = "not a regular file", "it grew while it was read"


def open_input(path: str | os.PathLike[str], *, limit: int) -> io.BufferedReader:
    """Open a regular file of at most `limit` bytes for reading. A link to one is followed. Raises OSError.

    Reading more than the file had when it was opened raises OSError too.
    """
    raw = _Bounded(path)
    if raw.size > limit:
        raw.close()
        raise OSError(errno.EFBIG, f"over {_readable(limit)}", os.fspath(path))
    return io.BufferedReader(raw)


def read_input(path: str | os.PathLike[str], *, limit: int) -> bytes:
    """All bytes of a regular file of at most `limit` bytes. Raises OSError."""
    with open_input(path, limit=limit) as file:
        return file.read()


def check_input(path: str | os.PathLike[str], *, limit: int) -> None:
    """Raise OSError unless a library that opens `path` itself would find a regular file of at most `limit` bytes."""
    open_input(path, limit=limit).close()


class _Bounded(io.FileIO):
    """A regular file that was opened without waiting, and that ends where it ended then. `size`: its bytes then."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if "\0" in os.fspath(path):
            raise OSError(errno.EINVAL, "no file has such a name")
        super().__init__(path, "rb", opener=_without_waiting)
        try:
            status = os.fstat(self.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, NOT_REGULAR, os.fspath(path))
        except OSError:
            self.close()
            raise
        self.size = status.st_size

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        if count:                               # a seek may have gone beyond the end
            self._check()
        return count

    def readall(self) -> bytes:
        pieces = []
        while piece := self.read(max(0, self.size - self.tell()) + 1):
            self._check()
            pieces.append(piece)
        return b"".join(pieces)

    def _check(self) -> None:
        if self.tell() > self.size:
            raise OSError(errno.EFBIG, GREW, self.name)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))     # a plain open of a pipe waits for a writer


def _readable(count: int) -> str:
    return f"{count // 2**20} MB" if count >= 2**20 else f"{count // 1024} KB"
