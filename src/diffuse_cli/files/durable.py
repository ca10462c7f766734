"""Durable writing: after a crash, a file that was written with this module is there as a whole, or not at all.

Logs are the exception, because lines are appended to them: the last ones may be lost or torn.

Temporary file beside the target → write → check of the length → fsync → replace → fsync of the directory. Files get
mode 0600 and directories 0700, unless another is given: models may be private.
"""

import contextlib
import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

from ..errors import StorageError, system_reason
from . import temporaries
from .temporaries import BINARY, CLOEXEC, NOFOLLOW, TEMPORARY

if sys.platform == "darwin":
    import fcntl

LIMITS = {errno.EFBIG: "ulimit -f", errno.EMFILE: "ulimit -n", errno.ENFILE: "ulimit -n", errno.ENOMEM: "ulimit -v"}


def write(
    path: Path, data: bytes | Sequence[bytes | memoryview], *, exclusive: bool = False, mode: int = 0o600,
) -> None:
    """Replace the file at `path` by `data`, given whole or in pieces, durably and in one instant.

    With `exclusive`, an existing file is never replaced: FileExistsError is raised. All other errors are StorageErrors.
    """
    pieces = [data] if isinstance(data, bytes) else data
    try:
        with temporaries.file_beside(path, mode) as temporary:
            for piece in pieces:
                _write_all(temporary.descriptor, piece)
            _sync(temporary.descriptor)
            if sys.platform == "win32":
                temporary.close()                                  # an open file cannot be renamed there
            if exclusive:
                _link(temporary.path, path)
            else:
                temporaries.replace(temporary.path, path)
        sync_directory(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        fail(error, path, need=sum(len(piece) for piece in pieces))


@contextlib.contextmanager
def stream(path: Path, *, mode: int = 0o600) -> Iterator[Callable[[bytes], None]]:
    """Write a big file piece by piece. It appears at `path`, durably, when the block ends without an error.

    Yields the function that adds a piece. Raises StorageError.
    """
    written = 0

    def add(piece: bytes) -> None:
        nonlocal written
        written += len(piece)
        with _reported(path, need=written):
            _write_all(temporary.descriptor, piece)

    with contextlib.ExitStack() as held:
        with _reported(path):
            temporary = held.enter_context(temporaries.file_beside(path, mode))
        yield add
        with _reported(path, need=written):
            if os.fstat(temporary.descriptor).st_size != written:
                raise OSError(errno.EIO, "the file is shorter than what was written")
            _sync(temporary.descriptor)
            if sys.platform == "win32":
                temporary.close()
            temporaries.replace(temporary.path, path)
            sync_directory(path.parent)


@contextlib.contextmanager
def draft(path: Path, write: Callable[[Path], None]) -> Iterator[BinaryIO]:
    """Call `write` with a temporary path beside `path`, and yield the file that it wrote, opened for reading.

    This serves libraries that take only the name of a file, not an open file. The file is not written durably, and it
    is removed when the block ends. So the block must copy it to `path` with `stream`. Raises StorageError, also for an
    OSError of `write`.
    """
    with contextlib.ExitStack() as held:
        with _reported(path):
            draft_path = held.enter_context(temporaries.directory_in(path.parent, 0o700)) / path.name
            write(draft_path)
        with open(draft_path, "rb") as file:
            yield file


@contextlib.contextmanager
def staging(target: Path, *, mode: int = 0o777) -> Iterator[Path]:
    """Yields a new directory beside `target`, in which the target is prepared. It is removed when the block ends.

    Missing parents are created, and removed again if they are still empty. Raises StorageError.
    """
    parent = target.absolute().parent
    with directory_to_fill(parent, mode=mode), contextlib.ExitStack() as held:
        with _reported(target):
            directory = held.enter_context(temporaries.directory_in(parent, mode))
        yield directory


@contextlib.contextmanager
def directory_to_fill(path: Path, *, mode: int = 0o700) -> Iterator[None]:
    """As `make_directory`, but removes the created directories that are still empty when the block ends.

    Raises StorageError.
    """
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    try:
        make_directory(path, mode=mode)
        yield
    finally:
        for directory in missing:
            with contextlib.suppress(OSError):                     # it is not empty
                directory.rmdir()


def publish(staged: Path, target: Path, *, replace: bool = False) -> None:
    """Give a file or a whole directory from `staging` its name `target`, durably and in one instant.

    With `replace`, a directory of that name is moved to the staging directory first. So for an instant neither has the
    name, but both are on the disk. If the new one cannot take its place, the old one is moved back at the end of
    `staging`, or after `kill -9` when the next one begins. Raises FileExistsError if the name is taken and `replace` is
    not set, StorageError.
    """
    aside = staged.parent / temporaries.ASIDE
    try:
        _sync_tree(staged)
        if staged.is_file() and not replace:
            _link(staged, target)
        elif staged.is_file() or not os.path.lexists(target):
            temporaries.replace(staged, target)
        elif not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        else:
            aside.mkdir()
            temporaries.replace(target, aside / target.name)
            temporaries.replace(staged, target)
        sync_directory(target.absolute().parent)
    except FileExistsError:
        raise
    except OSError as error:
        fail(error, target)


def move_all(source: Path, target: Path, names: Sequence[str]) -> None:
    """Move files from one directory to another on the same disk, in order. If one fails, those before are removed.

    No file is replaced. Raises StorageError.
    """
    moved: list[Path] = []
    try:
        for name in names:
            _link(source / name, target / name)
            moved.append(target / name)
        sync_directory(target)
    except BaseException as error:
        for path in moved:
            with contextlib.suppress(OSError):
                path.unlink()
        if isinstance(error, OSError):
            fail(error, target)
        raise


def append(path: Path, data: bytes) -> None:
    """Append `data` to a log, without fsync: a crash may lose or tear the last lines, which readers must tolerate.

    Raises StorageError.
    """
    try:
        descriptor = temporaries.create(path, os.O_WRONLY | os.O_APPEND)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as error:
        fail(error, path, need=len(data))


def make_directory(path: Path, *, mode: int = 0o700) -> Path:
    """Create `path` and its missing parents, all durably and with `mode`. → `path`. Raises StorageError."""
    try:
        for directory in reversed((path, *path.parents)):
            if not directory.exists():
                directory.mkdir(mode, exist_ok=True)
                directory.chmod(stat.S_IMODE(directory.stat().st_mode) | stat.S_IRWXU)      # whatever the umask
                sync_directory(directory.parent)
        path.mkdir(exist_ok=True)                                  # fails if `path` exists and is no directory
    except OSError as error:
        fail(error, path)
    return path


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Does nothing on Windows, where directories cannot be opened."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | CLOEXEC)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file durably. Raises StorageError."""
    try:
        os.unlink(path)
        sync_directory(path.parent)
    except OSError as error:
        fail(error, path)


def scratch_directory() -> Path:
    """The system's directory for temporary files. Raises StorageError if none can be written into."""
    try:
        return Path(tempfile.gettempdir()).absolute()
    except OSError as error:
        raise StorageError("there is no directory for temporary files that can be written into",
                           hint="Set TMPDIR to one, or make room") from error


def remove_tree(path: Path) -> None:
    """Remove a directory so that nobody ever sees half of it: it is renamed first, then deleted. Raises StorageError.
    """
    trash = path.with_name(f".trash-{os.urandom(8).hex()}")
    try:
        temporaries.replace(path, trash)
        sync_directory(path.parent)
    except OSError as error:
        fail(error, path)
    for leftover in path.parent.glob(".trash-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_temporaries(directory: Path) -> None:
    """Delete the temporary files that a crash left at any depth. Call only while the directory's lock is held."""
    for leftover in directory.rglob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


def free_bytes(path: Path) -> int:
    """The free bytes of the file system where `path` is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def fail(error: OSError, path: Path, *, need: int = 0) -> NoReturn:
    """Raise the StorageError that users see for an OSError. need: bytes that were to be written to `path`."""
    path, reason = temporaries.target_of(path), system_reason(error)
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        with contextlib.suppress(OSError):
            reason += f", need {need / 2**20:.1f} MB" if need > 100_000 else ""
            reason += f", {free_bytes(path.parent) / 2**20:.1f} MB free"
        hint = "Make room and run the same command again"
    elif error.errno in LIMITS:
        hint = f"Raise the limit of this system, see `{LIMITS[error.errno]}`"
    else:
        hint = "Choose another place (DIFFUSE_HOME moves the cache, -o the output)"
    raise StorageError(f"cannot write {path}: {reason}", hint=hint) from error


@contextlib.contextmanager
def _reported(path: Path, *, need: int = 0) -> Iterator[None]:
    """Turn an OSError in the block into a StorageError about `path`, as `fail` does."""
    try:
        yield
    except OSError as error:
        fail(error, path, need=need)


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    before, view = os.fstat(descriptor).st_size, memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]
    if os.fstat(descriptor).st_size < before + len(data):
        raise OSError(errno.EIO, "the file is shorter than what was written")


def _sync_tree(path: Path) -> None:
    """Make a file durable, or all files and names in a directory, also those that a library wrote."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync_tree(inner)
        sync_directory(path)
        return
    descriptor = os.open(path, os.O_RDWR | NOFOLLOW | CLOEXEC | BINARY)      # Windows flushes only writable files
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        if sys.platform == "darwin":
            with contextlib.suppress(OSError):                     # a disk of the network may know only fsync
                fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
                return
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):     # the file system has no fsync
            raise


def _link(temporary: Path, path: Path) -> None:
    """Give the temporary file its final name. Raises FileExistsError if the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:                                                # the file system has no hard links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NOFOLLOW | CLOEXEC, 0o600))
        temporaries.replace(temporary, path)
    else:
        os.unlink(temporary)
