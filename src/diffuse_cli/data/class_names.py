"""The names of classes behind ids, in whatever file and form they are: an id is a name without words, n02084071 or 3.

Standard library only, except for parquet.
"""

import heapq
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ..config import CLASS_SUFFIXES, TABLE_SUFFIXES
from ..errors import DataError
from ..files.strict_json import loads_shallow
from .annotations import normalised
from .caption_columns import TEXT_COLUMNS
from .caption_text import distinct_captions, tidy
from .containers import File, read_head
from .name_captions import is_id
from .name_words import words_of_name
from .separated_values import NoTable
from .tables import JSON_LINES, note_guess, read_rows
from .text_files import NotText, decode_text

_CLASS_LISTS = frozenset(("classes", "class_names", "classnames", "labels", "label_names", "names", "categories",
                          "class_list", "obj", "predefined_classes", "synset_words"))
_CAPTIONS = ("text", "caption", "captions", "prompt", "description")       # columns of captions, not of classes
_TEXT_LIMIT = 4 * 2**20                         # maximum bytes of a text that maps ids to names
_MAX_FILES = 30                                 # files that are looked into for names of classes
_SYNSET = re.compile(r"n\d{8}")                 # an id of WordNet, whose name is a list of synonyms
_LANGUAGE = re.compile(r"(?<=\w)\"?@[a-z]{2,3}(?:-\w+)?$")               # "a name"@en, in files of Freebase
_PAIR = re.compile(r"(\S+?)\s*[\s,;:=]\s*(\S.*)")
_YAML_NAMES = re.compile(
    r"^names[ \t]*:[ \t]*(\[[^][]*\]|\{[^{}]*\}|(?:(?:[ \t\r]*\n)+[ \t]*(?:-|[\w\"']+[ \t]*:)[ \t]+[^\n]+)+)", re.M)


def class_names(ids: set[str], files: Iterable[File], notes: list[str]) -> tuple[dict[str, str], str]:
    """The names that the first fitting file gives to at least half of some ids or folders, and the file's name.

    ids: ids of classes, or names of folders. Without a fitting file, ({}, ""). notes: gets a sentence if the encoding
    of this file had to be guessed.
    """
    wanted = {part for part in ids if is_id(part)} or {part for part in ids if words_of_name(part, numbers=True)} or (
        ids if len(ids) > 1 else set())         # video1 and video2 say nothing
    candidates = (file for file in files if file.suffix in CLASS_SUFFIXES) if wanted else ()
    for file in heapq.nsmallest(_MAX_FILES, candidates, key=lambda file: (
            not _is_class_list(file), file.name.count("/"))):
        said: list[str] = []
        names = {key: name for key, value in _pairs_in(file, wanted, said)
                 if key in wanted and (name := _name(key, value))}
        if 2 * len(names) >= len(wanted):
            notes += said
            return names, file.name
    return {}, ""


def _is_class_list(file: File) -> bool:
    return normalised(posixpath.basename(file.base)) in _CLASS_LISTS


def _name(key: str, value: str) -> str:
    """The name of a class as words: the first of a synset's synonyms; '' for one without words."""
    value = tidy(value.split(",")[0] if _SYNSET.fullmatch(key) else _LANGUAGE.sub("", value)).strip("\"'")
    value = value if " " in value else value.replace("_", " ")
    return value if words_of_name(value, numbers=True) or (len(value) < 3 and value.isalpha()) else ""


def _pairs_in(file: File, wanted: set[str], notes: list[str]) -> list[tuple[str, str]]:
    """Pairs of id and name in a file, in whatever form: a map, a map from names to ids, lines, rows, or a list."""
    try:
        if file.suffix in (".csv", ".tsv", ".parquet", *JSON_LINES):
            return _pairs_of_rows(
                lambda: (row for _, row in read_rows(file, is_picture=wanted.__contains__, notes=notes)), wanted)
        data = read_head(file.path, _TEXT_LIMIT + 1)
        if len(data) > _TEXT_LIMIT:
            return []
        text, encoding = decode_text(data)
        note_guess(file.name, encoding, notes)
        text = text.removeprefix("\ufeff")
        if file.suffix == ".json":
            return _pairs_of_json(loads_shallow(text), wanted)
        if file.suffix not in TABLE_SUFFIXES:
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
    column = (known or others)[0]
    names: dict[str, str] = {}
    for row in rows():
        texts = dict(_texts_of(row))
        part, text = id_in(texts.get(key, "")), texts.get(column, "")
        if part is not None and _name(part, text):
            names.setdefault(part, text)
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
    """A function from a text to the wanted id that it is: "7" counts for a folder "00007" if all are numbers.

    "000000007" does not, since zeros stand in front of both, and not as many.
    """
    by_number = {int(part): part for part in wanted if part.isdecimal()}

    def number_in(text: str) -> str | None:
        part = by_number.get(int(text)) if text.isdecimal() else None
        return None if part is None or (text[0] == part[0] == "0" and len(text) != len(part) > 1 < len(text)) else part

    return number_in if len(by_number) == len(wanted) else lambda text: text if text in wanted else None


def _numbered(names: list[str], wanted: set[str]) -> list[tuple[str, str]]:
    """The names of a list by their positions, from 0; from 1 if the highest id is their number and 0 is none."""
    numbers = {int(part): part for part in wanted if part.isdecimal()}
    if len(numbers) < len(wanted):
        return []
    first = 1 if 0 not in numbers and max(numbers) == len(names) else 0
    if max(numbers) - first >= len(names) or (first == 0 and 0 not in numbers):
        return []
    return [(part, names[number - first]) for number, part in numbers.items()]
