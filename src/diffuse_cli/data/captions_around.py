"""Names what lies around a folder of pictures and looks like their captions: in the folder above, and beside it.

Only for pictures without captions: a data set is the folder that its user gives, so nothing here is read for it.
"""

import functools
import itertools
import os
import posixpath
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ..config import CLASS_SUFFIXES, TABLE_SUFFIXES
from ..errors import DataError
from .annotations import OBJECTS
from .archives import first_files
from .caption_columns import is_caption_name, is_english
from .caption_tables import CaptionTable, UnrelatedFile, read_table
from .containers import DAMAGE, PACKED, File, Location, read_head
from .file_tree import PACKED as PACKED_FILES
from .file_tree import Tree
from .file_types import is_picture_name, picture_suffixes
from .name_captions import id_among_folders
from .numbered_texts import LANGUAGES, NumberedFiles, match_by_number
from .picture_index import KINDS, NEVER_CAPTIONS, PictureIndex, names_in
from .sidecar_texts import are_boxes
from .source_captions import SourceCaptions
from .spilled import SpilledDict
from .tables import JSON_LINES
from .text_files import NotText, decode_text

DOCUMENTS = {                                   # suffixes of tables and texts in other forms → what to do
    **dict.fromkeys((".xlsx", ".xlsm", ".xlsb", ".xls", ".ods", ".numbers", ".sqlite", ".sqlite3", ".db", ".accdb",
                     ".mdb", ".pkl", ".pickle", ".mat"), "; save the table as CSV"),
    **dict.fromkeys((".docx", ".doc", ".odt", ".pages", ".rtf"),
                    "; save the text as .txt, or as a table NAME, CAPTION in .csv"),
    ".xml": "; export them as JSON or CSV"}
TABLE_FORM = "has the name of a picture and its caption in each line, with a comma or tab between"
COPY = f", although it names pictures; copy them into a table, which {TABLE_FORM}"
_TEXTS = (".txt", ".caption", ".captions", ".tags", ".json", ".xmp", ".xml")
_ROWS = (".csv", ".tsv", *JSON_LINES, ".parquet")
_OTHERS = (".md", ".rst", ".html", ".htm", ".yaml", ".yml", ".toml", ".ini", ".cfg", ".srt", ".vtt", ".ass", ".log")
_LIMIT = 64 * 2**20                             # maximum bytes of a table that is looked into
_MAX_ENTRIES = 2000                             # maximum entries of a folder that are looked at
_MAX_TABLES = 100                               # tables that are looked into, and documents
MAX_ARCHIVES = 20                              # archives that are looked into
_MAX_TEXTS = 100                                # the same of a folder beside that of the pictures
ARCHIVES = (".zip", ".tar")
_NO_CAPTIONS = " lists pictures, without captions"
_MAX_LINES = 10                                 # folders and files that are named
_HEAD = 64 * 1024                               # bytes of a document in which names of pictures are looked for
# Parts of a spreadsheet or document that hold its texts.
_PARTS = ("xl/sharedStrings.xml", "xl/worksheets/sheet1.xml", "content.xml", "word/document.xml")


def name_captions_around(source: SourceCaptions, tree: Tree, index: PictureIndex,
                         names_folders: Callable[[Path], bool]) -> None:
    """Add a warning to `source` for what lies around the folder of a tree and may hold captions for its pictures.

    names_folders: whether a file gives names to the folders in the tree.
    """
    root = tree.root.absolute()
    above = root.parent
    files = [file for file in _files_in(above, _MAX_ENTRIES) if file.path != root]      # which may be a shard
    groups = [(above, above, files)]            # a folder; what to give to use it; its files
    tables, distant = list(groups[0][-1]), []
    for folder, common in sorted(_folders_around(root), key=lambda found: not is_english(found[0].name)):
        files = _files_in(folder, _MAX_TEXTS)
        if not any(file.suffix in picture_suffixes() for file in files):            # else they are captions of those
            groups.append((folder, common, files))
            if _is_kind(folder.name):
                tables += files
            else:
                distant += [file for file in files if file.suffix == ".parquet" or (
                    file.suffix in (*TABLE_SUFFIXES, *_TEXTS, *DOCUMENTS) and names_in(_words(file), index) > 1)]
    wanted = {file.base.casefold() for _, _, files in groups for file in files
              if file.suffix in (*_TEXTS, *_ROWS, *_OTHERS)}
    missed = {stem for written, name in (index.written_names(tree.pictures.names()) if wanted else ())
              if (stem := posixpath.splitext(posixpath.basename(written))[0].casefold()) in wanted
              and name not in source.by_name and name not in source.excluded}
    pictures = functools.cache(lambda: NumberedFiles(tree.pictures.names()))
    told: set[Location] = set()                 # texts of single pictures, which are no tables
    warnings: list[str] = []
    numbered: list[tuple[str, str]] = []        # the name of a folder in lower case, a warning
    for folder, common, files in groups:
        for suffixes, enough in ((_TEXTS, 1), (_ROWS, 2), (_OTHERS, 2)):
            texts = [file for file in files if file.suffix in suffixes]
            fitting = [file for file in texts if file.base.casefold() in missed]
            if len(fitting) >= enough and 2 * len(fitting) >= len(texts):
                told.update(file.path for file in fitting)
                (source.notes if _is_boxes(fitting[0]) else warnings).append(
                    _describe(folder, common, fitting[0], tree))
        is_for_these = folder == above or _is_kind(folder.name) or not _sub_folders(folder)
        if is_for_these and not tree.written_names:
            files = [file for file in files if file.path not in told]
            numbered += _by_number(folder, common, files, tree, pictures, told)
    languages = [line for name, line in numbered if name in LANGUAGES]          # one of them counts, the first
    warnings += (line for name, line in numbered if name not in LANGUAGES or line == languages[0])
    rest = [file for file in tables if file.path not in told]
    warnings += _tables(rest, index, names_folders if id_among_folders(tree) else lambda _: False)
    warnings += (line for line in _tables(distant, index, lambda _: False) if _NO_CAPTIONS not in line)
    warnings += _documents((*rest, *distant), index)
    warnings += _archives(rest, tree, index, pictures)
    warnings += (f"not read: {file.path}; unpack it if it holds captions of these pictures" for file in rest
                 if file.name.lower().endswith(PACKED_FILES) and file.suffix not in ARCHIVES and _is_kind(file.base))
    if len(warnings) > _MAX_LINES:
        warnings[_MAX_LINES:] = [f"{len(warnings) - _MAX_LINES:,} more folders and files like these lie around {root}"]
    source.warnings += warnings


def _describe(folder: Path, common: Path, first: File, tree: Tree) -> str:
    if first.suffix in (".xml", *_OTHERS):
        return f"{folder} holds {first.suffix} files with the names of these pictures, which are not read as captions" \
               f"{DOCUMENTS.get(first.suffix, '; copy the captions in them into .txt files')}"
    if _is_boxes(first):
        return f"{folder} holds texts with the names of these pictures, but they are boxes of objects, and no captions"
    step = f"write them into one table, which {TABLE_FORM}, and give it as --captions" if (
        first.suffix in _ROWS or tree.written_names) else _step(folder, common, tree)
    return f"{folder} holds texts with the names of these pictures, which are not used; {step}"


def _step(folder: Path, common: Path, tree: Tree) -> str:
    """What makes the texts of single pictures in a folder count."""
    if folder != common:
        return f"give {common}, in which both folders lie"
    return ("put them into a folder of their own, and give it behind the archive" if tree.root.is_file() else
            "copy them beside the pictures")


def _by_number(folder: Path, common: Path, files: list[File], tree: Tree, pictures: Callable[[], NumberedFiles],
               told: set[Location]) -> Iterator[tuple[str, str]]:
    """The name of a folder in lower case, and a warning of the texts in it that have the numbers of pictures, if any.

    told: gets these texts.
    """
    numbered = _with_numbers(files, pictures)
    for picture, text in itertools.islice(numbered.items(), 1):
        yield folder.name.lower(), (
            f"{folder} holds texts with the numbers of these pictures, which are not used; "
            f"{_step(folder, common, tree)}: with --captions sidecar, {text} is the caption of {picture}, and so on")
    texts = set(numbered.values())
    told.update(file.path for file in files if file.name in texts)


def describe_archive(path: Path, tree: Tree, index: PictureIndex, pictures: Callable[[], NumberedFiles]) -> str:
    """A warning, if the first files in an archive are captions of the pictures; "" otherwise."""
    try:
        members = first_files(path, _MAX_TEXTS)
    except DataError:
        return ""
    if not _holds_captions(members, index, pictures):
        return ""
    step = f"give {path} instead, for its pictures with them" if any(is_picture_name(file.name) for file in members) \
        else f"give it behind {tree.root}"
    return f"{path} holds captions with the names or numbers of these pictures, which are not used; {step}"


def _archives(files: Iterable[File], tree: Tree, index: PictureIndex, pictures: Callable[[], NumberedFiles],
              ) -> Iterator[str]:
    """A line for each archive that holds captions of the pictures, or is called so."""
    archives = (file.path for file in files if file.suffix in ARCHIVES)
    for path in itertools.islice(archives, MAX_ARCHIVES):
        assert isinstance(path, Path)
        if line := describe_archive(path, tree, index, pictures):
            yield line
        elif _is_kind(path.stem):
            yield f"{path} is not read; if it holds captions of these pictures, give it behind {tree.root}"


def _holds_captions(files: list[File], index: PictureIndex, pictures: Callable[[], NumberedFiles]) -> bool:
    """Whether some files are texts with the names or numbers of the pictures, or one is a table of captions of them."""
    texts = [file for file in files if file.suffix in _TEXTS and file.suffix != ".xml"]
    if 0 < len(texts) <= 2 * sum(index.find_only(file.base) is not None for file in texts):
        return not _is_boxes(texts[0])
    return bool(_with_numbers(files, pictures)) or any(
        table.by_name for table in (_read(file, index) for file in files) if table is not None)


def _with_numbers(files: list[File], pictures: Callable[[], NumberedFiles]) -> dict[str, str]:
    """Picture → the text with its number, of the first suffix of which there are such texts."""
    for suffix in _TEXTS:
        texts = (file.name for file in files if file.suffix == suffix)
        if found := dict(match_by_number(texts, pictures, spare=SpilledDict(), loosely=True)):
            return found
    return {}


def _is_boxes(file: File) -> bool:
    try:
        return file.suffix == ".txt" and are_boxes(decode_text(read_head(file.path, 4096))[0].splitlines())
    except (OSError, NotText):
        return False


def _folders_around(root: Path) -> Iterator[tuple[Path, Path]]:
    """The folders beside a folder, and for …/images/train such as …/captions/train; with the folder above both."""
    for folder in _sub_folders(root.parent):
        if folder.name != root.name:
            yield folder, root.parent
    for folder in _sub_folders(root.parent.parent) if root.parent.name.casefold() in KINDS else ():
        if folder.name.casefold() in KINDS and folder.name != root.parent.name:
            yield folder / root.name, root.parent.parent
            yield folder, root.parent.parent


def _is_kind(name: str) -> bool:
    """Whether the name of a folder says that it holds captions or the like: annotations, or cats_captions."""
    return not KINDS.isdisjoint(re.split(r"[\W_]+", name.casefold()))


def _entries(folder: Path, limit: int) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(itertools.islice(entries, limit), key=lambda entry: entry.name)
    except OSError:
        return []


def _sub_folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _entries(folder, _MAX_ENTRIES) if entry.is_dir(follow_symlinks=False)]


def _files_in(folder: Path, limit: int) -> list[File]:
    """The regular files among the first entries of a folder; none if it cannot be read."""
    try:
        return [File(entry.name, Path(entry.path)) for entry in _entries(folder, limit) if entry.is_file()]
    except OSError:
        return []


def _tables(files: Iterable[File], index: PictureIndex, names_folders: Callable[[Path], bool]) -> Iterator[str]:
    """A line for each file that is a table of the pictures, or names the classes that are their folders."""
    tables = (file for file in files if file.suffix in CLASS_SUFFIXES)
    for file in itertools.islice(tables, _MAX_TABLES):
        path = file.path
        assert isinstance(path, Path)
        if _size(path) > _LIMIT:
            if is_caption_name(file.base):
                yield f"{path} is too large to be looked into; --captions {path} reads captions from it"
            continue
        table = _read(file, index)
        if table is None and names_folders(path):
            yield f"{path} holds names for these folders; --captions {path} uses them"
        elif table is not None and table.by_name:
            yield (f"{path} holds captions for {len(table.by_name):,} of these pictures, which are not used; "
                   f"--captions {path} uses them")
        elif table is not None and table.listed:
            yield f"{path}{_NO_CAPTIONS}" + (
                f" but with objects in them; --captions {path} --caption-column {OBJECTS} takes these"
                if table.has_objects else "")


def _read(file: File, index: PictureIndex) -> CaptionTable | None:
    """A table of the pictures; None for another file, or for a table that cannot be read to its end."""
    try:
        return read_table(file, index, None, required=False) if file.suffix in TABLE_SUFFIXES else None
    except (UnrelatedFile, DataError):
        return None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _documents(files: Iterable[File], index: PictureIndex) -> Iterator[str]:
    """A line for each spreadsheet, document or XML that names the pictures, or says that it holds captions.

    Other texts must name them.
    """
    documents = (file for file in files if file.suffix in DOCUMENTS or (
        file.suffix in (*_OTHERS, ".caption", ".captions", ".tags") and file.base.lower() not in NEVER_CAPTIONS))
    for file in itertools.islice(documents, _MAX_TABLES):
        if (file.suffix in DOCUMENTS and is_caption_name(file.base)) or names_in(_words(file), index) > 1:
            yield f"not read as captions: {file.path}{DOCUMENTS.get(file.suffix, COPY)}"


def _words(file: File) -> bytes:
    """The first texts in a document, with the signs of its format; those of a packed one are unpacked."""
    try:
        with zipfile.ZipFile(str(file.path)) as packed:
            entries = [packed.getinfo(part) for part in _PARTS if part in packed.namelist()]
            return b" ".join(packed.open(entry).read(_HEAD) for entry in entries if entry.compress_type in PACKED)
    except DAMAGE:
        pass
    try:
        return read_head(file.path, _HEAD)
    except OSError:
        return b""
