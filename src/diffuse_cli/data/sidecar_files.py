"""Captions from sidecar files: a text beside each picture, or in a folder of texts.

The reader takes the tree of files and returns a `SourceCaptions`; `captions` decides which source counts.
"""

import json
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from .annotations import normalised
from .caption_text import SourceCaptions, captions_under, distinct_captions, join_lines, without_translations
from .containers import File, read_head
from .file_types import picture_suffixes
from .folders import Tree
from .picture_index import PictureIndex
from .text_files import NotText, decode_text, is_unicode

SIDECAR_SUFFIXES = (".txt", ".caption", ".json", ".captions", ".tags")
SIDECAR_KEYS = ("caption", "text", "prompt", "description", "captions", "tags", "tag_string", "tags_general",
                "tag_string_general", "title")  # the first that is filled counts
SIDECAR_LIMIT = 64 * 1024                       # maximum bytes of a sidecar file; a longer file is no caption

SAMPLE_FILES = 1000                             # maximum files that a guess of their encoding is based on

_NUMBER = re.compile(r"[-+]?\d+(?:\.\d*)?(?:e[-+]?\d+)?", re.IGNORECASE)
_BOX = 4                                        # numbers in a line from which a file of numbers describes boxes
NOT_SIDECARS = frozenset(("readme", "license", "licence", "notice", "classes", "labels", "requirements", "changelog",
                          "copyright", "credits", "authors", "sources", "index", "list"))
# Names of texts that describe a whole folder, as `annotations.normalised` spells them.
FOLDER_TEXTS = frozenset(("caption", "captions", "prompt", "prompts", "label", "description", "text", "tag", "tags",
                          "class", "class_name", "class_prompt", "instance_prompt", "trigger", "trigger_word",
                          "trigger_words", "concept", "folder"))


def read_sidecars(tree: Tree, *, extension: str | None, joined: bool = False) -> SourceCaptions:
    """Captions of `photo.txt` beside `photo.png`, or of one of the other SIDECAR_SUFFIXES: the first that holds any.

    `photo.png.txt`, names that differ in case, and `captions/photo.txt` beside `images/photo.png` count as well. With
    `extension`, only files with that suffix are read. joined: whether the lines of a file are one caption.
    """
    suffixes = (f".{extension.lower().lstrip('.')}",) if extension else SIDECAR_SUFFIXES
    files = [file for file in tree.others if file.suffix in suffixes]
    source = SourceCaptions("", present=False)
    owners = _owners(tree, files)
    reader = SidecarReader(source, joined)
    reader.read(file for files_of_picture in owners.values() for file in files_of_picture.values())

    # Captions of each picture
    used: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    for picture in tree.pictures:
        of_picture = owners.get(picture.name, {})
        for suffix in (suffix for suffix in suffixes if suffix in of_picture):
            captions = reader.captions[of_picture[suffix].name]
            if picture.name in source.by_name:          # another file's captions count
                lost[suffix] += captions is not None and captions != source.by_name[picture.name]
                continue
            source.present = source.present or captions is not None
            if captions:
                source.by_name[picture.name] = captions
                used[suffix] += 1
    source.label = f"sidecar {', '.join(sorted(used, key=suffixes.index)) or suffixes[0]}"
    source.notes += _notes(source, reader, lost)

    # Sidecars that cannot be opened, and sidecars of no picture
    source.files |= {file.name for files_of_picture in owners.values() for file in files_of_picture.values()}
    _report_others(source, tree, files, used)
    return source


def _notes(source: SourceCaptions, reader: "SidecarReader", lost: Counter[str]) -> Iterator[str]:
    """What there is to say about the files that were read. lost: number of files by suffix that hold other captions."""
    kind = source.label.removeprefix("sidecar ")
    yield from (f"{count:,} {suffix} files are not used, because {kind} files count; "
                f"--caption-ext {suffix} would use them"
                for suffix, count in lost.items() if count)
    yield from (f"{count:,} caption files are not UTF-8 and were read as {encoding}"
                for encoding, count in sorted(reader.encodings.items()) if not encoding.startswith("utf"))
    if not reader.joined and sum(len(captions) > 1 for captions in source.by_name.values()) > len(source.by_name) / 2:
        yield ("each line of a caption file is a caption of its own, and training picks one at random; "
               "--join-lines makes each file one caption")
    if not source.by_name and source.present:
        yield f"{len(reader.captions):,} caption files hold no text, for example {min(reader.captions)}"
    if reader.translated:
        yield f"{reader.translated:,} text files hold translations, of which only the first language counts"
    if reader.boxes:
        yield f"{reader.boxes:,} text files hold only numbers, as boxes for object detection, and no caption"
    problems = {name for name, _ in source.problems}
    silent = [name for name, captions in reader.captions.items()
              if captions is None and name.endswith(".json") and name not in problems]
    if silent:
        yield f"{len(silent):,} .json files beside pictures hold no caption, for example {silent[0]}"


def _owners(tree: Tree, files: list[File]) -> dict[str, dict[str, File]]:
    """Picture → suffix → its file. A name that fits exactly goes before one that fits only leniently."""
    pictures: dict[str, list[str]] = {}         # base → the pictures: a.jpg and a.png share a.txt
    for picture in tree.pictures if files else ():
        pictures.setdefault(picture.base, []).append(picture.name)
    owners: dict[str, dict[str, File]] = {}
    rest = []
    for file in files:
        if file.base in pictures:
            for name in pictures[file.base]:
                owners.setdefault(name, {})[file.suffix] = file
        else:
            rest.append(file)
    lenient: dict[str, list[str]] = {}
    for picture in tree.pictures if rest else ():
        folder, key = posixpath.split(picture.base)
        shared = posixpath.join(folder, key.split(".")[0])              # 0001.input.png and 0001.txt, as in WebDataset
        for base in {picture.name.casefold(), picture.base.casefold(), shared.casefold()}:
            lenient.setdefault(base, []).append(picture.name)
    index = PictureIndex(picture.name for picture in tree.pictures if rest)
    for file in rest:
        base = file.base.casefold()
        longer = posixpath.splitext(base)[0]                            # 0001.jpg.more.json, 0001.en.txt
        names = lenient.get(base) or lenient.get(longer) or [
            name for name in [index.find_parallel(file.base)] if name]
        for name in dict.fromkeys(names):
            owners.setdefault(name, {}).setdefault(file.suffix, file)
    return owners


class SidecarReader:
    """Reads sidecar files, and guesses the encoding of those that are not UTF-8 from all of them together."""

    def __init__(self, source: SourceCaptions, joined: bool) -> None:
        self.source, self.joined = source, joined
        self.captions: dict[str, tuple[str, ...] | None] = {}           # name of a file → its captions
        self.encodings: Counter[str] = Counter()
        self.translated = 0                     # number of files with translations of their caption
        self.boxes = 0                          # number of files that hold only numbers

    def read(self, files: Iterable[File]) -> None:
        """Read all files, each once."""
        foreign: list[tuple[File, bytes]] = []
        for file in files:
            if file.name not in self.captions:          # a.jpg and a.png share a.txt
                self.captions[file.name] = None
                data = self._bytes(file)
                if data is not None and not is_unicode(data):
                    foreign.append((file, data))
                elif data is not None:
                    self.captions[file.name] = self._captions_in(file, data, b"")
        sample = b"\n".join(data for _, data in foreign[:SAMPLE_FILES])
        for file, data in foreign:
            self.captions[file.name] = self._captions_in(file, data, sample)

    def _bytes(self, file: File) -> bytes | None:
        """The contents of a file, unless it cannot be read or is too long."""
        try:
            data = read_head(file.path, SIDECAR_LIMIT + 1)
        except OSError:
            self.source.problems.append((file.name, "unreadable"))
            return None
        if len(data) <= SIDECAR_LIMIT:
            return data
        if file.suffix != ".json":              # a big JSON file describes something else
            self.source.problems.append((file.name, "longer than 64 KB, ignored"))
        return None

    def _captions_in(self, file: File, data: bytes, sample: bytes) -> tuple[str, ...] | None:
        """The alternative captions, one for each line; None when the file is no caption at all."""
        problems = self.source.problems
        try:
            text, encoding = decode_text(data, sample=sample)
            text = text.removeprefix("\ufeff")
            self.encodings[encoding] += 1
        except NotText:
            problems.append((file.name, "not text"))
            return None
        if file.suffix != ".json":
            lines = text.splitlines()
            if (kept := without_translations(lines)) != [line for line in lines if line.strip()]:
                self.translated += 1
                lines = kept
            if _are_boxes(lines):
                self.boxes += 1
                return None
            return distinct_captions(join_lines(lines) if self.joined else lines)
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            problems.append((file.name, "not JSON"))
            return None
        if isinstance(content, str):
            content = {"caption": content}
        if not isinstance(content, dict):
            return None
        content = {str(key).lower(): value for key, value in content.items()}
        if _is_file_name(content.get("title")):                         # as in exports of photo services
            del content["title"]
        if not any(key in content for key in SIDECAR_KEYS):
            return None
        return captions_under(SIDECAR_KEYS, content, file.name, self.source)


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and posixpath.splitext(value)[1].lower() in picture_suffixes()


def _are_boxes(lines: list[str]) -> bool:
    """Whether each line holds the numbers of a box and nothing else, as files for object detection do."""
    rows = [re.split(r"[\s,;]+", line.strip()) for line in lines if line.strip()]
    return bool(rows) and all(len(row) >= _BOX and all(map(_NUMBER.fullmatch, row)) for row in rows)


def _report_others(source: SourceCaptions, tree: Tree, files: list[File], used: Counter[str]) -> None:
    """Add the sidecars that cannot be opened, and those of no picture, to the problems."""
    stems = {picture.base.casefold() for picture in tree.pictures}
    stems |= {posixpath.splitext(name)[0].casefold() for name, _ in tree.unusable}
    stems |= {name.casefold() for name, _ in tree.unusable}
    source.problems += [(file.name, reason) for file, reason in tree.irregular
                        if file.base.casefold() in stems and file.suffix in SIDECAR_SUFFIXES]
    if source.present:
        no_orphans, folders = NOT_SIDECARS | FOLDER_TEXTS, {picture.directory for picture in tree.pictures}
        orphans = [file for file in files if file.name not in source.files and file.base.casefold() not in stems
                   and file.suffix in used and normalised(posixpath.basename(file.base)) not in no_orphans
                   and file.base not in folders]
        source.problems += [(file.name, "caption without a picture") for file in orphans]
