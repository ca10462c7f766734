"""Rows of texts with values between commas, tabs, semicolons or bars, or with lines that begin with names of pictures.

Standard library only. `tables` reads the lines.
"""

import csv
import itertools
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from ..errors import DataError
from .annotations import NAMELESS
from .file_types import is_picture_name

Row = tuple[str, dict[str, Any]]                # ("metadata.csv line 3", the row)

_SAMPLE = 50                                    # rows by which separator and quotes are recognised
_MANY = 10                                      # lines that are no prose if they begin with names that are alike
_SEPARATORS = (",", "\t", ";", "|")
_RULE = re.compile(r":?-{3,}:?")                # below the header of a table in Markdown
_MARKS = frozenset(("1", "0", "-1"))
# A line of a list: “1.png: a red car”, “1.png - a red car”, “1.png => a red car” or “1.png a red car”.
_BEHIND = r"(?: *(?::|=>|->|=) *| +[-–—] +| +)(?P<text>[^\s,;|].*)"
_NAMED = re.compile(rf"(?P<name>\S.*?\.\w{{3,5}}(?:#\d+)?){_BEHIND}")
_NAMED_SHORTLY = re.compile(rf"(?P<name>(?=[^\s:=]*\d)[^\s:=]{{3,}}){_BEHIND}")          # the same without the suffix


class NoTable(Exception):
    """The file is sound, but holds no rows."""


def separated_rows(file: str, lines: Iterator[str], is_picture: Callable[[str], bool]) -> Iterator[Row]:
    """Rows of a text whose values stand between commas, tabs, semicolons or bars; `sep=;` may name the separator.

    file: its name. Raises NoTable, and DataError for a line that is no row.
    """
    suffix = posixpath.splitext(file)[1].lower()
    sample, skipped = list(itertools.islice(lines, _SAMPLE)), 0
    separators: tuple[str, ...] = ("\t", *_SEPARATORS) if suffix == ".tsv" else _SEPARATORS
    if sample and sample[0].lower().startswith("sep=") and len(sample[0].rstrip("\n")) == 5:
        separators, skipped = (sample.pop(0)[4],), 1
    if suffix == ".txt" and (header_line := _line_above_marks(sample, is_picture)) is not None:
        yield from _marked_rows(file, itertools.chain(sample, lines), header_line)
        return
    if suffix in (".txt", ".token") and (form := _form_of_names(sample, is_picture)):
        yield from _named_rows(file, itertools.chain(sample, lines), form)
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
            if not any(values) or all(map(_RULE.fullmatch, filter(None, values))):
                continue
            place = f"{file} line {reader.line_num + skipped}"
            if header is None:
                if len(values) > 1 and values[0] and not any(values[1:]) and not is_picture(values[0]):
                    continue                    # the title of an export
                if len(values) < 2 and suffix == ".txt":
                    raise NoTable
                if not any(is_picture(value) or is_picture_name(value.partition("#")[0]) for value in values):
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
        raise DataError(f"{file} line {ended + skipped + 1} is not CSV: {error}",
                        hint="Check its quotes") from error
    if header is None:
        raise NoTable


def _is_header(lines: list[str], dialect: "_Dialect", is_picture: Callable[[str], bool]) -> bool:
    """Whether the first of two lines, which begins with “#”, names the columns of the second one."""
    try:
        rows = list(dialect.reader(lines))
    except csv.Error:                           # the reader of all rows says so
        return False
    return len(rows) == 2 and len(rows[0]) == len(rows[1]) and any(map(is_picture, rows[1]))


def _named(line: str, form: re.Pattern[str]) -> re.Match[str] | None:
    """The name of a file and the words behind it in a line such as “1.png: a red car”; None in any other line."""
    match = None if "\t" in line.strip() else form.fullmatch(line.strip())
    is_class = match is not None and form is _NAMED and match["text"].isdecimal()          # “1.png 12”, as of ImageNet
    return match if match and (is_class or any(letter.isalpha() for letter in match["text"])) else None


def _form_of_names(sample: list[str], is_picture: Callable[[str], bool]) -> re.Pattern[str] | None:
    """The form in which each line, but perhaps the first, begins with the name of a file, if most are pictures.

    Names with a suffix need not be those of pictures in the data set, which may be some of many. Nor need those without
    one, if they are alike; but they must be more than one, since a sentence may begin with a word such as 3D.
    """
    lines = [line for line in sample if line.strip()]
    for form in (_NAMED, _NAMED_SHORTLY):
        matches = [_named(line, form) for line in lines]
        matches = matches[1:] if matches[:1] == [None] else matches
        names = [match["name"] for match in matches if match and (
            match["text"].isdecimal() or not is_picture(match["text"].split()[0]))]
        texts = [match["text"] for match in matches if match]
        if not names or len(names) != len(matches) or (
                all(map(str.isdecimal, texts)) and 2 * len(set(texts)) > len(texts)):        # not those of classes
            continue
        there = sum(map(is_picture, names))
        of_pictures = sum(is_picture_name(name.partition("#")[0]) for name in names)
        if form is _NAMED and len(names) < 2 * max(there, of_pictures):
            return form
        are_alike = len({re.sub(r"\d", "0", name) for name in names}) == 1
        if len(set(names)) > 1 and (len(names) < 2 * there or (are_alike and (there or len(names) >= _MANY))):
            return form
    return None


def _named_rows(file: str, lines: Iterable[str], form: re.Pattern[str]) -> Iterator[Row]:
    """Rows of lines such as “1.png: a red car”. Raises DataError for a line of another form, except the first."""
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    for position, (number, line) in enumerate(numbered):
        if match := _named(line, form):
            yield f"{file} line {number}", {f"{NAMELESS}1": match["name"], f"{NAMELESS}2": match["text"]}
        elif position:
            raise DataError(f"{file} line {number} does not begin with the name of a picture, as the others do: "
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


def _marked_rows(file: str, lines: Iterable[str], header_line: int) -> Iterator[Row]:
    """Rows of lines such as “1.png 1 -1 1”. Raises DataError for one that has another number of marks."""
    header: list[str] = []
    for number, line in enumerate(lines, 1):
        if number == header_line + 1:
            header = [f"{NAMELESS}1", *line.split()]
        elif header and (values := line.split()):
            if len(values) != len(header):
                raise _wrong_number(f"{file} line {number}", values, header, " ")
            yield f"{file} line {number}", dict(zip(header, values, strict=True))


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
