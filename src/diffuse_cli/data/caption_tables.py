"""One table of captions: which of its columns names pictures, which holds captions, and whose they are."""

import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..errors import DataError
from .caption_text import captions_under, distinct_captions
from .containers import File, read_head
from .spilled import SpilledDict, SpilledTuples
from .tables import FILE_KEY, NAMELESS, NoTable, normalised, read_rows

# Names of columns, as `normalised` spells them; the first that holds what it should counts.
FILE_COLUMNS = (FILE_KEY, "filename", "file", "image", "img", "image_path", "img_path", "image_name", "img_name",
                "image_file", "image_filename", "file_path", "filepath", "path", "picture", "photo", "name", "key",
                "id", "image_id", "url")
TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description", "sentence", "sentences", "comment", "raw",
                "alt_text", "alt", "title", "label", "labels", "class", "class_name", "category", "tags", "tag_string")

_NO_CAPTION = re.compile(r"[a-z]+://\S*|[0-9a-fA-F]{8,}|[\d\s:.,TZ+/-]+|\S+\.\w{2,5}(#\d+)?")
_SAMPLE = 2000                                  # rows by which the columns are recognised


class NameIndex(Protocol):
    """What `PictureIndex` does."""

    def find(self, written: str, *, directory: str = "") -> str | None:
        """The picture that a table in `directory` means by `written`, or None."""


@dataclass
class CaptionTable:
    """The captions in one table. `missing`: what it lists besides."""

    file: File
    listed: SpilledDict[None] = field(default_factory=SpilledDict)      # all pictures in it, with captions or without
    by_name: SpilledTuples = field(default_factory=SpilledTuples)       # only those with at least one caption
    missing: dict[str, str] = field(default_factory=dict)               # … → the place where it is listed first
    problems: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_table(file: File, index: NameIndex, column: str | None, *, required: bool) -> CaptionTable | None:
    """The captions in a file. Unless it is required to be a table, None for one that lists no picture.

    Raises DataError if a row cannot be read, or if a required table has no column with names of files.
    """

    def is_picture(value: str) -> bool:
        return normalised(value) not in (*FILE_COLUMNS, *TEXT_COLUMNS) and index.find(
            value, directory=file.directory) is not None

    table = CaptionTable(file)
    sample: list[tuple[str, dict[str, Any]]] = []
    try:
        rows = iter(read_rows(file, is_picture=is_picture, notes=table.notes))
        for row_with_place in itertools.islice(rows, _SAMPLE):
            sample.append(row_with_place)       # the rows before an error are needed
    except NoTable:
        return table if required else None
    except DataError as error:
        if required or _names_pictures(file, sample, index):
            raise
        raise UnrelatedFile(str(error)) from error
    columns = list(dict.fromkeys(key for _, row in sample for key in row))
    file_column = _file_column(sample, columns, index, file, required=required)
    if file_column is None:
        return table if required else None
    keys = _text_columns(table, sample, columns, file_column, column)
    for place, row in itertools.chain(sample, rows):
        written = _name_in(row.get(file_column))
        if written is None and not required:
            continue
        if written is None:
            raise DataError(f"{place} has no {file_column}", hint="Every row names its picture")
        captions = captions_under(keys, row, place, table.problems)
        name = index.find(written, directory=file.directory)
        if name is None:
            table.missing.setdefault(written, place)
            continue
        if captions:
            table.by_name[name] = tuple(dict.fromkeys((*table.by_name.get(name, ()), *captions)))
        table.listed[name] = None
    return table


def captions_of_rows(
    table: CaptionTable, rows: Iterable[dict[str, Any]], column: str | None,
) -> Iterator[tuple[str, ...]]:
    """The captions of each row of a table whose rows hold the pictures themselves. Problems and notes go to `table`.

    Raises DataError if it has no column `column`.
    """
    numbered = ((f"{table.file.name} row {number}", row) for number, row in enumerate(rows, 1))
    sample = list(itertools.islice(numbered, _SAMPLE))
    columns = list(dict.fromkeys(key for _, row in sample for key in row))
    keys = _text_columns(table, sample, columns, "", column) if columns else ()
    for place, row in itertools.chain(sample, numbered):
        yield captions_under(keys, row, place, table.problems)


class UnrelatedFile(Exception):
    """A file cannot be read as a table, and does not name any picture."""


def _names_pictures(file: File, sample: list[tuple[str, dict[str, Any]]], index: NameIndex) -> bool:
    """Whether the rows before an error name a picture; or the text of a damaged JSON document does."""
    for _, row in sample:
        if any(isinstance(value, str) and len(value) < 1000 and index.find(value, directory=file.directory)
               for value in row.values()):
            return True
    if file.suffix not in (".json", ".jsonl", ".ndjson"):
        return False
    try:
        text = read_head(file.path, 64 * 1024).decode("utf-8", "replace")
    except OSError:
        return False
    return any(index.find(value, directory=file.directory) for value in re.findall(r'"([^"\n]{1,200})"', text)[:1000])


def _file_column(sample: list[tuple[str, dict[str, Any]]], columns: list[str], index: NameIndex, file: File, *,
                 required: bool) -> str | None:
    """The column whose values name most pictures; the first in FILE_COLUMNS, or any other, of those with as many.

    Without any, a required table has its first column in FILE_COLUMNS, since all its pictures may be missing. Raises
    DataError if there is none.
    """
    ranks = {name: rank for rank, name in enumerate(FILE_COLUMNS)}
    known = sorted((column for column in columns if normalised(column) in ranks),
                   key=lambda column: ranks[normalised(column)])
    matches: Counter[str] = Counter()
    for column in (*known, *(column for column in columns if column not in known)):
        for _, row in sample:
            written = _name_in(row.get(column))
            if written is not None and len(written) < 1000 and index.find(written, directory=file.directory):
                matches[column] += 1
        if matches[column] * 2 > len(sample):
            return column
    best = matches.most_common(1)
    if best and best[0][1]:
        return best[0][0]
    if required and not known and sample:
        raise DataError(f"{file.name} has no column file_name", hint=(
            f"Its columns are: {', '.join(columns)[:200] or 'none'}"))
    return known[0] if known and required else None


def _name_in(value: Any) -> str | None:
    """The name of a file in a value of a row: a text, a number, or {"path": …} as in data sets of Hugging Face."""
    if isinstance(value, dict):
        value = value.get("path")
    if type(value) is int:
        value = str(value)
    return value if isinstance(value, str) and value.strip() and "\0" not in value else None


def _text_columns(table: CaptionTable, sample: list[tuple[str, dict[str, Any]]], columns: list[str], file_column: str,
                  column: str | None) -> tuple[str, ...]:
    """The columns in which captions stand, the most important first. Raises DataError if `column` is not there."""
    others = [name for name in columns if name != file_column]
    listed = ", ".join(others)[:200] or "none"
    if column is not None:
        chosen = [name for name in others if name == column] or [
            name for name in others if normalised(name) == normalised(column)]
        if not chosen and sample:
            raise DataError(f"{table.file.name} has no column {column!r}", hint=f"Its columns are: {listed}")
        return tuple(chosen)
    ranks = {name: rank for rank, name in enumerate(TEXT_COLUMNS)}
    known = sorted((name for name in others if normalised(name) in ranks), key=lambda name: ranks[normalised(name)])
    filled = [name for name in known if any(captions_under((name,), row, "", []) for _, row in sample)]
    if filled:
        if len(filled) > 1:
            table.notes.append(f"captions are taken from the column {filled[0]} of {table.file.name}; "
                               f"--caption-column {filled[1]} would take another")
        return tuple(known)
    if known:
        return tuple(known)
    texts = [name for name in others if name.startswith(NAMELESS) and any(_is_text(row.get(name)) for _, row in sample)]
    if texts:                                   # a table without a header
        return (texts[0],)
    if sample:
        hint = "; --caption-column names another" if others else ""
        table.warnings.append(f"{table.file.name} has no column text, caption or prompt (it has: {listed}){hint}")
    return ()


def _is_text(value: Any) -> bool:
    """Whether a value may be a caption: words, and no address, hash, date, number or name of a file."""
    return (isinstance(value, str) and any(letter.isalpha() for letter in value) and bool(distinct_captions(value))
            and not _NO_CAPTION.fullmatch(value.strip()))
