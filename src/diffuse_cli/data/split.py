"""The split of a data set: pictures to train on, and pictures held out for validation."""

import heapq
import itertools
import math
import posixpath
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError


@dataclass(frozen=True)
class Split:
    """Positions of pictures in the data set, ascending: two int64 arrays of one dimension."""

    train: np.ndarray
    held_out: np.ndarray


def validation_count(pictures: int) -> int:
    """How many of so many pictures to hold out: 5 %, at least 64, at most 10 % and 2,048; none of fewer than 20."""
    if pictures < 20:
        return 0
    return min(max(math.ceil(0.05 * pictures), 64), pictures // 10, 2048)


def split_dataset(hashes: Sequence[str], *, names: Sequence[str] = (), folder: str | None = None) -> Split:
    """Divide the pictures of a data set into those to train on and those held out for validation.

    hashes: the hash of each picture's pixels. The `validation_count` pictures with the lowest hashes are held out, so
    renaming a file changes nothing. If equal pictures would fall on both sides, all of them are trained on.

    folder: hold out the pictures in this folder instead. names: those of the pictures, relative to the data set. A
    picture in the folder whose pixels are also outside of it is neither held out nor trained on. Raises DataError if
    the folder holds no picture, or all.
    """
    if folder is not None:
        return _split_by_folder(hashes, names, folder)
    count = validation_count(len(hashes))
    lowest = heapq.nsmallest(count + 1, zip(hashes, itertools.count(), strict=False)) if count else []
    while count and lowest[count][0] == lowest[count - 1][0]:
        count -= 1
    held_out = np.array(sorted(position for _, position in lowest[:count]), np.int64)
    return Split(np.delete(np.arange(len(hashes)), held_out), held_out)


def _split_by_folder(hashes: Sequence[str], names: Sequence[str], folder: str) -> Split:
    prefix = posixpath.normpath(folder) + "/"
    inside = np.fromiter((name.startswith(prefix) for name in names), bool, len(names))
    if not inside.any() or inside.all():
        raise DataError(f"--held-out {folder} would hold out {'every' if inside.any() else 'no'} picture",
                        hint="Name a folder in the folder of pictures, for example --held-out test")
    digests = numbers_of(hashes)
    return Split(np.flatnonzero(~inside), np.flatnonzero(inside & ~np.isin(digests, digests[~inside])))


def numbers_of(values: Iterable[str | bytes]) -> np.ndarray:
    """A number for each value: equal ones have equal numbers. → (N,) int64, which differ from process to process

    Of 10 million different values, two have the same number with a probability of 3 in a million.
    """
    return np.fromiter(map(hash, values), np.int64)
