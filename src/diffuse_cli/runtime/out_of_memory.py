"""Full memory: one exception for the errors of all of torch's allocators and libraries, and messages for the user."""

import contextlib
import re
from collections.abc import Iterator

import torch

from ..errors import OutOfMemoryError

# The words of an allocation that failed: of the CPU's allocator; of CUDA, HIP, MPS, XPU, their drivers and NCCL; of
# cuBLAS, cuSOLVER, cuSPARSE and cuFFT, and of cuDNN, old and new. cuBLAS and cuDNN also say that they are not
# initialised when there is no room for their workspace, and cuDNN that no engine is left.
_FULL = re.compile(
    r"DefaultCPUAllocator|out of memory|(can't|cannot|failed to|unable to) allocate|memory allocation failed"
    r"|ALLOC(ATION)?_FAILED|cudaErrorMemoryAllocation|CUBLAS_STATUS_NOT_INITIALIZED|CUDNN_STATUS_NOT_INITIALIZED"
    r"|unable to find an engine to execute", re.IGNORECASE)


def is_full(error: BaseException) -> bool:
    """Whether an error says that the memory of a device or of the machine is full."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and _FULL.search(str(error)) is not None


@contextlib.contextmanager
def as_torch_error() -> Iterator[None]:
    """Raise torch.OutOfMemoryError whenever memory is full. By itself only CUDA's allocator raises it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, torch.OutOfMemoryError) or not is_full(error):
            raise
        raise torch.OutOfMemoryError(str(error)) from error


@contextlib.contextmanager
def for_pictures(count: int) -> Iterator[None]:
    """Raise OutOfMemoryError, with a hint for the user, when memory is too small for `count` pictures at once."""
    with _explained(f"{count} pictures at once do not fit into the device's memory", "Choose a smaller --batch-size"):
        yield


@contextlib.contextmanager
def for_large_picture() -> Iterator[None]:
    """Raise OutOfMemoryError, with a hint for the user, when memory is too small for a picture that is enlarged."""
    with _explained("the large picture does not fit into the device's memory", "Make the small picture smaller first"):
        yield


@contextlib.contextmanager
def for_update(micro_batch: int) -> Iterator[None]:
    """Raise OutOfMemoryError when memory is too small to update the weights.

    Some of them may already have changed, so the step cannot be repeated.
    """
    with _explained("the update of the weights does not fit into the device's memory",
                    f"Resume with --micro-batch {max(1, micro_batch // 2)}, or choose a smaller --preset"):
        yield


@contextlib.contextmanager
def _explained(what: str, hint: str) -> Iterator[None]:
    try:
        with as_torch_error():
            yield
    except torch.OutOfMemoryError as error:
        raise OutOfMemoryError(what, hint=hint) from error
