"""Tables as programs and hands write them: JSON lines, JSON documents, separated values, parquet → rows.

A row is a dictionary from column to value. Standard library only, except that parquet needs pyarrow.
"""

import contextlib
import itertools
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from .. import installing
from ..errors import DataError, system_reason
from ..files.memory_limit import MAX_GROWTH, limited_memory
from ..files.strict_json import loads_shallow
from .annotations import FILE_KEY, NAMELESS, TEXT_KEY, flattened, row_of_list, rows_of
from .containers import ARCHIVE_LIMIT, File, Location, judge_row_count, reading, rows_of_batches
from .file_types import is_picture_name, remedies
from .separated_values import NoTable, Row, separated_rows
from .text_files import NotText, decode_text, encoding_of_file, open_text, read_lines, was_guessed

SEPARATED = (".csv", ".tsv", ".txt", ".token")          # the last: captions of Flickr30k
JSON_LINES = (".jsonl", ".jsonlines", ".ndjson")
LINE_LIMIT = 1024 * 1024                        # maximum characters of one line
DOCUMENT_LIMIT = 256 * 2**20                    # maximum bytes of a JSON document, which is read as a whole

_ROW_HINT = 'Write one row for each picture: {"file_name": …, "text": …}'


def read_rows(file: File, *, is_picture: Callable[[str], bool], notes: list[str]) -> Iterator[Row]:
    """The rows of a file, by its suffix. A first line in which a value `is_picture` is a row, not the header.

    notes: gets a sentence if the encoding of the file had to be guessed. Raises NoTable if the file holds no rows, and
    DataError, which names file and line, if a row cannot be read.
    """
    if file.suffix == ".parquet":
        rows = _parquet_rows(file)
    elif file.suffix == ".json" and not _has_json_lines(file):
        rows = _with_header(_document_rows(file, notes), is_picture)
    elif file.suffix in (".json", *JSON_LINES) or (file.suffix == ".txt" and _is_object(next(_lines(file, []), ""))):
        rows = _with_header(_json_line_rows(file, notes), is_picture)
    else:
        rows = separated_rows(file.name, _lines(file, notes), is_picture)
    return ((place, flattened(row)) for place, row in rows)


def _lines(file: File, notes: list[str]) -> Iterator[str]:
    """The lines of a text file. Raises DataError for a line of more than LINE_LIMIT, and for what is no text."""
    try:
        encoding = encoding_of_file(file.path)
        note_guess(file.name, encoding, notes)
        for number, line in enumerate(read_lines(file.path, encoding, limit=LINE_LIMIT), 1):
            if len(line) > LINE_LIMIT:
                raise DataError(f"{file.name} line {number} is longer than a megabyte",
                                hint="One row describes one picture")
            yield line
    except NotText as error:
        raise _no_text(file.name, error) from error
    except OSError as error:
        raise DataError(f"cannot read {file.name}: {system_reason(error)}") from error


def note_guess(name: str, encoding: str, notes: list[str]) -> None:
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
        row = _row_of_value(row)
        if not isinstance(row, dict):
            raise DataError(f"{file.name} line {number} is not an object", hint=_ROW_HINT)
        yield f"{file.name} line {number}", row


def _with_header(rows: Iterator[Row], is_picture: Callable[[str], bool]) -> Iterator[Row]:
    """Rows; of lists of values without names, the first gives the names if it names no picture, and the second does."""
    start = list(itertools.islice(rows, 2))
    first, second = [list(row.values()) if next(iter(row), "").startswith(NAMELESS) else [] for _, row in (
        *start, *[("", {})] * 2)][:2]
    rows = itertools.chain(start, rows)
    if not first or not all(isinstance(value, str) for value in first) or any(map(is_picture, first)) or not any(
            isinstance(value, str) and is_picture(value) for value in second):
        yield from rows
        return
    names = {f"{NAMELESS}{number}": name for number, name in enumerate(first, 1)}
    yield from ((place, {names.get(key, key): value for key, value in row.items()})
                for place, row in itertools.islice(rows, 1, None))


def _row_of_value(value: Any) -> Any:
    """The row that stands in a line: an object, a list of values, or an object {"1.png": "a red car"} alone."""
    name, text = next(iter(value.items())) if isinstance(value, dict) and len(value) == 1 else ("", None)
    if is_picture_name(name) and isinstance(text, str | list):
        return {FILE_KEY: name, TEXT_KEY: text}
    return row_of_list(value) if isinstance(value, list) and len(value) > 1 else value


def _has_json_lines(file: File) -> bool:
    """Whether the first two lines that are not blank are objects, as the library datasets writes them into .json."""
    try:
        lines = [line for line in itertools.islice(_lines(file, []), 10) if line.strip()][:2]
    except DataError:                           # one long line, or no text
        return False
    return len(lines) == 2 and all(map(_is_object, lines))


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
            note_guess(name, encoding, notes)
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
