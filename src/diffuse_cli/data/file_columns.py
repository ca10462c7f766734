"""Which column of a table names pictures, and how: by their names, or by the numbers in these."""

import itertools
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from ..errors import DataError
from .annotations import FILE_KEY, NAMELESS, TEXT_KEY, normalised
from .containers import File
from .file_types import is_picture_name
from .name_words import words_of_name
from .picture_numbers import PictureNumbers, number_in, number_key
from .separated_values import Row
from .spilled import SpilledDict

# Names of columns, as `normalised` spells them; the first that names pictures counts.
FILE_COLUMNS = (FILE_KEY, "filename", "file", "image", "img", "image_path", "img_path", "image_name", "img_name",
                "image_file", "image_filename", "file_path", "filepath", "path", "picture", "photo", "name", "key",
                "id", "image_id", "url")
AMBIGUOUS = "has names such as"                 # begins what is said of a table that may mean several pictures
SAMPLE = 2000                                  # rows by which the columns are recognised


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


def file_column_in(sample: list[Row], columns: list[str], index: NameIndex, file: File) -> str | None:
    """The column whose values name most pictures; the first in FILE_COLUMNS, or any other, of those with as many.

    Numbers that name less than half do not count beside a column that names other files: they may be those of rows.
    """
    known = known_columns(columns)
    matches: Counter[str] = Counter()
    for column in (*known, *(column for column in columns if column not in known)):
        for _, row in sample:
            written = name_in(row.get(column))
            if written is not None and len(written) < 1000 and index.find(written, directory=file.directory):
                matches[column] += 1
        if matches[column] * 2 > len(sample):
            return column
    best = next((column for column, count in matches.most_common(1) if count), None)
    are_numbers = best and all(number_in(name_in(row.get(best)) or "0") is not None for _, row in sample)
    names_others = any(_is_file_name(value) and number_in(value) is None for _, row in sample for value in row.values())
    is_of_captions = best == TEXT_KEY           # of a map whose keys name no picture, as settings do
    return None if is_of_captions or (are_numbers and names_others) else best


def column_by_all_rows(
    sample: list[Row], rows_from: Callable[[int], Iterator[Row]], columns: list[str], index: NameIndex,
) -> tuple[str | None, Callable[[str], str | None] | None]:
    """The column that names pictures, of a table whose first rows name none; and if it does so by numbers, the finder.

    rows_from: gives all rows from a position. Raises DataError for one that cannot be read.
    """
    if index.numbers and (column := _number_column(rows_from(0), columns, index.numbers)):
        return column, index.numbers.find
    if index.numbers and (column := _column_of_numbered_names(rows_from(0), columns, index.numbers)):
        return column, index.numbers.find_in_name
    column = named_column(sample, columns)
    if column is None or len(sample) < SAMPLE:
        return None, None
    later = (name_in(row.get(column)) for _, row in rows_from(SAMPLE))            # the pictures may be some of many
    return column if any(written and index.find(written) for written in later) else None, None


def check_not_ambiguous(file: File, sample: list[Row], index: NameIndex) -> None:
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


def _column_of_numbered_names(rows: Iterable[Row], columns: list[str], numbers: PictureNumbers) -> str | None:
    """The first column in FILE_COLUMNS whose names have the numbers of pictures at their ends; None without any.

    Each number must be that of one name, and they must be the same as those of the pictures, as `are_the_same` says.
    Names without a suffix must say nothing, as "image_1" does and "chapter_1" does not.
    """
    names = {column: SpilledDict[str]() for column in known_columns(columns)}
    for _, row in rows:
        for column in tuple(names):
            written = name_in(row.get(column)) or ""
            number = numbers.number_in_name(written)
            says_more = words_of_name(written) and not is_picture_name(written)
            if number is None or says_more or names[column].get(number_key(number), written) != written:
                del names[column]
            else:
                names[column][number_key(number)] = written
    return next((column for column, found in names.items() if found and numbers.are_those_of(
        np.sort(np.fromiter(map(int, found), np.int64)))), None)


def named_column(sample: list[Row], columns: list[str]) -> str | None:
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
