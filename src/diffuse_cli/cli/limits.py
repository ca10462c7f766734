"""Limits of the system (`ulimit`, cgroups): checked before heavy libraries are imported, and recognised in errors.

The native libraries end the process, some of them by a signal, when they get too few threads or too little memory while
they are loaded. Nothing can be reported then, so what they need is tried before.
"""

import contextlib
import errno
import os
import sys
import threading
from collections.abc import Iterator

from ..errors import DiffuseError, OutOfMemoryError, StorageError, UsageError

_HEAVY = ("torch", "numpy")                     # the libraries that start threads and reserve memory at their import
_MEMORY = 2000 * 2**20                          # bytes of address space for libraries and a small model
_STACK = 2**20                                  # bytes; torch crashes with 64 KB
_FILES = 64                                     # open files, and _FILES_PER_CORE for decoders
_FILES_PER_CORE = 4
_THREADS, _THREADS_PER_CORE, _MAX_THREADS = 4, 5, 200      # OpenMP, OpenBLAS, tokenizers, decoders

_DISK = {errno.ENOSPC, errno.EROFS, errno.EIO, getattr(errno, "EDQUOT", errno.ENOSPC)}
_BAD_NAME = {errno.ENAMETOOLONG, errno.ELOOP}
_NO_ACCESS = {errno.EACCES, errno.EPERM, getattr(errno, "ESTALE", errno.EACCES)}
_TOO_MANY_FILES = {errno.EMFILE, errno.ENFILE}
_MEMORY_WORDS = ("failed to map segment", "cannot allocate memory", "can't allocate memory", "bad_alloc",
                 "out of memory", "error return without exception set")
_THREAD_WORDS = ("can't start new thread", "resource temporarily unavailable", "thread pool has not been initialized")


class CheckBeforeImport:
    """A finder for `sys.meta_path` that finds nothing, but checks the limits before the first heavy library is found.

    So each command that needs one is checked, and the others are not.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Raise StorageError or OutOfMemoryError if a heavy library is asked for and the limits are too low."""
        if name in _HEAVY:
            with contextlib.suppress(ValueError):                      # another thread was here first
                sys.meta_path.remove(self)                             # type: ignore[arg-type]
            check()


def check() -> None:
    """Raise StorageError if too few files may be open, OutOfMemoryError if there is too little of anything else."""
    if sys.platform == "win32":
        return
    import resource

    cores = os.cpu_count() or 1
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = _FILES + _FILES_PER_CORE * cores
    if 0 <= files < needed:
        if 0 <= most < needed:
            raise StorageError(f"only {most} files may be open at once, {needed} are needed",
                               hint=f"Raise the limit: ulimit -n {needed}")
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))
    for limit, option, least in ((resource.RLIMIT_AS, "v", _used_memory() + _MEMORY),
                                 (resource.RLIMIT_DATA, "d", _MEMORY), (resource.RLIMIT_STACK, "s", _STACK)):
        allowed, _ = resource.getrlimit(limit)
        if 0 <= allowed < least:
            raise OutOfMemoryError(f"the limit `ulimit -{option}` is {allowed // 1024} KB, which is too little",
                                   hint=f"Raise it to {least // 1024} KB or more")
    _try_threads(min(_THREADS + _THREADS_PER_CORE * cores, _MAX_THREADS))


def explain(error: BaseException) -> DiffuseError | None:
    """The error for the user if the system, its limits or its disks are the reason; otherwise None."""
    for each in _chain(error):
        text, number = str(each).lower(), each.errno if isinstance(each, OSError) else None
        if number in _DISK:
            return StorageError(f"cannot write: {(getattr(each, 'strerror', '') or text).lower()}")
        if number in _BAD_NAME | _NO_ACCESS and (name := getattr(each, "filename", None)):
            kind = UsageError if number in _BAD_NAME else StorageError
            return kind(f"cannot use {os.fsdecode(name)[:200]!r}: {(getattr(each, 'strerror', '') or text).lower()}")
        if number in _TOO_MANY_FILES or "too many open files" in text:
            return StorageError("too many files are open", hint="Raise the limit, see `ulimit -n`")
        if number == errno.EFBIG:
            return StorageError("cannot write: the file would be too large",
                                hint="Raise the limit of its size, see `ulimit -f`, or choose another place")
        if isinstance(each, MemoryError) or number == errno.ENOMEM or any(word in text for word in _MEMORY_WORDS):
            return OutOfMemoryError("out of memory", hint="Close other programs, or ask for less")
        if any(word in text for word in _THREAD_WORDS):
            return _too_few_threads()
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error, and those it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _used_memory() -> int:
    """The bytes of this process's address space; 0 if the system does not say."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 0


def _try_threads(count: int) -> None:
    """Start so many threads at once, and end them. Raises OutOfMemoryError if the system does not allow that."""
    end, threads = threading.Event(), list[threading.Thread]()
    try:
        for _ in range(count):
            thread = threading.Thread(target=end.wait, daemon=True)
            thread.start()
            threads.append(thread)
    except RuntimeError as error:
        raise _too_few_threads() from error
    finally:
        end.set()
        for thread in threads:
            thread.join()


def _too_few_threads() -> OutOfMemoryError:
    return OutOfMemoryError("the system allows this program too few threads and processes",
                            hint="Raise the limit, see `ulimit -u`")
