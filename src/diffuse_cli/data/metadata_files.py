"""Captions from tables: `metadata.jsonl` and its like in a folder, a table of another name, or a manifest.

A metadata file and a manifest also decide which pictures belong to the data set; a table of another name does not.
Standard library only, except for parquet.
"""

import contextlib
import functools
import itertools
import posixpath
import re
from collections.abc import Container, Iterator
from pathlib import Path

from ..config import TABLE_SUFFIXES
from ..errors import DataError
from .annotations import normalised
from .arrow_files import holds_pictures
from .caption_columns import is_english
from .caption_tables import CaptionTable, UnrelatedFile, read_table
from .containers import File
from .file_lists import files_elsewhere
from .file_tree import FileList, Tree, merged
from .file_types import is_picture_name
from .folders import list_tree
from .picture_index import FOLDER_TEXTS, PictureIndex, plain_path
from .source_captions import SourceCaptions
from .spilled import SpilledDict, SpilledTuples
from .tables import JSON_LINES

METADATA_NAMES = tuple(f"metadata{suffix}" for suffix in TABLE_SUFFIXES if suffix not in (".txt", ".token"))
MISSING_LIMIT = 0.01                            # maximum share of rows that name a file which does not exist
_TABLES_ALONE = (".csv", ".tsv", *JSON_LINES, ".parquet")          # which are no captions of one picture
_SUBMISSION = re.compile(r"submission$", re.IGNORECASE)     # of a contest: a form whose answers are not filled in
MAX_TABLES = 100                                # files of other names that are tried as tables
_FEW = 0.1                                      # share of pictures and rows below which names may be alike by chance


# ── Metadata files and manifests, which decide on the pictures ──────────────────────────────────────────────────────


def read_metadata(tree: Tree, index: PictureIndex, *, column: str | None, checking: bool) -> SourceCaptions:
    """Captions of the metadata files in `tree`; each picture takes them from the nearest file, looking upwards.

    A picture that its metadata file does not list is excluded. Raises DataError for a row that cannot be read, two
    formats side by side, or, unless `checking`, more than 1 % of rows that name files which do not exist.
    """
    tables = _metadata_by_directory(tree, index, column)
    source = SourceCaptions(_label([table.file for table in tables.values()], column), present=bool(tables))
    source.problems += [(file.name, reason) for file, reason in tree.irregular
                        if posixpath.basename(file.name).lower() in METADATA_NAMES]
    for name in tree.known_names() if tables else ():
        directory = next((above for above in _upwards(posixpath.dirname(name)) if above in tables), None)
        if directory is None:
            continue
        if captions := tables[directory].by_name.get(name):
            source.by_name[name] = captions
        elif name not in tables[directory].listed:
            source.excluded[name] = None
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
    index = PictureIndex(tree.known_names, root=path.parent.absolute())
    table = read_table(file, index, column, required=True)
    assert table is not None
    more, places = files_elsewhere(path, table.missing)
    if places:
        written = functools.partial(_written_names, tree, places)
        table = read_table(file, PictureIndex(tree.known_names, written), column, required=True)
        assert table is not None
        tree = merged(path.parent, [("", tree), ("", more)])
    _add(source, [table])
    pictures = FileList(picture for picture in tree.pictures if picture.name in table.listed)
    unusable = tuple((name, reason) for name, reason in tree.unusable if name in table.listed)
    source.by_name.update((name, captions) for name, captions in table.by_name.items() if tree.is_picture(name))
    _check_missing(source, [table], checking=checking)
    bases = SpilledDict((posixpath.splitext(name)[0], None) for name in table.listed)
    others = FileList(other for other in tree.others if other.base in bases or (
        other.path != path and (other.suffix in _TABLES_ALONE or _is_about_folder(other, tree.directories))))
    return Tree(path.parent, pictures, others, unusable, tree.irregular, tree.litter), source


def _is_about_folder(file: File, folders: Container[str]) -> bool:
    return file.base in folders or (
        file.directory in folders and normalised(posixpath.basename(file.base)) in FOLDER_TEXTS)


def _written_names(tree: Tree, places: SpilledDict[str], _: list[str]) -> SpilledDict[str]:
    """What a table calls the pictures below its folder, and those elsewhere → their names."""
    return SpilledDict(itertools.chain(((name, name) for name in tree.known_names()), (
        (plain_path(written), name) for written, name in places.items())))


def _metadata_by_directory(tree: Tree, index: PictureIndex, column: str | None) -> dict[str, CaptionTable]:
    """Directory → its metadata file. A `metadata.json` that lists no picture describes something else."""
    candidates = [file for file in tree.others if posixpath.basename(file.name).lower() in METADATA_NAMES]
    files: dict[str, File] = {}
    tables: dict[str, CaptionTable] = {}
    for file in candidates:
        if any(posixpath.splitext(name)[0] == file.base for name in tree.by_base.get(file.base.casefold())):
            continue
        if file.suffix != ".json":
            if file.directory in files:
                raise DataError(f"two metadata files in one folder: {files[file.directory].name} and {file.name}",
                                hint="Keep one of them")
            files[file.directory] = file
        with contextlib.suppress(UnrelatedFile):
            if table := read_table(file, index, column, required=file.suffix != ".json"):
                tables.setdefault(file.directory, table)
    return tables


def _label(files: list[File], column: str | None) -> str:
    are_metadata = all(posixpath.basename(file.name).lower() in METADATA_NAMES for file in files)
    name = files[0].name if len(files) == 1 else f"{len(files):,} {'metadata files' if are_metadata else 'tables'}"
    return f"{name}, column {column}" if column else name


def _upwards(directory: str) -> Iterator[str]:
    """'a/b' → 'a/b', 'a', ''."""
    yield directory
    while directory:
        directory = posixpath.dirname(directory)
        yield directory


def _add(source: SourceCaptions, tables: list[CaptionTable]) -> None:
    for table in tables:
        source.files[table.file.name] = None
        source.problems += table.problems
        source.warnings += table.warnings
        source.notes += table.notes


def _check_missing(source: SourceCaptions, tables: list[CaptionTable], *, checking: bool) -> None:
    missing = {name: place for table in tables for name, place in table.missing.items()}
    listed = sum(len(table.listed) for table in tables) + len(missing)
    if len(missing) > MISSING_LIMIT * listed and not checking:
        raise DataError(f"{source.label} lists {listed:,} files, of which {len(missing):,} "
                        f"{'is' if len(missing) == 1 else 'are'} not there, for example "
                        f"{next(iter(missing))[:100]!r} in {next(iter(missing.values()))}",
                        hint="file_name is relative to the folder of the metadata file")
    source.problems += [(name, "listed but not there") for name in missing]


# ── Tables of other names ───────────────────────────────────────────────────────────────────────────────────────────


def read_other_tables(
    tree: Tree, index: PictureIndex, *, column: str | None, taken: Container[str],
) -> tuple[list[CaptionTable], list[tuple[str, str]]]:
    """The tables that list pictures of `tree`, those with most captions first, and (name, reason) of the other files.

    taken: names of files that have been read as something else. Raises DataError if a table that lists pictures has a
    row that cannot be read.
    """
    unusable = {posixpath.splitext(name)[0] for name, _ in tree.unusable}         # their texts are no tables either
    candidates = (file for file in tree.others if file.suffix in TABLE_SUFFIXES and file.name not in taken
                  and not (file.suffix == ".txt" and file.base in unusable) and not _SUBMISSION.search(file.base))
    files = list(itertools.islice(candidates, MAX_TABLES))
    tables, unused = [], []
    for file in files:
        try:
            if file.suffix == ".parquet" and isinstance(file.path, Path) and holds_pictures(file.path):
                unused.append((file.name, f"it holds pictures, and others lie beside; give {file.path} to read them"))
                continue
            table = read_table(file, index, column, required=False)
        except UnrelatedFile as error:
            if file.suffix != ".txt":           # a text that is no table
                reason = str(error)
                unused.append((file.name, reason.removeprefix(f"{file.name} ")))
            continue
        if table is not None and _is_about_others(table, len(tree.pictures)):
            unused.append((file.name, f"lists {len(table.listed):,} of the pictures, without suffixes and perhaps by "
                                     f"chance, and {len(table.missing):,} other names; --captions {file.path} uses it"))
        elif table is not None:
            tables.append(table)
        elif file.suffix != ".txt":
            unused.append((file.name, "lists none of the pictures"))
    tables.sort(key=lambda table: (-len(table.by_name), table.rank, "caption" not in table.file.name.lower(),
                                   not is_english(table.file.base), len(table.file.name)))
    return tables, unused


def _is_about_others(table: CaptionTable, pictures: int) -> bool:
    """Whether a table seems to name pictures by chance: few of them and of its rows, and by words without a suffix."""
    return len(table.listed) < _FEW * min(pictures, len(table.missing)) and not any(map(is_picture_name, table.missing))


def captions_of_tables(
    tables: list[CaptionTable], *taken: Container[str],
) -> tuple[SourceCaptions, list[CaptionTable]]:
    """The captions of the first table and of those that list other pictures, and the tables that are left over.

    taken: names of pictures that have captions. Tables that list them are left over.
    """
    used: list[CaptionTable] = []
    captions = SpilledTuples()
    rest = []
    for table in tables:
        if table.by_name and not any(name in some for name in table.by_name for some in (captions, *taken)):
            captions.update(table.by_name.items())
            used.append(table)
        else:
            rest.append(table)
    source = SourceCaptions(_label([table.file for table in used], None), bool(used), captions)
    _add(source, used)
    for table in used:
        if len(table.missing) > len(table.listed):      # the data set is a part of another
            source.notes.append(f"{table.file.name} lists {len(table.missing):,} more files, which are not there, for "
                                f"example {next(iter(table.missing))[:100]}")
        else:
            source.problems += [(f"{table.file.name}: {name[:100]}", "listed but not there") for name in table.missing]
    return source, rest


def read_named_table(path: Path, tree: Tree, index: PictureIndex, *, column: str | None) -> SourceCaptions:
    """The captions in the table at `path`, wherever it lies. Raises DataError if it lists none of the pictures."""
    if re.search(r"(^|/)[a-z]{2,6}:/", str(path)):
        raise DataError(f"{path} is an address, from which nothing is downloaded", hint="Download the table first")
    if not path.is_file():
        there = tree.root / path.name
        raise DataError(f"{path} is not a regular file" if path.exists() else f"there is no file {path}", hint=(
            f"--captions {there} takes the one in the data set" if there.is_file() else
            "--captions takes the name of a source, or a table"))
    if path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"{path} gives no names to the folders of the pictures", hint=(
            "Under names: it has a list of classes, or a map from folders to classes"))
    inside = next((
        file for file in tree.others if isinstance(file.path, Path) and file.path.resolve() == path.resolve()), None)
    table = read_table(inside or File(path.name, path), index, column, required=True)
    assert table is not None
    if not table.by_name:
        others = f"{len(table.missing):,} other file{'s' if len(table.missing) > 1 else ''}"
        hint = f"It lists {others}, for example {next(iter(table.missing))[:100]!r}" if table.missing else (
            "It lists no file")
        raise DataError(f"{path} holds no caption of the pictures in {tree.root}",
                        hint=" ".join(table.warnings) or "; ".join((hint, *index.notes)))
    source, _ = captions_of_tables([table])
    source.label = f"{path}, column {column}" if column else str(path)
    return source
