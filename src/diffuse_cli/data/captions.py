"""Find the pictures of a data set and decide, once for all of them, where their captions come from.

Reads names and text, never a pixel, and writes nothing. docs/data.md tells users the rules: the captions are a
constant, else from metadata files, else from sidecar files or another table, else names of folders and files, else
there are none. Every other file that could hold captions is named.
"""

import itertools
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import Recipe, check_captions, is_table
from ..errors import DataError
from . import caption_accounts, folder_texts, metadata_files, name_captions, sidecar_files
from .caption_summary import look_through, no_tags, odd_captions, summary
from .caption_tables import CaptionTable
from .caption_text import distinct_captions
from .derived_pictures import warn_of_derived
from .embedded_captions import read_embedded
from .file_tree import FileList, Tree
from .folder_texts import FolderTexts
from .listing import PictureFiles, PictureListing, check_command
from .picture_index import PictureIndex
from .source_captions import SourceCaptions
from .sources import open_sources
from .spilled import SpilledDict, SpilledList, SpilledTuples, packed
from .split import side_by_side_splits

_FEW = 0.1                                      # minimum share of pictures with texts, for names not to count


@dataclass(frozen=True, kw_only=True)
class _Options:
    """The options of `find_pictures` that say how a source is read."""

    column: str | None
    extension: str | None
    template: str
    joined: bool
    checking: bool


def find_pictures(folder: Path, *, more_folders: Sequence[str] = (), captions: str = "auto", caption: str | None = None,
                  caption_column: str | None = None, caption_ext: str | None = None,
                  caption_template: str = Recipe.caption_template, join_lines: bool = False, tag_options: str = "",
                  strict: bool = False, checking: bool = False) -> PictureListing:
    """Pair the pictures below `folder`, or listed in a table given in its place, with their captions.

    more_folders: of the same data set; then each name begins with that of its folder. captions: the name of a source,
    or the path of a table. join_lines: whether the lines of a text file are one caption. tag_options: options that will
    change tags between commas, in words, so that a warning can tell what they change; "" without any.

    Raises DataError if there is no picture, if a table cannot be read, if the source named by `captions` has
    no captions, and with `strict` at any problem; with `checking`, files that are missing are problems. Raises
    UsageError if `captions` is neither a source nor a table.
    """
    check_captions(captions)
    folder = Path(folder)
    options = _Options(column=caption_column, extension=caption_ext, template=caption_template, joined=join_lines,
                       checking=checking)
    folders = [folder, *map(Path, more_folders)]
    tree, manifest = open_sources(folders, column=caption_column, checking=checking)
    index = PictureIndex(tree.known_names, tree.written_names)
    if caption is not None:
        kind, source = "constant", _constant(tree, caption)
    elif captions == "none":
        kind, source = "none", SourceCaptions("none (unconditional model)", present=True)
    elif captions == "auto":
        kind, source = _first_present(tree, index, manifest, options)
    elif is_table(captions):
        kind, source = _named_table(Path(captions), tree, index, options)
    else:
        kind, source = captions, _forced(captions, tree, index, manifest, options)
    files = tree.pictures if not source.excluded else FileList(
        file for file in tree.pictures if file.name not in source.excluded)
    if not files:
        raise DataError(f"{folder}: none of its {len(tree.pictures):,} pictures is listed in {source.label}",
                        hint="Use --captions sidecar, folder, filename or none to do without it")
    unusable = tuple((name, reason) for name, reason in tree.unusable if name not in source.excluded)
    if strict and (problems := (*unusable, *source.problems)):
        name, reason = problems[0]
        raise DataError(f"{name}: {reason}, and --strict stops at the first problem",
                        hint=f"{check_command(folders)} lists them all")
    if splits := side_by_side_splits(files.names()):
        training, held_out, every = splits
        more = "" if every == held_out else ", as do others"
        source.warnings.append(f"{training} and {held_out} lie side by side{more}, and pictures of both are trained "
                               f"on unless --held-out {shlex.quote(every)} keeps the latter for validation")
    source.warnings += _without_effect(options, source.filled_from | {kind})
    source.warnings += warn_of_derived(files.names, folder)
    pictures = PictureFiles(files, SpilledList(
        (packed(source.by_name.get(name, ())),) for name in files.names()))
    counts, examples = look_through(pictures)
    source.warnings += odd_captions(counts)
    source.warnings += no_tags(pictures, tag_options) if tag_options else ()
    notes = tuple(dict.fromkeys((*tree.notes, *source.notes)))
    return PictureListing(tree.root, tuple(folders), pictures, counts.captioned > 0, kind, summary(counts, source),
                          examples, notes, tuple(source.warnings), unusable, tuple(source.problems), tree.litter)


def _without_effect(options: _Options, kinds: set[str]) -> Iterator[str]:
    """A warning for each option about a source that does not count. kinds: of the sources that do."""
    if options.column and kinds.isdisjoint(("metadata", "table")):
        yield f"--caption-column {options.column} is not used, because the captions come from no table"
    if options.extension and "sidecar" not in kinds:
        yield f"--caption-ext {options.extension} is not used, because the captions come from no texts beside pictures"
    if options.joined and kinds.isdisjoint(("sidecar", "folder texts")):
        yield "--join-lines is not used, because the captions come from no text files"
    if options.template != Recipe.caption_template and kinds.isdisjoint(("folder", "filename")):
        yield "--caption-template is not used, because the captions come from no names of folders or files"


# ── The decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def _constant(tree: Tree, caption: str) -> SourceCaptions:
    captions = distinct_captions(caption)
    by_name = SpilledTuples((name, captions) for name in tree.pictures.names() if captions)
    return SourceCaptions("the same for all", True, by_name)


def _first_present(tree: Tree, index: PictureIndex, manifest: SourceCaptions | None,
                   options: _Options) -> tuple[str, SourceCaptions]:
    """The kind and the captions of the first source, in the order of precedence, that is there."""
    metadata = manifest or metadata_files.read_metadata(tree, index, column=options.column, checking=options.checking)
    sidecars = sidecar_files.read_sidecars(tree, extension=options.extension, joined=options.joined)
    if options.extension and not sidecars.files:
        raise DataError(f"no picture in {tree.root} has a text with the suffix of --caption-ext {options.extension}",
                        hint="Name the suffix of the texts beside the pictures, for example .caption")
    taken = SpilledDict((name, None) for name in itertools.chain(metadata.files, sidecars.files))
    tables, unused = metadata_files.read_other_tables(tree, index, column=options.column, taken=taken)
    tables = [table for table in tables if not folder_texts.names_classes(table.file, tree, len(table.by_name))]
    taken.update((table.file.name, None) for table in tables)
    texts = folder_texts.read_folder_texts(tree, joined=options.joined, taken=taken)
    from_tables, _ = metadata_files.captions_of_tables(tables)
    enough = 1 if options.extension or options.column else _FEW * len(tree.pictures)
    texts_are_few = not metadata.by_name and len(from_tables.by_name) + len(sidecars.by_name) < enough
    names = _names(tree, texts, options, files=texts_are_few, in_shards=texts_are_few)
    sidecars.problems = caption_accounts.without_lists(sidecars.problems, tree, index, tables)
    problems = [*metadata.problems, *sidecars.problems,         # whichever source counts, these files need attention
                *(problem for table in tables if not table.by_name for problem in table.problems)]
    left, embedded = tables, None
    if metadata.by_name or (metadata.present and sidecars.by_name and not from_tables.by_name):
        kind, source = _metadata_then_sidecars(metadata, sidecars)
    elif texts_are_few and not texts.captions and (embedded := read_embedded(tree)).present:
        kind, source = "embedded", embedded
    elif texts_are_few and names.present:
        kind, source = "filename" if names.label == "file name" else "folder", names
    else:
        kind, source = _from_files(metadata, from_tables, sidecars)
    if source is from_tables or source is embedded or source is names:
        problems += from_tables.problems
    if source is embedded or source is names:
        for kind_of_few, few in (("table", from_tables), ("sidecar", sidecars)):
            source.take(few, kind_of_few)
        left = [table for table in tables if table.file.name not in source.files]
    source.problems = problems
    if metadata.present and source.excluded is not metadata.excluded:
        _leave_out(source, metadata)
    if embedded is not None and source is not embedded:
        source.notes += embedded.notes
    if source.by_name and kind != "folder" and kind != "filename":
        left = _fill_from_tables(source, tables)
        _fill_from_folders(source, tree, texts)
        if named := folder_texts.name_ids(source, tree, taken, left):
            texts.names_file = texts.names_file or named
            if texts.names:                     # classes in a table and in folders, as in Tiny ImageNet
                source.by_name = SpilledTuples(itertools.chain(names.by_name.items(), source.by_name.items()))
    if kind == "none":
        source.notes += [*(sidecars.notes if source is not sidecars else ()), *names.notes]
    if source is not sidecars:
        (source.notes if source.by_name else source.warnings).extend(sidecars.warnings)
    _add_sayings(source, texts)
    taken.update((name, None) for name in (*texts.files, texts.names_file))
    caption_accounts.account(source, tree, index, kind=kind, left=left, names=names, read=taken,
                             unused=[(name, reason) for name, reason in unused if name not in taken],
                             names_folders=lambda path: folder_texts.read_named_file(path, tree) is not None)
    return kind, source


def _from_files(metadata: SourceCaptions, tables: SourceCaptions,
                sidecars: SourceCaptions) -> tuple[str, SourceCaptions]:
    """The kind and the captions of the source among files that counts, if names do not, and metadata have no captions.
    """
    if len(tables.by_name) > 2 * len(sidecars.by_name):
        _fill_from_sidecars(tables, sidecars)
        return "table", tables
    if sidecars.by_name:
        return "sidecar", sidecars
    if metadata.present:
        return _metadata_then_sidecars(metadata, sidecars)
    return "none", sidecars if sidecars.present else SourceCaptions("none found (unconditional model)", present=True)


def _leave_out(source: SourceCaptions, metadata: SourceCaptions) -> None:
    """Leave out the pictures that metadata without captions do not list."""
    source.excluded = metadata.excluded
    (source.notes if source.by_name else source.warnings).extend(metadata.warnings)
    source.notes += metadata.notes


def _names(tree: Tree, texts: FolderTexts, options: _Options, *, folders: bool = True, files: bool = True,
           in_shards: bool = True) -> SourceCaptions:
    """Captions from names, and from texts about whole folders, which go before them."""
    source = name_captions.read_names(tree, template=options.template, folders=folders, files=files,
                                      class_names=texts.names, in_shards=in_shards)
    if texts.names and source.present:
        source.label += f" by {texts.names_file}"
    captions = SpilledTuples(texts.captions_of(tree.pictures.names()))
    if captions:
        others = any(name not in captions for name in source.by_name)
        source.label = texts.label() + (f" and {source.label}" if others else "")
        source.by_name.update(captions.items())
        source.filled_from.add("folder texts")
        source.present = True
    return source


def _fill_from_sidecars(source: SourceCaptions, sidecars: SourceCaptions) -> None:
    """Give the pictures that the tables in `source` lack the captions in the texts beside them, or name these texts."""
    if any(name in source.by_name for name in sidecars.by_name):
        source.notes.append(f"{sidecars.label} is not used, because {source.label} has more captions; "
                            "--captions sidecar would use it")
    else:
        source.take(sidecars, "sidecar")


def _fill_from_tables(source: SourceCaptions, tables: list[CaptionTable]) -> list[CaptionTable]:
    """Add the tables that list only pictures without captions to `source`, and return the others."""
    fitting = [table for table in tables if table.file.name not in source.files]
    more, left = metadata_files.captions_of_tables(fitting, source.by_name, source.excluded)
    source.take(more, "table")
    source.problems += more.problems
    return left


def _fill_from_folders(source: SourceCaptions, tree: Tree, texts: FolderTexts) -> None:
    """Give the pictures without a caption that of their folder."""
    filled = SpilledTuples((name, captions) for name, captions in texts.captions_of(tree.pictures.names())
                           if name not in source.by_name and name not in source.excluded)
    if filled:
        source.by_name.update(filled.items())
        source.filled_from.add("folder texts")
        source.label += f" and {texts.label()}"


def _metadata_then_sidecars(metadata: SourceCaptions, sidecars: SourceCaptions) -> tuple[str, SourceCaptions]:
    """Metadata decides which pictures there are; a sidecar counts only for a picture without a caption in it."""
    both = SpilledTuples(sidecars.by_name.items())
    disagree, first = 0, ""
    for name, captions in metadata.by_name.items():
        if captions != both.get(name, captions):
            disagree, first = disagree + 1, first or name
        both[name] = captions
    filled = any(name not in metadata.by_name and name not in metadata.excluded for name in sidecars.by_name)
    warnings = metadata.warnings
    if disagree:
        count = "1 picture" if disagree == 1 else f"{disagree:,} pictures"
        warnings.append(f"{metadata.label} and sidecar files disagree about {count}, for example {first}; "
                        "the metadata counts")
    label = f"{metadata.label} and {sidecars.label}" if filled else metadata.label
    kind = "metadata" if metadata.by_name else "sidecar" if filled else "none"
    return kind, SourceCaptions(label, True, both, metadata.excluded, warnings, [*metadata.notes, *sidecars.notes],
                                filled_from={"sidecar"} if filled else set())


def _named_table(path: Path, tree: Tree, index: PictureIndex, options: _Options) -> tuple[str, SourceCaptions]:
    """The kind and the captions of the table at `path`: of pictures, or of folders and classes."""
    texts = folder_texts.read_named_file(path, tree)
    if texts is None:
        return "table", metadata_files.read_named_table(path, tree, index, column=options.column)
    source = _names(tree, texts, options, files=False)
    _add_sayings(source, texts)
    return "folder", source


def _add_sayings(source: SourceCaptions, texts: FolderTexts) -> None:
    """Add what there is to say about texts about folders."""
    source.problems += texts.problems
    source.warnings += texts.warnings
    source.notes += texts.notes


def _forced(kind: str, tree: Tree, index: PictureIndex, manifest: SourceCaptions | None,
            options: _Options) -> SourceCaptions:
    """The source that the user named. Raises DataError if it holds no caption of any picture."""
    if kind == "metadata":
        source = manifest or metadata_files.read_metadata(tree, index, column=options.column, checking=options.checking)
        looked_for = "metadata.jsonl or metadata.csv with a column text, caption or prompt"
    elif kind == "sidecar":
        source = sidecar_files.read_sidecars(tree, extension=options.extension, joined=options.joined, asked=True)
        looked_for = f"a {options.extension or '.txt, .caption or .json'} file beside each picture"
    elif kind == "folder":
        texts = folder_texts.read_folder_texts(tree, joined=options.joined, taken=set())
        source = _names(tree, texts, options, files=False)
        _add_sayings(source, texts)
        looked_for = "pictures in folders below it"
    elif kind == "embedded":
        source = read_embedded(tree, always=True)
        looked_for = "prompts and descriptions in PNG, JPEG and WebP files"
    else:
        source = name_captions.read_names(tree, template=options.template, folders=False)
        looked_for = "file names that hold a word"
    if not source.by_name:
        problem = "".join(f"; {name}: {reason}" for name, reason in source.problems[:1])
        raise DataError(f"--captions {kind}: {tree.root} has no such captions",
                        hint=f"Looked for {looked_for}{problem}")
    return source
