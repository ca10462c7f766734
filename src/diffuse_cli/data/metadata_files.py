"""Captions from tables: `metadata.jsonl` and its like in a folder, a table of another name, or a manifest.

A metadata file and a manifest also decide which pictures belong to the data set; a table of another name does not. The
columns of a table are found by their contents and names. Standard library only, except for parquet.
"""

import itertools
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config import TABLE_SUFFIXES
from ..errors import DataError
from .caption_text import SourceCaptions, captions_under, distinct_captions
from .containers import File
from .folders import UNREADABLE_FOLDER, Tree, list_tree
from .picture_index import PictureIndex
from .tables import FILE_KEY, NAMELESS, NoTable, normalised, read_rows

METADATA_NAMES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES if suffix != ".txt")
# Names of columns, as `normalised` spells them; the first that holds what it should counts.
FILE_COLUMNS = (FILE_KEY, "filename", "file", "image", "img", "image_path", "img_path", "image_name", "img_name",
                "image_file", "image_filename", "file_path", "filepath", "path", "picture", "photo", "name", "key",
                "id", "image_id", "url")
TEXT_COLUMNS = ("text", "caption", "captions", "prompt", "description", "sentence", "sentences", "comment", "raw",
                "alt_text", "alt", "title", "label", "labels", "class", "class_name", "category", "tags", "tag_string")
MISSING_LIMIT = 0.01                            # maximum share of rows that name a file which does not exist
MAX_TABLES = 100                                # files of other names that are tried as tables

_NO_CAPTION = re.compile(r"[a-z]+://\S*|[0-9a-fA-F]{8,}|[\d\s:.,TZ+/-]+|\S+\.\w{2,5}(#\d+)?")
_SAMPLE = 2000                                  # rows by which the columns are recognised


@dataclass
class CaptionTable:
    """The captions in one table. `missing`: what it lists besides."""

    file: File
    by_name: dict[str, tuple[str, ...]] = field(default_factory=dict)   # of each picture that it lists, even if empty
    missing: dict[str, str] = field(default_factory=dict)               # … → the place where it is listed first
    problems: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def captioned(self) -> dict[str, tuple[str, ...]]:
        """The pictures that have at least one caption in it."""
        return {name: captions for name, captions in self.by_name.items() if captions}


# ── Metadata files and manifests, which decide on the pictures ──────────────────────────────────────────────────────


def read_metadata(tree: Tree, *, column: str | None, checking: bool) -> SourceCaptions:
    """Captions of the metadata files in `tree`; each picture takes them from the nearest file, looking upwards.

    A picture that its metadata file does not list is excluded. Raises DataError for a row that cannot be read, two
    formats side by side, or, unless `checking`, more than 1 % of rows that name files which do not exist.
    """
    names = _known_names(tree)
    tables = _metadata_by_directory(tree, names, column)
    source = SourceCaptions(_label([table.file for table in tables.values()], column), present=bool(tables))
    source.problems += [(file.name, reason) for file, reason in tree.irregular
                        if posixpath.basename(file.name).lower() in METADATA_NAMES]
    for name in names if tables else ():
        directory = next((above for above in _upwards(posixpath.dirname(name)) if above in tables), None)
        if directory is None:
            continue
        captions = tables[directory].by_name.get(name)
        if captions is None:
            source.excluded.add(name)
        elif captions:
            source.by_name[name] = captions
    _add(source, list(tables.values()))
    _check_missing(source, list(tables.values()), checking=checking)
    return source


def read_manifest(path: Path, *, column: str | None, checking: bool) -> tuple[Tree, SourceCaptions]:
    """A table given instead of a folder: its rows are the data set, and its folder holds the pictures.

    Raises DataError as `read_metadata` does, and for a file that is no table.
    """
    file = File(path.name, path)
    source = SourceCaptions(_label([file], column), present=True)
    tree = list_tree(path.parent)
    table = _read_table(file, PictureIndex(_known_names(tree)), column, required=True)
    assert table is not None
    _add(source, [table])
    pictures = tuple(picture for picture in tree.pictures if picture.name in table.by_name)
    unusable = tuple((name, reason) for name, reason in tree.unusable if name in table.by_name)
    source.by_name = {name: captions for name, captions in table.captioned.items()
                      if name in {picture.name for picture in pictures}}
    _check_missing(source, [table], checking=checking)
    stems = {posixpath.splitext(name)[0] for name in table.by_name}
    others = tuple(file for file in tree.others if file.base in stems)
    return Tree(path.parent, pictures, others, unusable, tree.irregular, tree.litter), source


def _known_names(tree: Tree) -> list[str]:
    """The names of the pictures, and of those that cannot be used: a table may list them as well."""
    return [*(picture.name for picture in tree.pictures),
            *(name for name, reason in tree.unusable if reason != UNREADABLE_FOLDER)]


def _metadata_by_directory(tree: Tree, names: list[str], column: str | None) -> dict[str, CaptionTable]:
    """Directory → its metadata file. A `metadata.json` that lists no picture describes something else.

    names: of all files that may be listed.
    """
    candidates = [file for file in tree.others if posixpath.basename(file.name).lower() in METADATA_NAMES]
    if not candidates:
        return {}
    index, stems = PictureIndex(names), {picture.base for picture in tree.pictures}
    files: dict[str, File] = {}
    tables: dict[str, CaptionTable] = {}
    for file in candidates:
        if file.base in stems:
            continue
        if file.suffix != ".json":
            if file.directory in files:
                raise DataError(f"two metadata files in one folder: {files[file.directory].name} and {file.name}",
                                hint="Keep one of them")
            files[file.directory] = file
        if table := _read_table(file, index, column, required=file.suffix != ".json"):
            tables.setdefault(file.directory, table)
    return tables


def _label(files: list[File], column: str | None) -> str:
    name = files[0].name if len(files) == 1 else f"{len(files)} metadata files"
    return f"{name}, column {column}" if column else name


def _upwards(directory: str) -> Iterator[str]:
    """'a/b' → 'a/b', 'a', ''."""
    yield directory
    while directory:
        directory = posixpath.dirname(directory)
        yield directory


def _add(source: SourceCaptions, tables: list[CaptionTable]) -> None:
    for table in tables:
        source.files.add(table.file.name)
        source.problems += table.problems
        source.warnings += table.warnings
        source.notes += table.notes


def _check_missing(source: SourceCaptions, tables: list[CaptionTable], *, checking: bool) -> None:
    missing = {name: place for table in tables for name, place in table.missing.items()}
    listed = sum(len(table.by_name) for table in tables) + len(missing)
    if len(missing) > MISSING_LIMIT * listed and not checking:
        raise DataError(f"{source.label} lists {listed} files, of which {len(missing)} "
                        f"{'is' if len(missing) == 1 else 'are'} not there, for example "
                        f"{next(iter(missing))[:100]!r} in {next(iter(missing.values()))}",
                        hint="file_name is relative to the folder of the metadata file")
    source.problems += [(name, "listed but not there") for name in missing]


# ── Tables of other names ───────────────────────────────────────────────────────────────────────────────────────────


def read_other_tables(
    tree: Tree, *, column: str | None, taken: set[str],
) -> tuple[list[CaptionTable], list[tuple[str, str]]]:
    """The tables that list pictures of `tree`, those with most captions first, and (name, reason) of the other files.

    taken: names of files that have been read as something else. Raises DataError if a table that lists pictures has a
    row that cannot be read.
    """
    files = [file for file in tree.others if file.name not in taken
             and file.suffix in TABLE_SUFFIXES][:MAX_TABLES]
    if not files:
        return [], []
    index, tables, unused = PictureIndex(_known_names(tree)), [], []
    for file in files:
        try:
            table = _read_table(file, index, column, required=False)
        except _Unrelated as error:
            if file.suffix != ".txt":           # a text that is no table
                unused.append((file.name, str(error)))
            continue
        if table is not None:
            tables.append(table)
        elif file.suffix != ".txt":
            unused.append((file.name, "lists none of the pictures"))
    tables.sort(key=lambda table: -len(table.captioned))
    return tables, unused


def captions_of_tables(tables: list[CaptionTable], column: str | None) -> tuple[SourceCaptions, list[CaptionTable]]:
    """The captions of the first table and of those that list other pictures, and the tables that are left over."""
    used: list[CaptionTable] = []
    captions: dict[str, tuple[str, ...]] = {}
    rest = []
    for table in tables:
        if table.captioned and not captions.keys() & table.captioned.keys():
            captions.update(table.captioned)
            used.append(table)
        else:
            rest.append(table)
    source = SourceCaptions(_label([table.file for table in used], column), bool(used), captions)
    _add(source, used)
    for table in used:
        source.problems += [(f"{table.file.name}: {name[:100]}", "listed but not there") for name in table.missing]
    return source, rest


def read_named_table(path: Path, tree: Tree, *, column: str | None) -> SourceCaptions:
    """The captions in the table at `path`, wherever it lies. Raises DataError if it lists none of the pictures."""
    inside = next((
        file for file in tree.others if isinstance(file.path, Path) and file.path.resolve() == path.resolve()), None)
    table = _read_table(inside or File(path.name, path), PictureIndex(_known_names(tree)), column, required=True)
    assert table is not None
    if not table.captioned:
        raise DataError(f"{path} holds no caption of the pictures in {tree.root}", hint=" ".join(table.warnings) or (
            f"It lists {len(table.missing):,} other files, for example {next(iter(table.missing))[:100]!r}"
            if table.missing else "It lists no file"))
    source, _ = captions_of_tables([table], column)
    source.label = f"{path}, column {column}" if column else str(path)
    return source


def captions_of_rows(
    name: str, rows: Iterable[dict[str, Any]], column: str | None, source: SourceCaptions,
) -> Iterator[tuple[str, ...]]:
    """The captions of each row of a table whose rows hold the pictures themselves. Problems and notes go to `source`.

    name: the name of the table. Raises DataError if it has no column `column`.
    """
    numbered = ((f"{name} row {number}", row) for number, row in enumerate(rows, 1))
    sample = list(itertools.islice(numbered, _SAMPLE))
    table = CaptionTable(File(name, Path(name)))
    columns = list(dict.fromkeys(key for _, row in sample for key in row))
    keys = _text_columns(table, sample, columns, "", column) if columns else ()
    source.warnings += table.warnings
    source.notes += table.notes
    for place, row in itertools.chain(sample, numbered):
        yield captions_under(keys, row, place, source)


# ── One table ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_table(file: File, index: PictureIndex, column: str | None, *, required: bool) -> CaptionTable | None:
    """The captions in a file. Unless it is required to be a table, None for one that lists no picture.

    Raises DataError if a row cannot be read, or if a required table has no column with names of files.
    """

    def is_picture(value: str) -> bool:
        return normalised(value) not in (*FILE_COLUMNS, *TEXT_COLUMNS) and index.find(
            value, directory=file.directory) is not None

    table = CaptionTable(file)
    source = SourceCaptions("", present=True)
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
        raise _Unrelated(str(error)) from error
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
        captions = captions_under(keys, row, place, source)
        name = index.find(written, directory=file.directory)
        if name is None:
            table.missing.setdefault(written, place)
        else:
            table.by_name[name] = tuple(dict.fromkeys((*table.by_name.get(name, ()), *captions)))
    table.problems = source.problems
    return table


class _Unrelated(Exception):
    """A file cannot be read as a table, and does not name any picture."""


def _names_pictures(file: File, sample: list[tuple[str, dict[str, Any]]], index: PictureIndex) -> bool:
    """Whether the rows before an error name a picture; or the text of a damaged JSON document does."""
    for _, row in sample:
        if any(isinstance(value, str) and len(value) < 1000 and index.find(value, directory=file.directory)
               for value in row.values()):
            return True
    if file.suffix not in (".json", ".jsonl", ".ndjson"):
        return False
    try:
        with file.path.open("rb") as stream:
            text = stream.read(64 * 1024).decode("utf-8", "replace")
    except OSError:
        return False
    return any(index.find(value, directory=file.directory) for value in re.findall(r'"([^"\n]{1,200})"', text)[:1000])


def _file_column(sample: list[tuple[str, dict[str, Any]]], columns: list[str], index: PictureIndex, file: File, *,
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
    filled = [name for name in known if any(captions_under((name,), row, "", SourceCaptions("", True))
                                            for _, row in sample)]
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
