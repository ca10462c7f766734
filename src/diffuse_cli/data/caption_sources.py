"""The places where captions are kept: metadata files, sidecar files, names of folders, names of files.

Standard library only. Every reader takes the tree of files and returns a `Reading`; which reading counts is decided in
`captions`. Text is taken as it comes, apart from white space and control characters: one caption is one line.
"""

import csv
import json
import math
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from .folders import UNREADABLE_FOLDER, File, Tree, list_tree

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
COLUMNS = ("text", "caption", "prompt")
SIDECAR_SUFFIXES = (".txt", ".caption", ".json")
SIDECAR_KEYS = ("caption", "text", "prompt")
SIDECAR_LIMIT = 64 * 1024                       # bytes; what is longer is no caption
LINE_LIMIT = 1024 * 1024                        # bytes of one line of metadata
MISSING_LIMIT = 0.01                            # share of metadata rows that may name a file that is not there
WORDY_STEMS = 0.8                               # share of file names that must say something to be captions

_ROW_HINT = 'Write one row for each picture: {"file_name": …, "text": …}'
_SPLITS = frozenset(("train", "training", "val", "valid", "validation", "test", "testing"))
_NOT_SIDECARS = frozenset(("readme", "license", "licence", "notice", "classes", "labels", "requirements"))


@dataclass
class Reading:
    """What one kind of source says. `by_name` holds only pictures with at least one caption."""

    label: str
    present: bool                               # whether there is such a source at all, captions or not
    by_name: dict[str, tuple[str, ...]] = field(default_factory=dict)
    excluded: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)


def tidy(text: str) -> str:
    """One line: control characters and runs of white space become one space, lone surrogates '?'."""
    text = "".join(" " if ord(letter) < 32 or 127 <= ord(letter) < 160 else letter for letter in text)
    return " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")


def alternatives(value: Any) -> tuple[str, ...]:
    """A text or a list of texts → distinct captions that are not empty, in order; what is no text is left out."""
    tidied = (tidy(text.removeprefix("\ufeff")) for text in _texts(value) if text is not None)
    return tuple(dict.fromkeys(text for text in tidied if text))


def _texts(value: Any) -> list[str | None]:
    """Each text of a list, or the only one; numbers as a CSV would have them, None for anything else."""
    return [str(item) if type(item) in (str, int) or (type(item) is float and math.isfinite(item)) else None
            for item in (value if isinstance(value, list) else [value])]


def _said(row: dict[str, Any], keys: Iterable[str], where: str, reading: Reading) -> tuple[str, ...]:
    """The captions under the first of `keys` that says something. What is no text becomes a problem of `where`."""
    for key in keys:
        value = row.get(key)
        if value is not None and None in _texts(value):
            reading.problems.append((where, "caption is not text"))
        if captions := alternatives(value):
            return captions
    return ()


# ── Metadata files ──────────────────────────────────────────────────────────────────────────────────────────────────


def metadata(tree: Tree, *, column: str | None) -> Reading:
    """Captions of `metadata.jsonl` or `metadata.csv`; the nearest one, upwards from a picture, speaks for it.

    A picture that its file does not list is excluded. Raises DataError for a line that cannot be read, a path that
    leaves the folder, two formats side by side, or when more than 1 % of the rows name files that are not there.
    """
    files: dict[str, File] = {}
    for file in tree.others:
        if posixpath.basename(file.name) in METADATA_NAMES:
            if file.directory in files:
                raise DataError(f"two metadata files in one folder: {files[file.directory].name} and {file.name}",
                                hint="Keep one of them")
            files[file.directory] = file
    reading = Reading(_metadata_label(list(files.values()), column), bool(files))
    reading.problems += [(file.name, reason) for file, reason in tree.irregular
                         if posixpath.basename(file.name) in METADATA_NAMES]
    rows = {directory: _rows(file, column, reading) for directory, file in files.items()}
    names = [picture.name for picture in tree.pictures]
    names += [name for name, reason in tree.unusable if reason != UNREADABLE_FOLDER]
    for name in names:
        directory = next((above for above in _upwards(posixpath.dirname(name)) if above in rows), None)
        if directory is None:
            continue
        captions = rows[directory].get(name)
        if captions is None:
            reading.excluded.add(name)
        elif captions:
            reading.by_name[name] = captions
    _check_missing(reading, [name for listed in rows.values() for name in listed], set(names))
    return reading


def manifest(path: Path, *, column: str | None) -> tuple[Tree, Reading]:
    """A metadata file of any name, given instead of a folder: its rows are the data set. Raises as `metadata` does."""
    file = File(path.name, path)
    reading = Reading(_metadata_label([file], column), present=True)
    rows = _rows(file, column, reading)
    tree = list_tree(path.parent)
    pictures = tuple(picture for picture in tree.pictures if picture.name in rows)
    unusable = tuple((name, reason) for name, reason in tree.unusable if name in rows)
    reading.by_name = {picture.name: rows[picture.name] for picture in pictures if rows[picture.name]}
    _check_missing(reading, list(rows), {picture.name for picture in pictures} | {name for name, _ in unusable})
    stems = {posixpath.splitext(name)[0] for name in rows}
    others = tuple(file for file in tree.others if file.base in stems)
    return Tree(path.parent, pictures, others, unusable, tree.irregular), reading


def _metadata_label(files: list[File], column: str | None) -> str:
    name = files[0].name if len(files) == 1 else f"{len(files)} metadata files"
    return f"{name}, column {column}" if column else name


def _upwards(directory: str) -> Iterator[str]:
    yield directory
    while directory:
        directory = posixpath.dirname(directory)
        yield directory


def _rows(file: File, column: str | None, reading: Reading) -> dict[str, tuple[str, ...]]:
    """Name of each picture that `file` lists, relative to the data set → its captions; several rows add up."""
    rows: dict[str, tuple[str, ...]] = {}
    columns: Counter[str] = Counter()
    wanted = (column,) if column else COLUMNS
    parse = _parse_csv if file.suffix == ".csv" else _parse_jsonl
    for number, row in parse(file, _lines(file, reading)):
        name = posixpath.join(file.directory, _checked_name(row.get("file_name"), file, number))
        columns.update(row.keys())
        found = _said(row, wanted, f"{file.name} line {number}", reading)
        rows[name] = tuple(dict.fromkeys((*rows.get(name, ()), *found)))
    if rows and not any(key in columns for key in wanted):
        others = ", ".join(sorted(columns - Counter({"file_name": columns["file_name"]}))) or "none"
        if column:
            raise DataError(f"{file.name} has no column {column!r}", hint=f"Its columns are: {others}")
        reading.warnings.append(f"{file.name} has no column text, caption or prompt (it has: {others}); "
                                "--caption-column names another")
    return rows


def _lines(file: File, reading: Reading) -> Iterator[str]:
    """Lines of a UTF-8 file. What is not UTF-8 is replaced and becomes a problem."""
    valid = True
    try:
        with open(file.path, "rb") as stream:
            for number, line in enumerate(iter(lambda: stream.readline(LINE_LIMIT + 1), b""), 1):
                if len(line) > LINE_LIMIT:
                    raise DataError(f"{file.name} line {number} is longer than a megabyte",
                                    hint="One row describes one picture")
                text = line.decode("utf-8", "replace")
                valid = valid and ("\ufffd" not in text or text.encode() == line)
                yield text.removeprefix("\ufeff") if number == 1 else text
    except OSError as error:
        raise DataError(f"cannot read {file.name}: {(error.strerror or str(error)).lower()}") from error
    if not valid:
        reading.problems.append((file.name, "invalid UTF-8"))


def _parse_jsonl(file: File, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file.name} line {number} is not JSON", hint=_ROW_HINT) from error
        if not isinstance(row, dict):
            raise DataError(f"{file.name} line {number} is not an object", hint=_ROW_HINT)
        yield number, row


def _parse_csv(file: File, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.DictReader(lines, strict=True)
    try:
        columns = reader.fieldnames             # None where there is no line at all
        if columns is not None and "file_name" not in columns:
            raise DataError(f"the header of {file.name} has no column file_name",
                            hint=f"Its columns, between commas, are: {', '.join(columns)[:200] or 'none'}")
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if isinstance(key, str)}
    except csv.Error as error:
        line = reader.reader.line_num           # of the lines read; DictReader's own counts only whole rows
        raise DataError(f"{file.name} line {line} is not CSV: {error}", hint="Check its quotes") from error


def _checked_name(name: Any, file: File, number: int) -> str:
    """A path inside the folder of its metadata file, normalised. Raises DataError for any other."""
    where = f"{file.name} line {number}"
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{where} has no file_name", hint="Every row names its picture")
    if "://" in name or "\0" in name or re.match(r"[/\\]|[A-Za-z]:[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise DataError(f"{where} names a file outside its folder: {name[:100]!r}",
                        hint="file_name is relative to the folder of the metadata file")
    return unicodedata.normalize("NFC", posixpath.normpath(name))


def _check_missing(reading: Reading, listed: list[str], present: set[str]) -> None:
    missing = [name for name in listed if name not in present]
    if len(missing) > MISSING_LIMIT * len(listed):
        raise DataError(f"{reading.label} lists {len(listed)} files and {len(missing)} of them are not there, "
                        f"{missing[0]!r} for one", hint="file_name is relative to the folder of the metadata file")
    reading.problems += [(name, "listed but not there") for name in missing]


# ── Sidecar files ───────────────────────────────────────────────────────────────────────────────────────────────────


def sidecars(tree: Tree, *, extension: str | None) -> Reading:
    """Captions of `photo.txt`, `photo.caption` or `photo.json` beside `photo.png`: the first that says something."""
    suffixes = (f".{extension.lower().lstrip('.')}",) if extension else SIDECAR_SUFFIXES
    files = {(file.base, file.suffix): file for file in tree.others if file.suffix in suffixes}
    reading = Reading("", present=False)
    used: Counter[str] = Counter()
    read: dict[tuple[str, str], tuple[str, ...] | None] = {}
    for picture in tree.pictures:
        for suffix in suffixes:
            key = picture.base, suffix
            if key not in files:
                continue
            if key not in read:                 # a.jpg and a.png share a.txt
                read[key] = _read_sidecar(files[key], reading)
            captions = read[key]
            reading.present = reading.present or captions is not None
            if captions:
                reading.by_name[picture.name] = captions
                used[suffix] += 1
                break
    reading.label = f"sidecar {', '.join(sorted(used, key=suffixes.index)) or suffixes[0]}"
    stems = {picture.base for picture in tree.pictures}
    stems |= {posixpath.splitext(name)[0] for name, _ in tree.unusable}
    reading.problems += [(file.name, reason) for file, reason in tree.irregular
                         if file.base in stems and file.suffix in suffixes]
    if reading.present:
        reading.problems += [(file.name, "caption without a picture") for (base, suffix), file in files.items()
                             if base not in stems and suffix in used
                             and posixpath.basename(base).lower() not in _NOT_SIDECARS]
    return reading


def _read_sidecar(file: File, reading: Reading) -> tuple[str, ...] | None:
    """Alternatives, one for each line; None when the file is no caption at all."""
    try:
        with open(file.path, "rb") as stream:
            data = stream.read(SIDECAR_LIMIT + 1)
    except OSError:
        reading.problems.append((file.name, "unreadable"))
        return None
    if len(data) > SIDECAR_LIMIT:
        if file.suffix != ".json":              # a big JSON file describes something else
            reading.problems.append((file.name, "longer than 64 KB, ignored"))
        return None
    text = data.decode("utf-8", "replace")
    if "\ufffd" in text and text.encode() != data:
        reading.problems.append((file.name, "invalid UTF-8"))
    if file.suffix != ".json":
        return alternatives(text.removeprefix("\ufeff").splitlines())
    try:
        content = json.loads(text.removeprefix("\ufeff"))
    except (ValueError, RecursionError):
        reading.problems.append((file.name, "not JSON"))
        return None
    if not isinstance(content, dict) or not any(key in content for key in SIDECAR_KEYS):
        return None
    return _said(content, SIDECAR_KEYS, file.name, reading)


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def folder_labels(tree: Tree, *, template: str) -> Reading:
    """The name of the folder that a picture lies in, put into `template`.

    `present` only when it looks like a label: two names at least, all pictures at one depth, no mere splits.
    """
    labels = {picture.name: posixpath.basename(picture.directory) for picture in tree.pictures if picture.directory}
    depths = {picture.name.count("/") for picture in tree.pictures}
    names = set(labels.values())
    looks_like_labels = len(names) >= 2 and len(depths) == 1 and not {name.lower() for name in names} <= _SPLITS
    reading = Reading("folder name", looks_like_labels)
    repeats = {name for name in names if re.match(r"\d+_\S", name)}
    for picture, name in labels.items():
        label = re.sub(r"^\d+_(?=\S)", "", name)
        if caption := tidy(re.sub(r"[_-]+", " ", label)):
            reading.by_name[picture] = (tidy(template.replace("{label}", caption)),)
    if repeats:
        reading.warnings.append(f"the number in front of {min(repeats)!r} is not part of the caption, "
                                "and pictures are not repeated")
    return reading


_DEVICE = re.compile(r"""^(?:img|dsc[nf]?|dcim|pxl|mvimg|vid|gopr|sam|imag|image|photo|picture|pic|frame|file|untitled|
                         download|scan|whatsapp[\s_-]image|screen[\s_-]?shot(?:[\s_-]from)?)(?=[\W_]*(?:\d|$))""",
                     re.IGNORECASE | re.VERBOSE)
_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_HEX = re.compile(r"(?=[a-f]*\d)[0-9a-f]{6,}", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]{3,}")


def words_of_stem(stem: str) -> str:
    """'IMG_2041' → '', 'red_car-0012' → 'red car': a file name without counters, dates, hashes, camera prefixes."""
    text = _DEVICE.sub(" ", _UUID.sub(" ", stem))
    tokens = re.split(r"[\s_\-.,;+()\[\]]+", text)
    kept = (re.sub(r"\d+$", "", token) for token in tokens if not _HEX.fullmatch(token))
    return tidy(" ".join(token for token in kept if token and not token[0].isdigit()))


def file_names(tree: Tree) -> Reading:
    """The words in the names of the files; `present` when at least 80 % of the names hold one of three letters."""
    captions = {picture.name: words_of_stem(posixpath.basename(picture.base)) for picture in tree.pictures}
    wordy: dict[str, tuple[str, ...]] = {name: (caption,) for name, caption in captions.items()
                                         if _WORD.search(caption)}
    return Reading("file name", len(wordy) >= WORDY_STEMS * len(captions), wordy)
