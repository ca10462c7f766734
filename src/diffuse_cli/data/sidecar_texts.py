"""Reads the texts beside pictures: their lines, JSON with a caption, and XMP, in whatever encoding they are."""

import itertools
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..files.strict_json import loads_shallow
from .caption_columns import ABOUT_OTHERS, is_caption_name
from .caption_text import (
    NOTHING,
    captions_of_xmp,
    captions_under,
    description_of_exiftool,
    distinct_captions,
    join_lines,
    without_translations,
    without_wrapping,
)
from .containers import File, read_head
from .file_tree import FileList
from .file_types import picture_suffixes
from .generated_prompts import prompt_of_graph, prompt_of_parameters
from .labelled_texts import caption_part, without_bullets
from .source_captions import SourceCaptions
from .spilled import SpilledDict, SpilledTuples
from .structured_texts import caption_in
from .text_files import NotText, decode_text, is_unicode, was_guessed
from .unmarked_utf16 import UNMARKED, unmarked_utf16

SIDECAR_KEYS = ("caption", "text", "prompt", "description", "captions", "tags", "tag_string", "tags_general",
                "tag_string_general", "positive", "content", "response", "title")   # the first that is filled counts
_ANSWER_KEYS = frozenset(("choices", "message", "content"))             # of what a service answers
_OF_MESSAGES = ("content", "response")          # these count only if they are texts
SIDECAR_LIMIT = 64 * 1024                       # maximum bytes of a sidecar file; a longer file is no caption
JSON_LIMIT = 2**20                              # the same of JSON, which may hold more than the caption
SAMPLE_FILES = 1000                             # maximum files that a guess of their encoding is based on
_FEW, _MOST = 3, 0.8                            # files, and their share, that must be in UTF-16 to show that all are
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?", re.IGNORECASE)
_BOX = 4                                        # numbers in a line from which a file of numbers describes boxes
_SECTION, _KEY = re.compile(r"\s*\[[^\[\]]+\]\s*"), re.compile(r"\s*[\w.:/-]+(?:\[[\w@.-]+\])?\s*=")
_NAMES = ("caption", "prompt", "description", "title", "name")         # keys of settings whose value is a caption
_NAMED = re.compile(rf"\s*({'|'.join(_NAMES)})\s*=(.*[^\W\d_].*)", re.IGNORECASE)


class SidecarReader:
    """Reads sidecar files, and guesses the encoding of those that are not UTF-8 from all of them together."""

    def __init__(self, source: SourceCaptions, joined: bool) -> None:
        self.source, self.joined = source, joined
        self.captions = SpilledTuples()         # of each file, () if it holds none; without files of another kind
        self.encodings: Counter[str] = Counter()
        self.translated = 0                     # number of files with translations of their caption
        self.boxes = 0                          # number of files that hold only numbers
        self.settings = 0                       # number of files that hold settings of a program, and no caption
        self.labelled = 0                       # number of files that have parts with labels, not all of them captions
        self.generated = 0                      # number of files with the parameters of a generated picture
        self.outlines: SpilledDict[None] = SpilledDict()        # files that only mark objects in pictures

    def read(self, files: Iterable[File]) -> None:
        """Read all files."""
        foreign, doubtful = FileList(), FileList()          # not UTF-8; UTF-8 that may be UTF-16
        examples: list[bytes] = []
        utf16: Counter[str | None] = Counter()  # which UTF-16 without a mark the files that are not UTF-8 may be in
        for file in files:
            data = self._bytes(file)
            if data is None:
                continue
            if not is_unicode(data):
                foreign.append(file)
                examples += [data] if len(examples) < SAMPLE_FILES else []
                utf16[unmarked_utf16(data)] += 1
                continue
            encoding = self._read(file, data)
            if encoding in UNMARKED:
                utf16[encoding] += 1
            elif encoding == "utf-8" and b" " not in data and unmarked_utf16(data):
                doubtful.append(file)
        common, count = utf16.most_common(1)[0] if utf16 else (None, 0)
        if common is None or count < max(_FEW, _MOST * utf16.total()):
            common, doubtful = None, FileList()
        sample = b"\n".join(examples)
        for file in itertools.chain(foreign, doubtful):
            if (data := self._bytes(file)) is not None:
                self._read(file, data, sample, common)

    def _read(self, file: File, data: bytes, sample: bytes = b"", utf16: str | None = None) -> str:
        """Take over the captions of a file. → its encoding; "" if it is no text. sample, utf16: as in `decode_text`."""
        try:
            text, encoding = decode_text(data, sample=sample, utf16=utf16)
        except NotText as error:
            self.source.problems.append((file.name, error.reason))
            return ""
        self.encodings[encoding] += 1
        if (captions := self._captions_in(file, text.removeprefix("\ufeff"))) is not None:
            self.captions[file.name] = captions
        return encoding

    def _bytes(self, file: File) -> bytes | None:
        """The contents of a file, unless it cannot be read or is too long."""
        try:
            limit = JSON_LIMIT if file.suffix == ".json" else SIDECAR_LIMIT
            data = read_head(file.path, limit + 1)
        except OSError:
            self.source.problems.append((file.name, "unreadable"))
            return None
        if len(data) <= limit:
            return data
        if file.suffix != ".json":              # a big JSON file describes something else
            self.source.problems.append((file.name, "longer than 64 KB, ignored"))
        return None

    def notes_of_encodings(self) -> Iterator[str]:
        """A line for each encoding that was guessed."""
        for encoding, count in sorted(self.encodings.items()):
            if was_guessed(encoding):
                files = "1 caption file is not UTF-8 and was" if count == 1 else (
                    f"{count:,} caption files are not UTF-8 and were")
                yield f"{files} read as {encoding}"

    def _captions_in(self, file: File, text: str) -> tuple[str, ...] | None:
        """The alternative captions, one for each line; None when the file is no caption at all."""
        problems = self.source.problems
        if file.suffix == ".xmp":
            return captions_of_xmp(text)
        text = without_wrapping(text)
        if file.suffix != ".json" and not _is_captioned_object(text):
            lines = [line for line in text.splitlines() if line.strip() not in NOTHING]
            if (prompt := prompt_of_parameters(lines)) is not None:
                self.generated += 1
                return distinct_captions(prompt)
            if (kept := without_translations(lines)) != [line for line in lines if line.strip()]:
                self.translated += 1
                lines = kept
            if are_boxes(lines):
                self.boxes += 1
                return None
            if are_settings(lines):
                caption = caption_in_settings(lines)
                self.settings += not caption
                return distinct_captions(caption) if caption else None
            lines, has_more = caption_part(lines)
            self.labelled += has_more
            lines = without_bullets([line for line in lines if line.strip()])
            return distinct_captions(join_lines(lines) if self.joined else lines)
        try:
            content = loads_shallow(text)
        except (ValueError, RecursionError):
            problems.append((file.name, "not JSON"))
            return None
        if isinstance(content, str):
            content = {"caption": content}
        if isinstance(content, list) and len(content) == 1:             # as exiftool writes
            content = content[0]
        if isinstance(content, list) and all(isinstance(item, str) for item in content):
            content = {SIDECAR_KEYS[0]: content}
        if not isinstance(content, dict):
            return None
        if described := description_of_exiftool(content):
            return distinct_captions(described)
        if prompt := prompt_of_graph(content):
            self.generated += 1
            return distinct_captions(prompt)
        if isinstance(content.get("shapes"), list) and "imagePath" in content:          # of labelme
            return self._labelme(file, content)
        answers = caption_in(content) if not _ANSWER_KEYS.isdisjoint(content) else None
        answers = [answers] if isinstance(answers, str) else answers
        content = _with_caption(content, is_outside=True) or (
            {SIDECAR_KEYS[0]: answers} if isinstance(answers, list) and all(isinstance(one, str) for one in answers)
            else None)
        if content is None:
            return None
        return captions_under(SIDECAR_KEYS, content, file.name, problems)

    def _labelme(self, file: File, content: dict[str, Any]) -> tuple[str, ...] | None:
        """The flags of a picture that are set, as tags. Without any, None, and the outlines in it are counted."""
        flags = content.get("flags")
        if tags := [name for name, is_set in flags.items() if is_set is True] if isinstance(flags, dict) else []:
            return distinct_captions(", ".join(tags))
        self.outlines[file.name] = None
        return None


def _with_caption(content: dict[str, Any], *, is_outside: bool = False) -> dict[str, Any] | None:
    """The object with a caption under one of SIDECAR_KEYS: this one, or if it `is_outside` the only such one in it."""
    content = {str(key).lower(): value for key, value in content.items()}
    if _is_file_name(content.get("title")):                             # as in exports of photo services
        del content["title"]
    for key in _OF_MESSAGES:
        if not isinstance(content.get(key), str):
            content.pop(key, None)
    if any(key in content for key in SIDECAR_KEYS):
        return content
    if named := next(filter(is_caption_name, content), None):           # caption_en
        return {SIDECAR_KEYS[0]: content[named]}
    if is_outside and isinstance(translated := caption_in(content), str):               # {"en": …, "de": …}
        return {SIDECAR_KEYS[0]: translated}
    inner = [_with_caption(value) for name, value in content.items()
             if isinstance(value, dict) and name not in ABOUT_OTHERS] if is_outside else []
    found = [value for value in inner if value is not None]
    return found[0] if len(found) == 1 else None


def _is_captioned_object(text: str) -> bool:
    """Whether a text of another suffix is a JSON object with a caption."""
    if not text.lstrip().startswith("{"):
        return False
    try:
        content = loads_shallow(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(content, dict) and any(key in content for key in SIDECAR_KEYS)


def _is_file_name(value: Any) -> bool:
    return isinstance(value, str) and posixpath.splitext(value)[1].lower() in picture_suffixes()


def are_boxes(lines: list[str]) -> bool:
    """Whether each line holds the numbers of a box and nothing else, as files for object detection do."""
    rows = [re.split(r"[\s,;]+", line.strip()) for line in lines if line.strip()]
    return bool(rows) and all(len(row) >= _BOX and all(map(_NUMBER.fullmatch, row)) for row in rows)


def are_settings(lines: Iterable[str]) -> bool:
    """Whether most lines set a value, as “width = 640” or “Name[de]=Haus” below “[window]” does in files of programs.

    One line alone does not. Blank lines, and remarks behind # or ;, do not count.
    """
    lines = [line for line in lines if line.strip() and line.lstrip()[0] not in "#;"]
    keys = sum(bool(_KEY.match(line)) for line in lines)
    settings = keys + sum(bool(_SECTION.fullmatch(line)) for line in lines)
    return keys > 0 and settings >= max(2, len(lines) / 2)


def caption_in_settings(lines: Sequence[str]) -> str:
    """The value of the key that names or describes something: “Name=a house” in a .desktop; "" without any."""
    found = {match[1].lower(): match[2].strip("\"' ") for line in reversed(lines) if (match := _NAMED.match(line))}
    return next((found[key] for key in _NAMES if key in found), "")
