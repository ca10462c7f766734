"""Files of a data set, on the disk or inside zip and tar files, which are read without unpacking them to the disk.

Only what a member's name and place are is read to list a container; a member is read when it is needed.
"""

import io
import os
import posixpath
import threading
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, Literal, NamedTuple, Protocol

from ..files.input_files import check_input, open_input

MEMBER_LIMIT = 256 * 2**20                      # maximum bytes of a member, before it is compressed
ARCHIVE_LIMIT = 2**42                           # maximum bytes of an archive, or of a file of rows


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
                with cls.file.open(inner) as member:
                    return member.read(size)
            except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, KeyError, EOFError) as error:
                raise OSError(f"damaged or encrypted: {error}") from error


def identity_of(path: Path) -> tuple[Path, int, int]:
    """A file's path, size and time of its last change, by which it is noticed if another takes its place."""
    status = os.stat(path)
    return path, status.st_size, status.st_mtime_ns
