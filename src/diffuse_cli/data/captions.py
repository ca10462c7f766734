"""Find the pictures of a data set and decide, once for all of them, where their captions come from.

Reads names and text, never a pixel, and writes nothing. docs/data.md tells users the rules: the captions are a
constant, else from metadata files, else from sidecar files or another table, else names of folders and files, else
there are none. Every other file that could hold captions is named.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..checks import check_choice
from ..config import CAPTION_SOURCES, is_table
from ..errors import DataError
from . import caption_accounts, garbage, metadata_files, name_captions, sidecar_files
from .caption_text import SourceCaptions, distinct_captions
from .folders import Tree
from .listing import PictureFile, PictureListing
from .sources import open_sources


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of `find_pictures` that say how a source is read."""

    column: str | None
    extension: str | None
    template: str
    joined: bool
    checking: bool


@garbage.paused()
def find_pictures(folder: Path, *, more_folders: Sequence[str] = (), captions: str = "auto", caption: str | None = None,
                  caption_column: str | None = None, caption_ext: str | None = None,
                  caption_template: str = "{label}", join_lines: bool = False, strict: bool = False,
                  checking: bool = False) -> PictureListing:
    """Pair the pictures below `folder`, or listed in a table given in its place, with their captions.

    more_folders: of the same data set; then each name begins with that of its folder. captions: the name of a source,
    or the path of a table. join_lines: whether the lines of a text file are one caption.

    Raises DataError if there is no picture, if a table cannot be read, if the source named by `captions` has
    no captions, and with `strict` at any problem; with `checking`, files that are missing are problems. Raises
    UsageError if `captions` is neither a source nor a table.
    """
    if not is_table(captions):
        check_choice("--captions", captions, CAPTION_SOURCES)
    folder = Path(folder)
    options = _Options(column=caption_column, extension=caption_ext, template=caption_template, joined=join_lines,
                       checking=checking)
    tree, manifest = open_sources([folder, *map(Path, more_folders)], column=caption_column, checking=checking)
    if caption is not None:
        kind, source = "constant", _constant(tree, caption)
    elif captions == "none":
        kind, source = "none", SourceCaptions("none (unconditional model)", present=True)
    elif captions == "auto":
        kind, source = _first_present(tree, manifest, options)
    elif is_table(captions):
        kind, source = "table", metadata_files.read_named_table(Path(captions), tree, column=caption_column)
    else:
        kind, source = captions, _forced(captions, tree, manifest, options)
    pictures = tuple(PictureFile(file.path, file.name, source.by_name.get(file.name, ()))
                     for file in tree.pictures if file.name not in source.excluded)
    if not pictures:
        raise DataError(f"{folder}: none of its {len(tree.pictures)} pictures is listed in {source.label}",
                        hint="Use --captions sidecar, folder, filename or none to do without it")
    unusable = tuple((name, reason) for name, reason in tree.unusable if name not in source.excluded)
    if strict and (problems := (*unusable, *source.problems)):
        name, reason = problems[0]
        raise DataError(f"{name}: {reason}, and --strict stops at the first problem",
                        hint=f"`diffuse data check {folder}` lists them all")
    if splits := name_captions.side_by_side_splits(tree):
        source.warnings.append(f"{splits[0]}/ and {splits[1]}/ lie side by side, and pictures of both are trained on; "
                               f"--held-out {splits[1]} keeps the latter for validation")
    return PictureListing(tree.root, folder, pictures, kind, _summary(pictures, source), _examples(pictures),
                          tuple(source.notes), tuple(source.warnings), unusable, tuple(source.problems), tree.litter)


# ── The decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def _constant(tree: Tree, caption: str) -> SourceCaptions:
    captions = distinct_captions(caption)
    return SourceCaptions("the same for all", True, {file.name: captions for file in tree.pictures if captions})


def _first_present(tree: Tree, manifest: SourceCaptions | None, options: _Options) -> tuple[str, SourceCaptions]:
    """The kind and the captions of the first source, in the order of precedence, that is there."""
    metadata = manifest or metadata_files.read_metadata(tree, column=options.column, checking=options.checking)
    sidecars = sidecar_files.read_sidecars(tree, extension=options.extension, joined=options.joined)
    taken = metadata.files | sidecars.files
    tables, unused = metadata_files.read_other_tables(tree, column=options.column, taken=taken)
    from_tables, left = metadata_files.captions_of_tables(tables, options.column)
    has_captions = bool(metadata.by_name or sidecars.by_name or from_tables.by_name)
    names = name_captions.read_names(tree, template=options.template, files=not has_captions)
    problems = [*metadata.problems, *sidecars.problems]         # whichever source counts, these files need attention
    if metadata.present and (metadata.by_name or not from_tables.by_name):
        kind, source = _metadata_then_sidecars(metadata, sidecars)
        left = tables
    elif len(from_tables.by_name) > 2 * len(sidecars.by_name):
        kind, source = "table", from_tables
        problems = [*metadata.problems, *from_tables.problems]
        if sidecars.by_name:
            source.notes.append(f"{sidecars.label} is not used, because {source.label} has more captions; "
                                "--captions sidecar would use it")
    elif sidecars.present and (sidecars.by_name or not names.present):
        kind, source = "sidecar" if sidecars.by_name else "none", sidecars
        left = tables
    elif names.present:
        kind, source = "filename" if names.label == "file name" else "folder", names
    else:
        kind, source = "none", SourceCaptions("none found (unconditional model)", present=True)
    if kind == "none":
        source.notes += [*(sidecars.notes if source is not sidecars else ()), *names.notes]
    source.problems = problems
    caption_accounts.account(source, tree, kind=kind, left=left, unused=unused, names=names,
                             read=taken | {table.file.name for table in tables})
    return kind, source


def _metadata_then_sidecars(metadata: SourceCaptions, sidecars: SourceCaptions) -> tuple[str, SourceCaptions]:
    """Metadata decides which pictures there are; a sidecar counts only for a picture without a caption in it."""
    disagree = [name for name in metadata.by_name
                if name in sidecars.by_name and metadata.by_name[name] != sidecars.by_name[name]]
    filled = [name for name in sidecars.by_name if name not in metadata.by_name and name not in metadata.excluded]
    warnings = [*metadata.warnings, *sidecars.warnings]
    if disagree:
        count = "1 picture" if len(disagree) == 1 else f"{len(disagree):,} pictures"
        warnings.append(f"{metadata.label} and sidecar files disagree about {count}, for example {disagree[0]}; "
                        "the metadata counts")
    label = f"{metadata.label} and {sidecars.label}" if filled else metadata.label
    kind = "metadata" if metadata.by_name else "sidecar" if filled else "none"
    return kind, SourceCaptions(label, True, {**sidecars.by_name, **metadata.by_name}, metadata.excluded, warnings,
                                [*metadata.notes, *sidecars.notes], files=metadata.files | sidecars.files)


def _forced(kind: str, tree: Tree, manifest: SourceCaptions | None, options: _Options) -> SourceCaptions:
    """The source that the user named. Raises DataError if it holds no caption of any picture."""
    if kind == "metadata":
        source = manifest or metadata_files.read_metadata(tree, column=options.column, checking=options.checking)
        looked_for = "metadata.jsonl or metadata.csv with a column text, caption or prompt"
    elif kind == "sidecar":
        source = sidecar_files.read_sidecars(tree, extension=options.extension, joined=options.joined)
        looked_for = f"a {options.extension or '.txt, .caption or .json'} file beside each picture"
    elif kind == "folder":
        source = name_captions.read_names(tree, template=options.template, files=False)
        looked_for = "pictures in folders below it"
    else:
        source = name_captions.read_names(tree, template=options.template, folders=False)
        looked_for = "file names that hold a word"
    if not source.by_name:
        problem = "".join(f"; {name}: {reason}" for name, reason in source.problems[:1])
        raise DataError(f"--captions {kind}: {tree.root} has no such captions",
                        hint=f"Looked for {looked_for}{problem}")
    return source


# ── The report ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _summary(pictures: tuple[PictureFile, ...], source: SourceCaptions) -> str:
    with_caption = [picture.captions for picture in pictures if picture.captions]
    if not with_caption and not source.by_name and source.label.startswith("none"):
        return source.label
    parts = [f"{len(with_caption)} of {len(pictures)} files"]   # not pictures: some may turn out to be unusable
    if without := len(pictures) - len(with_caption):
        parts.append(f"{without} {'have' if without > 1 else 'has'} none → empty")
    if source.excluded:
        parts.append(f"{len(source.excluded)} more not listed → left out")
    count = sum(map(len, with_caption))
    if count > len(with_caption):
        lines = ", one a line" if source.label.startswith("sidecar") else ""
        parts.append(f"{count / len(with_caption):.1f} captions a picture{lines}")
    return f"{source.label} ({'; '.join(parts)})"


def _examples(pictures: tuple[PictureFile, ...]) -> tuple[str, ...]:
    """Up to three captions: the first, the middle and the last of the distinct ones."""
    captions = [picture.captions[0] for picture in pictures if picture.captions]
    distinct = list(dict.fromkeys(captions))
    return tuple(distinct[index] for index in sorted({0, len(distinct) // 2, len(distinct) - 1})) if distinct else ()
