"""List the files below a folder: pictures, and other files, which may describe them.

Standard library only; writes nothing. Only files whose suffix says too little are looked into, a few bytes each. Links
to directories are followed once each (device and inode are remembered), so loops end. Only regular files are listed, so
that nobody opens a pipe or a device. Files are sorted by the bytes of their NFC names: the order is the same on every
machine, file system and locale. What other programs leave there is skipped by its name, and counted (`litter`).
"""

import contextlib
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

from ..errors import DataError, system_reason
from .containers import File, Location, read_head
from .file_types import (
    HEAD,
    NO_PICTURE,
    NOT_DOWNLOADED,
    PICTURE,
    PICTURE_LIKE,
    RAW,
    SUFFIXES,
    UNKNOWN,
    format_of,
    judge_suffix,
    picture_suffixes,
    remedies,
    what_else,
    what_pictures_in_text,
)
from .litter import litter_label
from .spilled import Row, SpilledDict, SpilledList, SpilledLists

UNREADABLE_FOLDER, BROKEN_LINK = "unreadable folder", "broken link"     # reasons in `Tree.unusable`
# Ends of names of archives that are not read: of other kinds, or inside others.
PACKED = (".zip", ".tar", ".7z", ".rar", ".cbz", ".cbr", ".cb7", ".gz", ".bz2", ".xz", ".zst", ".lzma", ".tgz", ".dmg",
          ".iso", ".zip.001", ".7z.001", ".z01")
_NOT_DOWNLOADED = re.compile(r"\.(.+)\.icloud")     # the name of a picture that iCloud keeps elsewhere
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
        packed = [name for name in self.others.names() if name.lower().endswith(PACKED)]
        holders = [(name, step) for name in self.others.names() for suffixes, step in _HOLDERS
                   if _PART.sub("", name.lower()).endswith(suffixes)]
        texts = ((file.name, reason) for file in itertools.islice(self.others, _MAX_LOOKED_INTO)
                 if (reason := pictures_in_text(file.path)))
        holders = [(name, f"it {reason}: {AS_TEXT_STEP}") for name, reason in itertools.islice(texts, 1)] or holders
        help = "; ".join((*(f"Unpack {name} first" for name in packed[:1]),
                          *(f"{name} is not read: {step}" for name, step in holders[:1]), *remedies(counts)))
        hint = f"Looked, at any depth, for {' '.join(sorted(SUFFIXES))}, and into files without a suffix"
        return DataError(f"{path} holds no picture that can be read" + (f" ({found})" if found else ""),
                         hint=help or hint)


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


def list_tree(folder: Path) -> Tree:
    """The pictures and other files below `folder`. Raises DataError if the folder itself cannot be read."""
    readable = picture_suffixes()
    pictures, others = FileList(), FileList()
    unusable: list[tuple[str, str]] = []
    irregular: list[tuple[File, str]] = []
    litter: Counter[str] = Counter()
    renamed = False
    for relative, kind in _walk(folder, unusable, litter):
        file = File(portable_name(relative), folder / relative)
        renamed = renamed or file.name != relative
        judgement = judge_suffix(file.suffix, readable)
        if placeholder := _NOT_DOWNLOADED.fullmatch(posixpath.basename(file.name)):
            if judge_suffix(os.path.splitext(placeholder[1])[1].lower(), readable) not in (NO_PICTURE, UNKNOWN):
                unusable.append((posixpath.join(file.directory, placeholder[1]), NOT_DOWNLOADED))
        elif kind != "file":
            if judgement == PICTURE:
                unusable.append((file.name, kind))
            else:
                irregular.append((file, kind))
        else:
            judgement = judge_contents(file.path, judgement)
            if judgement in (PICTURE, NO_PICTURE):
                (pictures if judgement == PICTURE else others).append(file)
            else:
                unusable.append((file.name, judgement))
    pictures.sort()
    others.sort()
    return Tree(folder, pictures, others, tuple(sorted(unusable, key=lambda problem: sort_key(problem[0]))),
                tuple(sorted(irregular, key=lambda problem: sort_key(problem[0].name))), tuple(litter.most_common()),
                tuple(_describe_twins(pictures, others)) if renamed else ())


def _describe_twins(*lists: FileList) -> Iterator[str]:
    """A line if files on the disk have one name in two compositions of its letters."""
    twins = [name for files in lists for name, following in itertools.pairwise(files.names()) if name == following]
    if twins:
        yield (f"{len(twins):,} {'name is' if len(twins) == 1 else 'names are'} there twice, with composed and with "
               f"decomposed accents, for example {twins[0]}: captions of one count for both")


def judge_contents(path: Location, judgement: str) -> str:
    """PICTURE, NO_PICTURE or a reason: the judgement by the suffix, or by the first bytes if it says too little."""
    if judgement in (PICTURE, NO_PICTURE):
        return judgement
    head = _head(path, HEAD)
    format = format_of(head)
    if format is not None and not (judgement == RAW and format == "TIFF"):          # as many raw photographs begin
        return PICTURE
    if judgement != UNKNOWN:
        return judgement
    reason = what_else(head)
    return reason if reason in PICTURE_LIKE else NO_PICTURE


def pictures_in_text(path: Location) -> str:
    """What a table or text holds, the rest of a sentence, if it holds pictures: their bytes or pixels; "" otherwise."""
    return what_pictures_in_text(_head(path, _HEAD_OF_TABLE))


def _head(path: Location, count: int) -> bytes:
    """The first `count` bytes of a regular file; none if it cannot be read."""
    try:
        return read_head(path, count)
    except OSError:
        return b""


def _walk(folder: Path, unusable: list[tuple[str, str]], litter: Counter[str]) -> Iterator[tuple[str, str]]:
    """(relative path, kind) of everything but directories; `kind` is "file", or says what is there instead.

    Appends the name of each folder that cannot be read to `unusable`, and counts the files to skip in `litter`.
    """
    visited: set[tuple[int, int]] = set()
    for parent in folder.resolve().parents:     # a link to one of these, "/" for instance, would lead everywhere
        with contextlib.suppress(OSError):
            visited.add(_identity(parent))
    pending: list[str] = [""]
    links: list[str] = []
    while pending or links:
        if not pending:                         # links last: a directory is listed under its own name, if it has one
            links.sort(key=os.fsencode, reverse=True)
            pending.append(links.pop())
        directory = pending.pop()
        try:
            identity = _identity(folder / directory)
            if identity in visited:
                continue
            visited.add(identity)
            with os.scandir(folder / directory) as entries:
                for entry in entries:
                    relative = f"{directory}/{entry.name}" if directory else entry.name
                    kind = _kind(entry)
                    label = litter_label(entry.name)
                    if label is not None and not _NOT_DOWNLOADED.fullmatch(entry.name):
                        is_folder = kind == "directory" and not entry.is_symlink()
                        name = entry.name if is_folder and label == ".*" else label     # ".git", for instance
                        litter[name] += _count_files(entry.path) if is_folder else 1
                        continue
                    if kind == "directory":
                        (links if entry.is_symlink() else pending).append(relative)
                    else:
                        yield relative, kind
        except OSError as error:
            if not directory:
                reason = system_reason(error)
                raise DataError(f"cannot read the folder {folder}: {reason}", hint="Check its permissions") from error
            unusable.append((portable_name(directory), UNREADABLE_FOLDER))


def _count_files(directory: str) -> int:
    """Number of files below a directory, as far as it can be read. No link is followed."""
    count, pending = 0, [directory]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    count += 1
    return count


def _kind(entry: os.DirEntry[str]) -> str:
    """One of "directory", "file", "broken link" and "not a regular file"."""
    try:
        if entry.is_dir():
            return "directory"
        if entry.is_file():
            return "file"
        return BROKEN_LINK if entry.is_symlink() and not os.path.exists(entry.path) else "not a regular file"
    except OSError:                             # a link to itself
        return BROKEN_LINK


def _identity(directory: Path) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino
