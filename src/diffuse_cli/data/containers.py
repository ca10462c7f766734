"""Pictures and texts inside zip and tar files, as if they were files of a folder. Nothing is unpacked to the disk.

Only what a member's name and place are is read to list a container; a member is read when it is needed.
"""

import io
import os
import posixpath
import stat
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, Literal, Protocol, overload

from ..errors import DataError

ARCHIVES = (".zip", ".tar")
COMPRESSED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")       # to be unpacked first
MEMBER_LIMIT = 256 * 2**20                      # maximum bytes of a member, before it is compressed


class Inner(Protocol):
    """A file inside a container. It has those methods of `Path` that readers of files need."""

    container: Path                             # the file on the disk

    def stat(self) -> os.stat_result:
        """The status of the container: what is in it changes with it."""

    def read_bytes(self) -> bytes:
        """All bytes. Raises OSError if the container was changed or is damaged, or they are too many."""

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The contents as an open file. Raises OSError."""


Location = Path | Inner


class Member:
    """A regular file in an archive.

    container: the file on the disk. inner: the name in it. size: bytes of the member. start: the offset of a tar's
    member in the container; None in a zip file.
    """

    container: Path

    def __init__(self, container: Path, inner: str, size: int, start: int | None) -> None:
        self.container, self.inner, self.size, self.start = container, inner, size, start

    def __str__(self) -> str:
        return f"{self.container}/{self.inner}"

    def __fspath__(self) -> str:                # for messages and for sorting; there is no such path on the disk
        return str(self)

    @property
    def name(self) -> str:
        """The last part of the name."""
        return posixpath.basename(self.inner)

    @property
    def suffix(self) -> str:
        return posixpath.splitext(self.inner)[1]

    def stat(self) -> os.stat_result:
        """The status of the container: a member changes with it."""
        return os.stat(self.container)

    def read_bytes(self) -> bytes:
        """All bytes. Raises OSError if the container was changed or is damaged, or the member is too long."""
        if self.size > MEMBER_LIMIT:
            raise OSError(f"over {MEMBER_LIMIT // 2**20} MB")
        if self.start is not None:
            with self.container.open("rb", buffering=0) as file:
                file.seek(self.start)
                data = _read_all(file, self.size)
        else:
            data = _ZipFiles.read(self.container, self.inner, self.size)
        if len(data) != self.size:
            raise OSError("the archive is cut short")
        return data

    @overload
    def open(self, mode: Literal["rb"]) -> IO[bytes]: ...
    @overload
    def open(self, mode: Literal["r"] = "r", *, encoding: str, newline: str | None = None) -> IO[str]: ...

    def open(self, mode: str = "r", *, encoding: str = "utf-8", newline: str | None = None) -> Any:
        """The contents as an open file."""
        data = io.BytesIO(self.read_bytes())
        return data if mode == "rb" else io.TextIOWrapper(data, encoding=encoding, newline=newline)


class _ZipFiles:
    """The zip file that was read last stays open, because its directory takes long to read."""

    lock = threading.Lock()
    path: Path | None = None
    file: zipfile.ZipFile | None = None

    @classmethod
    def read(cls, path: Path, inner: str, size: int) -> bytes:
        """`size` bytes of a member. Raises OSError."""
        with cls.lock:
            try:
                if cls.path != path or cls.file is None:
                    if cls.file is not None:
                        cls.file.close()
                    cls.file, cls.path = zipfile.ZipFile(path), path
                with cls.file.open(inner) as member:
                    return member.read(size)
            except (zipfile.BadZipFile, zlib.error, RuntimeError, NotImplementedError, KeyError, EOFError) as error:
                raise OSError(f"damaged or encrypted: {error}") from error


def _read_all(file: io.RawIOBase, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (piece := file.read(size - len(data))):
        data += piece
    return bytes(data)


def is_container(name: str) -> bool:
    """Whether a file with this name is an archive whose members are read."""
    return name.lower().endswith(ARCHIVES)


def members(path: Path) -> Iterator[Member]:
    """The regular files in an archive, in its order. Raises DataError if it cannot be read or is a compressed tar."""
    if path.name.lower().endswith(COMPRESSED_TARS):
        raise DataError(f"{path} is a compressed tar, in which no picture can be read alone",
                        hint=f"Unpack it first: tar xf {path}")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise DataError(f"{path} is not a regular file")
        if path.suffix.lower() == ".zip":
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir() and safe_name(entry.filename):
                        yield Member(path, entry.filename, entry.file_size, None)
        else:
            with tarfile.open(path, "r:") as tar:
                for info in tar:
                    if info.isreg() and safe_name(info.name):
                        yield Member(path, info.name, info.size, info.offset_data)
                    tar.members.clear()         # type: ignore[attr-defined]   # they are not needed again
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise DataError(f"{path} is not a readable archive", hint="Was it copied or downloaded to its end?") from error


def safe_name(name: str) -> str | None:
    """A member's name as a relative POSIX path; None for one that leads out of the archive, or that is none."""
    path = posixpath.normpath(name.replace("\\", "/").lstrip("/"))
    return None if path in ("", ".") or path.startswith("../") or "\0" in path else path
