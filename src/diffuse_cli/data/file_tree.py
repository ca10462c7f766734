"""The files of a data set as names and places, wherever they are kept: on the disk, in archives, in shards, in a list.

Standard library only. Most names are not in memory. Files whose suffix says too little are looked into here.
"""

import functools
import itertools
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

from ..errors import DataError
from .containers import File, Location, read_head
from .file_types import (
    ARCHIVE,
    HEAD,
    NO_PICTURE,
    PICTURE,
    PICTURE_LIKE,
    RAW,
    SUFFIXES,
    UNKNOWN,
    format_of,
    judge_suffix,
    remedies,
    what_else,
    what_pictures_in_text,
)
from .litter import BACKUPS, backup_of
from .spilled import SpilledDict, SpilledList, SpilledLists
from .spilled_table import Row

UNREADABLE_FOLDER, BROKEN_LINK = "unreadable folder", "broken link"     # reasons in `Tree.unusable`
# Ends of names of archives that are not read: of other kinds, or inside others.
PACKED = (".zip", ".tar", ".7z", ".rar", ".cbz", ".cbr", ".cb7", ".gz", ".bz2", ".xz", ".zst", ".lzma", ".tgz", ".dmg",
          ".iso", ".zip.001", ".7z.001", ".z01")
# Ends of names of files that hold pictures in a form that is not read → what to do.
_HOLDERS = (
    ((".npy", ".npz", ".h5", ".hdf5", ".mat", ".pkl", ".pickle", ".tfrecord", ".tfrecords", ".tfrec", ".lmdb",
      ".mdb", ".feather", ".pt", ".pth", "-ubyte", "data_batch_1"), "save its pictures as PNG files"),
    ((".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"), "save single frames as pictures"),
    ((".pdf",), "export its pages as PNG"),
    ((".parquet", ".arrow"), "no column of it holds files of pictures; save pixels as PNG files, and download pictures "
                             "that are at addresses"))
AS_TEXT_STEP = "save each picture as a file of its own"
_HEAD_OF_TABLE = 64 * 1024                      # bytes of a file in which pictures as text are looked for
_MAX_LOOKED_INTO = 20                           # files that are looked into for the same
_PART = re.compile(r"-\d+-of-\d+$")            # behind the name of one of several such files


def sort_key(name: str) -> bytes:
    """The bytes of a name: names are sorted by them, whatever the locale."""
    return name.encode("utf-8", "surrogateescape")


def name_of_key(key: bytes) -> str:
    """The name with this `sort_key`."""
    return key.decode("utf-8", "surrogateescape")


class FileList(Sequence[File]):
    """Any number of files: names and places are packed, and most of them are not in memory."""

    def __init__(self, files: Iterable[File] = ()) -> None:
        self._rows = SpilledList()              # the name; the path of a file on the disk; what another is made from
        self._shared: dict[tuple[Any, ...], int] = {}       # what many files inside a container share → its number
        self._kinds: list[tuple[Any, ...]] = []             # the same by number
        for file in files:
            self.append(file)

    def append(self, file: File) -> None:
        """Add a file to the end."""
        if isinstance(file.path, Path):
            self._rows.append((sort_key(file.name), os.fsencode(file.path), None, None, None, None))
            return
        shared, own = file.path.packed()
        number = self._shared.setdefault(shared, len(self._kinds))
        if number == len(self._kinds):
            self._kinds.append(shared)
        inner, first, second = own
        self._rows.append((sort_key(file.name), b"", number, sort_key(inner), first, second))

    def sort(self) -> None:
        """Sort by the bytes of the names, and files of one name by their paths."""
        self._rows.sort(2)

    def names(self) -> Iterator[str]:
        """The names alone, which takes less time."""
        return map(name_of_key, self._rows.values(0))

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> File: ...
    @overload
    def __getitem__(self, index: slice) -> list[File]: ...
    def __getitem__(self, index: int | slice) -> File | list[File]:
        if isinstance(index, slice):
            return [self._file(row) for row in self._rows[index]]
        return self._file(self._rows[index])

    def __iter__(self) -> Iterator[File]:
        return map(self._file, self._rows)

    def _file(self, row: Row) -> File:
        name, path, number, inner, first, second = row
        if number is None:
            return File(name_of_key(name), Path(os.fsdecode(path)))
        make, *shared = self._kinds[number]
        return File(name_of_key(name), make(*shared, name_of_key(inner), first, second))


@dataclass(frozen=True)
class Tree:
    """The files below `root`, in the order of the names."""

    root: Path
    pictures: FileList
    others: FileList                            # all other regular files, where captions may be
    unusable: tuple[tuple[str, str], ...]       # (name, reason): pictures not to open, unreadable folders
    irregular: tuple[tuple[File, str], ...]     # (file, reason): others that are not regular files
    litter: tuple[tuple[str, int], ...] = ()    # (name or pattern, number): files of other programs, most first
    notes: tuple[str, ...] = ()                 # what else is worth knowing about the files
    # What tables call pictures that have no names of their own → their names; it gets notes, and takes long.
    written_names: Callable[[list[str]], SpilledDict[str]] | None = None

    @functools.cached_property
    def directories(self) -> Counter[str]:
        """The folders of pictures, in their order, with the number of pictures right in each; '' if it is the root."""
        return Counter(name.rpartition("/")[0] for name in self.pictures.names())

    @functools.cached_property
    def by_base(self) -> SpilledLists:
        """The names of pictures by their base without differences in case."""
        return SpilledLists((posixpath.splitext(name)[0].casefold(), name) for name in self.pictures.names())

    def known_names(self) -> Iterator[str]:
        """The names that a table may list: of the pictures, and of those that cannot be used."""
        yield from self.pictures.names()
        yield from (name for name, reason in self.unusable if reason != UNREADABLE_FOLDER)

    def is_picture(self, name: str) -> bool:
        """Whether a picture has exactly this name."""
        return name in self.by_base.get(posixpath.splitext(name)[0].casefold())

    def no_picture(self, path: Path) -> DataError:
        """The error for a folder or manifest at `path` that holds no picture: what is there, and what would help."""
        counts = Counter(reason for _, reason in self.unusable)
        found = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
        by_size = sorted(self.others, key=lambda file: -_size(file.path))
        packed = (file.name for file in by_size if file.name.lower().endswith(PACKED) or (
            judge_suffix(file.suffix, SUFFIXES) == UNKNOWN and what_else(head_of(file.path, HEAD)) == ARCHIVE))
        holders = [(name, step) for name in self.others.names() for suffixes, step in _HOLDERS
                   if _PART.sub("", name.lower()).endswith(suffixes)]
        texts = ((file.name, reason) for file in itertools.islice(self.others, _MAX_LOOKED_INTO)
                 if (reason := pictures_in_text(file.path)))
        holders = [(name, f"it {reason}: {AS_TEXT_STEP}") for name, reason in itertools.islice(texts, 1)] or holders
        help = "; ".join((*(f"Unpack {name} first" for name in itertools.islice(packed, 1)),
                          *(f"{name} is not read: {step}" for name, step in holders[:1]), *remedies(counts)))
        hint = f"Looked, at any depth, for {' '.join(sorted(SUFFIXES))}, and into files without a suffix"
        return DataError(f"{path} holds no picture that can be read" + (f" ({found})" if found else ""),
                         hint=help or hint)


class Backups:
    """Copies that editors keep of a file under a name made from its own: litter where the file itself is there."""

    def __init__(self) -> None:
        self._originals: dict[str, str] = {}    # a copy → the file

    def note(self, name: str) -> None:
        """Look at the next name, in any order."""
        directory, base = posixpath.split(name)
        if (original := backup_of(base)) is not None:
            self._originals[name] = posixpath.join(directory, original)

    def left_out(self, pictures: FileList, others: FileList, litter: Counter[str]) -> tuple[FileList, FileList]:
        """The files without copies, which are counted in `litter`."""
        wanted = set(self._originals.values())
        existing = {name for files in (pictures, others) for name in files.names() if name in wanted} if wanted else ()
        copies = {copy for copy, original in self._originals.items() if original in existing}
        if not copies:
            return pictures, others
        litter[BACKUPS] += len(copies)
        without = [FileList(file for file in files if file.name not in copies) for files in (pictures, others)]
        return without[0], without[1]


def merged(root: Path, trees: Sequence[tuple[str, Tree]]) -> Tree:
    """The files of several trees as one tree, each tree with the folder in the names of its files. They must differ."""
    def below(prefix: str, file: File) -> File:
        return File(posixpath.join(prefix, file.name), file.path)

    pictures = FileList(below(prefix, file) for prefix, tree in trees for file in tree.pictures)
    others = FileList(below(prefix, file) for prefix, tree in trees for file in tree.others)
    pictures.sort()
    others.sort()
    return Tree(root, pictures, others,
                tuple((posixpath.join(prefix, name), why) for prefix, tree in trees for name, why in tree.unusable),
                tuple((below(prefix, file), reason) for prefix, tree in trees for file, reason in tree.irregular),
                tuple(item for _, tree in trees for item in tree.litter),
                tuple(note for _, tree in trees for note in tree.notes))


def portable_name(relative: str) -> str:
    """A relative path as the file system spells it → NFC; bytes that are not UTF-8 are kept as surrogates."""
    return unicodedata.normalize("NFC", os.fsencode(relative).decode("utf-8", "surrogateescape"))


def judge_contents(path: Location, judgement: str) -> str:
    """PICTURE, NO_PICTURE or a reason: the judgement by the suffix, or by the first bytes if it says too little."""
    if judgement in (PICTURE, NO_PICTURE):
        return judgement
    head = head_of(path, HEAD)
    format = format_of(head)
    if format is not None and not (judgement == RAW and format == "TIFF"):          # as many raw photographs begin
        return PICTURE
    if judgement != UNKNOWN:
        return judgement
    reason = what_else(head)
    return reason if reason in PICTURE_LIKE else NO_PICTURE


def pictures_in_text(path: Location) -> str:
    """What a table or text holds, the rest of a sentence, if it holds pictures: their bytes or pixels; "" otherwise."""
    return what_pictures_in_text(head_of(path, _HEAD_OF_TABLE))


def _size(path: Location) -> int:
    """Bytes of a file on the disk; 0 of one in an archive."""
    return os.path.getsize(path) if isinstance(path, Path) and path.is_file() else 0


def head_of(path: Location, count: int) -> bytes:
    """The first `count` bytes of a regular file; none if it cannot be read."""
    try:
        return read_head(path, count)
    except OSError:
        return b""
