"""One table of captions: which of its columns names pictures, and whose its captions are."""

import itertools
import re
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from .annotations import FILE_KEY, NAMELESS, normalised
from .caption_columns import TEXT_COLUMNS, CaptionColumns, choose_columns
from .containers import File, read_head
from .file_types import is_picture_name
from .picture_numbers import PictureNumbers, number_in
from .separated_values import NoTable, Row
from .spilled import SpilledDict, SpilledTuples
from .tables import SEPARATED, read_rows
from .text_files import NotText, decode_text

# Names of columns, as `normalised` spells them; the first that names pictures counts.
FILE_COLUMNS = (FILE_KEY, "filename", "file", "image", "img", "image_path", "img_path", "image_name", "img_name",
                "image_file", "image_filename", "file_path", "filepath", "path", "picture", "photo", "name", "key",
                "id", "image_id", "url")
AMBIGUOUS = "has names such as"                 # begins what is said of a table that may mean several pictures
_SAMPLE = 2000                                  # rows by which the columns are recognised


class NameIndex(Protocol):
    """What `PictureIndex` does."""

    @property
    def numbers(self) -> PictureNumbers:
        """The pictures by the numbers in their names."""

    def find(self, written: str, *, directory: str = "") -> str | None:
        """The picture that a table in `directory` means by `written`, or None."""

    @property
    def notes(self) -> list[str]:
        """What there is to say about the names of the pictures."""

    def fits_several(self, written: str) -> bool:
        """Whether `written` is the name of pictures in several folders."""


@dataclass
class CaptionTable:
    """The captions in one table. `missing`: what it lists besides. `rank`: 1 if they are names of classes or tags."""

    file: File
    rank: int = 0
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
        for row_with_place in itertools.islice(rows, _SAMPLE):
            sample.append(row_with_place)       # the rows before an error are needed
    except NoTable:
        return table if required else None
    except DataError as error:
        if required or _names_pictures(file, sample, index):
            raise
        raise UnrelatedFile(str(error)) from error
    columns = list(dict.fromkeys(key for _, row in sample for key in row))
    file_column, numbers = _file_column(sample, columns, index, file), None
    if file_column is None:
        try:
            file_column, numbers = _column_by_all_rows(sample, rows_again, columns, index)
            rows = rows_again(len(sample))
            if file_column is None:
                _check_not_ambiguous(file, sample, index)
        except DataError as error:
            if required:
                raise
            raise UnrelatedFile(str(error)) from error
    if file_column is None and required:
        file_column = _named_column(sample, columns)
        if file_column is None and sample:
            raise DataError(f"{file.name} has no column file_name", hint=(
                f"Its columns are: {', '.join(columns)[:200] or 'none'}"))
    if file_column is None:
        return table if required else None
    if numbers:
        number, picture = numbers.first()
        table.notes.append(f"{file.name} gives pictures by their numbers: {number} is taken for {picture}")
    table.notes += index.notes
    others = [name for name in columns if name != file_column]
    reader = choose_columns(table.file.name, [row for _, row in sample], others, column)
    _take_over(table, reader)
    for place, row in itertools.chain(sample, rows):
        written = name_in(row.get(file_column))
        if written is None and required:
            raise DataError(f"{place} has no {file_column}", hint="Every row names its picture")
        if written is not None:
            name = numbers.find(written) if numbers else index.find(written, directory=file.directory)
            _add_row(table, name, written, place, reader.captions_of(row, place, table.problems))
    return table


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
    sample = list(itertools.islice(numbered, _SAMPLE))
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


def _file_column(sample: list[Row], columns: list[str], index: NameIndex, file: File) -> str | None:
    """The column whose values name most pictures; the first in FILE_COLUMNS, or any other, of those with as many."""
    known = known_columns(columns)
    matches: Counter[str] = Counter()
    for column in (*known, *(column for column in columns if column not in known)):
        for _, row in sample:
            written = name_in(row.get(column))
            if written is not None and len(written) < 1000 and index.find(written, directory=file.directory):
                matches[column] += 1
        if matches[column] * 2 > len(sample):
            return column
    best = matches.most_common(1)
    return best[0][0] if best and best[0][1] else None


def _column_by_all_rows(
    sample: list[Row], rows_from: Callable[[int], Iterator[Row]], columns: list[str], index: NameIndex,
) -> tuple[str | None, PictureNumbers | None]:
    """The column that names pictures, of a table whose first rows name none; the pictures by number if it holds these.

    rows_from: gives all rows from a position. Raises DataError for one that cannot be read.
    """
    if index.numbers and (column := _number_column(rows_from(0), columns, index.numbers)):
        return column, index.numbers
    column = _named_column(sample, columns)
    if column is None or len(sample) < _SAMPLE:
        return None, None
    later = (name_in(row.get(column)) for _, row in rows_from(_SAMPLE))            # the pictures may be some of many
    return column if any(written and index.find(written) for written in later) else None, None


def _check_not_ambiguous(file: File, sample: list[Row], index: NameIndex) -> None:
    """Raise DataError if a value is the name of several pictures."""
    for value in (value for _, row in sample for value in row.values() if isinstance(value, str)):
        if index.fits_several(value):
            raise DataError(f"{file.name} {AMBIGUOUS} {value[:100]}, which are those of several pictures",
                            hint="Write their folders as well")


def known_columns(columns: list[str]) -> list[str]:
    """The columns in FILE_COLUMNS, in that order."""
    ranks = {name: rank for rank, name in enumerate(FILE_COLUMNS)}
    return sorted((column for column in columns if normalised(column) in ranks),
                  key=lambda column: ranks[normalised(column)])


def _number_column(rows: Iterable[Row], columns: list[str], numbers: PictureNumbers) -> str | None:
    """The first column in FILE_COLUMNS that holds the numbers of pictures, without zeros in front; None without any.

    A column that counts rows must not be taken for it: either each number must be that of a picture, or each picture
    must have its number, and no other column may hold names of pictures. Numbers without gaps must begin where those of
    the pictures do.
    """
    written = {column: array("q") for column in known_columns(columns)}
    for _, row in rows:
        if not written or any(_is_file_name(value) and number_in(value) is None for value in row.values()):
            return None
        for column in tuple(written):
            name = name_in(row.get(column))
            if name is not None and (number := number_in(name)) is not None:
                written[column].append(number)
            elif name is not None:
                del written[column]
    return next((column for column, found in written.items() if numbers.fit(np.unique(np.array(found)))), None)


def _named_column(sample: list[Row], columns: list[str]) -> str | None:
    """The column that should name pictures: the first in FILE_COLUMNS, one with names of files, or that of a list."""
    of_files = (column for column in columns
                if 2 * sum(_is_file_name(row.get(column)) for _, row in sample) > len(sample))
    lists = (column for column in columns if column == f"{NAMELESS}1")
    return next(itertools.chain(known_columns(columns), of_files, lists), None)


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and is_picture_name(value)


def name_in(value: Any) -> str | None:
    """The name of a file in a value of a row: a text, a number, an object with one, as {"path": …} in data sets of
    Hugging Face, or a list of one of these.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = next((value[key] for key in ("path", *FILE_COLUMNS[:5]) if key in value), None)
    if type(value) is int or (type(value) is float and value.is_integer()):
        value = str(int(value))
    return value if isinstance(value, str) and value.strip() and "\0" not in value else None
