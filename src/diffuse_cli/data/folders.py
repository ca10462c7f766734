"""List the files below a folder: pictures, and other files, which may describe them.

Standard library only; writes nothing. Only files whose suffix says too little are looked into, a few bytes each. Links
to directories are followed once each (device and inode are remembered), so loops end. Only regular files are listed, so
that nobody opens a pipe or a device. Files are sorted by the bytes of their NFC names: the order is the same on every
machine, file system and locale. What other programs leave there is skipped by its name, and counted (`litter`).
"""

import contextlib
import itertools
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError, system_reason
from .containers import File
from .file_tree import (
    BROKEN_LINK,
    UNREADABLE_FOLDER,
    Backups,
    FileList,
    Tree,
    judge_contents,
    portable_name,
    sort_key,
)
from .file_types import NO_PICTURE, NOT_DOWNLOADED, PICTURE, UNKNOWN, judge_suffix, picture_suffixes
from .litter import litter_label

_NOT_DOWNLOADED = re.compile(r"\.(.+)\.icloud")     # the name of a picture that iCloud keeps elsewhere


def list_tree(folder: Path) -> Tree:
    """The pictures and other files below `folder`. Raises DataError if the folder itself cannot be read."""
    readable = picture_suffixes()
    pictures, others = FileList(), FileList()
    unusable: list[tuple[str, str]] = []
    irregular: list[tuple[File, str]] = []
    litter: Counter[str] = Counter()
    backups = Backups()
    renamed = False
    for relative, kind in _walk(folder, unusable, litter):
        file = File(portable_name(relative), folder / relative)
        renamed = renamed or file.name != relative
        backups.note(file.name)
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
    pictures, others = backups.left_out(pictures, others, litter)
    return Tree(folder, pictures, others, tuple(sorted(unusable, key=lambda problem: sort_key(problem[0]))),
                tuple(sorted(irregular, key=lambda problem: sort_key(problem[0].name))), tuple(litter.most_common()),
                tuple(_describe_twins(pictures, others)) if renamed else ())


def _describe_twins(*lists: FileList) -> Iterator[str]:
    """A line if files on the disk have one name in two compositions of its letters."""
    twins = [name for files in lists for name, following in itertools.pairwise(files.names()) if name == following]
    if twins:
        yield (f"{len(twins):,} {'name is' if len(twins) == 1 else 'names are'} there twice, with composed and with "
               f"decomposed accents, for example {twins[0]}: captions of one count for both")


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
