"""The one door to the disk: what is written here is either wholly there after a crash, or not at all.

Temporary file beside the target → write → length check → fsync → replace → fsync of the directory. Files get mode
0600 and directories 0700: models may be private. Knows nothing of what it stores.
"""

import contextlib
import errno
import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NoReturn

from ..errors import InUseError, StorageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
_BINARY = getattr(os, "O_BINARY", 0)
TEMPORARY = ".tmp-"                             # prefix of what a crash may leave behind


def write(
    path: Path, data: bytes | Sequence[bytes | memoryview], *, exclusive: bool = False, mode: int = 0o600,
) -> None:
    """Replace the file at `path` by `data`, whole or in pieces, durably and in one instant.

    With `exclusive` an existing file is never replaced: raises FileExistsError. Raises StorageError otherwise.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.urandom(8).hex()}")
    pieces = [data] if isinstance(data, bytes) else data
    try:
        try:
            descriptor = _create(temporary, os.O_WRONLY | os.O_EXCL, mode)
            try:
                for piece in pieces:
                    _write_all(descriptor, piece)
                _sync(descriptor)
            finally:
                os.close(descriptor)
            if exclusive:
                _link(temporary, path)
            else:
                os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_directory(path.parent)
    except FileExistsError:
        raise
    except OSError as error:
        fail(error, path, need=sum(len(piece) for piece in pieces))


@contextlib.contextmanager
def stream(path: Path, *, mode: int = 0o600) -> Iterator[Callable[[bytes], None]]:
    """Write a big file piece by piece: it appears at `path`, durably, when the block ends without an error.

    Yields the function that adds a piece. Raises StorageError.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.urandom(8).hex()}")
    written = 0

    def add(piece: bytes) -> None:
        nonlocal written
        written += len(piece)
        with _reported(path, need=written):
            _write_all(descriptor, piece)

    with _reported(path):
        descriptor = _create(temporary, os.O_WRONLY | os.O_EXCL, mode)
    try:
        try:
            yield add
            with _reported(path, need=written):
                if os.fstat(descriptor).st_size != written:
                    raise OSError(errno.EIO, "the file is shorter than what was written")
                _sync(descriptor)
        finally:
            os.close(descriptor)
        with _reported(path, need=written):
            os.replace(temporary, path)
            sync_directory(path.parent)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def draft(path: Path, write: Callable[[Path], None]) -> Iterator[BinaryIO]:
    """For libraries that write to a name alone: `write` gets one beside `path`. Yields the file, open to be read.

    It is gone when the block ends, and nothing of it is durable: copy it with `stream`. Raises StorageError.
    """
    temporary = path.with_name(f"{TEMPORARY}{os.urandom(8).hex()}")
    try:
        with _reported(path):
            write(temporary)
        with open(temporary, "rb") as file:
            yield file
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A new directory beside `target`, to prepare it in; gone in the end, whatever happens, with all that is in it.

    Missing parents are made, and stay only if something came to lie in them. Raises StorageError.
    """
    parent = target.absolute().parent
    place = parent / f"{TEMPORARY}{os.urandom(8).hex()}"
    with directory_to_fill(parent, mode=0o777):
        try:
            yield make_directory(place, mode=0o777)
        finally:
            shutil.rmtree(place, ignore_errors=True)


@contextlib.contextmanager
def directory_to_fill(path: Path, *, mode: int = 0o700) -> Iterator[None]:
    """As `make_directory`; of those that were missing, the empty ones are gone in the end. Raises StorageError."""
    missing = [directory for directory in (path, *path.parents) if not directory.exists()]
    try:
        make_directory(path, mode=mode)
        yield
    finally:
        for directory in missing:
            with contextlib.suppress(OSError):                     # it holds what was made
                directory.rmdir()


def publish(staged: Path, target: Path, *, replace: bool = False) -> None:
    """Give a file or a whole directory from `staging` its name `target`, durably and in one instant.

    With `replace`, what has that name is put in the staging directory first, and back if the other cannot take its
    place: of a directory there is an instant without either name, but never without either directory. Raises
    FileExistsError where the name is taken, StorageError.
    """
    aside = staged.with_name(f"{TEMPORARY}{os.urandom(8).hex()}")
    try:
        _sync_tree(staged)
        if staged.is_file() and not replace:
            _link(staged, target)
        elif staged.is_file() or not os.path.lexists(target):
            os.replace(staged, target)
        elif not replace:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        else:
            try:
                os.replace(target, aside)
                os.replace(staged, target)
            except BaseException:                                  # wherever Ctrl-C came in between
                if os.path.lexists(aside) and not os.path.lexists(target):
                    os.replace(aside, target)
                raise
        sync_directory(target.absolute().parent)
    except FileExistsError:
        raise
    except OSError as error:
        fail(error, target)


def append(path: Path, data: bytes) -> None:
    """Add `data` to a log. Not synchronised: a crash may lose or tear the last lines, which readers must tolerate."""
    try:
        descriptor = _create(path, os.O_WRONLY | os.O_APPEND)
        try:
            _write_all(descriptor, data)
        finally:
            os.close(descriptor)
    except OSError as error:
        fail(error, path, need=len(data))


def make_directory(path: Path, *, mode: int = 0o700) -> Path:
    """Create `path` and its parents where missing, all of them durably and with `mode`. Raises StorageError."""
    try:
        for directory in reversed((path, *path.parents)):
            if not directory.exists():
                directory.mkdir(mode, exist_ok=True)
                directory.chmod(stat.S_IMODE(directory.stat().st_mode) | stat.S_IRWXU)      # whatever the umask
                sync_directory(directory.parent)
        path.mkdir(exist_ok=True)                                  # fails if it is there, but no directory
    except OSError as error:
        fail(error, path)
    return path


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable (a no-op where directories cannot be opened)."""
    if sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _CLOEXEC)
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


def remove_tree(path: Path) -> None:
    """Remove a directory so that nobody ever sees half of it: renamed aside first, then deleted."""
    trash = path.with_name(f".trash-{os.urandom(8).hex()}")
    try:
        os.replace(path, trash)
        sync_directory(path.parent)
    except OSError as error:
        fail(error, path)
    for leftover in path.parent.glob(".trash-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def remove_temporaries(directory: Path) -> None:
    """Delete what a crash left behind, however deep. Call only while holding the directory's lock."""
    for leftover in directory.rglob(f"{TEMPORARY}*"):
        with contextlib.suppress(OSError):
            leftover.unlink()


@contextlib.contextmanager
def lock(path: Path, *, doing: str) -> Iterator[None]:
    """Hold an exclusive kernel lock on `path`. The kernel frees it when the process dies, however it dies.

    Raises InUseError, naming the process that holds it and what it is `doing`.
    """
    make_directory(path.parent)
    try:
        descriptor = _create(path, os.O_RDWR)
    except OSError as error:
        fail(error, path)
    try:
        try:
            if sys.platform == "win32":
                msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):      # no locks on this file system
                fail(error, path)
            raise InUseError(f"{path.parent.name!r} is in use: {_holder(descriptor)}",
                             hint="Wait for it to end, or choose another --name") from error
        if not _is_still(path, descriptor):
            raise InUseError(f"{path.parent.name!r} was just removed", hint="Run the same command again")
        with contextlib.suppress(OSError):                         # a full disk; the name of the holder is a courtesy
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{doing} by process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """What a lock's holder wrote about itself; a moment after it took the lock, for before it is an older one's."""
    for _ in range(10):
        time.sleep(0.05)
        os.lseek(descriptor, 0, os.SEEK_SET)
        if text := os.read(descriptor, 200).decode("utf-8", "replace").strip():
            return text
    return "another process"


def free_bytes(path: Path) -> int:
    """Bytes that may still be written where `path` is, or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def fail(error: OSError, path: Path, *, need: int = 0) -> NoReturn:
    """Turn an OSError into the one StorageError that users see."""
    reason = (error.strerror or str(error)).lower()
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        with contextlib.suppress(OSError):
            reason += f", need {need / 2**20:.1f} MB" if need > 100_000 else ""
            reason += f", {free_bytes(path.parent) / 2**20:.1f} MB free"
        hint = "Make room and run the same command again"
    else:
        hint = "Choose another place (DIFFUSE_HOME moves the cache, -o the output)"
    raise StorageError(f"cannot write {path}: {reason}", hint=hint) from error


@contextlib.contextmanager
def _reported(path: Path, *, need: int = 0) -> Iterator[None]:
    """Turn an OSError in the block into a StorageError about `path`."""
    try:
        yield
    except OSError as error:
        fail(error, path, need=need)


def _create(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file for writing, never through a link; its owner may read and write it whatever the umask."""
    descriptor = os.open(path, flags | os.O_CREAT | _NOFOLLOW | _CLOEXEC | _BINARY, mode)
    permissions = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if permissions & 0o600 != 0o600:
        os.chmod(path, permissions | 0o600)
    return descriptor


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether `path` still names the opened file, which may have been removed before the lock was held."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _write_all(descriptor: int, data: bytes | memoryview) -> None:
    before, view = os.fstat(descriptor).st_size, memoryview(data)
    while view:
        view = view[os.write(descriptor, view):]
    if os.fstat(descriptor).st_size < before + len(data):
        raise OSError(errno.EIO, "the file is shorter than what was written")


def _sync_tree(path: Path) -> None:
    """Make a file, or all that is in a directory and its names, durable, whoever wrote it."""
    if path.is_dir():
        for inner in path.iterdir():
            _sync_tree(inner)
        sync_directory(path)
        return
    descriptor = os.open(path, os.O_RDWR | _NOFOLLOW | _CLOEXEC | _BINARY)      # Windows flushes only what is writable
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        if sys.platform == "darwin":
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):     # file systems without fsync
            raise


def _link(temporary: Path, path: Path) -> None:
    """Give the temporary file its final name only if that name is free."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:                                                # file systems without hard links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NOFOLLOW | _CLOEXEC, 0o600))
        os.replace(temporary, path)
    else:
        os.unlink(temporary)
