"""Full memory: one exception for the errors of all of torch's allocators, and one message for too many pictures."""

import contextlib
from collections.abc import Iterator

import torch

from ..errors import OutOfMemoryError

ALLOCATOR_ERRORS = ("DefaultCPUAllocator", "MPS backend out of memory")         # words of the CPU's and MPS's messages


@contextlib.contextmanager
def as_torch_error() -> Iterator[None]:
    """Raise torch.OutOfMemoryError when the memory of any device is full. Only CUDA's allocator raises it by itself."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or not any(words in str(error) for words in ALLOCATOR_ERRORS):
            raise
        raise torch.OutOfMemoryError(str(error)) from error


@contextlib.contextmanager
def for_pictures(count: int) -> Iterator[None]:
    """Raise OutOfMemoryError, with a hint for the user, when memory is too small for `count` pictures at once."""
    try:
        with as_torch_error():
            yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(f"{count} pictures at once do not fit into the device's memory",
                               hint="Choose a smaller --batch-size") from error
