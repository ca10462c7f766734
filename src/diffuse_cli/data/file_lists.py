"""A text that lists a data set, one file, archive or shard in each line."""

import itertools
import os
import posixpath
import re
import unicodedata
import urllib.parse
from collections import Counter
from pathlib import Path

from ..files.input_files import read_input
from . import archives
from .arrow_files import ARROW_SUFFIXES
from .containers import File
from .file_types import NO_PICTURE, PICTURE, UNKNOWN, judge_suffix, picture_suffixes
from .folders import FileList, Tree, judge_contents
from .litter import litter_label
from .text_files import NotText, decode_text, was_guessed

LIST_LIMIT = 256 * 2**20                        # maximum bytes of a list of files


def listed_containers(path: Path, notes: list[str]) -> list[Path]:
    """The archives and shards that a file names, one a line; [] if a line names anything else.

    notes: gets a line about the encoding of the file, if it had to be guessed.
    """
    found = [path.parent / line for line in _lines_of(path, notes)]
    return found if all((archives.is_archive(one.name) or one.suffix.lower() in ARROW_SUFFIXES) and one.is_file()
                        for one in found) else []


def listed_files(path: Path) -> Tree | None:
    """The pictures and texts that a file names, one a line; None if its lines are not names of existing files."""
    notes: list[str] = []
    lines = _lines_of(path, notes)
    if not lines or not any(os.path.exists(path.parent / line) for line in (lines[0], lines[-1])):
        return None
    readable = picture_suffixes()
    pictures, others = FileList(), FileList()
    unusable: list[tuple[str, str]] = []
    litter: Counter[str] = Counter()
    folders: dict[tuple[Path, str], None] = {(path.parent, ""): None}   # with the folder in the names of their files
    for line in lines:
        listed = path.parent / line
        name = unicodedata.normalize("NFC", re.sub(r"^(\.*/)+", "", posixpath.normpath(line.replace("\\", "/"))))
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
    for folder, prefix in folders:      # texts and tables beside the pictures, and beside the list
        for entry in folder.iterdir():
            if entry != path and entry.is_file() and judge_suffix(entry.suffix.lower(), readable) in (
                    NO_PICTURE, UNKNOWN):
                others.append(File(posixpath.join(prefix, entry.name), entry))
    others.sort()
    once = FileList(next(of_name) for _, of_name in itertools.groupby(others, lambda file: file.name))
    return Tree(path.parent, pictures, once, tuple(unusable), (), tuple(litter.most_common()), tuple(notes))


def _lines_of(path: Path, notes: list[str]) -> list[str]:
    """The lines of a list of files, without comments; [] if it is no text. notes: gets a line about its encoding."""
    try:
        text, encoding = decode_text(read_input(path, limit=LIST_LIMIT))
    except (OSError, NotText):
        return []
    if was_guessed(encoding):
        notes.append(f"{path.name} is not UTF-8 and was read as {encoding}")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    return [_local_path(line, path.parent, encoding) for line in lines]


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
