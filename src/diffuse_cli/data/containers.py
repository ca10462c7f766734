"""Files of a data set, on the disk or inside zip and tar files, which are read without unpacking them to the disk.

Only what a member's name and place are is read to list a container; a member is read when it is needed.
"""

import contextlib
import io
import os
import posixpath
import struct
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol

from ..errors import DataError
from ..files.input_files import check_input, open_input
from ..files.memory_limit import MAX_GROWTH, limited_memory
from .file_types import HEAD, remedies, what_else

MEMBER_LIMIT = 256 * 2**20                      # maximum bytes of a member, before it is compressed
ARCHIVE_LIMIT = 2**42                           # maximum bytes of an archive, or of a file of rows
TEXT_LIMIT = 2**20                              # maximum characters of a text in a row
ROW_LIMIT = 1_000_000                           # maximum rows of a file that has fewer bytes; of others, one for a byte
HEADER_LIMIT = 2**20                            # maximum bytes of the headers of a member of a tar
# What the standard library raises for archives that are damaged, or made to harm it.
DAMAGE = (zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError, ValueError, OverflowError,
          RuntimeError, LookupError)
PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)       # the library unpacks others without a limit of memory


class Inner(Protocol):
    """A file inside a container. It has those methods of `Path` that readers of files need."""

    container: Path                             # the file on the disk

    def packed(self) -> tuple[tuple[Any, ...], tuple[str, int, int | None]]:
        """→ what many files share: a function and its first arguments; a text and two numbers, its other arguments

        The function makes the same file again.
        """

    def stat(self) -> os.stat_result:
        """The status of the container: what is in it changes with it."""

    def read_bytes(self) -> bytes:
        """All bytes. Raises OSError if the container was changed or is damaged, or they are too many."""

    def head(self, count: int) -> bytes:
        """The first `count` bytes, or all if there are fewer. No more are unpacked. Raises OSError."""

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The contents as an open file. Raises OSError."""


Location = Path | Inner


def read_head(location: Location, count: int) -> bytes:
    """The first `count` bytes of a file, or all if there are fewer. Raises OSError."""
    if not isinstance(location, Path):
        return location.head(count)
    with open_input(location, limit=ARCHIVE_LIMIT) as file:
        return file.read(count)


class File(NamedTuple):
    """A regular file: `name` is its NFC POSIX path relative to the folder."""

    name: str
    path: Location

    @property
    def directory(self) -> str:
        """'' or 'some/folder', without a slash at the end."""
        return self.name.rpartition("/")[0]

    @property
    def base(self) -> str:
        """The name with its directory, without its suffix."""
        return posixpath.splitext(self.name)[0]

    @property
    def suffix(self) -> str:
        """'.png', in lower case; '' if there is none."""
        return os.path.splitext(self.name)[1].lower()


class Member:
    """A regular file in an archive.

    container: the file on the disk. inner: the name in it. size: bytes of the member. start: the offset of a tar's
    member in the container; None in a zip file.
    """

    __slots__ = ("container", "inner", "size", "start")
    container: Path

    def __init__(self, container: Path, inner: str, size: int, start: int | None) -> None:
        self.container, self.inner, self.size, self.start = container, inner, size, start

    def __str__(self) -> str:
        return f"{self.container}/{self.inner}"

    def packed(self) -> tuple[tuple[Any, ...], tuple[str, int, int | None]]:
        """→ what its container's members share, what is its own"""
        return (Member, self.container), (self.inner, self.size, self.start)

    def stat(self) -> os.stat_result:
        """The status of the container: a member changes with it."""
        return os.stat(self.container)

    def read_bytes(self) -> bytes:
        """All bytes. Raises OSError if the container was changed or is damaged, or the member is too long."""
        if self.size > MEMBER_LIMIT:
            raise OSError(f"over {MEMBER_LIMIT // 2**20} MB")
        return self.head(self.size)

    def head(self, count: int) -> bytes:
        """The first `count` bytes, or all if there are fewer. Raises OSError."""
        count = min(count, self.size)
        if self.start is not None:
            data = _TarFiles.read(self.container, self.start, count)
        else:
            data = _ZipFiles.read(self.container, self.inner, count)
        if len(data) != count:
            raise OSError("the archive is cut short")
        return data

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The contents as an open file. Raises OSError."""
        return io.BytesIO(self.read_bytes())


class _TarFiles:
    """The tar file that was read last stays open: to open it takes longer than to read a small member."""

    lock = threading.Lock()
    identity: tuple[Path, int, int] | None = None
    file: io.BufferedReader | None = None

    @classmethod
    def read(cls, path: Path, start: int, size: int) -> bytes:
        """`size` bytes from an offset; fewer at the end of the file. Raises OSError."""
        with cls.lock:
            identity = identity_of(path)
            if cls.identity != identity or cls.file is None:
                opened = open_input(path, limit=ARCHIVE_LIMIT)
                if cls.file is not None:
                    cls.file.close()
                cls.file, cls.identity = opened, identity
            cls.file.seek(start)
            return cls.file.read(size)


class _ZipFiles:
    """The zip file that was read last stays open, because its directory takes long to read."""

    lock = threading.Lock()
    identity: tuple[Path, int, int] | None = None
    file: zipfile.ZipFile | None = None

    @classmethod
    def read(cls, path: Path, inner: str, size: int) -> bytes:
        """`size` bytes of a member. Raises OSError."""
        with cls.lock:
            try:
                identity = identity_of(path)
                if cls.identity != identity or cls.file is None:
                    check_input(path, limit=ARCHIVE_LIMIT)
                    opened = zipfile.ZipFile(path)
                    if cls.file is not None:
                        cls.file.close()
                    cls.file, cls.identity = opened, identity
                if cls.file.getinfo(inner).compress_type not in PACKED:
                    raise OSError("packed by another method than deflate")
                with cls.file.open(inner) as member:
                    return member.read(size)
            except OSError:
                raise
            except DAMAGE as error:
                raise OSError(f"damaged or encrypted: {error}") from error


class TarHeaders:
    """An open tar file for the library that lists it, which would read headers of any length into memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self.tell, self.seek, self._read, self._left = file.tell, file.seek, file.read, HEADER_LIMIT

    def next_member(self) -> None:
        """HEADER_LIMIT holds for each member."""
        self._left = HEADER_LIMIT

    def read(self, count: int) -> bytes:
        """`count` bytes. Raises OSError if they are too many."""
        if not 0 <= count <= self._left:
            raise OSError(f"headers over {HEADER_LIMIT // 2**20} MB")
        self._left -= count
        return self._read(count)


def identity_of(path: Path) -> tuple[Path, int, int]:
    """A file's path, size and time of its last change, by which it is noticed if another takes its place."""
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def reading(name: str, location: Location) -> Iterator[None]:
    """Raise DataError in place of every error of pyarrow, of values that Python cannot hold, and of a lack of memory.

    The block must not yield: the limit of memory is that of the whole process.
    """
    try:
        with limited_memory():
            yield
    except DataError:
        raise
    except MemoryError as error:
        raise DataError(f"{name} unpacks to more than {MAX_GROWTH // 2**30} GiB at once",
                        hint="If you know who wrote it, write it again with fewer rows in each group") from error
    except Exception as error:
        hint = ""
        with contextlib.suppress(OSError):
            hint = "; ".join(remedies([what_else(read_head(location, HEAD))]))
        raise DataError(f"{name} is not a readable {name.rpartition('.')[2]} file", hint=hint) from error


def judge_row_count(rows: int, size: int, name: str) -> None:
    """Raise DataError if a file of `size` bytes says that it has more rows than it can hold."""
    if rows > max(ROW_LIMIT, size):
        raise DataError(f"{name} has {rows:,} rows, but only {size:,} bytes",
                        hint=f"At most {ROW_LIMIT:,} rows are read, or as many as the file has bytes")


def rows_of_batches(batches: Iterator[Any], name: str, location: Location) -> Iterator[dict[str, Any]]:
    """The rows of pyarrow's batches, checked before they are believed. Raises DataError."""
    number = 0
    while True:
        with reading(name, location):
            if (batch := next(batches, None)) is None:
                return
            batch.validate(full=True)           # else damaged offsets would read any memory
            rows = batch.to_pylist()
        for row in rows:
            number += 1
            if any(isinstance(value, str) and len(value) > TEXT_LIMIT for value in row.values()):
                raise DataError(f"{name} row {number} is longer than a megabyte", hint="One row describes one picture")
            yield row
