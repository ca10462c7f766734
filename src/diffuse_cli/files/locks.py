"""Locks of directories: one process at a time trains in a directory, fills it or removes it."""

import contextlib
import errno
import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..errors import InUseError
from . import durable, temporaries


@contextlib.contextmanager
def lock(path: Path, *, doing: str) -> Iterator[None]:
    """Hold an exclusive kernel lock on `path`. The kernel releases it when the process dies, for any reason.

    doing: what the lock is held for, to be shown to others. Raises InUseError, which names the process that holds the
    lock and its `doing`, and StorageError.
    """
    durable.make_directory(path.parent)
    try:
        descriptor = temporaries.create(path, os.O_RDWR)
    except OSError as error:
        durable.fail(error, path)
    try:
        try:
            temporaries.lock_now(descriptor)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES):      # the file system has no locks
                durable.fail(error, path)
            raise InUseError(f"{path.parent.name!r} is in use: {_holder(descriptor)}",
                             hint="Wait for it to end, or choose another --name") from error
        if not temporaries.is_still(path, descriptor):
            raise InUseError(f"{path.parent.name!r} was just removed", hint="Run the same command again")
        with contextlib.suppress(OSError):                         # on a full disk, the lock works without the name
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{doing} by process {os.getpid()} on {platform.node()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def _holder(descriptor: int) -> str:
    """The text that a lock's holder wrote about itself.

    Waits a moment first: a holder that has just got the lock has not yet replaced the text of the one before.
    """
    for _ in range(10):
        time.sleep(0.05)
        os.lseek(descriptor, 0, os.SEEK_SET)
        if text := os.read(descriptor, 200).decode("utf-8", "replace").strip():
            return text
    return "another process"


def remove_locked_tree(path: Path, lock_name: str) -> None:
    """As `durable.remove_tree`, while holding the lock of that name in the directory.

    Raises InUseError and StorageError.
    """
    with lock(path / lock_name, doing="being removed"):
        if sys.platform != "win32":
            durable.remove_tree(path)
            return
    durable.remove_tree(path)                           # Windows renames no directory in which a file is open
