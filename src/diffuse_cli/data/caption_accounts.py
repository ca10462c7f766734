"""Accounts for every file that looks like captions: it was read, or the user is told why not and how to use it."""

import functools
import itertools
import posixpath
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ..config import TABLE_SUFFIXES
from .caption_columns import is_caption_name
from .caption_tables import CaptionTable
from .captions_around import ARCHIVES, COPY, DOCUMENTS, MAX_ARCHIVES, TABLE_FORM, describe_archive, name_captions_around
from .containers import File, read_head
from .file_columns import AMBIGUOUS
from .file_tree import PACKED, Tree
from .file_types import UNKNOWN, judge_suffix, picture_suffixes
from .metadata_files import MAX_TABLES
from .name_captions import id_among_folders
from .numbered_texts import NumberedFiles, match_by_number
from .picture_index import NEVER_CAPTIONS, PictureIndex, names_in
from .sidecar_files import ORPHAN, SIDECAR_SUFFIXES, with_suffix
from .sidecar_texts import are_settings, caption_in_settings
from .source_captions import SourceCaptions
from .spilled import SpilledDict
from .text_files import NotText, decode_text

_TABLE = f"; a table {TABLE_FORM}"
_TEXT = f"; a text has the name of its picture, as 1.txt beside 1.jpg, and a table {TABLE_FORM}"
_LIST = "pictures, without captions"
_RENAME = "; a copy with the suffix .txt would be read as a table"
_OF_NAMED_VALUES = (".yaml", ".yml", ".toml", ".html", ".htm")
_OTHER_TEXTS = (".log", ".py", ".js", ".ini", ".cfg", ".conf", ".rst", ".htm", ".ipynb", ".nfo", ".srt")
_READABLE = (*ARCHIVES, ".arrow")                # that are read if they are given
_NO_TEXTS = (*DOCUMENTS, ".xmp")
# Suffixes of files that are not read as captions → what to do. Those without a remedy hold captions least often.
_REMEDIES = {
    **DOCUMENTS,
    **dict.fromkeys(TABLE_SUFFIXES, _TABLE),
    **dict.fromkeys((".txt", ".caption", ".captions", ".tags"), _TEXT),
    **dict.fromkeys((".yaml", ".yml", ".xmp", ".html", ".md", ".cls", ".toml"), "")}
_MAX_LINES = 3                                  # tables of one kind that are named


def account(source: SourceCaptions, tree: Tree, index: PictureIndex, *, kind: str, left: list[CaptionTable],
            unused: list[tuple[str, str]], names: SourceCaptions, read: SpilledDict[None],
            names_folders: Callable[[Path], bool]) -> None:
    """Add a note or warning to `source` for each file that may hold captions and is not used.

    kind: of the source. left: tables that list pictures and are not used. unused: other tables, with the reason. names:
    captions from names. read: the names of all files that were read. names_folders: whether a file gives names to the
    folders.
    """
    def has_none(name: str) -> bool:
        return name not in source.by_name and name not in source.excluded

    from_files = bool(source.by_name) and kind not in ("folder", "filename")
    if not from_files:
        source.warnings += _with_numbers_of_pictures(tree, read)
        unused = [(name, reason) for name, reason in unused if name not in read]
    for is_needed, lines in ((True, source.warnings), (False, source.notes)):
        tables = [table for table in left if table.by_name and is_needed == any(
            has_none(name) and tree.is_picture(name) for name in table.by_name)]
        lines += [f"{table.file.name} holds captions for {_pictures(len(table.by_name))} and is not used; "
                  f"--captions {table.file.path} uses it" for table in tables[:_MAX_LINES]]
        if more := tables[_MAX_LINES:]:
            lines.append(f"{more[0].file.name}{_and_more(len(more))}: tables with captions that are not used")
    if silent := [table for table in left if not table.by_name and table.warnings]:
        (source.notes if from_files else source.warnings).append(
            silent[0].warnings[0] + (f"; {len(silent) - 1:,} more like it" if len(silent) > 1 else ""))
    if empty := [table for table in left if table.listed and not table.by_name and not table.warnings]:
        (source.notes if from_files else source.warnings).append(
            f"{empty[0].file.name}{_and_more(len(empty))} {'lists' if len(empty) == 1 else 'list'} {_LIST}")
    for reason in dict.fromkeys(reason for _, reason in unused):
        alike = [name for name, other in unused if other == reason]
        (source.notes if source.by_name and not reason.startswith(AMBIGUOUS) else source.warnings).append(
            f"{alike[0]}{_and_more(len(alike))} {'is' if len(alike) == 1 else 'are'} not used: "
            f"{reason if len(alike) == 1 else reason.replace('lists none', 'they list none', 1)}")
    if unused:
        source.notes += index.notes
    if kind not in ("folder", "filename", "none") and names.present and names.label != "file name":
        what = "names of folders are" if names.label.startswith("folder") else f"{names.label}: texts about folders are"
        missed = any(has_none(name) for name in names.by_name)
        (source.warnings if missed else source.notes).append(
            f"{what} not used as captions (for example “{next(iter(names.by_name.items()))[1][0]}”); "
            "--captions folder would use them")
    if kind == "none" and (part := id_among_folders(tree)):
        (source.notes if part.isdecimal() else source.warnings).append(      # numbers may count files, or be years
            f"names of folders such as {part} say nothing; a file classes.csv beside them, with a line for each "
            f"(“{part}, a word”), makes them captions")
    read.update((name, None) for name in (*(table.file.name for table in left), *(name for name, _ in unused)))
    _beside_pictures(source, tree, index, read)
    if any(has_none(name) for name in tree.pictures.names()):
        name_captions_around(source, tree, index, names_folders)


def _with_numbers_of_pictures(tree: Tree, read: SpilledDict[None]) -> Iterator[str]:
    """A line for texts that have the numbers of pictures, but not of so many that they are read without being asked."""
    numbered = functools.cache(lambda: NumberedFiles(tree.pictures.names()))
    for suffix in SIDECAR_SUFFIXES:
        texts = (name for name in with_suffix(suffix, tree) if name not in read)
        spare: SpilledDict[None] = SpilledDict()
        pairs = SpilledDict(match_by_number(texts, numbered, spare=spare, loosely=True))
        for picture, text in itertools.islice(pairs.items(), 1):
            yield (f"{len(pairs):,} texts have numbers of pictures and may be their captions, but are not used; "
                   f"--captions sidecar takes {text} for the caption of {picture}, and so on")
        read.update((text, None) for text in itertools.chain((text for _, text in pairs.items()), spare))


def _beside_pictures(source: SourceCaptions, tree: Tree, index: PictureIndex, known: SpilledDict[None]) -> None:
    """Files in the tree that look like captions, and of which nothing was said yet."""
    problems = {name.split(": ")[0] for name, _ in source.problems}
    unusable = {posixpath.splitext(name)[0].casefold() for name, _ in tree.unusable}    # skipped with their texts
    twins: dict[str, tuple[int, int]] = {}      # suffix → number of files, the position of the first of them
    others: dict[str, tuple[int, str]] = {}     # what to do about files → their number, the first of them
    looked_into = 0                             # files with unknown suffixes
    _packed_beside(source, tree, index)
    for position, name in enumerate(tree.others.names()):
        if name in known or name in problems:
            continue
        base, suffix = posixpath.splitext(name)
        if base.casefold() in unusable:
            continue
        suffix, longer = suffix.lower(), posixpath.splitext(base)[0]
        beside = base.casefold() in tree.by_base or longer.casefold() in tree.by_base       # 1.txt or 1.civitai.info
        if beside and suffix not in (*_NO_TEXTS, ".npz", ".npy", ".pt"):
            count, example = twins.get(suffix, (0, position))
            twins[suffix] = count + 1, example
        elif suffix in _REMEDIES and (suffix in (".html", ".md") or (
                posixpath.basename(name).lower().split(".")[0] not in NEVER_CAPTIONS)):
            remedy = _REMEDIES[suffix]
            if remedy == _TEXT and _lists_pictures(tree.others[position], index):
                remedy = _LIST if suffix == ".txt" else _RENAME
            if not remedy and looked_into < MAX_TABLES:
                looked_into += 1
                remedy = COPY if _mentions_pictures(tree.others[position], index) else ""
            if not remedy and suffix == ".md" and posixpath.basename(base).lower() in NEVER_CAPTIONS:
                continue
            count, first = others.get(remedy, (0, name))
            others[remedy] = count + 1, first
        elif looked_into < MAX_TABLES and (
                suffix in _OTHER_TEXTS or judge_suffix(suffix, picture_suffixes()) == UNKNOWN):
            looked_into += 1
            for remedy, applies in ((_RENAME, _lists_pictures), (COPY, _mentions_pictures)):
                if applies(tree.others[position], index):
                    count, first = others.get(remedy, (0, name))
                    others[remedy] = count + 1, first
                    break
    for suffix, (count, example) in twins.items():
        if suffix in _OF_NAMED_VALUES:
            files = f"{tree.others[example].name}{_and_more(count)}"
            (source.notes if source.by_name else source.warnings).append(
                f"not read as captions: {files}; copy the captions in such files into .txt files")
        elif suffix == ".cls" or _is_text(tree.others[example]):          # the former: numbers of classes
            (source.notes if source.by_name else source.warnings).append(
                (f"{count:,} {suffix} files lie beside pictures and are not used; --caption-ext {suffix} would read "
                 "captions from them") if count > 1 else
                f"{tree.others[example].name} lies beside a picture and is not used; --caption-ext {suffix} would read "
                "a caption from it")
    for remedy in (_LIST, _RENAME, COPY, *dict.fromkeys(_REMEDIES.values())):
        count, first = others.get(remedy, (0, ""))
        files = f"{first}{_and_more(count)}"
        if count and remedy == _LIST:
            source.notes.append(f"{files} {'lists' if count == 1 else 'list'} {_LIST}")
        elif count:
            (source.notes if source.by_name or not remedy else source.warnings).append(
                f"not read as captions: {files}{remedy}")


def _packed_beside(source: SourceCaptions, tree: Tree, index: PictureIndex) -> None:
    """Archives and packed files in the tree."""
    packed = [name for name in tree.others.names() if name.lower().endswith((*PACKED, *_READABLE))]
    archives = [name for name in packed if name.lower().endswith(_READABLE) and (tree.root / name).is_file()]
    others = [name for name in packed if name not in archives]
    suffixes = picture_suffixes()
    if pictures := [name for name in others if posixpath.splitext(posixpath.splitext(name)[0])[1].lower() in suffixes]:
        source.warnings.append(f"not read: {pictures[0]}{_and_more(len(pictures))}; unpack these pictures")
    if others := [name for name in others if name not in pictures]:
        is_named_so = not source.by_name and any(is_caption_name(posixpath.basename(name)) for name in others)
        (source.warnings if is_named_so else source.notes).append(
            f"not read: {others[0]}{_and_more(len(others))}; unpack what holds pictures or captions")
    numbered = functools.cache(lambda: NumberedFiles(tree.pictures.names()))
    with_captions = {name: line for name in archives[:MAX_ARCHIVES] if name.lower().endswith(ARCHIVES) and (
        line := describe_archive(tree.root / name, tree, index, numbered))}
    (source.notes if source.by_name else source.warnings).extend(with_captions.values())
    if archives := [name for name in archives if name not in with_captions]:
        source.notes.append(f"{archives[0]}{_and_more(len(archives))}: not read, because pictures lie beside; give "
                            f"{tree.root / archives[0]} to read its pictures, or unpack it if it holds captions")


def without_lists(problems: list[tuple[str, str]], tree: Tree, index: PictureIndex,
                  tables: list[CaptionTable]) -> list[tuple[str, str]]:
    """The problems, except that tables and lists of pictures are called captions without a picture."""
    orphans = {name for name, reason in problems if reason == ORPHAN}
    if not orphans:
        return problems
    lists = {table.file.name for table in tables} | {
        file.name for file in itertools.islice((file for file in tree.others if file.name in orphans), MAX_TABLES)
        if _lists_pictures(file, index)}
    return [(name, reason) for name, reason in problems if reason != ORPHAN or name not in lists]


def _lists_pictures(file: File, index: PictureIndex) -> bool:
    """Whether the first lines of a text, but perhaps its header, begin with names of pictures."""
    try:
        text, _ = decode_text(read_head(file.path, 4096))
    except (OSError, NotText):
        return False
    lines = [line.strip().strip("\"'") for line in text.splitlines()[:20] if line.strip(" \t\"'")]
    lines = lines[:-1] or lines                 # the last may be cut
    names = [(line, *re.split(r"[\s,;|:]+", line, maxsplit=1)[:1]) for line in lines]
    names = names[1:] if len(names) > 2 and not any(map(index.find, names[0])) else names
    return bool(names) and all(any(map(index.find, written)) for written in names)


def _mentions_pictures(file: File, index: PictureIndex) -> bool:
    """Whether the beginning of a text names two pictures or more, among other words."""
    try:
        return names_in(read_head(file.path, 16 * 1024), index) > 1    # a web page is text enough
    except OSError:
        return False


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count:,} pictures"


def _and_more(count: int) -> str:
    return f" and {count - 1:,} more" if count > 1 else ""


def _is_text(file: File) -> bool:
    """Whether a file holds words, and neither XML nor settings of a program that name nothing."""
    try:
        text, _ = decode_text(read_head(file.path, 4096))
    except (OSError, NotText):
        return False
    return any(letter.isalpha() for letter in text) and "<?xml" not in text and (
        not are_settings(lines := text.splitlines()) or bool(caption_in_settings(lines)))
