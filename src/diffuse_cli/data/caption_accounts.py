"""Accounts for every file that looks like captions: it was read, or the user is told why not and how to use it."""

import contextlib
import itertools
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from ..config import TABLE_SUFFIXES
from ..errors import DataError
from . import folder_texts
from .caption_tables import CaptionTable, UnrelatedFile, read_table
from .caption_text import SourceCaptions
from .containers import File, read_head
from .file_types import picture_suffixes
from .folders import Tree
from .metadata_files import MAX_TABLES, known_names
from .picture_index import PictureIndex
from .sidecar_files import NOT_SIDECARS
from .text_files import NotText, decode_text

CAPTION_SUFFIXES = (*TABLE_SUFFIXES, ".caption", ".captions", ".tags", ".xlsx", ".xls", ".ods", ".docx", ".odt", ".rtf",
                    ".yaml", ".yml", ".xml", ".xmp", ".html", ".md", ".cls")
# Suffixes of files that are not read → what to do. The texts without a remedy hold captions least often.
_REMEDIES = (((".xlsx", ".xls", ".ods"), "; save the table as CSV"), ((".xml",), "; export them as JSON or CSV"),
             ((".docx", ".odt", ".rtf"), "; save the text as .txt, or as a table NAME, CAPTION in .csv"),
             ((*TABLE_SUFFIXES, ".caption", ".captions", ".tags"),
              "; a table has the name of a picture and its caption in each line, with a comma or tab between"),
             ((".yaml", ".yml", ".xmp", ".html", ".md", ".cls"), ""))
_OUTSIDE_LIMIT = 64 * 2**20                     # maximum bytes of a table beside the folder that is looked into
_OUTSIDE_ENTRIES = 2000                         # maximum entries of the folder above that are looked at


def account(source: SourceCaptions, tree: Tree, *, kind: str, left: list[CaptionTable], unused: list[tuple[str, str]],
            names: SourceCaptions, read: set[str]) -> None:
    """Add a note or warning to `source` for each file that may hold captions and is not used.

    kind: of the source. left: tables that list pictures and are not used. unused: other tables, with the reason. names:
    captions from names. read: the names of all files that were read.
    """
    without = [picture.name for picture in tree.pictures
               if picture.name not in source.by_name and picture.name not in source.excluded]
    from_files = bool(source.by_name) and kind not in ("folder", "filename")
    for table in (table for table in left if table.captioned):
        missed = len(table.captioned.keys() & set(without))
        (source.warnings if missed else source.notes).append(
            f"{table.file.name} holds captions for {len(table.captioned):,} pictures and is not used; "
            f"--captions {table.file.path} uses it")
    if silent := [table for table in left if not table.captioned and table.warnings]:
        (source.notes if from_files else source.warnings).append(
            silent[0].warnings[0] + (f"; {len(silent) - 1:,} more like it" if len(silent) > 1 else ""))
    (source.notes if source.by_name else source.warnings).extend(
        f"{name} is not used: {reason}" for name, reason in unused)
    if kind not in ("folder", "filename", "none") and names.present and names.label != "file name":
        what = "names of folders are" if names.label.startswith("folder") else f"{names.label}: texts about folders are"
        (source.warnings if any(name in names.by_name for name in without) else source.notes).append(
            f"{what} not used as captions (for example “{next(iter(names.by_name.values()))[0]}”); "
            "--captions folder would use them")
    if kind == "none" and (part := folder_texts.id_among_folders(tree)):
        (source.notes if part.isdecimal() else source.warnings).append(      # numbers may count files, or be years
            f"names of folders such as {part} say nothing; a file classes.csv beside them, with a line for each "
            f"(“{part}, a word”), makes them captions")
    _beside_pictures(source, tree, read | {table.file.name for table in left} | {name for name, _ in unused})
    if without:
        _in_the_folder_above(source, tree, without)


def _beside_pictures(source: SourceCaptions, tree: Tree, known: set[str]) -> None:
    """Files in the tree that look like captions, and of which nothing was said yet."""
    known = known | {name.split(": ")[0] for name, _ in source.problems}
    stems = {picture.base.casefold() for picture in tree.pictures}
    twins: dict[str, tuple[int, File]] = {}     # suffix → number of files, the first of them
    others: list[File] = []
    archives = [file.name for file in tree.others if file.suffix in (".zip", ".tar", ".tgz", ".gz", ".xz", ".arrow")]
    if archives:
        source.notes.append(f"{archives[0]}{_and_more(archives)}: not read, because pictures lie beside; "
                            f"give {tree.root / archives[0]} to read it")
    for file in tree.others:
        if file.name in known:
            continue
        if file.base.casefold() in stems and file.suffix not in (".xml", ".npz", ".npy", ".pt", ".xmp"):
            count, first = twins.get(file.suffix, (0, file))
            twins[file.suffix] = count + 1, first
        elif file.suffix in CAPTION_SUFFIXES and (
                posixpath.basename(file.name).lower().split(".")[0] not in NOT_SIDECARS):
            others.append(file)
    for suffix, (count, example) in twins.items():
        if _is_text(example):
            (source.notes if source.by_name else source.warnings).append(
                f"{count:,} {suffix} files lie beside pictures and are not used; "
                f"--caption-ext {suffix} would read captions from them")
    index = PictureIndex(known_names(tree)) if any(file.suffix == ".txt" for file in others) else None
    lists = [file for file in others if file.suffix == ".txt" and index and _lists_pictures(file, index)]
    if lists:
        source.notes.append(f"{lists[0].name}{_and_more(lists)}: lists of pictures, without captions")
    for suffixes, remedy in _REMEDIES:
        files = [file for file in others if file.suffix in suffixes and file not in lists]
        if files:
            (source.notes if source.by_name or not remedy else source.warnings).append(
                f"not read as captions: {files[0].name}{_and_more(files)}{remedy}")


def _lists_pictures(file: File, index: PictureIndex) -> bool:
    """Whether the first lines of a text are names of pictures."""
    try:
        text, _ = decode_text(read_head(file.path, 4096))
    except (OSError, NotText):
        return False
    lines = [line for line in text.splitlines()[:20] if line.strip()][:-1] or text.splitlines()
    return bool(lines) and all(len(line) < 1000 and index.find(line.split()[0]) for line in lines if line.strip())


def _and_more(names: Sequence[str | File]) -> str:
    return f" and {len(names) - 1:,} more" if len(names) > 1 else ""


def _is_text(file: File) -> bool:
    """Whether a file holds words."""
    try:
        text, _ = decode_text(read_head(file.path, 4096))
    except (OSError, NotText):
        return False
    return any(letter.isalpha() for letter in text) and "<?xml" not in text


def _in_the_folder_above(source: SourceCaptions, tree: Tree, without: list[str]) -> None:
    """Tables and folders of texts beside the folder, which hold captions of pictures that have none."""
    above = tree.root.absolute().parent
    try:
        with os.scandir(above) as entries:
            listed = sorted(itertools.islice(entries, _OUTSIDE_ENTRIES), key=lambda entry: entry.name)
    except OSError:
        return
    stems = {posixpath.splitext(posixpath.basename(name))[0].casefold() for name in without}
    for entry in listed:
        with contextlib.suppress(OSError):
            if entry.is_dir(follow_symlinks=False) and entry.name != tree.root.absolute().name and _holds_texts(
                    Path(entry.path), stems):
                source.warnings.append(f"{entry.path} holds texts with the names of these pictures, which are not "
                                       f"used; give {above}, in which both folders lie")
    index, has_ids = PictureIndex(known_names(tree)), bool(folder_texts.id_among_folders(tree))
    tables = [Path(entry.path) for entry in listed if _may_be_table(entry) and entry.name != tree.root.absolute().name]
    for path in tables[:MAX_TABLES]:
        try:
            table = read_table(File(path.name, path), index, None, required=False)
        except (UnrelatedFile, DataError):      # no table, or one that cannot be read to its end
            table = None
        if table is None and has_ids and folder_texts.read_named_file(path, tree):
            source.warnings.append(f"{path} holds names for these folders; --captions {path} uses them")
        elif table is not None and table.captioned:
            source.warnings.append(f"{path} holds captions for {len(table.captioned):,} of these pictures, which are "
                                   f"not used; --captions {path} uses them")


def _may_be_table(entry: os.DirEntry[str]) -> bool:
    """Whether this is a regular file, not too large, with the suffix of a table."""
    try:
        return (os.path.splitext(entry.name)[1].lower() in TABLE_SUFFIXES and entry.is_file()
                and entry.stat().st_size <= _OUTSIDE_LIMIT)
    except OSError:
        return False


def _holds_texts(directory: Path, stems: set[str]) -> bool:
    """Whether at least half of the first files in a folder are texts named like pictures."""
    try:
        with os.scandir(directory) as entries:
            files = [File(entry.name, Path(entry.path)) for entry in itertools.islice(entries, 100)
                     if entry.is_file(follow_symlinks=False)]
    except OSError:
        return False
    if any(file.suffix in picture_suffixes() for file in files):        # texts of the pictures beside them
        return False
    texts = [file for file in files if file.suffix in (".txt", ".caption", ".json", ".tags")
             and file.base.casefold() in stems]
    return bool(texts) and 2 * len(texts) >= len(files)
