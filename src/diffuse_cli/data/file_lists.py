"""Texts that list files, one in each line, and files that a table names elsewhere than in its folder."""

import dataclasses
import itertools
import os
import posixpath
import re
import unicodedata
import urllib.parse
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..files.input_files import read_input
from .containers import File
from .file_tree import FileList, Tree, judge_contents, portable_name
from .file_types import NO_PICTURE, PICTURE, UNKNOWN, judge_suffix, picture_suffixes
from .litter import litter_label
from .spilled import SpilledDict
from .text_files import NotText, decode_text, was_guessed

LIST_LIMIT = 256 * 2**20                        # maximum bytes of a list of files


def lines_of(path: Path, notes: list[str]) -> list[str]:
    """The lines of a list of files, without comments; [] if it is no text. notes: gets a line about its encoding."""
    try:
        text, encoding = decode_text(read_input(path, limit=LIST_LIMIT))
    except (OSError, NotText):
        return []
    if was_guessed(encoding):
        notes.append(f"{path.name} is not UTF-8 and was read as {encoding}")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [_local_path(line, path.parent, encoding) for line in lines]


def listed_files(path: Path) -> Tree | None:
    """The pictures and texts that a file names, one a line; None if its lines are not names of existing files."""
    notes: list[str] = []
    lines = lines_of(path, notes)
    if not lines or not any(os.path.exists(path.parent / line) for line in (lines[0], lines[-1])):
        return None
    named = ((re.sub(r"^(\.*/)+", "", posixpath.normpath(line.replace("\\", "/"))), path.parent / line)
             for line in lines)
    tree = _tree_of(path, named, {(path.parent, ""): None})
    return dataclasses.replace(tree, notes=(*notes, *tree.notes))


def files_elsewhere(path: Path, written: Iterable[str]) -> tuple[Tree, SpilledDict[str]]:
    """The pictures that a table at `path` names, and that lie elsewhere than below its folder, with the texts beside.

    written: names in it. Besides, the names that are those of such pictures → the pictures' names.
    """
    places: SpilledDict[str] = SpilledDict()
    for one in written:
        place = os.path.abspath(path.parent / _local_path(one, path.parent, "utf-8"))
        if os.path.isfile(place):
            places[one] = place
    names = SpilledDict((one, portable_name(place.lstrip("/"))) for one, place in places.items())
    return _tree_of(path, ((names[one], Path(place)) for one, place in places.items()), {}), names


def _tree_of(path: Path, named: Iterable[tuple[str, Path]], folders: dict[tuple[Path, str], None]) -> Tree:
    """The tree of the files that the list or table at `path` names, with the texts and tables beside these.

    folders: others in which to look for texts, each with the folder in the names of its files.
    """
    readable = picture_suffixes()
    pictures, others = FileList(), FileList()
    unusable: list[tuple[str, str]] = []
    litter: Counter[str] = Counter()
    seen: SpilledDict[None] = SpilledDict()
    repeated, first = 0, ""
    for name, listed in named:
        name = unicodedata.normalize("NFC", name)
        if name in seen:
            repeated, first = repeated + 1, first or name
            continue
        seen[name] = None
        if not os.path.isfile(listed):          # which is false, too, for what cannot be a name
            unusable.append((name, "not there" if not os.path.exists(listed) else "not a regular file"))
        elif label := litter_label(listed.name):
            litter[label] += 1
        elif (judgement := judge_contents(listed, judge_suffix(listed.suffix.lower(), readable))) == PICTURE:
            pictures.append(File(name, listed))
            folders[listed.parent, posixpath.dirname(name)] = None
        elif judgement == NO_PICTURE:           # `find` lists texts as well
            others.append(File(name, listed))
        else:
            unusable.append((name, judgement))
    for folder, prefix in folders:
        for entry in folder.iterdir():
            if entry != path and entry.is_file() and judge_suffix(entry.suffix.lower(), readable) in (
                    NO_PICTURE, UNKNOWN):
                others.append(File(posixpath.join(prefix, entry.name), entry))
    others.sort()
    once = FileList(next(of_name) for _, of_name in itertools.groupby(others, lambda file: file.name))
    lines = "1 line of it names a file" if repeated == 1 else f"{repeated:,} lines of it name files"
    told = f"{path.name}: {lines} that an earlier one names, for example {first}; each counts once"
    return Tree(path.parent, pictures, once, tuple(unusable), (), tuple(litter.most_common()), (told,) * bool(repeated))


def _local_path(line: str, folder: Path, encoding: str) -> str:
    """The path in a line of a list: without quotes, as Windows copies paths, its separators, and the mark of a file.

    Names on the disk may have the encoding of the list.
    """
    for path in (line, os.fsdecode(line.encode(encoding, "replace"))):
        if os.path.exists(folder / path):
            return path
    if len(line) > 2 and line[0] == line[-1] in "\"'":
        line = line[1:-1]
    if line.lower().startswith("file:///"):
        return urllib.parse.unquote(line[7:])
    return line if os.path.exists(folder / line) else line.replace("\\", "/")
