"""The split of a data set: pictures to train on, and pictures held out for validation."""

import fnmatch
import heapq
import itertools
import math
import posixpath
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError

_TRAINING = frozenset(("train", "training", "trainset"))
_HELD_OUT = frozenset(("val", "valid", "validation", "dev", "test", "testing", "testset"))
# Words among others in the names of folders that lie side by side.
_WORDS = (("train", _TRAINING | {"tr"}), ("test", _HELD_OUT | {"ts", "eval"}), ("other", frozenset(("pred", "extra"))))
_PART_WORDS = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![a-z])|\d+")       # seg_train, trainA, train2017
_SHARD = re.compile(r"[-_.]\d+(?:-of-\d+)?$")   # after the name of a split in that of a shard: test-00000-of-00001


@dataclass(frozen=True)
class Split:
    """Positions of pictures in the data set, ascending: two int64 arrays of one dimension."""

    train: np.ndarray
    held_out: np.ndarray

    def without(self, positions: Sequence[int]) -> "Split":
        """The same, but the pictures at these positions are not held out."""
        return Split(self.train, np.setdiff1d(self.held_out, np.array(positions, np.int64)))


def validation_count(pictures: int) -> int:
    """How many of so many pictures to hold out: 5 %, at least 64, at most 10 % and 2,048; none of fewer than 20."""
    if pictures < 20:
        return 0
    return min(max(math.ceil(0.05 * pictures), 64), pictures // 10, 2048)


def split_dataset(
    hashes: Sequence[str], *, names: Sequence[str] = (), folder: str | None = None, limit: str | None = None,
) -> Split:
    """Divide the pictures of a data set into those to train on and those held out for validation.

    hashes: the hash of each picture's pixels. The `validation_count` pictures with the lowest hashes are held out, so
    renaming a file changes nothing. If equal pictures would fall on both sides, all of them are trained on.

    limit: hold out the pictures with hashes up to this one instead, whatever their number. With the `held_out_limit` of
    an earlier split, a picture that was trained on is never held out, however the data set has changed.

    folder: hold out the pictures in this folder instead, or in the shards that begin with its name. Several have commas
    between them, and * stands for any letters. names: those of the pictures, relative to the data set. A picture in the
    folder whose pixels are also outside of it is neither held out nor trained on; the caller takes out those that were
    trained on earlier.

    Raises DataError if the folder holds no picture, or all, and if `limit` leaves none to train on.
    """
    if folder is not None:
        return _split_by_folder(hashes, names, folder)
    if limit is not None:
        is_held_out = np.fromiter((digest <= limit for digest in hashes), bool, len(hashes))
        if is_held_out.all():
            raise DataError("all pictures that are left were held out, so none can be trained on",
                            hint="Start anew with --fresh")
        return Split(np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out))
    count = validation_count(len(hashes))
    lowest = heapq.nsmallest(count + 1, zip(hashes, itertools.count(), strict=False)) if count else []
    while count and lowest[count][0] == lowest[count - 1][0]:
        count -= 1
    held_out = np.array(sorted(position for _, position in lowest[:count]), np.int64)
    return Split(np.delete(np.arange(len(hashes)), held_out), held_out)


def held_out_limit(split: Split, hashes: Sequence[str]) -> str:
    """The highest hash of the pictures that are held out; empty if there are none."""
    return max((hashes[position] for position in split.held_out.tolist()), default="")


def _split_by_folder(hashes: Sequence[str], names: Sequence[str], folder: str) -> Split:
    folders = [posixpath.normpath(one) for one in folder.split(",")]
    inside = np.fromiter((any(_is_in(name, one) for one in folders) for name in names), bool, len(names))
    if not inside.any() or inside.all():
        raise DataError(f"--held-out {folder} would hold out {'every' if inside.any() else 'no'} picture",
                        hint="Name a folder in the folder of pictures, for example --held-out test")
    digests = numbers_of(hashes)
    return Split(np.flatnonzero(~inside), np.flatnonzero(inside & ~np.isin(digests, digests[~inside])))


def _is_in(name: str, folder: str) -> bool:
    """Whether a picture is in a folder, or in a shard of that name without its number. folder: may be a pattern"""
    parts, wanted = name.split("/"), folder.split("/")
    if len(parts) <= len(wanted):
        return False
    *above, last = parts[:len(wanted)]
    return any(place == folder or _matches(place.split("/"), wanted) for place in (
        "/".join((*above, last)), "/".join((*above, _without_number(last)))))


def _matches(parts: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))


def numbers_of(values: Iterable[str | bytes]) -> np.ndarray:
    """A number for each value: equal ones have equal numbers. → (N,) int64, which differ from process to process

    Of 10 million different values, two have the same number with a probability of 3 in a million.
    """
    return np.fromiter(map(hash, values), np.int64)


def _without_number(name: str) -> str:
    return _SHARD.sub("", name)


def splits_among(directories: Iterable[str]) -> dict[str, str]:
    """"train" or "test" for the last parts of paths that say so: "train", or "seg_train" if it lies beside "seg_test".

    Then "seg_pred" is "other". directories: paths of folders or shards, relative to the data set. Numbers of shards are
    left out of what is returned.
    """
    parts = {(above, _without_number(name)) for directory in directories for above, name in _steps(directory)}
    siblings: dict[str, set[str]] = {}          # folder → the names in it
    for above, name in parts:
        siblings.setdefault(above, set()).add(name.lower())
    splits: dict[str, str] = {}
    pairs: dict[tuple[str, tuple[str, ...]], dict[str, str]] = {}       # folder, other words → split → the name
    for above, name in sorted(parts):
        if name.lower() == "train" and len(siblings[above]) > 2 and siblings[above].isdisjoint(_HELD_OUT):
            continue                            # beside "bus" and "car"
        if name.lower() in _TRAINING | _HELD_OUT:
            splits[name] = "train" if name.lower() in _TRAINING else "test"
            continue
        words = [word.lower() for word in _PART_WORDS.findall(name)]
        for split, known in _WORDS:
            if len(found := [word for word in words if word in known]) == 1:
                rest = tuple(word for word in words if word != found[0])
                pairs.setdefault((above, rest), {})[name] = split
    for names in pairs.values():
        if {"train", "test"} <= set(names.values()):
            splits.update(names)
    return splits


def side_by_side_splits(names: Iterable[str]) -> tuple[str, str, str] | None:
    """The first folder of training pictures that lies beside one of test pictures, and that one; None without any.

    Behind them stands what `split_dataset` takes as the folder, if all folders of test pictures are to be held out that
    lie beside ones of training pictures. names: those of pictures, relative to the data set. Numbers of shards are left
    out of what is returned.
    """
    directories = {posixpath.dirname(name) for name in names} - {""}
    splits = splits_among(directories)
    folders = sorted({(above, _without_number(name)) for directory in directories for above, name in _steps(directory)})
    found: dict[str, dict[str, list[str]]] = {}             # the folder above → "train" or "test" → such folders
    for above, name in folders:
        if split := splits.get(name):
            found.setdefault(above, {}).setdefault(split, []).append(posixpath.join(above, name))
    both = [of for of in found.values() if "train" in of and "test" in of]
    if not both:
        return None
    tests = [name for of in both for name in of["test"]]
    return both[0]["train"][0], both[0]["test"][0], _together(
        tests, [name for parts in folders if (name := posixpath.join(*parts)) not in tests])


def _together(folders: list[str], others: list[str]) -> str:
    """All folders in one text: as a pattern with *, if it fits none of the others, or else with commas between them."""
    columns = [tuple(dict.fromkeys(parts)) for parts in zip(*(name.split("/") for name in folders), strict=False)]
    pattern = [parts[0] if len(parts) == 1 else f"{_beginning(parts)}*" for parts in columns]
    if len({name.count("/") for name in folders}) == 1 and not any(
            _matches(name.split("/"), pattern) for name in others):
        return "/".join(pattern)
    return ",".join(folders)


def _beginning(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    alike = itertools.takewhile(lambda letters: len(set(letters)) == 1, zip(*texts, strict=False))
    return "".join(letters[0] for letters in alike)


def _steps(directory: str) -> Iterator[tuple[str, str]]:
    """'a/b' → ('', 'a'), ('a', 'b')"""
    while directory:
        yield posixpath.split(directory)
        directory = posixpath.dirname(directory)
