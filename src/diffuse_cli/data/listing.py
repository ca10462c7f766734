"""The result of looking through a folder: its pictures, their captions, and what there is to say about them."""

from dataclasses import dataclass
from pathlib import Path

from .containers import Location


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file with the suffix of a picture. `name`: its NFC POSIX path relative to the folder, sorted by its bytes."""

    path: Location
    name: str
    captions: tuple[str, ...]                   # alternatives; empty: the picture has no caption


@dataclass(frozen=True)
class PictureListing:
    """The pictures of a folder or manifest with their captions. Unusable files and problems: (name, reason)."""

    folder: Path
    requested_path: Path                        # the path that the user gave: the folder, or a manifest in it
    pictures: tuple[PictureFile, ...]
    caption_source: str                         # metadata, sidecar, table, folder, filename, constant or none
    caption_summary: str                        # of the captions, in one line
    caption_examples: tuple[str, ...]           # up to three captions
    notes: tuple[str, ...]                      # what else is there, and the option that would use it
    warnings: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]       # files that should be pictures too, but cannot even be opened
    caption_problems: tuple[tuple[str, str], ...]
    litter: tuple[tuple[str, int], ...] = ()    # files of other programs that were skipped: (name or pattern, number)

    @property
    def conditional(self) -> bool:
        """Whether any picture has a caption, and a model therefore reads text."""
        return any(picture.captions for picture in self.pictures)
