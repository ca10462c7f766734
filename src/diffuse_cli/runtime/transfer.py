"""Copies for which the program does not wait: many small tensors to a device, and a few numbers from it."""

from collections.abc import Sequence

import torch
from torch import Tensor

ALIGNMENT = 16                                  # bytes; every tensor of a buffer starts at a multiple of it


class Packed:
    """Tensors on the CPU, ready to be moved to a device together.

    For CUDA they lie in pinned memory, from which the device reads while the program goes on. On the CPU they are the
    given tensors themselves. Elsewhere float64 becomes float32, because not all devices have it.
    """

    def __init__(self, tensors: Sequence[Tensor], device: torch.device) -> None:
        self.device = device
        self.tensors = list(tensors)
        if device.type == "cpu":
            return
        self.tensors = [tensor.float() if tensor.dtype == torch.float64 else tensor for tensor in tensors]
        self.starts, length = [], 0
        for tensor in self.tensors:
            self.starts.append(length)
            length += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self.buffer = torch.empty(length, dtype=torch.uint8, pin_memory=device.type == "cuda")
        for view, tensor in zip(self._views(self.buffer), self.tensors, strict=True):
            view.copy_(tensor)

    def send(self) -> list[Tensor]:
        """The tensors on the device, in their order. Nothing waits for the copy but what the device computes later."""
        if self.device.type == "cpu":
            return self.tensors
        return self._views(self.buffer.to(self.device, non_blocking=True))

    def _views(self, buffer: Tensor) -> list[Tensor]:
        """The parts of a buffer, with the types and shapes of the tensors."""
        return [buffer[start : start + tensor.nbytes].view(tensor.dtype).reshape(tensor.shape)
                for start, tensor in zip(self.starts, self.tensors, strict=True)]


class Fetched:
    """Numbers on a device that the CPU will ask for later. From CUDA, a copy into pinned memory begins now."""

    def __init__(self, numbers: Tensor) -> None:
        self.numbers = numbers
        self.arrived: torch.cuda.Event | None = None
        if numbers.device.type == "cuda":
            self.numbers = torch.empty_like(numbers, device="cpu", pin_memory=True)
            self.numbers.copy_(numbers, non_blocking=True)
            self.arrived = torch.cuda.Event()                      # type: ignore[no-untyped-call]
            self.arrived.record(torch.cuda.current_stream(numbers.device))

    def tolist(self) -> list[float]:
        """The numbers, (N,). Waits until the device has computed them, but not for what it was given after them."""
        if self.arrived is not None:
            self.arrived.synchronize()
        values: list[float] = self.numbers.tolist()
        return values
