"""Texts about whole folders: cat/caption.txt, tables from folders to captions, and the names of classes behind ids.

An id is a name without words, such as n02084071 or 3. Standard library only, except for parquet.
"""

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import TABLE_SUFFIXES
from ..errors import DataError
from .annotations import normalised
from .caption_tables import TEXT_COLUMNS
from .caption_text import SourceCaptions, distinct_captions, tidy
from .containers import File, read_head
from .folders import Tree
from .name_captions import words_of_name
from .sidecar_files import FOLDER_TEXTS, SIDECAR_SUFFIXES, SidecarReader
from .tables import NoTable, read_rows
from .text_files import NotText, decode_text

_CLASS_LISTS = frozenset(("classes", "class_names", "classnames", "labels", "label_names", "names", "categories",
                          "class_list", "obj", "predefined_classes", "synset_words"))
_CAPTIONS = ("text", "caption", "captions", "prompt", "description")       # columns of captions, not of classes
_YAML = (".yaml", ".yml")
_TEXT_LIMIT = 4 * 2**20                         # maximum bytes of a text that maps ids to names
_MAX_FILES = 30                                 # files that are looked into for names of classes
_ONE_CAPTION = 5                                # maximum lines of a text that is named like a folder
_SYNSET = re.compile(r"n\d{8}")                 # an id of WordNet, whose name is a list of synonyms
_ID = re.compile(r"n\d{8}|\d{1,9}")
_PAIR = re.compile(r"(\S+?)\s*[\s,;:=]\s*(\S.*)")
_YAML_NAMES = re.compile(r"^names\s*:[ \t]*(\[.*?\]|\{.*?\}|(?:\s*\n\s*(?:-|[\w\"']+\s*:)[ \t]+[^\n]+)+)", re.M | re.S)


@dataclass
class FolderTexts:
    """What files say about whole folders."""

    captions: dict[str, tuple[str, ...]] = field(default_factory=dict)      # folder → captions of the pictures in it
    names: dict[str, str] = field(default_factory=dict)     # the last part of a folder's name → the words it stands for
    files: list[str] = field(default_factory=list)          # names of the files that hold the captions
    names_file: str = ""                                    # the same of the names
    warnings: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def label(self) -> str:
        """'cat/caption.txt and 3 more'."""
        return self.files[0] + (f" and {len(self.files) - 1:,} more" if len(self.files) > 1 else "")

    def caption_of(self, picture: File) -> tuple[str, ...]:
        """The captions of the nearest folder, looking upwards; () if none has any."""
        directory = picture.directory
        while directory and directory not in self.captions:
            directory = posixpath.dirname(directory)
        return self.captions.get(directory, ())


def read_folder_texts(tree: Tree, *, joined: bool, taken: set[str]) -> FolderTexts:
    """What the files of a tree say about its folders. taken: names of files that are captions of single pictures."""
    texts = FolderTexts()
    pictures = Counter(directory for picture in tree.pictures for directory in _upwards(picture.directory))
    files = [file for file in tree.others if file.name not in taken]
    parts = {posixpath.basename(directory) for directory in pictures if directory}
    texts.names, texts.names_file = class_names(parts, files)
    _read_captions(texts, [file for file in files if file.suffix in SIDECAR_SUFFIXES and file.name != texts.names_file],
                   pictures, joined)
    return texts


def read_named_file(path: Path, tree: Tree) -> FolderTexts | None:
    """The names of folders or classes in a file, wherever it lies; None if it gives no names to the folders."""
    parts = {part for picture in tree.pictures for part in picture.directory.split("/") if part}
    names, _ = class_names(parts, [File(path.name, path)])
    return FolderTexts(names=names, names_file=path.name) if names else None


def name_ids(source: SourceCaptions, tree: Tree, taken: set[str]) -> str:
    """Replace captions that are ids of classes, all of them, by the names that a file gives; warn if there is none.

    taken: names of files that are captions. → the name of the file that gives the names; "" without any
    """
    if not all(len(captions) == 1 and is_id(captions[0]) for captions in source.by_name.values()):
        return ""
    ids = {captions[0] for captions in source.by_name.values()}
    names, file = class_names(ids, [file for file in tree.others if file.name not in taken])
    if names:
        source.by_name = {name: (names.get(captions[0], captions[0]),) for name, captions in source.by_name.items()}
        source.label += f" by {file}"
    else:
        source.warnings.append(f"the captions are only numbers, such as {min(ids)}; a file classes.txt beside the "
                               "pictures, with the name of one class in each line, gives them words")
    return file


def _upwards(directory: str) -> Iterator[str]:
    """'a/b' → 'a/b', 'a', ''."""
    yield directory
    while directory:
        directory = posixpath.dirname(directory)
        yield directory


def _read_captions(texts: FolderTexts, files: list[File], pictures: Counter[str], joined: bool) -> None:
    """Captions in texts that are named for it, as in cat/caption.txt, or named like their folder, as in cat.txt."""
    folder_of: dict[str, str] = {}              # name of a file → the folder that it describes
    for file in files:
        stem = posixpath.basename(file.base)
        if file.base in pictures and _means_something(stem):
            folder_of[file.name] = file.base
        elif file.directory in pictures and (
                normalised(stem) in FOLDER_TEXTS or (stem == posixpath.basename(file.directory) != "")):
            folder_of[file.name] = file.directory
    source = SourceCaptions("", present=False)
    reader = SidecarReader(source, joined)
    chosen = [file for file in files if file.name in folder_of]
    reader.read(chosen)
    texts.problems = source.problems
    for file in chosen:
        captions, folder = reader.captions[file.name], folder_of[file.name]
        is_named_so = normalised(posixpath.basename(file.base)) in FOLDER_TEXTS
        if not captions or any(re.match(r"\S+\.\w{3,4}\b", caption) for caption in captions):     # names of files
            continue
        if len(captions) > 1 and len(captions) == pictures[folder]:
            texts.warnings.append(f"{file.name} has a line for each of the {pictures[folder]:,} pictures, but does not "
                                  "say whose it is, and is not used; begin each line with the name of a file and a tab")
            texts.files.append(file.name)
        elif is_named_so or len(captions) <= _ONE_CAPTION:
            texts.captions.setdefault(folder, captions)
            texts.files.append(file.name)


def _means_something(part: str) -> bool:
    return bool(words_of_name(part, numbers=True)) or bool(_ID.fullmatch(part))


# ── Names of classes ────────────────────────────────────────────────────────────────────────────────────────────────


def is_id(text: str) -> bool:
    """Whether a name or caption is a number or an id of WordNet, which needs a name to mean anything."""
    return bool(_ID.fullmatch(text))


def id_among_folders(tree: Tree) -> str:
    """The first folder of pictures whose name is an id, if most pictures lie in such folders; "" otherwise."""
    parts = [part for picture in tree.pictures if is_id(part := posixpath.basename(picture.directory))]
    return parts[0] if 2 * len(parts) > len(tree.pictures) and len(set(parts)) > 1 else ""


def class_names(ids: set[str], files: Iterable[File]) -> tuple[dict[str, str], str]:
    """The names that the first fitting file gives to at least half of some ids or folders, and the file's name.

    ids: ids of classes, or names of folders. Without a fitting file, ({}, "").
    """
    wanted = {part for part in ids if is_id(part)} or {part for part in ids if words_of_name(part, numbers=True)}
    candidates = [file for file in files if file.suffix in (*TABLE_SUFFIXES, *_YAML)]
    candidates.sort(key=lambda file: (not _is_class_list(file), file.name.count("/")))
    for file in candidates[:_MAX_FILES] if wanted else ():
        names = {key: name for key, value in _pairs_in(file, wanted) if key in wanted and (name := _name(key, value))}
        if 2 * len(names) >= len(wanted):
            return names, file.name
    return {}, ""


def _is_class_list(file: File) -> bool:
    return normalised(posixpath.basename(file.base)) in _CLASS_LISTS


def _name(key: str, value: str) -> str:
    """The name of a class as words: the first of a synset's synonyms; '' for one without words."""
    value = tidy(value.split(",")[0] if _SYNSET.fullmatch(key) else value).strip("\"'")
    value = value if " " in value else value.replace("_", " ")
    return value if words_of_name(value, numbers=True) or (len(value) < 3 and value.isalpha()) else ""


def _pairs_in(file: File, wanted: set[str]) -> list[tuple[str, str]]:
    """Pairs of id and name in a file, in whatever form: a map, a map from names to ids, lines, rows, or a list."""
    try:
        if file.suffix in (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson"):
            return _pairs_of_rows([row for _, row in read_rows(file, is_picture=wanted.__contains__, notes=[])], wanted)
        data = read_head(file.path, _TEXT_LIMIT + 1)
        if len(data) > _TEXT_LIMIT:
            return []
        text = decode_text(data)[0].removeprefix("\ufeff")
        if file.suffix == ".json":
            return _pairs_of_json(json.loads(text), wanted)
        if file.suffix in _YAML:
            return _pairs_of_yaml(text, wanted)
    except (DataError, NoTable, NotText, OSError, ValueError, RecursionError):
        return []
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [match for line in lines if (match := _PAIR.fullmatch(line)) and match[1].strip("\"'") in wanted]
    if matches and (all(map(is_id, wanted)) or len(matches) > max(1, len(lines) // 2)):
        return _with_zeros(((match[1].strip("\"'"), match[2]) for match in matches), wanted)
    return _numbered(lines, wanted) if _is_class_list(file) else []


def _pairs_of_json(document: Any, wanted: set[str]) -> list[tuple[str, str]]:
    if isinstance(document, list) and all(isinstance(name, str) for name in document):
        return _numbered(document, wanted)
    if not isinstance(document, dict):
        return _pairs_of_rows([row for row in document if isinstance(row, dict)], wanted) if isinstance(
            document, list) else []
    pairs = []
    for key, value in document.items():
        if isinstance(value, list) and len(value) == 2 and value[0] in wanted:      # {"0": ["n02084071", "dog"]}
            key, value = value
        captions = distinct_captions(value) if isinstance(value, str | int | list) else ()
        if captions:
            pairs.append((key, captions[0]))
    fitting = _with_zeros(pairs, wanted)
    return fitting or _with_zeros(((value, key) for key, value in pairs), wanted)   # {"dog": 0}


def _pairs_of_rows(rows: list[dict[str, Any]], wanted: set[str]) -> list[tuple[str, str]]:
    """The column that holds most ids, and the one of names: the first in TEXT_COLUMNS, or the only other with words."""
    texts = [{key: str(value) for key, value in row.items() if isinstance(value, str | int)} for row in rows]
    columns = list(dict.fromkeys(key for row in texts for key in row))
    fitting = {column: _with_zeros(((row.get(column, ""), "") for row in texts), wanted) for column in columns}
    key = max(columns, key=lambda column: len(fitting[column]), default="")
    others = [column for column in columns if column != key and any(_name("", row.get(column, "")) for row in texts)]
    known = sorted((column for column in others if normalised(column) in TEXT_COLUMNS),
                   key=lambda column: TEXT_COLUMNS.index(normalised(column)))
    are_ids = all(map(is_id, wanted))           # a table may say more about folders with words than their captions
    if not known and (len(others) != 1 or not are_ids):
        return []
    if not are_ids and normalised(known[0]) not in _CAPTIONS:
        return []
    column = (known or others)[0]
    return _with_zeros(((row.get(key, ""), row.get(column, "")) for row in texts), wanted)


def _pairs_of_yaml(text: str, wanted: set[str]) -> list[tuple[str, str]]:
    """The entry `names` of a file such as data.yaml: a list or a map from numbers. Only this entry is understood."""
    match = _YAML_NAMES.search(text)
    if match is None:
        return []
    entry = match[1].strip()
    items = [item.strip() for item in re.split(r"[,\n]" if entry[0] in "[{" else r"\n", entry.strip("[]{}"))]
    items = [item for item in items if item]
    pairs = [pair for item in items if (pair := re.fullmatch(r"[\"']?(\w+)[\"']?\s*:\s*(.+)", item))]
    if len(pairs) == len(items):
        return _with_zeros(((pair[1], pair[2].strip("\"' ")) for pair in pairs), wanted)
    return _numbered([item.removeprefix("-").strip().strip("\"'") for item in items], wanted)


def _with_zeros(pairs: Iterable[tuple[str, str]], wanted: set[str]) -> list[tuple[str, str]]:
    """The pairs whose id is wanted, written as it is there: "7" counts for a folder "00007" if all are numbers."""
    by_number = {int(part): part for part in wanted if part.isdecimal()}
    if len(by_number) < len(wanted):
        return [(key, name) for key, name in pairs if key in wanted]
    return [(by_number[int(key)], name) for key, name in pairs if key.isdecimal() and int(key) in by_number]


def _numbered(names: list[str], wanted: set[str]) -> list[tuple[str, str]]:
    """The names of a list by their positions, from 0; from 1 if the highest id is their number and 0 is none."""
    numbers = {int(part): part for part in wanted if part.isdecimal()}
    if len(numbers) < len(wanted):
        return []
    first = 1 if 0 not in numbers and max(numbers) == len(names) else 0
    if max(numbers) - first >= len(names) or (first == 0 and 0 not in numbers):
        return []
    return [(part, names[number - first]) for number, part in numbers.items()]
