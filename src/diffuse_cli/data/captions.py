"""Which pictures there are and what is said about each: the one decision on captions, made once per data set.

Standard library only. Reads names and text, never a pixel, and writes nothing. The rules are those of docs/data.md:
a constant, else metadata, else sidecar files, else names of folders, else names of files, else none.
"""

from dataclasses import dataclass
from pathlib import Path

from ..checks import check_choice
from ..config import CAPTION_SOURCES
from ..errors import DataError
from . import caption_sources
from .caption_sources import Reading
from .folders import SUFFIXES, Tree, list_tree


@dataclass(frozen=True, slots=True)
class Picture:
    """A file that should be a picture. `name` is its NFC POSIX path relative to the folder, the sort key by bytes."""

    path: Path
    name: str
    captions: tuple[str, ...]                   # alternatives; none at all means: no caption


@dataclass(frozen=True)
class Found:
    """What lies in a folder. `unusable` and `problems` are (name, reason); `source` says where captions come from."""

    folder: Path
    named: Path                                 # as it was asked for: the folder, or a manifest in it
    pictures: tuple[Picture, ...]
    source: str                                 # metadata, sidecar, folder, filename, constant or none
    summary: str
    examples: tuple[str, ...]
    warnings: tuple[str, ...]
    unusable: tuple[tuple[str, str], ...]       # what should be pictures as well, and is not even opened
    problems: tuple[tuple[str, str], ...]       # with captions

    @property
    def conditional(self) -> bool:
        return any(picture.captions for picture in self.pictures)


def find_pictures(folder: Path, *, captions: str = "auto", caption: str | None = None,
                  caption_column: str | None = None, caption_ext: str | None = None,
                  caption_template: str = "{label}", strict: bool = False) -> Found:
    """Pair the pictures below `folder`, or listed in a .jsonl or .csv manifest, with their captions.

    Raises DataError when there is no picture, when metadata cannot be read, when the source that `captions` names
    says nothing, and with `strict` at any problem. Raises UsageError when `captions` names no source.
    """
    check_choice("--captions", captions, CAPTION_SOURCES)
    folder = Path(folder)
    tree, listed = _open(folder, column=caption_column)
    if caption is not None:
        source, reading = "constant", _constant(tree, caption)
    elif captions == "none":
        source, reading = "none", Reading("none (unconditional model)", present=True)
    elif captions == "auto":
        source, reading = _automatic(tree, listed, caption_column, caption_ext, caption_template)
    else:
        source, reading = captions, _forced(captions, tree, listed, caption_column, caption_ext, caption_template)
    pictures = tuple(Picture(file.path, file.name, reading.by_name.get(file.name, ()))
                     for file in tree.pictures if file.name not in reading.excluded)
    if not pictures:
        raise DataError(f"{folder}: none of its {len(tree.pictures)} pictures is listed in {reading.label}",
                        hint="Use --captions sidecar, folder, filename or none to do without it")
    unusable = tuple((name, reason) for name, reason in tree.unusable if name not in reading.excluded)
    if strict and (problems := (*unusable, *reading.problems)):
        name, reason = problems[0]
        raise DataError(f"{name}: {reason}, and --strict stops at the first problem",
                        hint=f"`diffuse data check {folder}` lists them all")
    return Found(tree.root, folder, pictures, source, _summary(pictures, reading), _examples(pictures),
                 tuple(reading.warnings), unusable, tuple(reading.problems))


def _open(path: Path, *, column: str | None) -> tuple[Tree, Reading | None]:
    """The files of a folder, or those of a manifest with what it says of them."""
    listed = None
    if path.is_dir():
        tree = list_tree(path)
    elif path.is_file() and path.suffix.lower() in (".jsonl", ".csv"):
        tree, listed = caption_sources.manifest(path, column=column)
    elif path.exists():
        raise DataError(f"{path} is neither a folder nor a .jsonl or .csv manifest", hint="Give a folder of pictures")
    else:
        raise DataError(f"{path} does not exist", hint="Give a folder of pictures")
    if not tree.pictures:
        seen = f" ({len(tree.unusable)} that cannot be used)" if tree.unusable else ""
        raise DataError(f"{path} holds no picture{seen}",
                        hint=f"Looked, at any depth, for {' '.join(sorted(SUFFIXES))}")
    return tree, listed


# ── The decision ────────────────────────────────────────────────────────────────────────────────────────────────────


def _constant(tree: Tree, caption: str) -> Reading:
    text = caption_sources.alternatives(caption)
    return Reading("the same for all", True, {file.name: text for file in tree.pictures if text})


def _automatic(tree: Tree, listed: Reading | None, column: str | None, extension: str | None,
               template: str) -> tuple[str, Reading]:
    metadata = listed or caption_sources.metadata(tree, column=column)
    sidecars = caption_sources.sidecars(tree, extension=extension)
    problems = [*metadata.problems, *sidecars.problems]        # of files that should have been captions as well
    if metadata.present:
        source, reading = _metadata_then_sidecars(metadata, sidecars)
    elif sidecars.present:
        source, reading = "sidecar" if sidecars.by_name else "none", sidecars
    elif (labels := caption_sources.folder_labels(tree, template=template)).present:
        source, reading = "folder", labels
    elif (names := caption_sources.file_names(tree)).present:
        source, reading = "filename", names
    else:
        source, reading = "none", Reading("none found (unconditional model)", present=True)
    reading.problems = problems
    return source, reading


def _metadata_then_sidecars(metadata: Reading, sidecars: Reading) -> tuple[str, Reading]:
    """Metadata decides which pictures there are and speaks first; a sidecar fills in where it is silent."""
    both = [name for name in metadata.by_name if name in sidecars.by_name]
    disagree = [name for name in both if metadata.by_name[name] != sidecars.by_name[name]]
    filled = [name for name in sidecars.by_name if name not in metadata.by_name and name not in metadata.excluded]
    warnings = [*metadata.warnings, *sidecars.warnings]
    if disagree:
        count = "1 picture" if len(disagree) == 1 else f"{len(disagree):,} pictures"
        warnings.append(f"{metadata.label} and sidecar files disagree about {count}, {disagree[0]} for one; "
                        "the metadata counts")
    label = f"{metadata.label} and {sidecars.label}" if filled else metadata.label
    source = "metadata" if metadata.by_name else "sidecar" if filled else "none"
    return source, Reading(label, True, {**sidecars.by_name, **metadata.by_name}, metadata.excluded, warnings)


def _forced(source: str, tree: Tree, listed: Reading | None, column: str | None, extension: str | None,
            template: str) -> Reading:
    """The one source that the user named. Raises DataError when it says nothing about any picture."""
    if source == "metadata":
        reading = listed or caption_sources.metadata(tree, column=column)
        looked_for = "metadata.jsonl or metadata.csv with a column text, caption or prompt"
    elif source == "sidecar":
        reading = caption_sources.sidecars(tree, extension=extension)
        looked_for = f"a {extension or '.txt, .caption or .json'} file beside each picture"
    elif source == "folder":
        reading, looked_for = caption_sources.folder_labels(tree, template=template), "pictures in folders below it"
    else:
        reading, looked_for = caption_sources.file_names(tree), "file names that hold a word"
    if not reading.by_name:
        seen = "".join(f"; {name}: {reason}" for name, reason in reading.problems[:1])
        raise DataError(f"--captions {source}: {tree.root} has no such captions", hint=f"Looked for {looked_for}{seen}")
    return reading


# ── What is told ────────────────────────────────────────────────────────────────────────────────────────────────────


def _summary(pictures: tuple[Picture, ...], reading: Reading) -> str:
    have = sum(bool(picture.captions) for picture in pictures)
    if not have and not reading.by_name and reading.label.startswith("none"):
        return reading.label
    parts = [f"{have} of {len(pictures)} files"]               # some may turn out to be unusable
    if without := len(pictures) - have:
        parts.append(f"{without} {'have' if without > 1 else 'has'} none → empty")
    if reading.excluded:
        parts.append(f"{len(reading.excluded)} more not listed → left out")
    return f"{reading.label} ({'; '.join(parts)})"


def _examples(pictures: tuple[Picture, ...]) -> tuple[str, ...]:
    """Up to three different captions, from the beginning, the middle and the end."""
    captions = [picture.captions[0] for picture in pictures if picture.captions]
    distinct = list(dict.fromkeys(captions))
    return tuple(distinct[index] for index in sorted({0, len(distinct) // 2, len(distinct) - 1})) if distinct else ()
