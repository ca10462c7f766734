"""The bytes of a picture: of a regular file on the disk, or of a member of a container. Limits come before reading."""

import io
import os
from pathlib import Path
from typing import IO

from ..files.input_files import NOT_REGULAR, open_input
from .containers import MEMBER_LIMIT, Inner, Location

MAX_BYTES = MEMBER_LIMIT                        # maximum size of a file
TOO_SMALL = "smaller than"                      # beginning of the reason of a picture that must not be enlarged
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
    try:
        file = open_input(path, limit=MAX_BYTES)
    except FileNotFoundError as error:
        raise ImageRefused("not there") from error
    except IsADirectoryError as error:
        raise ImageRefused("a folder") from error
    except OSError as error:
        known = error.strerror if error.strerror in (NOT_REGULAR, f"over {MAX_BYTES // 2**20} MB") else "unreadable"
        raise ImageRefused(known) from error
    if os.fstat(file.fileno()).st_size == 0:
        file.close()
        raise ImageRefused("empty file")
    return file


def read(path: Location) -> bytes:
    """All bytes of the file; raises ImageRefused."""
    with open_regular(path) as file:
        try:
            return file.read()
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
