"""The pictures of a training on their way to the device: read from the cache for every batch, or kept on the device."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pictures.pixels import to_unit_range

SHARE = 0.5                                     # of the device's free memory that pictures may take
PIECE = 64 * 2**20                              # bytes, about, that are moved at once


class Pictures:
    """All pictures of a data set. images: (N, H, W, 3) uint8, memory-mapped."""

    def __init__(self, images: np.ndarray[Any, np.dtype[np.uint8]], device: torch.device) -> None:
        self.images, self.device = images, device
        self.resident: Tensor | None = None     # the same on the device, (N, H, W, 3) uint8

    def read(self, positions: np.ndarray) -> Tensor:
        """What `on_device` needs for the pictures at these positions: their pixels, or else the positions.

        positions: (M,) int64 → (M, H, W, 3) uint8, or (M,) int64 if all pictures are on the device
        """
        if self.resident is not None:
            return torch.from_numpy(positions)
        return torch.from_numpy(np.ascontiguousarray(self.images[positions]))

    def on_device(self, read: Tensor) -> Tensor:
        """What `read` returned, moved to the device → (M, 3, H, W) float32 in [-1, 1]"""
        if read.ndim == 1:
            assert self.resident is not None
            read = self.resident[read]
        return to_unit_range(read)

    def release(self) -> bool:
        """Keep no pictures on the device from now on. → whether there were any"""
        kept, self.resident = self.resident, None
        return kept is not None

    def settle(self, free: int) -> None:
        """Keep all pictures on the device from now on, if they take at most `SHARE` of its `free` bytes."""
        if self.resident is not None or self.images.nbytes > SHARE * free:
            return
        resident = torch.empty(self.images.shape, dtype=torch.uint8, device=self.device)
        count = max(1, PIECE * len(self.images) // self.images.nbytes)
        for start in range(0, len(self.images), count):
            piece = np.ascontiguousarray(self.images[start : start + count])
            resident[start : start + count] = torch.from_numpy(piece).to(self.device)
        self.resident = resident
