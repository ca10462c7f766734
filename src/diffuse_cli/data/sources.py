"""What a user can give as a data set: a folder, an archive, shards, a table, or a list of files → its files.

Whatever it is, it becomes a `Tree`, so that the same rules find its captions. Nothing is unpacked.
"""

import dataclasses
import functools
import itertools
import os
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ..config import TABLE_SUFFIXES
from ..errors import DataError
from . import archives, metadata_files
from .arrow_files import ARROW_SUFFIXES
from .containers import File
from .file_lists import lines_of, listed_files
from .file_tree import AS_TEXT_STEP, FileList, Tree, merged, pictures_in_text
from .file_types import picture_suffixes
from .folders import list_tree
from .hub import fetch, is_address
from .shards import read_shards
from .sidecar_files import SIDECAR_SUFFIXES
from .source_captions import SourceCaptions
from .spilled import SpilledDict

_OF_DATASETS = ("dataset_info", "dataset_infos", "state", "dataset_dict", "stats", "requirements")     # about shards
_MAX_TABLES = 10                                # tables in which pictures elsewhere are looked for
_CAPTIONS = (*SIDECAR_SUFFIXES, *TABLE_SUFFIXES)          # suffixes of files that may hold captions of other places


def open_sources(
    paths: Sequence[Path], *, column: str | None, checking: bool,
) -> tuple[Tree, SourceCaptions | None]:
    """The files of a data set that lies in several places, as `open_source` returns those of one.

    The name of each file begins with the last part of its path's name, if there are several.
    """
    if len(paths) == 1:
        return open_source(paths[0], column=column, checking=checking)
    sources: list[tuple[str, SourceCaptions]] = []
    trees: list[tuple[str, Tree]] = []
    for path in paths:
        tree, source = _open_part(path, column, checking)
        if not tree.pictures and not any(name.lower().endswith(_CAPTIONS) for name in tree.others.names()):
            raise tree.no_picture(path)
        stem = path.absolute().name if path.is_dir() else path.stem
        taken = {prefix for prefix, _ in trees}
        prefix = next(name for name in (stem, *(f"{stem}-{number}" for number in range(2, len(paths) + 2)))
                      if name not in taken)
        trees.append((prefix, tree))
        if source is not None:
            sources.append((prefix, source))
    if not any(tree.pictures for _, tree in trees):
        raise trees[0][1].no_picture(paths[0])
    _check_no_picture_twice(paths, [tree for _, tree in trees])
    whole = merged(paths[0], trees)
    if any(tree.written_names for _, tree in trees):
        whole = dataclasses.replace(whole, written_names=functools.partial(_written_names, trees))
    return whole, _merged_captions(sources) if sources else None


def _written_names(trees: list[tuple[str, Tree]], notes: list[str]) -> SpilledDict[str]:
    """`Tree.written_names` of several trees: where one has none, its pictures are called by their own names."""
    known: SpilledDict[str] = SpilledDict()
    for prefix, tree in trees:
        written = tree.written_names(notes) if tree.written_names else None
        pairs = written.items() if written else ((name, name) for name in tree.pictures.names())
        known.update((f"{prefix}/{one}", f"{prefix}/{name}") for one, name in pairs)
    return known


def _merged_captions(sources: list[tuple[str, SourceCaptions]]) -> SourceCaptions:
    """The captions that came with the lists of pictures, of all lists together. sources: with the folders of names."""
    whole = SourceCaptions(" and ".join(source.label for _, source in sources), present=True)
    for prefix, source in sources:
        whole.by_name.update((f"{prefix}/{name}", captions) for name, captions in source.by_name.items())
        whole.warnings += source.warnings
        whole.notes += source.notes
        whole.problems += source.problems
    return whole


def _check_no_picture_twice(paths: Sequence[Path], trees: Sequence[Tree]) -> None:
    """Raise DataError if a picture of one place is one of another, as in `images captions.csv` or `images images/cats`.

    Only places within each other are looked at, and lists, whose pictures may lie anywhere.
    """
    folders = [(path if path.is_dir() else path.parent).resolve() for path in paths]
    places = zip(paths, folders, trees, strict=True)
    for (path, folder, tree), (other, beside, more) in itertools.combinations(places, 2):
        if not (folder.is_relative_to(beside) or beside.is_relative_to(folder) or (
                {path.suffix.lower(), other.suffix.lower()} & {*TABLE_SUFFIXES})):
            continue
        known = SpilledDict((name, None) for name in _places(tree))
        if twin := next((name for name in _places(more) if name in known), None):
            table = next((one for one in (path, other) if one.suffix.lower() in TABLE_SUFFIXES), None)
            raise DataError(f"{twin} is in {path} and in {other}", hint=(
                f"--captions {table} takes the captions from it" if table else "Give each folder once"))


def _places(tree: Tree) -> Iterator[str]:
    """Where the pictures lie that are files on the disk."""
    return (os.path.abspath(file.path) for file in tree.pictures if isinstance(file.path, Path))


def open_source(path: Path, *, column: str | None, checking: bool) -> tuple[Tree, SourceCaptions | None]:
    """The files of a data set, and its captions if they come with the list of pictures.

    Raises DataError if there is no picture, or if something cannot be read.
    """
    is_table = path.suffix.lower() in TABLE_SUFFIXES
    try:
        tree, captions = _open_any(path, column, checking)
    except DataError:
        _check_not_as_text(path)
        raise
    if not tree.pictures:
        _check_not_as_text(path)
    if not tree.pictures and is_table:
        raise DataError(f"{path} holds no pictures and lists none that are there", hint=(
            "Names in it are relative to its folder, and pictures at addresses must be downloaded first"))
    if not tree.pictures:
        _check_not_elsewhere(path, tree)
        raise tree.no_picture(path)
    return tree, captions


def _check_not_elsewhere(path: Path, tree: Tree) -> None:
    """Raise DataError if a table or list in a tree without pictures names some that lie elsewhere."""
    tables = (file.path for file in tree.others if file.suffix in TABLE_SUFFIXES)
    for table in (table for table in itertools.islice(tables, _MAX_TABLES) if isinstance(table, Path)):
        try:
            listed = _open_any(table, None, True)[0].pictures
        except DataError:
            continue
        if listed:
            raise DataError(f"{path} holds no picture, but {table} lists {len(listed):,} that lie elsewhere",
                            hint=f"Give {table} instead")


def _open_part(path: Path, column: str | None, checking: bool) -> tuple[Tree, SourceCaptions | None]:
    """`_open_any`, also of a table without pictures of its own, perhaps with the captions of others."""
    if path.suffix.lower() not in TABLE_SUFFIXES or not path.is_file():
        return _open_any(path, column, checking)
    try:
        tree, source = _open_any(path, column, checking)
    except DataError:                           # it is read again with the pictures of the other places
        tree, source = Tree(path, FileList(), FileList(), (), ()), None
    if tree.pictures:
        return tree, source
    return Tree(path, FileList(), FileList([File(path.name, path)]), (), ()), None


def _check_not_as_text(path: Path) -> None:
    """Raise DataError if a file holds pictures that are written as text."""
    if os.path.isfile(path) and (reason := pictures_in_text(path)):
        raise DataError(f"{path} {reason}", hint=AS_TEXT_STEP.capitalize())


def _open_any(path: Path, column: str | None, checking: bool) -> tuple[Tree, SourceCaptions | None]:
    """`open_source`, also of a folder or archive that holds no picture, perhaps the captions of others."""
    if is_address(path):
        path = fetch(path)
    suffix, captions = path.suffix.lower(), None
    notes: list[str] = []
    if path.is_dir():
        tree, captions = _open_folder(path, column)
    elif not path.exists():
        raise _missing(path)
    elif not path.is_file():
        raise DataError(f"{path} is not a regular file", hint="Give a folder of pictures")
    elif archives.is_archive(path.name):
        tree = archives.expand(path, [("", path)])
    elif suffix in ARROW_SUFFIXES and (found := read_shards([("", path)], path, column)):
        tree, captions = found
    elif suffix == ".txt" and (containers := _listed_containers(path, notes)):
        tree, captions = open_sources(containers, column=column, checking=checking)
        tree = dataclasses.replace(tree, notes=(*notes, *tree.notes))
    elif suffix == ".txt" and (listed := listed_files(path)):
        tree = listed
    elif suffix in TABLE_SUFFIXES:
        tree, captions = metadata_files.read_manifest(path, column=column, checking=checking)
    elif suffix in ARROW_SUFFIXES:
        raise DataError(f"no column of {path} holds files of pictures", hint=(
            "Save pixels as PNG files, and download pictures that are at addresses"))
    elif suffix in picture_suffixes():
        raise DataError(f"{path} is one picture", hint=f"Give the folder that holds the pictures: {path.parent}")
    else:
        raise DataError(f"{path} is neither a folder, an archive nor a table",
                        hint=f"Give a folder of pictures, a .zip, a .tar, or one of {' '.join(TABLE_SUFFIXES)}")
    return tree, captions


def _listed_containers(path: Path, notes: list[str]) -> list[Path]:
    """The folders, archives and shards that a file names, one a line; [] if a line names anything else.

    notes: gets a line about the encoding of the file, if it had to be guessed.
    """
    found = [path.parent / line for line in lines_of(path, notes)]
    return found if all(os.path.isdir(one) or (
        (archives.is_archive(one.name) or one.suffix.lower() in ARROW_SUFFIXES) and one.is_file())
        for one in found) else []


def _missing(path: Path) -> DataError:
    if re.match(r"[a-z][a-z0-9+.-]+:/", str(path)):
        return DataError(f"{path} is an address, from which nothing is downloaded",
                         hint="Give a folder of pictures, or hf://owner/name for a data set of the Hugging Face hub")
    pattern = any(letter in str(path) for letter in "*?{[")
    return DataError(f"{path} does not exist", hint=(
        "Without quotes, the shell finds the files; or give their folder" if pattern else "Give a folder of pictures"))


def _open_folder(path: Path, column: str | None) -> tuple[Tree, SourceCaptions | None]:
    """A folder of pictures; or, if it holds none, of shards."""
    tree = list_tree(path)
    if tree.pictures:
        return tree, None
    others = [(file, file.path) for file in tree.others if isinstance(file.path, Path)]
    shards = _by_prefix((file, location) for file, location in others if archives.is_archive(file.name))
    if shards:
        inside, names = archives.expand(path, shards), {location for _, location in shards}
        beside = (file for file in tree.others if file.path not in names)        # a table of captions, perhaps
        return dataclasses.replace(inside, others=_sorted(itertools.chain(inside.others, beside))), None
    tables = _by_prefix((file, location) for file, location in others if file.suffix in ARROW_SUFFIXES
                        and not posixpath.basename(file.name).startswith("cache-"))     # of datasets, beside the data
    found = read_shards(tables, path, column) if tables else None
    if found is None:
        return tree, None
    beside = (file for file in tree.others if file.suffix not in ARROW_SUFFIXES       # a table of captions, perhaps
              and posixpath.basename(file.base) not in _OF_DATASETS)
    texts = _sorted(itertools.chain(found[0].others, beside))
    return dataclasses.replace(found[0], others=texts, litter=tree.litter), found[1]


def _by_prefix(containers: Iterable[tuple[File, Path]]) -> list[tuple[str, Path]]:
    """Containers with the folder of their files: the name of each, without its suffix unless two differ only in it."""
    listed = list(containers)
    counts = Counter(file.base for file, _ in listed)
    return [(file.base if counts[file.base] == 1 else file.name, location) for file, location in listed]


def _sorted(files: Iterable[File]) -> FileList:
    result = FileList(files)
    result.sort()
    return result
