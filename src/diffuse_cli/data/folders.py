"""List the files below a folder: pictures, and other files, which may describe them.

Standard library only; writes nothing. Only files whose suffix says too little are looked into, a few bytes each. Links
to directories are followed once each (device and inode are remembered), so loops end. Only regular files are listed, so
that nobody opens a pipe or a device. Files are sorted by the bytes of their NFC names: the order is the same on every
machine, file system and locale. What other programs leave there is skipped by its name, and counted (`litter`).
"""

import contextlib
import os
import posixpath
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..errors import DataError
from .containers import File, Inner, Location, read_head
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
)
from .litter import litter_label

UNREADABLE_FOLDER = "unreadable folder"         # a reason in `Tree.unusable`
_NOT_DOWNLOADED = re.compile(r"\.(.+)\.icloud")     # the name of a picture that iCloud keeps elsewhere


@dataclass(frozen=True)
class Tree:
    """The files below `root`, each tuple in the order of the names."""

    root: Path
    pictures: tuple[File, ...]
    others: tuple[File, ...]                    # all other regular files, where captions may be
    unusable: tuple[tuple[str, str], ...]       # (name, reason): pictures not to open, unreadable folders
    irregular: tuple[tuple[File, str], ...]     # (file, reason): others that are not regular files
    litter: tuple[tuple[str, int], ...] = ()    # (name or pattern, number): files of other programs, most first


    def no_picture(self, path: Path) -> DataError:
        """The error for a folder or manifest at `path` that holds no picture: what is there, and what would help."""
        counts = Counter(reason for _, reason in self.unusable)
        found = ", ".join(f"{reason} {count:,}" for reason, count in counts.most_common())
        help = "; ".join(remedies(counts))
        hint = f"Looked, at any depth, for {' '.join(sorted(SUFFIXES))}, and into files without a suffix"
        return DataError(f"{path} holds no picture that can be read" + (f" ({found})" if found else ""),
                         hint=help or hint)


def sort_key(name: str) -> bytes:
    """The bytes of a name: names are sorted by them, whatever the locale."""
    return name.encode("utf-8", "surrogateescape")


def portable_name(relative: str) -> str:
    """A relative path as the file system spells it → NFC; bytes that are not UTF-8 are kept as surrogates."""
    return unicodedata.normalize("NFC", os.fsencode(relative).decode("utf-8", "surrogateescape"))


def list_tree(folder: Path) -> Tree:
    """The pictures and other files below `folder`. Raises DataError if the folder itself cannot be read."""
    readable = picture_suffixes()
    files: list[tuple[bool, File]] = []
    unusable: list[tuple[str, str]] = []
    irregular: list[tuple[File, str]] = []
    litter: Counter[str] = Counter()
    for relative, kind in _walk(folder, unusable, litter):
        file = File(portable_name(relative), folder / relative)
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
            judgement = judge_contents(folder / relative, judgement)
            if judgement in (PICTURE, NO_PICTURE):
                files.append((judgement == PICTURE, file))
            else:
                unusable.append((file.name, judgement))
    files.sort(key=lambda entry: (sort_key(entry[1].name), os.fsencode(str(entry[1].path))))
    return Tree(folder, tuple(file for is_picture, file in files if is_picture),
                tuple(file for is_picture, file in files if not is_picture),
                tuple(sorted(unusable, key=lambda problem: sort_key(problem[0]))),
                tuple(sorted(irregular, key=lambda problem: sort_key(problem[0].name))), tuple(litter.most_common()))


def judge_contents(path: Location, judgement: str) -> str:
    """PICTURE, NO_PICTURE or a reason: the judgement by the suffix, or by the first bytes if it says too little."""
    if judgement in (PICTURE, NO_PICTURE):
        return judgement
    head = _head(path) if isinstance(path, Path) else _head_of_member(path)
    format = format_of(head)
    if format is not None and not (judgement == RAW and format == "TIFF"):          # as many raw photographs begin
        return PICTURE
    if judgement != UNKNOWN:
        return judgement
    reason = what_else(head)
    return reason if reason in PICTURE_LIKE else NO_PICTURE


def _head_of_member(path: Inner) -> bytes:
    """The first bytes of a file in a container; none if it cannot be read."""
    try:
        return path.head(HEAD)
    except OSError:
        return b""


def _head(path: Path) -> bytes:
    """The first bytes of a regular file; none if it cannot be read."""
    try:
        return read_head(path, HEAD)
    except OSError:
        return b""


def _walk(folder: Path, unusable: list[tuple[str, str]], litter: Counter[str]) -> list[tuple[str, str]]:
    """(relative path, kind) of everything but directories; `kind` is "file", or says what is there instead.

    Appends the name of each folder that cannot be read to `unusable`, and counts the files to skip in `litter`.
    """
    files: list[tuple[str, str]] = []
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
                        files.append((relative, kind))
        except OSError as error:
            if not directory:
                reason = (error.strerror or str(error)).lower()
                raise DataError(f"cannot read the folder {folder}: {reason}", hint="Check its permissions") from error
            unusable.append((portable_name(directory), UNREADABLE_FOLDER))
    return files


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
        return "broken link" if entry.is_symlink() and not os.path.exists(entry.path) else "not a regular file"
    except OSError:                             # a link to itself
        return "broken link"


def _identity(directory: Path) -> tuple[int, int]:
    status = os.stat(directory)
    return status.st_dev, status.st_ino
