"""A limit on the memory that reading one file of somebody else may take: a small file can unpack to any size."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

MAX_GROWTH = 2 * 2**30                          # bytes by which the process may grow meanwhile


@contextlib.contextmanager
def limited_memory() -> Iterator[None]:
    """Within the block, the system refuses what would make this process larger by more than MAX_GROWTH.

    That raises MemoryError. Files that are mapped do not count. Only Linux has such a limit; elsewhere nothing happens.
    """
    try:
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        limit = _private_bytes() + MAX_GROWTH
        if any(0 <= other < limit for other in (soft, hard)):
            limit = soft                        # the limit of the system is lower
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_bytes() -> int:
    """What counts for RLIMIT_DATA: the memory of this process that is neither shared nor read-only. Raises OSError."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmData:"))
