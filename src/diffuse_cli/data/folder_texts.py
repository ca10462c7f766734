"""Texts about whole folders: cat/caption.txt, tables from folders to captions, and the names of classes in them."""

import itertools
import posixpath
import re
from collections import Counter
from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..config import CLASS_SUFFIXES
from .annotations import normalised
from .caption_tables import CaptionTable
from .class_names import class_names
from .containers import File
from .file_tree import Tree
from .name_captions import is_id
from .name_words import words_of_name
from .picture_index import FOLDER_TEXTS
from .sidecar_files import SIDECAR_SUFFIXES
from .sidecar_texts import SidecarReader
from .source_captions import SourceCaptions
from .spilled import SpilledTuples

_MAX_IDS = 100_000                              # different ids in captions that are looked at
_ONE_CAPTION = 5                                # maximum lines of a text that is named like a folder


@dataclass
class FolderTexts:
    """What files say about whole folders."""

    captions: dict[str, tuple[str, ...]] = field(default_factory=dict)      # folder → captions of the pictures in it
    names: dict[str, str] = field(default_factory=dict)     # the last part of a folder's name → the words it stands for
    files: list[str] = field(default_factory=list)          # names of the files that hold the captions
    names_file: str = ""                                    # the same of the names
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)

    def label(self) -> str:
        """'cat/caption.txt and 3 more'."""
        return self.files[0] + (f" and {len(self.files) - 1:,} more" if len(self.files) > 1 else "")

    def captions_of(self, names: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Those of the pictures for which there are captions, with those of the nearest folder, looking upwards."""
        if not self.captions:
            return
        for name in names:
            found = (self.captions[folder] for folder in _upwards(posixpath.dirname(name)) if folder in self.captions)
            if captions := next(found, ()):
                yield name, captions


def read_folder_texts(tree: Tree, *, joined: bool, taken: Container[str]) -> FolderTexts:
    """What the files of a tree say about its folders. taken: names of files that are captions of single pictures."""
    texts = FolderTexts()
    pictures: Counter[str] = Counter()          # folder → the number of pictures in it and below
    for directory, count in tree.directories.items():
        pictures.update(dict.fromkeys(_upwards(directory), count))
    parts = {posixpath.basename(directory) for directory in pictures if directory}
    texts.names, texts.names_file = class_names(
        parts, _files_with(CLASS_SUFFIXES, tree, taken), texts.notes)
    _read_captions(texts, (file for file in _files_with(SIDECAR_SUFFIXES, tree, taken)
                           if file.name != texts.names_file), pictures, joined)
    return texts


def _files_with(suffixes: Collection[str], tree: Tree, taken: Container[str]) -> Iterator[File]:
    """The files with one of these suffixes that are not taken."""
    return (tree.others[position] for position, name in enumerate(tree.others.names())
            if posixpath.splitext(name)[1].lower() in suffixes and name not in taken)


def read_named_file(path: Path, tree: Tree) -> FolderTexts | None:
    """The names of folders or classes in a file, wherever it lies; None if it gives no names to the folders."""
    parts = {part for directory in tree.directories for part in directory.split("/") if part}
    texts = FolderTexts(names_file=path.name)
    texts.names, _ = class_names(parts, [File(path.name, path)], texts.notes)
    return texts if texts.names else None


def names_classes(file: File, tree: Tree, listed: int) -> bool:
    """Whether a file names the classes of more pictures than the `listed` ones that it may hold captions of.

    “0,zero” is the name of the class 0, although there is a picture `0/0.png`.
    """
    if 2 * listed > len(tree.pictures):
        return False
    names, _ = class_names({part for directory in tree.directories for part in directory.split("/") if is_id(part)},
                           [file], [])
    return listed < sum(count for directory, count in tree.directories.items()
                        if not names.keys().isdisjoint(directory.split("/")))


def name_ids(source: SourceCaptions, tree: Tree, taken: Container[str], left: list[CaptionTable]) -> str:
    """Replace captions that are ids of classes, all of them, by the names that a file gives; warn if there is none.

    taken: names of files that are captions. left: tables among these that are not used, although they list pictures:
    “0,cat” may be about a class, and not about a picture that is called so. The one that gives the names is removed.
    → the name of the file that gives the names; "" without any
    """
    ids: set[str] = set()
    for _, captions in source.by_name.items():
        if not all(map(is_id, captions)):
            return ""
        if len(ids) < _MAX_IDS:
            ids.update(captions)
    about_classes = [table.file for table in left if len(table.by_name) <= len(ids)]
    candidates = itertools.chain(_files_with(CLASS_SUFFIXES, tree, taken), about_classes)
    names, file = class_names(ids, candidates, source.notes)
    left[:] = [table for table in left if table.file.name != file]
    if names:
        source.by_name = SpilledTuples(
            (name, tuple(dict.fromkeys(names.get(one, one) for one in captions)))
            for name, captions in source.by_name.items())
        source.label += f" by {file}"
    else:
        source.warnings.append(f"the captions are only numbers, such as {min(ids)}; a file classes.txt beside the "
                               "pictures, with the name of one class in each line, gives them words")
    return file


def _upwards(directory: str) -> Iterator[str]:
    """'a/b' → 'a/b', 'a', ''."""
    yield directory
    while directory:
        directory = posixpath.dirname(directory)
        yield directory


def _read_captions(texts: FolderTexts, files: Iterable[File], pictures: Counter[str], joined: bool) -> None:
    """Captions in texts that are named for it, as in cat/caption.txt, or named like their folder, as in cat.txt."""
    chosen: list[tuple[File, str]] = []         # with the folders that they describe
    for file in files:
        stem = posixpath.basename(file.base)
        if file.base in pictures and _means_something(stem):
            chosen.append((file, file.base))
        elif file.directory in pictures and (
                normalised(stem) in FOLDER_TEXTS or (stem == posixpath.basename(file.directory) != "")):
            chosen.append((file, file.directory))
    source = SourceCaptions("", present=False)
    reader = SidecarReader(source, joined)
    reader.read(file for file, _ in chosen)
    texts.problems = source.problems
    texts.notes += reader.notes_of_encodings()
    for file, folder in chosen:
        captions = reader.captions.get(file.name, ())
        is_named_so = normalised(posixpath.basename(file.base)) in FOLDER_TEXTS
        if not captions or any(re.match(r"\S+\.\w{3,4}\b", caption) for caption in captions):     # names of files
            continue
        if len(captions) > 1 and len(captions) == pictures[folder]:
            texts.warnings.append(f"{file.name} has a line for each of the {pictures[folder]:,} pictures, but does not "
                                  "say whose it is, and is not used; begin each line with the name of a file and a tab")
            texts.files.append(file.name)
        elif is_named_so or len(captions) <= _ONE_CAPTION:
            texts.captions.setdefault(folder, captions)
            texts.files.append(file.name)


def _means_something(part: str) -> bool:
    return bool(words_of_name(part, numbers=True)) or is_id(part)
