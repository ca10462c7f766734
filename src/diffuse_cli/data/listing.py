"""A data set: its pictures and captions as they were found, and as they are decoded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np

from .containers import Location
from .folders import FileList
from .spilled import SpilledList, unpacked


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
    requested_path: Path                        # the path that the user gave: the folder, or a manifest in it
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


@dataclass(frozen=True)
class Dataset:
    """Pictures and their captions, in the order of the names; all fields but the last three have one entry for each."""

    images: np.ndarray[Any, np.dtype[np.uint8]]     # (N, H, W, 3), memory-mapped, read-only
    captions: Sequence[tuple[str, ...]]         # alternatives; empty: the picture has no caption
    names: Sequence[str]
    pixel_hashes: Sequence[str]                 # SHA-256 of each decoded picture's R·R·3 bytes
    content_id: str                             # a hash of all `pixel_hashes` and `captions`, in order
    skipped: tuple[tuple[str, str], ...]        # (name, reason) of each picture that cannot be used
    warnings: tuple[str, ...]
