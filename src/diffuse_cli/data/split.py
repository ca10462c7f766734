"""Which pictures are trained on, and which are held out for validation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Positions in the data set: for training, and held out for validation. (…,) int64 each."""

    train: Tensor
    held_out: Tensor


def validation_count(pictures: int) -> int:
    """Pictures to hold out: 5 % or 64, at most 10 % and 2048; none below 20."""
    if pictures < 20:
        return 0
    return min(max(math.ceil(0.05 * pictures), 64), pictures // 10, 2048)


def split_dataset(hashes: tuple[str, ...]) -> Split:
    """Hold out by content, so that the split survives renaming, and equal pictures fall on the same side."""
    order = sorted(range(len(hashes)), key=lambda position: (hashes[position], position))
    count = validation_count(len(hashes))
    while 0 < count < len(order) and hashes[order[count]] == hashes[order[count - 1]]:
        count -= 1
    return Split(torch.tensor(sorted(order[count:])), torch.tensor(sorted(order[:count]), dtype=torch.int64))
