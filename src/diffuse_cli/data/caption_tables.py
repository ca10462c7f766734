"""One table of captions: whose they are, and what it lists besides."""

import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from ..errors import DataError
from .annotations import OBJECTS, as_object, has_boxes, normalised
from .caption_columns import TEXT_COLUMNS, CaptionColumns, choose_columns
from .containers import File, read_head
from .file_columns import (
    FILE_COLUMNS,
    SAMPLE,
    NameIndex,
    check_not_ambiguous,
    column_by_all_rows,
    file_column_in,
    name_in,
    named_column,
)
from .picture_numbers import number_in
from .separated_values import NoTable, Row
from .spilled import SpilledDict, SpilledTuples
from .tables import SEPARATED, read_rows
from .text_files import NotText, decode_text

_OTHERWISE = "or do without it: --captions sidecar, folder, filename or none"


@dataclass
class CaptionTable:
    """The captions in one table. `missing`: what it lists besides. `rank`: 1 if they are names of classes or tags.

    has_objects: whether it names objects that are marked in the pictures.
    """

    file: File
    rank: int = 0
    has_objects: bool = False
    listed: SpilledDict[None] = field(default_factory=SpilledDict)      # all pictures in it, with captions or without
    by_name: SpilledTuples = field(default_factory=SpilledTuples)       # only those with at least one caption
    missing: SpilledDict[str] = field(default_factory=SpilledDict)      # … → the place where it is listed first
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

    def rows_again(first: int) -> Iterator[Row]:
        return itertools.islice(read_rows(file, is_picture=is_picture, notes=[]), first, None)

    table = CaptionTable(file)
    sample: list[Row] = []
    try:
        rows = iter(read_rows(file, is_picture=is_picture, notes=table.notes))
        for row_with_place in itertools.islice(rows, SAMPLE):
            sample.append(row_with_place)       # the rows before an error are needed
    except NoTable:
        return table if required else None
    except DataError as error:
        if required:
            raise
        if _names_pictures(file, sample, index):
            raise DataError(error.what, hint=f"{error.hint or 'Mend it'}, {_OTHERWISE}") from error
        raise UnrelatedFile(str(error)) from error
    columns = list(dict.fromkeys(key for _, row in sample for key in row))
    file_column = file_column_in(sample, columns, index, file)
    find, find_by_number = functools.partial(index.find, directory=file.directory), None
    if file_column is None:
        try:
            file_column, find_by_number = column_by_all_rows(sample, rows_again, columns, index)
            rows = rows_again(len(sample))
            if file_column is None:
                check_not_ambiguous(file, sample, index)
        except DataError as error:
            if required:
                raise
            raise UnrelatedFile(str(error)) from error
    if file_column is None and required:
        file_column = _required_column(file, sample, columns)
    if file_column is None:
        return table if required else None
    if find_by_number:
        table.notes.append(_example(file, (name_in(row.get(file_column)) for _, row in rows_again(0)), find_by_number))
    table.notes += index.notes
    sample, rows, columns = _of_objects(sample, rows, columns, file_column)
    others = [name for name in columns if name != file_column]
    table.has_objects = OBJECTS in others
    reader = choose_columns(table.file.name, [row for _, row in sample], others, column)
    _take_over(table, reader)
    for place, row in itertools.chain(sample, rows):
        written = name_in(row.get(file_column))
        if written is not None:
            captions = reader.captions_of(row, place, table.problems)
            _add_row(table, (find_by_number or find)(written), written, place, captions)
        elif required:
            raise DataError(f"{place} has no {file_column}", hint="Every row names its picture")
    return table


def _required_column(file: File, sample: list[Row], columns: list[str]) -> str | None:
    """The column that should name pictures; None for a table without rows. Raises DataError if there is no such column.
    """
    column = named_column(sample, columns)
    if column is None and sample:
        raise DataError(f"{file.name} has no column file_name",
                        hint=f"Its columns are: {', '.join(columns)[:200] or 'none'}")
    return column


def _of_objects(sample: list[Row], rows: Iterator[Row], columns: list[str], file_column: str,
                ) -> tuple[list[Row], Iterator[Row], list[str]]:
    """Rows and columns; of rows about several boxes in a picture, the names of classes become those of objects."""
    if not has_boxes(columns) or len({name_in(row.get(file_column)) for _, row in sample}) == len(sample):
        return sample, rows, columns
    sample = [(place, as_object(row)) for place, row in sample]
    return sample, ((place, as_object(row)) for place, row in rows), list(dict.fromkeys(
        key for _, row in sample for key in row))


def _example(file: File, names: Iterable[str | None], find: Callable[[str], str | None]) -> str:
    """What to say about a table that gives pictures by numbers."""
    written, picture = next((written, picture) for written in filter(None, names) if (picture := find(written)))
    short = written if (number := number_in(written)) is None else number
    return f"{file.name} gives pictures by their numbers: {short} is taken for {picture}"


def _add_row(table: CaptionTable, picture: str | None, written: str, place: str, captions: tuple[str, ...]) -> None:
    """Add what a row says. picture: the one that is `written` there, or None."""
    if picture is None:
        if written not in table.missing:
            table.missing[written] = place
        return
    if captions:
        table.by_name[picture] = tuple(dict.fromkeys((*table.by_name.get(picture, ()), *captions)))
    table.listed[picture] = None


def captions_of_rows(
    table: CaptionTable, rows: Iterable[dict[str, Any]], column: str | None,
) -> Iterator[tuple[str, ...]]:
    """The captions of each row of a table whose rows hold the pictures themselves. Problems and notes go to `table`.

    Raises DataError if it has no column `column`.
    """
    numbered = ((f"{table.file.name} row {number}", row) for number, row in enumerate(rows, 1))
    sample = list(itertools.islice(numbered, SAMPLE))
    columns = list(dict.fromkeys(key for _, row in sample for key in row))
    reader = choose_columns(table.file.name, [row for _, row in sample], columns, column)
    _take_over(table, reader)
    for place, row in itertools.chain(sample, numbered):
        yield reader.captions_of(row, place, table.problems)


def _take_over(table: CaptionTable, reader: CaptionColumns) -> None:
    """What there is to say about the columns that were chosen."""
    table.rank = int(reader.classes)
    table.notes += reader.notes
    table.warnings += reader.warnings


class UnrelatedFile(Exception):
    """A file cannot be read as a table, and does not name any picture."""


def _names_pictures(file: File, sample: list[Row], index: NameIndex) -> bool:
    """Whether the rows before an error name a picture; or the text of the damaged file does.

    Of a .txt, which may be prose, more than half of the rows or lines must.
    """
    named = sum(any(isinstance(value, str) and len(value) < 1000 and index.find(value, directory=file.directory)
                    for value in row.values()) for _, row in sample)
    is_prose = file.suffix in (".txt", ".token")
    if named and (not is_prose or 2 * named > len(sample)):
        return True
    try:
        data = read_head(file.path, 64 * 1024)
        text, _ = decode_text(data)
    except OSError:
        return False
    except NotText:                             # for instance because a character was cut in two
        text = data.decode("utf-8", "replace")
    if file.suffix in SEPARATED:
        rows = [re.split(r"[,;\t|]", line) for line in text.splitlines()[:1000]]
    else:
        rows = [[value] for value in re.findall(r'"([^"\n]{1,200})"', text)[:1000]]
    named = sum(any(len(value) < 200 and index.find(value.strip(' "'), directory=file.directory) for value in values)
                for values in rows)
    return named > (len(rows) / 2 if is_prose else 0)
