"""A data set: its pictures and captions as they were found, and as they are decoded."""

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np

from ..picture_size import Size
from .containers import Location
from .file_tree import FileList
from .spilled import SpilledList, unpacked

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file with the suffix of a picture. `name`: its NFC POSIX path relative to the folder, sorted by its bytes."""

    path: Location
    name: str
    captions: tuple[str, ...]                   # alternatives; empty: the picture has no caption


class PictureFiles(Sequence[PictureFile]):
    """Pictures with their captions. captions: a row for each picture, with its captions as `packed` makes them."""

    def __init__(self, files: FileList, captions: SpilledList) -> None:
        self._files, self.captions = files, captions.column(0, unpacked)

    def names(self) -> Iterator[str]:
        """The names alone, which takes less time."""
        return self._files.names()

    def __len__(self) -> int:
        return len(self._files)

    @overload
    def __getitem__(self, index: int) -> PictureFile: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[PictureFile, ...]: ...
    def __getitem__(self, index: int | slice) -> PictureFile | tuple[PictureFile, ...]:
        if isinstance(index, slice):
            return tuple(self[position] for position in range(*index.indices(len(self))))
        file = self._files[index]
        return PictureFile(file.path, file.name, self.captions[index])

    def __iter__(self) -> Iterator[PictureFile]:
        for file, captions in zip(self._files, self.captions, strict=True):
            yield PictureFile(file.path, file.name, captions)


@dataclass(frozen=True)
class PictureListing:
    """The pictures of a folder or manifest with their captions. Unusable files and problems: (name, reason)."""

    folder: Path
    requested_paths: tuple[Path, ...]           # the paths that the user gave: folders, or manifests in them
    pictures: PictureFiles
    conditional: bool                           # whether any picture has a caption, and a model therefore reads text
    caption_source: str                         # metadata, sidecar, table, folder, filename, constant or none
    caption_summary: str                        # of the captions, in one line
    caption_examples: tuple[str, ...]           # up to three captions
    notes: tuple[str, ...]                      # what else is there, and the option that would use it
    warnings: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]       # files that should be pictures too, but cannot even be opened
    caption_problems: tuple[tuple[str, str], ...]
    litter: tuple[tuple[str, int], ...] = ()    # files of other programs that were skipped: (name or pattern, number)

    @property
    def check_command(self) -> str:
        """The command that lists all problems of these pictures, to be pasted into a shell."""
        return check_command(self.requested_paths)


def check_command(paths: Sequence[Path]) -> str:
    """The command that lists all problems of the pictures in these folders or manifests, to be pasted into a shell."""
    return f"`{shlex.join(['diffuse', 'data', 'check', *map(str, paths)])}`"


@dataclass(frozen=True)
class Dataset:
    """Pictures and their captions, in the order of the names; those of one size are in one array, in this order."""

    images: Pixels                              # (N, H, W, C), memory-mapped, read-only; of several sizes, the first's
    captions: Sequence[tuple[str, ...]]         # alternatives; empty: the picture has no caption
    names: Sequence[str]
    pixel_hashes: Sequence[str]                 # SHA-256 of each decoded picture's H·W·C bytes
    content_id: str                             # a hash of all `pixel_hashes` and `captions`, in order
    skipped: tuple[tuple[str, str], ...]        # (name, reason) of each picture that cannot be used
    warnings: tuple[str, ...]
    other_images: tuple[Pixels, ...] = ()     # the same of each further size
    size_numbers: np.ndarray | None = None    # (N,) uint8, which of these sizes a picture has; None: there is one

    @property
    def arrays(self) -> tuple[Pixels, ...]:
        """The pictures of each size, (N, H, W, C)."""
        return self.images, *self.other_images

    @property
    def sizes(self) -> tuple[Size, ...]:
        """All sizes, at least one, also those that no picture has."""
        return tuple(Size(width=array.shape[2], height=array.shape[1]) for array in self.arrays)

    @property
    def channels(self) -> int:
        """C: 3 for red, green and blue, 1 for grey; and one more with alpha."""
        return int(self.images.shape[3])

    def with_channels(self, channels: int) -> "Dataset":
        """The same pictures with so many channels: as many as they have, or grey, without a copy.

        The grey value is that of green, which is most of the brightness: in pictures that are grey, all are the same.
        """
        if channels == self.channels:
            return self
        assert channels == self.channels - 2
        images, *others = (array[..., 1::2] for array in self.arrays)               # green, and alpha
        return replace(self, images=images, other_images=tuple(others))

    def by_size(self, positions: np.ndarray) -> list[np.ndarray]:
        """The positions of each size, in their order. positions: (M,) int64; len(self.sizes) arrays of int64"""
        if self.size_numbers is None:
            return [positions]
        numbers = self.size_numbers[positions]
        return [positions[numbers == number] for number in range(len(self.arrays))]

    def size_number(self, position: int) -> int:
        """Which of `sizes` the picture at a position has."""
        return 0 if self.size_numbers is None else int(self.size_numbers[position])

    def rows(self, positions: np.ndarray) -> np.ndarray:
        """Where pictures are in the arrays of their sizes. (M,) int64 → (M,) int64"""
        return positions if self.size_numbers is None else self._rows[positions]

    def pixels(self, positions: np.ndarray) -> Pixels:
        """The pictures at these positions, at least one, which must have one size. (M,) int64 → (M, H, W, C) uint8"""
        chosen: Pixels = self.arrays[self.size_number(positions[0])][self.rows(positions)]
        return chosen

    @cached_property
    def _rows(self) -> np.ndarray:
        assert self.size_numbers is not None
        rows = np.empty(len(self.size_numbers), np.int64)
        for number in range(len(self.arrays)):
            chosen = self.size_numbers == number
            rows[chosen] = np.arange(np.count_nonzero(chosen))
        return rows
