"""Which pictures of a data set are trained on, and which are held out for validation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Split:
    """Positions in the data set, ascending, (…,) int64 each."""

    train: np.ndarray
    held_out: np.ndarray


def validation_count(pictures: int) -> int:
    """The number of pictures to hold out: 5 %, but at least 64; at most 10 % and 2,048; none of fewer than 20."""
    if pictures < 20:
        return 0
    return min(max(math.ceil(0.05 * pictures), 64), pictures // 10, 2048)


def split_dataset(hashes: Sequence[str]) -> Split:
    """Hold out the pictures whose content hashes are lowest.

    So the split survives renaming, and equal pictures fall on the same side.
    """
    order = sorted(range(len(hashes)), key=lambda position: (hashes[position], position))
    count = validation_count(len(hashes))
    while 0 < count < len(order) and hashes[order[count]] == hashes[order[count - 1]]:
        count -= 1
    return Split(np.array(sorted(order[count:]), np.int64), np.array(sorted(order[:count]), np.int64))
