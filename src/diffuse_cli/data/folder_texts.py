"""Texts about whole folders: cat/caption.txt, tables from folders to captions, and the names of classes behind ids.

An id is a name without words, such as n02084071 or 3. Standard library only, except for parquet.
"""

import heapq
import json
import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import TABLE_SUFFIXES
from ..errors import DataError
from .annotations import normalised
from .caption_columns import TEXT_COLUMNS
from .caption_text import distinct_captions, tidy
from .containers import File, read_head
from .folders import Tree
from .name_captions import is_id, words_of_name
from .sidecar_files import FOLDER_TEXTS, SIDECAR_SUFFIXES
from .sidecar_texts import SidecarReader
from .source_captions import SourceCaptions
from .spilled import SpilledTuples
from .tables import NoTable, read_rows
from .text_files import NotText, decode_text

_CLASS_LISTS = frozenset(("classes", "class_names", "classnames", "labels", "label_names", "names", "categories",
                          "class_list", "obj", "predefined_classes", "synset_words"))
_CAPTIONS = ("text", "caption", "captions", "prompt", "description")       # columns of captions, not of classes
_YAML = (".yaml", ".yml")
_CLASS_SUFFIXES = frozenset((*TABLE_SUFFIXES, *_YAML))
_TEXT_LIMIT = 4 * 2**20                         # maximum bytes of a text that maps ids to names
_MAX_FILES = 30                                 # files that are looked into for names of classes
_MAX_IDS = 100_000                              # different ids in captions that are looked at
_ONE_CAPTION = 5                                # maximum lines of a text that is named like a folder
_SYNSET = re.compile(r"n\d{8}")                 # an id of WordNet, whose name is a list of synonyms
_PAIR = re.compile(r"(\S+?)\s*[\s,;:=]\s*(\S.*)")
_YAML_NAMES = re.compile(
    r"^names[ \t]*:[ \t]*(\[[^][]*\]|\{[^{}]*\}|(?:(?:[ \t\r]*\n)+[ \t]*(?:-|[\w\"']+[ \t]*:)[ \t]+[^\n]+)+)", re.M)


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

    def captions_of(self, names: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Those of the pictures for which there are captions, with those of the nearest folder, looking upwards."""
        if not self.captions:
            return
        for name in names:
            found = (self.captions[folder] for folder in _upwards(posixpath.dirname(name)) if folder in self.captions)
            if captions := next(found, ()):
                yield name, captions


def read_folder_texts(tree: Tree, *, joined: bool, taken: Container[str]) -> FolderTexts:
    """What the files of a tree say about its folders. taken: names of files that are captions of single pictures."""
    texts = FolderTexts()
    pictures: Counter[str] = Counter()          # folder → the number of pictures in it and below
    for directory, count in tree.directories.items():
        pictures.update(dict.fromkeys(_upwards(directory), count))
    parts = {posixpath.basename(directory) for directory in pictures if directory}
    texts.names, texts.names_file = class_names(parts, _files_with(_CLASS_SUFFIXES, tree, taken))
    _read_captions(texts, (file for file in _files_with(SIDECAR_SUFFIXES, tree, taken)
                           if file.name != texts.names_file), pictures, joined)
    return texts


def _files_with(suffixes: Collection[str], tree: Tree, taken: Container[str]) -> Iterator[File]:
    """The files with one of these suffixes that are not taken."""
    return (tree.others[position] for position, name in enumerate(tree.others.names())
            if posixpath.splitext(name)[1].lower() in suffixes and name not in taken)


def read_named_file(path: Path, tree: Tree) -> FolderTexts | None:
    """The names of folders or classes in a file, wherever it lies; None if it gives no names to the folders."""
    parts = {part for directory in tree.directories for part in directory.split("/") if part}
    names, _ = class_names(parts, [File(path.name, path)])
    return FolderTexts(names=names, names_file=path.name) if names else None


def names_classes(file: File, tree: Tree, listed: int) -> bool:
    """Whether a file names the classes of more pictures than the `listed` ones that it may hold captions of.

    “0,zero” is the name of the class 0, although there is a picture `0/0.png`.
    """
    if 2 * listed > len(tree.pictures):
        return False
    names, _ = class_names({part for directory in tree.directories for part in directory.split("/") if is_id(part)},
                           [file])
    return listed < sum(count for directory, count in tree.directories.items()
                        if not names.keys().isdisjoint(directory.split("/")))


def name_ids(source: SourceCaptions, tree: Tree, taken: Container[str]) -> str:
    """Replace captions that are ids of classes, all of them, by the names that a file gives; warn if there is none.

    taken: names of files that are captions. → the name of the file that gives the names; "" without any
    """
    ids: set[str] = set()
    for _, captions in source.by_name.items():
        if len(captions) > 1 or not is_id(captions[0]):
            return ""
        if len(ids) < _MAX_IDS:
            ids.add(captions[0])
    names, file = class_names(ids, _files_with(_CLASS_SUFFIXES, tree, taken))
    if names:
        source.by_name = SpilledTuples((name, (names.get(one, one),)) for name, (one,) in source.by_name.items())
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


def _read_captions(texts: FolderTexts, files: Iterable[File], pictures: Counter[str], joined: bool) -> None:
    """Captions in texts that are named for it, as in cat/caption.txt, or named like their folder, as in cat.txt."""
    chosen: list[tuple[File, str]] = []         # with the folders that they describe
    for file in files:
        stem = posixpath.basename(file.base)
        if file.base in pictures and _means_something(stem):
            chosen.append((file, file.base))
        elif file.directory in pictures and (
                normalised(stem) in FOLDER_TEXTS or (stem == posixpath.basename(file.directory) != "")):
            chosen.append((file, file.directory))
    source = SourceCaptions("", present=False)
    reader = SidecarReader(source, joined)
    reader.read(file for file, _ in chosen)
    texts.problems = source.problems
    for file, folder in chosen:
        captions = reader.captions.get(file.name, ())
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
    return bool(words_of_name(part, numbers=True)) or is_id(part)


# ── Names of classes ────────────────────────────────────────────────────────────────────────────────────────────────


def class_names(ids: set[str], files: Iterable[File]) -> tuple[dict[str, str], str]:
    """The names that the first fitting file gives to at least half of some ids or folders, and the file's name.

    ids: ids of classes, or names of folders. Without a fitting file, ({}, "").
    """
    wanted = {part for part in ids if is_id(part)} or {part for part in ids if words_of_name(part, numbers=True)}
    candidates = (file for file in files if file.suffix in _CLASS_SUFFIXES) if wanted else ()
    for file in heapq.nsmallest(_MAX_FILES, candidates, key=lambda file: (
            not _is_class_list(file), file.name.count("/"))):
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
            return _pairs_of_rows(
                lambda: (row for _, row in read_rows(file, is_picture=wanted.__contains__, notes=[])), wanted)
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
        return _pairs_of_rows(lambda: (row for row in document if isinstance(row, dict)), wanted) if isinstance(
            document, list) else []
    pairs = []
    for key, value in document.items():
        if isinstance(value, list) and len(value) == 2 and value[0] in wanted:      # {"0": ["n02084071", "dog"]}
            key, value = value
        captions = distinct_captions(value) if isinstance(value, str | int | list) else ()
        if captions:
            pairs.append((key, captions[0]))
    fitting = _with_zeros(pairs, wanted)
    if fitting or not all(type(value) in (str, int) for value in document.values()) or (
            len({value for _, value in pairs}) < len(pairs)):           # counts, and not numbers of classes
        return fitting
    return _with_zeros(((value, key) for key, value in pairs), wanted)  # {"dog": 0}


def _pairs_of_rows(rows: Callable[[], Iterable[dict[str, Any]]], wanted: set[str]) -> list[tuple[str, str]]:
    """The column that holds most ids, and the one of names: the first in TEXT_COLUMNS, or the only other with words.

    rows: gives the rows, which are looked at twice.
    """
    fitting: dict[str, int] = {}                # column → number of its ids
    wordy: set[str] = set()
    id_in = _id_reader(wanted)
    for row in rows():
        for column, value in _texts_of(row):
            fitting[column] = fitting.get(column, 0) + (id_in(value) is not None)
            if column not in wordy and _name("", value):
                wordy.add(column)
    key = max(fitting, key=fitting.__getitem__, default="")
    others = [column for column in fitting if column != key and column in wordy]
    known = sorted((column for column in others if normalised(column) in TEXT_COLUMNS),
                   key=lambda column: TEXT_COLUMNS.index(normalised(column)))
    are_ids = all(map(is_id, wanted))           # a table may say more about folders with words than their captions
    if not fitting.get(key) or (not known and (len(others) != 1 or not are_ids)):
        return []
    if not are_ids and normalised(known[0]) not in _CAPTIONS:
        return []
    column, names = (known or others)[0], {}
    for row in rows():
        texts = dict(_texts_of(row))
        part, text = id_in(texts.get(key, "")), texts.get(column, "")
        if part is not None and _name(part, text):
            names[part] = text
    return list(names.items())


def _texts_of(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    return ((column, str(value)) for column, value in row.items() if isinstance(value, str | int))


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
    """The pairs whose id is wanted, written as it is there."""
    id_in = _id_reader(wanted)
    return [(part, name) for key, name in pairs if (part := id_in(key)) is not None]


def _id_reader(wanted: set[str]) -> Callable[[str], str | None]:
    """A function from a text to the wanted id that it is: "7" counts for a folder "00007" if all are numbers."""
    by_number = {int(part): part for part in wanted if part.isdecimal()}
    if len(by_number) < len(wanted):
        return lambda text: text if text in wanted else None
    return lambda text: by_number.get(int(text)) if text.isdecimal() else None


def _numbered(names: list[str], wanted: set[str]) -> list[tuple[str, str]]:
    """The names of a list by their positions, from 0; from 1 if the highest id is their number and 0 is none."""
    numbers = {int(part): part for part in wanted if part.isdecimal()}
    if len(numbers) < len(wanted):
        return []
    first = 1 if 0 not in numbers and max(numbers) == len(names) else 0
    if max(numbers) - first >= len(names) or (first == 0 and 0 not in numbers):
        return []
    return [(part, names[number - first]) for number, part in numbers.items()]
