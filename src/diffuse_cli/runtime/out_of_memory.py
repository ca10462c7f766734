"""When memory is full: one exception for what torch's allocators say, and one message for too many pictures at once."""

import contextlib
from collections.abc import Iterator

import torch

from ..errors import OutOfMemoryError

ALLOCATORS = ("DefaultCPUAllocator", "MPS backend out of memory")      # what CPUs' and MPS's say, in lines of their own


@contextlib.contextmanager
def recognised() -> Iterator[None]:
    """Raise torch.OutOfMemoryError where memory is full on any device: only CUDA's allocator raises it by itself."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not any(sign in str(error) for sign in ALLOCATORS):
            raise
        raise torch.OutOfMemoryError(str(error)) from error


@contextlib.contextmanager
def for_pictures(count: int) -> Iterator[None]:
    """Raise OutOfMemoryError where so many pictures at once are too many."""
    try:
        with recognised():
            yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(f"{count} pictures at once do not fit into the device's memory",
                               hint="Choose a smaller --batch-size") from error
