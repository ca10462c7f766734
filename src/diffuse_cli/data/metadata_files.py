"""Captions from metadata files: `metadata.jsonl` or `metadata.csv` in a folder, or a manifest of any name.

Unlike other sources of captions, a metadata file also decides which pictures belong to the data set. Standard library
only.
"""

import csv
import json
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..errors import DataError
from .caption_text import SourceCaptions, captions_under
from .folders import UNREADABLE_FOLDER, File, Tree, list_tree

METADATA_NAMES = ("metadata.jsonl", "metadata.csv")
COLUMNS = ("text", "caption", "prompt")         # the first that holds a caption counts
LINE_LIMIT = 1024 * 1024                        # maximum bytes of one line
MISSING_LIMIT = 0.01                            # maximum share of rows that name a file which does not exist

_ROW_HINT = 'Write one row for each picture: {"file_name": …, "text": …}'


def read_metadata(tree: Tree, *, column: str | None) -> SourceCaptions:
    """Captions of the metadata files in `tree`; each picture takes them from the nearest file, looking upwards.

    A picture that its metadata file does not list is excluded. Raises DataError for a line that cannot be read, a path
    that leaves the folder, two formats side by side, or more than 1 % of rows that name files which do not exist.
    """
    files = _metadata_by_directory(tree)
    source = SourceCaptions(_label(list(files.values()), column), present=bool(files))
    source.problems += [(file.name, reason) for file, reason in tree.irregular
                        if posixpath.basename(file.name) in METADATA_NAMES]
    rows = {directory: _read_rows(file, column, source) for directory, file in files.items()}
    names = [picture.name for picture in tree.pictures]
    names += [name for name, reason in tree.unusable if reason != UNREADABLE_FOLDER]
    for name in names:
        directory = next((above for above in _upwards(posixpath.dirname(name)) if above in rows), None)
        if directory is None:
            continue
        captions = rows[directory].get(name)
        if captions is None:
            source.excluded.add(name)
        elif captions:
            source.by_name[name] = captions
    _check_missing(source, [name for listed in rows.values() for name in listed], set(names))
    return source


def read_manifest(path: Path, *, column: str | None) -> tuple[Tree, SourceCaptions]:
    """A metadata file of any name, given instead of a folder: its rows are the data set.

    Raises DataError as `read_metadata` does.
    """
    file = File(path.name, path)
    source = SourceCaptions(_label([file], column), present=True)
    rows = _read_rows(file, column, source)
    tree = list_tree(path.parent)
    pictures = tuple(picture for picture in tree.pictures if picture.name in rows)
    unusable = tuple((name, reason) for name, reason in tree.unusable if name in rows)
    source.by_name = {picture.name: rows[picture.name] for picture in pictures if rows[picture.name]}
    _check_missing(source, list(rows), {picture.name for picture in pictures} | {name for name, _ in unusable})
    stems = {posixpath.splitext(name)[0] for name in rows}
    others = tuple(file for file in tree.others if file.base in stems)
    return Tree(path.parent, pictures, others, unusable, tree.irregular, tree.litter), source


def _metadata_by_directory(tree: Tree) -> dict[str, File]:
    files: dict[str, File] = {}
    for file in tree.others:
        if posixpath.basename(file.name) in METADATA_NAMES:
            if file.directory in files:
                raise DataError(f"two metadata files in one folder: {files[file.directory].name} and {file.name}",
                                hint="Keep one of them")
            files[file.directory] = file
    return files


def _label(files: list[File], column: str | None) -> str:
    name = files[0].name if len(files) == 1 else f"{len(files)} metadata files"
    return f"{name}, column {column}" if column else name


def _upwards(directory: str) -> Iterator[str]:
    """'a/b' → 'a/b', 'a', ''."""
    yield directory
    while directory:
        directory = posixpath.dirname(directory)
        yield directory


def _check_missing(source: SourceCaptions, listed: list[str], existing: set[str]) -> None:
    missing = [name for name in listed if name not in existing]
    if len(missing) > MISSING_LIMIT * len(listed):
        raise DataError(f"{source.label} lists {len(listed)} files and {len(missing)} of them are not there, "
                        f"for example {missing[0]!r}", hint="file_name is relative to the folder of the metadata file")
    source.problems += [(name, "listed but not there") for name in missing]


# ── Rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_rows(file: File, column: str | None, source: SourceCaptions) -> dict[str, tuple[str, ...]]:
    """Name of each picture that `file` lists, relative to the data set → its captions, of all its rows together."""
    rows: dict[str, tuple[str, ...]] = {}
    columns: Counter[str] = Counter()
    keys = (column,) if column else COLUMNS
    parse = _parse_csv if file.suffix == ".csv" else _parse_jsonl
    for number, row in parse(file, _lines(file, source)):
        name = posixpath.join(file.directory, _checked_name(row.get("file_name"), file, number))
        columns.update(row.keys())
        captions = captions_under(keys, row, f"{file.name} line {number}", source)
        rows[name] = tuple(dict.fromkeys((*rows.get(name, ()), *captions)))
    if rows and not any(key in columns for key in keys):
        others = ", ".join(sorted(columns - Counter({"file_name": columns["file_name"]}))) or "none"
        if column:
            raise DataError(f"{file.name} has no column {column!r}", hint=f"Its columns are: {others}")
        source.warnings.append(f"{file.name} has no column text, caption or prompt (it has: {others}); "
                               "--caption-column names another")
    return rows


def _lines(file: File, source: SourceCaptions) -> Iterator[str]:
    """Lines of a UTF-8 file. Bytes that are not UTF-8 are replaced and become a problem."""
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
        source.problems.append((file.name, "invalid UTF-8"))


def _parse_jsonl(file: File, lines: Iterable[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number of the line, row) of each line that is not blank."""
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
    """(number of its last line, row) of each row below the header."""
    reader = csv.DictReader(lines, strict=True)
    try:
        columns = reader.fieldnames             # None for a file without any line
        if columns is not None and "file_name" not in columns:
            raise DataError(f"the header of {file.name} has no column file_name",
                            hint=f"Its columns, between commas, are: {', '.join(columns)[:200] or 'none'}")
        for row in reader:
            yield reader.line_num, {key: value for key, value in row.items() if isinstance(key, str)}
    except csv.Error as error:
        line = reader.reader.line_num           # counts the lines read; DictReader's own number counts whole rows only
        raise DataError(f"{file.name} line {line} is not CSV: {error}", hint="Check its quotes") from error


def _checked_name(name: Any, file: File, number: int) -> str:
    """Check the `file_name` in line `number` of a metadata file. → the same path, normalised (NFC, without "./")

    The path is relative to the folder of the metadata file and must not leave it. Raises DataError if `name` is
    anything else. Does not check that the picture exists.
    """
    place = f"{file.name} line {number}"
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"{place} has no file_name", hint="Every row names its picture")
    if "://" in name or "\0" in name or re.match(r"[/\\]|[A-Za-z]:[/\\]", name) or ".." in re.split(r"[/\\]", name):
        raise DataError(f"{place} names a file outside its folder: {name[:100]!r}",
                        hint="file_name is relative to the folder of the metadata file")
    return unicodedata.normalize("NFC", posixpath.normpath(name))
