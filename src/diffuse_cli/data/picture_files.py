"""The bytes of a picture: of a regular file on the disk, or of a member of a container. Limits come before reading."""

import io
import os
import stat
from pathlib import Path
from typing import IO

from .containers import MEMBER_LIMIT, Inner, Location

MAX_BYTES = MEMBER_LIMIT                        # maximum size of a file
TOO_MUCH = "needs too much memory"              # the reason of a picture for which memory does not suffice


class ImageRefused(Exception):
    """A file cannot be used as a picture. `reason` is one of a few short texts, so that reasons can be counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def open_regular(path: Location) -> IO[bytes]:
    """Open a regular file of 1 byte to 256 MiB for reading. Raises ImageRefused if the file is missing or different."""
    if not isinstance(path, Path):
        return _open_inner(path)
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        # Without O_NONBLOCK, opening a pipe in the place of a picture would wait until somebody writes into it.
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        raise ImageRefused("not there") from error
    except (OSError, ValueError) as error:
        raise ImageRefused("unreadable") from error
    status = os.fstat(descriptor)
    reason = ("not a regular file" if not stat.S_ISREG(status.st_mode) else "empty file" if not status.st_size
              else "over 256 MB" if status.st_size > MAX_BYTES else None)
    if reason:
        os.close(descriptor)
        raise ImageRefused(reason)
    return os.fdopen(descriptor, "rb")


def read(path: Location) -> bytes:
    """All bytes of the file; raises ImageRefused."""
    with open_regular(path) as file:
        try:
            # Not MAX_BYTES: Python would allocate as many, for each file.
            size = os.fstat(file.fileno()).st_size if isinstance(path, Path) else MAX_BYTES
            return file.read(min(size, MAX_BYTES))
        except OSError as error:
            raise ImageRefused("unreadable") from error


def _open_inner(path: Inner) -> io.BytesIO:
    """The contents of a member of a container. Raises ImageRefused."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageRefused("unreadable in its archive") from error
    if not data:
        raise ImageRefused("empty file")
    return io.BytesIO(data)


def size_and_times(path: Location) -> tuple[int, int, int]:
    """Bytes, modified and changed, times in nanoseconds; of a member those of its container. Raises OSError."""
    status = os.stat(path) if isinstance(path, Path) else path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
