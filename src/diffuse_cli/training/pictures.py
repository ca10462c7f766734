"""The pictures of a training on their way to the device: read from the cache for every batch, or kept on the device."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..pictures.pixels import to_unit_range

SHARE = 0.5                                     # of the device's free memory that pictures may take
PIECE = 64 * 2**20                              # bytes, about, that are moved at once


class Pictures:
    """All pictures of a data set. arrays: those of each size, (N, H, W, C) uint8, memory-mapped."""

    def __init__(self, arrays: Sequence[np.ndarray[Any, np.dtype[np.uint8]]], device: torch.device) -> None:
        self.arrays, self.device = arrays, device
        self.resident: list[Tensor] | None = None       # the same on the device, (N, H, W, C) uint8 each

    def read(self, rows: np.ndarray, number: int = 0) -> Tensor:
        """What `on_device` needs for the pictures in these rows of an array: their pixels, or else the rows.

        rows: (M,) int64; number: of the array → (M, H, W, C) uint8, or (M,) int64 if all pictures are on the device
        """
        if self.resident is not None:
            return torch.from_numpy(rows)
        return torch.from_numpy(np.ascontiguousarray(self.arrays[number][rows]))

    def on_device(self, read: Tensor, number: int = 0) -> Tensor:
        """What `read` returned for that array, moved to the device → (M, C, H, W) float32 in [-1, 1]"""
        if read.ndim == 1:
            assert self.resident is not None
            read = self.resident[number][read]
        return to_unit_range(read)

    def release(self) -> bool:
        """Keep no pictures on the device from now on. → whether there were any"""
        kept, self.resident = self.resident, None
        return kept is not None

    def settle(self, free: int) -> None:
        """Keep all pictures on the device from now on, if they take at most `SHARE` of its `free` bytes."""
        if self.resident is None and sum(array.nbytes for array in self.arrays) <= SHARE * free:
            self.resident = [self._moved(array) for array in self.arrays]

    def _moved(self, images: np.ndarray[Any, np.dtype[np.uint8]]) -> Tensor:
        """Pictures (N, H, W, C), moved to the device piece by piece."""
        resident = torch.empty(images.shape, dtype=torch.uint8, device=self.device)
        count = max(1, PIECE * len(images) // max(1, images.nbytes))
        for start in range(0, len(images), count):
            piece = np.ascontiguousarray(images[start : start + count])
            resident[start : start + count] = torch.from_numpy(piece).to(self.device)
        return resident
