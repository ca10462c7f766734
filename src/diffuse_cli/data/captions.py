"""Find the pictures of a data set and decide, once for all of them, where their captions come from.

Standard library only. Reads names and text, never a pixel, and writes nothing. docs/data.md tells users the rules: the
captions are a constant, else from metadata files, else from sidecar files, else names of folders, else names of files,
else there are none.
"""

from dataclasses import dataclass
from pathlib import Path

from ..checks import check_choice
from ..config import CAPTION_SOURCES
from ..errors import DataError
from . import caption_sources, metadata_files
from .caption_text import SourceCaptions, distinct_captions
from .folders import Tree, list_tree


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file with the suffix of a picture. `name`: its NFC POSIX path relative to the folder, sorted by its bytes."""

    path: Path
    name: str
    captions: tuple[str, ...]                   # alternatives; empty: the picture has no caption


@dataclass(frozen=True)
class PictureListing:
    """The pictures of a folder or manifest with their captions. Unusable files and problems: (name, reason)."""

    folder: Path
    requested_path: Path                        # the path that the user gave: the folder, or a manifest in it
    pictures: tuple[PictureFile, ...]
    caption_source: str                         # metadata, sidecar, folder, filename, constant or none
    caption_summary: str                        # of the captions, in one line
    caption_examples: tuple[str, ...]           # up to three captions
    warnings: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]       # files that should be pictures too, but cannot even be opened
    caption_problems: tuple[tuple[str, str], ...]
    litter: tuple[tuple[str, int], ...] = ()    # files of other programs that were skipped: (name or pattern, number)

    @property
    def conditional(self) -> bool:
        """Whether any picture has a caption, and a model therefore reads text."""
        return any(picture.captions for picture in self.pictures)


def find_pictures(folder: Path, *, captions: str = "auto", caption: str | None = None,
                  caption_column: str | None = None, caption_ext: str | None = None,
                  caption_template: str = "{label}", strict: bool = False) -> PictureListing:
    """Pair the pictures below `folder`, or listed in a .jsonl or .csv manifest, with their captions.

    Raises DataError if there is no picture, if metadata cannot be read, if the source named by `captions` has no
    captions, and with `strict` at any problem. Raises UsageError if `captions` is not the name of a source.
    """
    check_choice("--captions", captions, CAPTION_SOURCES)
    folder = Path(folder)
    tree, manifest = _list_files(folder, column=caption_column)
    if caption is not None:
        kind, source = "constant", _constant(tree, caption)
    elif captions == "none":
        kind, source = "none", SourceCaptions("none (unconditional model)", present=True)
    elif captions == "auto":
        kind, source = _first_present(tree, manifest, caption_column, caption_ext, caption_template)
    else:
        kind, source = captions, _forced(captions, tree, manifest, caption_column, caption_ext, caption_template)
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
    return PictureListing(tree.root, folder, pictures, kind, _summary(pictures, source), _examples(pictures),
                 tuple(source.warnings), unusable, tuple(source.problems), tree.litter)


def _list_files(path: Path, *, column: str | None) -> tuple[Tree, SourceCaptions | None]:
    """The files of a folder; or those that a manifest lists, with the captions in it."""
    manifest = None
    if path.is_dir():
        tree = list_tree(path)
    elif path.is_file() and path.suffix.lower() in (".jsonl", ".csv"):
        tree, manifest = metadata_files.read_manifest(path, column=column)
    elif path.exists():
        raise DataError(f"{path} is neither a folder nor a .jsonl or .csv manifest", hint="Give a folder of pictures")
    else:
        raise DataError(f"{path} does not exist", hint="Give a folder of pictures")
    if not tree.pictures:
        raise tree.no_picture(path)
    return tree, manifest


# ── The decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def _constant(tree: Tree, caption: str) -> SourceCaptions:
    captions = distinct_captions(caption)
    return SourceCaptions("the same for all", True, {file.name: captions for file in tree.pictures if captions})


def _first_present(tree: Tree, manifest: SourceCaptions | None, column: str | None, extension: str | None,
                   template: str) -> tuple[str, SourceCaptions]:
    """The kind and the captions of the first source, in the order of precedence, that is there."""
    metadata = manifest or metadata_files.read_metadata(tree, column=column)
    sidecars = caption_sources.read_sidecars(tree, extension=extension)
    problems = [*metadata.problems, *sidecars.problems]         # whichever source counts, these files need attention
    if metadata.present:
        kind, source = _metadata_then_sidecars(metadata, sidecars)
    elif sidecars.present:
        kind, source = "sidecar" if sidecars.by_name else "none", sidecars
    elif (folders := caption_sources.read_folder_names(tree, template=template)).present:
        kind, source = "folder", folders
    elif (names := caption_sources.read_file_names(tree)).present:
        kind, source = "filename", names
    else:
        kind, source = "none", SourceCaptions("none found (unconditional model)", present=True)
    source.problems = problems
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
    return kind, SourceCaptions(label, True, {**sidecars.by_name, **metadata.by_name}, metadata.excluded, warnings)


def _forced(kind: str, tree: Tree, manifest: SourceCaptions | None, column: str | None, extension: str | None,
            template: str) -> SourceCaptions:
    """The source that the user named. Raises DataError if it holds no caption of any picture."""
    if kind == "metadata":
        source = manifest or metadata_files.read_metadata(tree, column=column)
        looked_for = "metadata.jsonl or metadata.csv with a column text, caption or prompt"
    elif kind == "sidecar":
        source = caption_sources.read_sidecars(tree, extension=extension)
        looked_for = f"a {extension or '.txt, .caption or .json'} file beside each picture"
    elif kind == "folder":
        source = caption_sources.read_folder_names(tree, template=template)
        looked_for = "pictures in folders below it"
    else:
        source, looked_for = caption_sources.read_file_names(tree), "file names that hold a word"
    if not source.by_name:
        problem = "".join(f"; {name}: {reason}" for name, reason in source.problems[:1])
        raise DataError(f"--captions {kind}: {tree.root} has no such captions",
                        hint=f"Looked for {looked_for}{problem}")
    return source


# ── The report ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _summary(pictures: tuple[PictureFile, ...], source: SourceCaptions) -> str:
    with_caption = sum(bool(picture.captions) for picture in pictures)
    if not with_caption and not source.by_name and source.label.startswith("none"):
        return source.label
    parts = [f"{with_caption} of {len(pictures)} files"]        # not pictures: some may turn out to be unusable
    if without := len(pictures) - with_caption:
        parts.append(f"{without} {'have' if without > 1 else 'has'} none → empty")
    if source.excluded:
        parts.append(f"{len(source.excluded)} more not listed → left out")
    return f"{source.label} ({'; '.join(parts)})"


def _examples(pictures: tuple[PictureFile, ...]) -> tuple[str, ...]:
    """Up to three captions: the first, the middle and the last of the distinct ones."""
    captions = [picture.captions[0] for picture in pictures if picture.captions]
    distinct = list(dict.fromkeys(captions))
    return tuple(distinct[index] for index in sorted({0, len(distinct) // 2, len(distinct) - 1})) if distinct else ()
