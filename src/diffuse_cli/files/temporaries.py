"""Temporary files and directories beside what they are to become, and the removal of those whose process is dead.

Each is locked by the process that made it. The kernel releases the lock when the process dies, for any reason; so a
temporary that nobody holds was left behind. On file systems without locks, and on Windows, none is ever removed.
"""

import contextlib
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

TEMPORARY = ".tmp-"                             # prefix of the names that a crash may leave behind
ASIDE = "replaced"                              # in a temporary directory: what its content is to replace
NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
CLOEXEC = getattr(os, "O_CLOEXEC", 0)
BINARY = getattr(os, "O_BINARY", 0)
_LOCKED_BYTE = 2**30                            # on Windows, nobody else can read the byte that is locked
_NAME = re.compile(re.escape(TEMPORARY) + r"diffuse-[0-9a-f]{16}")
_searched: set[Path] = set()                    # directories that this process has searched for abandoned temporaries


@dataclass
class TemporaryFile:
    """A new file that is open for writing. It is locked until `close`."""

    path: Path
    descriptor: int

    def close(self) -> None:
        """Close the file, at most once."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@contextlib.contextmanager
def file_beside(path: Path, mode: int) -> Iterator[TemporaryFile]:
    """Yield a new file in the directory of `path`. If it still has its name when the block ends, it is removed.

    Raises OSError.
    """
    _remove_abandoned_once(path.parent)
    while True:
        name = _new_name(path.parent)
        file = TemporaryFile(name, create(name, os.O_WRONLY | os.O_EXCL, mode))
        if _lock_is_ours(file.descriptor, name):
            break
        file.close()
    try:
        yield file
    except BaseException:
        file.close()                                               # Windows does not remove an open file
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    finally:
        file.close()


@contextlib.contextmanager
def directory_in(parent: Path, mode: int) -> Iterator[Path]:
    """Yield a new directory in `parent`. It is removed with all that it holds when the block ends. Raises OSError."""
    _remove_abandoned_once(parent)
    descriptor = -1
    try:
        while True:
            path = _new_name(parent)
            os.mkdir(path, mode)
            os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) | stat.S_IRWXU)      # whatever the umask is
            if sys.platform == "win32":
                break
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | NOFOLLOW | CLOEXEC)
            if _lock_is_ours(descriptor, path):
                break
            os.close(descriptor)
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                _discard(path)
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def create(path: Path, flags: int, mode: int = 0o600) -> int:
    """Open a file for writing, never through a link. Its owner may read and write it, whatever the umask is."""
    descriptor = os.open(path, flags | os.O_CREAT | NOFOLLOW | CLOEXEC | BINARY, mode)
    permissions = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if permissions & 0o600 != 0o600:
        os.chmod(path, permissions | 0o600)
    return descriptor


def lock_now(descriptor: int) -> None:
    """Lock an open file, or on other systems than Windows a directory, for this process.

    Raises OSError if another process holds it, or if the file system has no locks.
    """
    if sys.platform == "win32":
        os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        os.lseek(descriptor, 0, os.SEEK_SET)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def replace(source: Path, target: Path) -> None:
    """Give a file or directory another name, in one instant, and replace a file of that name. Raises OSError.

    On Windows, where a program that only looks at a file hinders this, it is tried for a second.
    """
    for seconds in (0.01, 0.04, 0.15, 0.3, 0.5) if sys.platform == "win32" else ():
        try:
            os.replace(source, target)
        except PermissionError:
            time.sleep(seconds)
        else:
            return
    os.replace(source, target)


def remove_abandoned(directory: Path) -> None:
    """Remove the temporaries in a directory that belong to this user and are held by no living process."""
    if sys.platform == "win32":
        return
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        for entry in entries:
            if _NAME.fullmatch(entry.name):
                with contextlib.suppress(OSError):
                    _remove_if_abandoned(Path(entry.path))


def is_still(path: Path, descriptor: int) -> bool:
    """Whether `path` names the opened file or directory: it may have been removed meanwhile."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(path))
    except FileNotFoundError:
        return False


def target_of(path: Path) -> Path:
    """The path as it will be when all is done: without the parts that are temporary."""
    return Path(*(part for part in path.parts if not part.startswith(TEMPORARY)))


def _discard(directory: Path) -> None:
    """Delete a temporary directory. First, what was moved aside into it goes back to its place, if that is free.

    Raises OSError, and then deletes nothing.
    """
    aside = directory / ASIDE
    for replaced in aside.iterdir() if aside.is_dir() else ():
        if not os.path.lexists(directory.parent / replaced.name):
            replace(replaced, directory.parent / replaced.name)
    shutil.rmtree(directory, ignore_errors=True)


def _new_name(directory: Path) -> Path:
    return directory / f"{TEMPORARY}diffuse-{os.urandom(8).hex()}"


def _lock_is_ours(descriptor: int, path: Path) -> bool:
    """Lock a temporary that was just made. False if another process took it for abandoned before it was locked."""
    if sys.platform == "win32":
        return True
    try:
        lock_now(descriptor)
    except BlockingIOError:
        return False
    except OSError:                             # the file system has no locks
        return True
    return is_still(path, descriptor)


def _remove_abandoned_once(directory: Path) -> None:
    directory = directory.absolute()
    if directory not in _searched:
        _searched.add(directory)
        remove_abandoned(directory)


def _remove_if_abandoned(path: Path) -> None:
    """Raises OSError if it is held or cannot be locked."""
    if sys.platform == "win32":
        return
    status = path.lstat()
    if status.st_uid != os.geteuid() or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return
    is_directory = stat.S_ISDIR(status.st_mode)
    descriptor = os.open(path, NOFOLLOW | CLOEXEC | (os.O_RDONLY | os.O_DIRECTORY if is_directory else os.O_RDWR))
    try:
        lock_now(descriptor)
        if not is_still(path, descriptor):
            return
        if is_directory:
            _discard(path)
        else:
            os.unlink(path)
    finally:
        os.close(descriptor)
