"""Tables as programs and hands write them: JSON lines, JSON documents, separated values, parquet → rows.

A row is a dictionary from column to value. Standard library only, except that parquet needs pyarrow.
"""

import contextlib
import csv
import itertools
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from .. import installing
from ..errors import DataError, system_reason
from ..files.memory_limit import MAX_GROWTH, limited_memory
from ..files.strict_json import loads_shallow
from .annotations import NAMELESS, flattened, rows_of
from .containers import ARCHIVE_LIMIT, File, Location, judge_row_count, reading, rows_of_batches
from .file_types import remedies
from .text_files import NotText, decode_text, encoding_of_file, open_text, read_lines, was_guessed

SEPARATED = (".csv", ".tsv", ".txt", ".token")          # the last: captions of Flickr30k
JSON_LINES = (".jsonl", ".jsonlines", ".ndjson")
LINE_LIMIT = 1024 * 1024                        # maximum characters of one line
DOCUMENT_LIMIT = 256 * 2**20                    # maximum bytes of a JSON document, which is read as a whole

Row = tuple[str, dict[str, Any]]                # ("metadata.csv line 3", the row)

_ROW_HINT = 'Write one row for each picture: {"file_name": …, "text": …}'
_SAMPLE = 50                                    # rows by which separator and quotes are recognised
_SEPARATORS = (",", "\t", ";", "|")
# A line of a list: “1.png: a red car”, “1.png - a red car”, “1.png => a red car” or “1.png a red car”.
_MARKS = frozenset(("1", "0", "-1"))
_NAMED = re.compile(r"(?P<name>\S.*?\.\w{3,5}(?:#\d+)?)(?: *(?::|=>|->|=) *| +[-–—] +| +)(?P<text>[^\s,;|].*)")


class NoTable(Exception):
    """The file is sound, but holds no rows."""


def read_rows(file: File, *, is_picture: Callable[[str], bool], notes: list[str]) -> Iterator[Row]:
    """The rows of a file, by its suffix. A first line in which a value `is_picture` is a row, not the header.

    notes: gets a sentence if the encoding of the file had to be guessed. Raises NoTable if the file holds no rows, and
    DataError, which names file and line, if a row cannot be read.
    """
    if file.suffix == ".parquet":
        rows = _parquet_rows(file)
    elif file.suffix == ".json":
        rows = _document_rows(file, notes)
    elif file.suffix in JSON_LINES or (file.suffix == ".txt" and _is_object(next(_lines(file, []), ""))):
        rows = _json_line_rows(file, notes)
    else:
        rows = _separated_rows(file, _lines(file, notes), is_picture)
    return ((place, flattened(row)) for place, row in rows)


def _lines(file: File, notes: list[str]) -> Iterator[str]:
    """The lines of a text file. Raises DataError for a line of more than LINE_LIMIT, and for what is no text."""
    try:
        encoding = encoding_of_file(file.path)
        _note_guess(file.name, encoding, notes)
        for number, line in enumerate(read_lines(file.path, encoding, limit=LINE_LIMIT), 1):
            if len(line) > LINE_LIMIT:
                raise DataError(f"{file.name} line {number} is longer than a megabyte",
                                hint="One row describes one picture")
            yield line
    except NotText as error:
        raise _no_text(file.name, error) from error
    except OSError as error:
        raise DataError(f"cannot read {file.name}: {system_reason(error)}") from error


def _note_guess(name: str, encoding: str, notes: list[str]) -> None:
    """Note the encoding of a file if it was guessed, once."""
    if was_guessed(encoding) and (note := f"{name} is not UTF-8 and was read as {encoding}") not in notes:
        notes.append(note)


def _no_text(name: str, error: NotText) -> DataError:
    return DataError(f"{name} is {error.reason if error.reason == 'not text' else f'no table ({error.reason})'}",
                     hint="; ".join(remedies([error.reason])) or "Save it as UTF-8")


# ── JSON ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _json_line_rows(file: File, notes: list[str]) -> Iterator[Row]:
    """One object for each line that is not blank. A file that is one JSON document in truth is read as such."""
    first = next((line for line in _lines(file, []) if line.strip()), "")
    if not _is_object(first) and first.lstrip()[:1] in ("[", "{"):
        try:
            yield from _document_rows(file, notes)
            return
        except (DataError, NoTable):            # a damaged line, which is reported below
            pass
    for number, line in enumerate(_lines(file, notes), 1):
        if not line.strip():
            continue
        try:
            row = loads_shallow(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{file.name} line {number} is not JSON", hint=_ROW_HINT) from error
        if not isinstance(row, dict):
            raise DataError(f"{file.name} line {number} is not an object", hint=_ROW_HINT)
        yield f"{file.name} line {number}", row


def _is_object(text: str) -> bool:
    try:
        return isinstance(loads_shallow(text), dict)
    except (ValueError, RecursionError):
        return False


def _document_rows(file: File, notes: list[str]) -> Iterator[Row]:
    document = _read_document(file.path, file.name, notes)
    rows = [row for row in rows_of(document) if isinstance(row, dict)]
    if not rows:
        raise NoTable
    return ((f"{file.name} row {number}", row) for number, row in enumerate(rows, 1))


def _read_document(path: Location, name: str, notes: list[str]) -> Any:
    """The value of a JSON file. Raises DataError if it is not JSON, not text, or has more than DOCUMENT_LIMIT bytes."""
    try:
        with open_text(path) as stream:
            data = stream.read(DOCUMENT_LIMIT + 1)
    except OSError as error:
        raise DataError(f"cannot read {name}: {system_reason(error)}") from error
    if len(data) > DOCUMENT_LIMIT:
        raise DataError(f"{name} is larger than {DOCUMENT_LIMIT // 2**20} MB", hint="Write it as JSON lines (.jsonl)")
    try:
        with limited_memory():
            text, encoding = decode_text(data)
            _note_guess(name, encoding, notes)
            return loads_shallow(text)
    except MemoryError as error:
        raise DataError(f"the values in {name} take more than {MAX_GROWTH // 2**30} GiB",
                        hint="Write it as JSON lines (.jsonl)") from error
    except NotText as error:
        raise _no_text(name, error) from error
    except json.JSONDecodeError as error:
        raise DataError(f"{name} line {error.lineno} is not JSON: {error.msg} at character {error.colno}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON") from error


# ── Separated values ────────────────────────────────────────────────────────────────────────────────────────────────


def _separated_rows(file: File, lines: Iterator[str], is_picture: Callable[[str], bool]) -> Iterator[Row]:
    """Rows of a text whose values stand between commas, tabs, semicolons or bars; `sep=;` may name the separator."""
    sample, skipped = list(itertools.islice(lines, _SAMPLE)), 0
    separators: tuple[str, ...] = ("\t", *_SEPARATORS) if file.suffix == ".tsv" else _SEPARATORS
    if sample and sample[0].lower().startswith("sep=") and len(sample[0].rstrip("\n")) == 5:
        separators, skipped = (sample.pop(0)[4],), 1
    if file.suffix == ".txt" and (header_line := _line_above_marks(sample, is_picture)) is not None:
        yield from _marked_rows(file, itertools.chain(sample, lines), header_line)
        return
    if file.suffix in (".txt", ".token") and _are_named(sample, is_picture):
        yield from _named_rows(file, itertools.chain(sample, lines))
        return
    if _are_quoted_whole(sample):
        lines = map(_unquoted, lines)
        sample = [_unquoted(line) for line in sample]
    comments = len(list(itertools.takewhile(lambda line: line.startswith("#"), sample)))
    dialect = _dialect(sample[comments:], separators)
    if comments and comments < len(sample) and not _is_header(sample[comments - 1:comments + 1], dialect, is_picture):
        sample, skipped = sample[comments:], skipped + comments
    reader = dialect.reader(itertools.chain(sample, lines))
    header: list[str] | None = None
    ended = 0                                   # lines of the rows so far
    try:
        for values in reader:
            values = [value.strip() for value in values]
            ended = reader.line_num
            if not any(values):
                continue
            place = f"{file.name} line {reader.line_num + skipped}"
            if header is None:
                if len(values) > 1 and values[0] and not any(values[1:]) and not is_picture(values[0]):
                    continue                    # the title of an export
                if not any(map(is_picture, values)):
                    header = [name if name not in values[:number] else f"{name} ({number + 1})"
                              for number, name in enumerate(values)]    # of two equal names, the first counts
                    continue
                header = [f"{NAMELESS}{number}" for number in range(1, len(values) + 1)]
            while len(values) > len(header) and not values[-1]:
                values.pop()
            if len(values) != len(header):
                raise _wrong_number(place, values, header, dialect.separator)
            yield place, {column: value for column, value in zip(header, values, strict=True) if column}
    except csv.Error as error:
        raise DataError(f"{file.name} line {ended + skipped + 1} is not CSV: {error}",
                        hint="Check its quotes") from error
    if header is None or (len(header) < 2 and file.suffix == ".txt"):
        raise NoTable


def _is_header(lines: list[str], dialect: "_Dialect", is_picture: Callable[[str], bool]) -> bool:
    """Whether the first of two lines, which begins with “#”, names the columns of the second one."""
    try:
        rows = list(dialect.reader(lines))
    except csv.Error:                           # the reader of all rows says so
        return False
    return len(rows) == 2 and len(rows[0]) == len(rows[1]) and any(map(is_picture, rows[1]))


def _named(line: str) -> re.Match[str] | None:
    """The name of a file and the words behind it in a line such as “1.png: a red car”; None in any other line."""
    match = None if "\t" in line.strip() else _NAMED.fullmatch(line.strip())
    return match if match and any(letter.isalpha() for letter in match["text"]) else None


def _are_named(sample: list[str], is_picture: Callable[[str], bool]) -> bool:
    """Whether each line, but perhaps the first, begins with the name of a file, and most of these are pictures."""
    matches = [_named(line) for line in sample if line.strip()]
    matches = matches[1:] if matches[:1] == [None] else matches
    named = [match for match in matches if match and not is_picture(match["text"].split()[0])]
    return 0 < len(named) == len(matches) < 2 * sum(is_picture(match["name"]) for match in named)


def _named_rows(file: File, lines: Iterable[str]) -> Iterator[Row]:
    """Rows of lines such as “1.png: a red car”. Raises DataError for a line of another form, except the first."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    for position, (number, line) in enumerate(numbered):
        if match := _named(line):
            yield f"{file.name} line {number}", {f"{NAMELESS}1": match["name"], f"{NAMELESS}2": match["text"]}
        elif position:
            raise DataError(f"{file.name} line {number} does not begin with the name of a picture, as the others do: "
                            f"{line.strip()[:80]}", hint="One line describes one picture")


def _line_above_marks(sample: list[str], is_picture: Callable[[str], bool]) -> int | None:
    """The position of the names above lines of a picture and of 1 or -1 for each name, between blanks, as in CelebA."""
    rows = [line.split() for line in sample]
    for position, names in enumerate(rows[:2]):                         # the number of pictures may stand above
        below = [row for row in rows[position + 1:] if row]
        if len(names) > 1 and any(is_picture(row[0]) for row in below) and all(
                len(row) == len(names) + 1 and _MARKS.issuperset(row[1:]) for row in below):
            return position
    return None


def _marked_rows(file: File, lines: Iterable[str], header_line: int) -> Iterator[Row]:
    """Rows of lines such as “1.png 1 -1 1”. Raises DataError for one that has another number of marks."""
    header: list[str] = []
    for number, line in enumerate(lines, 1):
        if number == header_line + 1:
            header = [f"{NAMELESS}1", *line.split()]
        elif header and (values := line.split()):
            if len(values) != len(header):
                raise _wrong_number(f"{file.name} line {number}", values, header, " ")
            yield f"{file.name} line {number}", dict(zip(header, values, strict=True))


def _are_quoted_whole(sample: list[str]) -> bool:
    """Whether each line stands in quotes as if it were one value, as spreadsheets write a table that was in one column.
    """
    lines = [line.strip() for line in sample if line.strip()]
    return len(lines) > 1 and all(
        len(line) > 2 and line[0] == line[-1] == '"' and '"' not in (inside := line[1:-1]).replace('""', "")
        and any(separator in inside for separator in _SEPARATORS) for line in lines)


def _unquoted(line: str) -> str:
    return line.strip()[1:-1].replace('""', '"') + "\n"


class _Dialect(NamedTuple):
    """How values are separated. spaced: whether blanks stand between a quote and the separator behind it."""

    separator: str
    quoting: Any = csv.QUOTE_MINIMAL
    spaced: bool = False
    escape: str | None = None                   # what stands before a quote that is part of a value

    def reader(self, lines: Iterable[str]) -> Any:
        """Reads rows as lists of texts. Iterating raises csv.Error."""
        if self.spaced:
            lines = (re.sub(rf'" +(?={re.escape(self.separator)})', '"', line) for line in lines)
        return csv.reader(lines, delimiter=self.separator, quoting=self.quoting, escapechar=self.escape,
                          skipinitialspace=True, strict=True)


def _dialect(sample: list[str], separators: Iterable[str]) -> _Dialect:
    """The first dialect with which the rows have equally many values.

    If there is none, it has the first separator that is in the first line, with quotes.
    """
    separators, are_spaced = tuple(separators), any('" ' in line for line in sample)
    dialects = []
    for separator in separators:
        dialects += [_Dialect(separator), *([_Dialect(separator, spaced=True)] if are_spaced else []),
                     *([_Dialect(separator, csv.QUOTE_NONE)] if separator in "\t|" else [])]
    if any('\\"' in line for line in sample):
        dialects += [_Dialect(separator, escape="\\") for separator in separators]
    for dialect in dialects:
        try:
            lengths = {len(values) for values in dialect.reader(sample) if any(value.strip() for value in values)}
        except csv.Error:
            continue
        if len(lengths) == 1 and lengths.pop() > 1:
            return dialect
    first = sample[0] if sample else ""
    return _Dialect(next((separator for separator in separators if separator in first), ","))


def _wrong_number(place: str, values: list[str], header: list[str], separator: str) -> DataError:
    fields = " | ".join(value[:40] for value in values)[:160]
    name = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}.get(separator, f"“{separator}”")
    return DataError(f"{place} has {len(values)} fields where the header has {len(header)}: {fields}",
                     hint=f"Put double quotes around a caption that contains {name}" if len(values) > len(header)
                     else "Is the first line the header, and is each row whole?")


# ── Parquet ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def _parquet_rows(file: File) -> Iterator[Row]:
    """Rows of a parquet file, one group of rows at a time."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"{file.name} needs pyarrow", hint=installing.extra("parquet")) from error
    with contextlib.ExitStack() as stack:
        with reading(file.name, file.path):
            stream = stack.enter_context(open_text(file.path, limit=ARCHIVE_LIMIT))
            table = stack.enter_context(parquet.ParquetFile(stream))
            judge_row_count(table.metadata.num_rows, stream.seek(0, os.SEEK_END), file.name)
            batches = table.iter_batches(batch_size=1024, use_threads=False)
        for number, row in enumerate(rows_of_batches(batches, file.name, file.path), 1):
            yield f"{file.name} row {number}", row
