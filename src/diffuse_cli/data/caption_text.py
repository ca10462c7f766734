"""How text or JSON values become captions.

Standard library only. Text is kept as it is, apart from white space and control characters: one caption is one line.
"""

import html
import math
import re
from collections.abc import Iterable
from statistics import median
from typing import Any

from .generated_prompts import without_signs
from .labelled_texts import without_label
from .structured_texts import caption_in, structured

TAG_KEYS = ("tags", "tag", "keywords", "labels", "classes", "tags_general")     # a list is one caption of tags
SPACED_TAG_KEYS = ("tag_string", "tag_string_general")                  # tags of image boards, with blanks between
NOTHING = ("nan", "NaN", "NULL", "null", "None", "N/A", "#N/A", "<NA>", "\\N")        # written where no caption is
_EMPTY = frozenset("[]{}(),;.-_/|\"'` ")
_ASKING = ("human", "user", "system")           # who does not say the caption in a conversation
_EXIFTOOL_NAMES = ("description", "caption-abstract", "imagedescription", "xpcomment", "subject", "keywords",
                   "xpkeywords", "tagslist", "title")                   # the first that says something counts
_OF_CAMERAS = re.compile(r".*(digital (still )?camera|camera pictures|created with|processed by).*|default|screenshot",
                         re.IGNORECASE)
_CONTROL = dict.fromkeys((*range(32), *range(127, 160)), " ")          # control characters
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-fA-F]{1,6}|[A-Za-z]\w{1,31});")
_TAG = re.compile(r"</?(?:p|br|b|i|u|em|strong|span|div|a|ul|ol|li|h[1-6]|font|small|sub|sup)(?:\s[^<>]*)?/?>",
                  re.IGNORECASE)
_THOUGHTS = re.compile(r"<(think|thinking|reasoning)>", re.IGNORECASE)
_LANGUAGE = re.compile(r"([a-z]{2,3})(?:[_@-][A-Za-z]+)*(?:\.utf-?8)?\s*=\s*(?=\S)", re.IGNORECASE)


def tidy(text: str) -> str:
    """The text in one line: control characters and runs of white space become one space, lone surrogates '?'."""
    return " ".join(text.translate(_CONTROL).split()).encode("utf-8", "replace").decode("utf-8")


def distinct_captions(value: Any) -> tuple[str, ...]:
    """A text or a list of texts → the distinct captions in it, in order; empty ones and other values are left out.

    Of HTML, the text counts; of prompts, the words without the signs by which networks are loaded and words weighed; of
    a text with a label such as “Caption:”, what follows it.
    """
    tidied = (tidy(without_label(without_signs(_without_html(text.removeprefix("\ufeff"))))) for text in _texts(value)
              if text is not None)
    return tuple(dict.fromkeys(text for text in tidied if _says_something(text)))


def _says_something(text: str) -> bool:
    """Whether a text holds more than signs that stand where no caption is, as "[]", "-" and ",,," do."""
    return not _EMPTY.issuperset(text)


def without_wrapping(text: str) -> str:
    """The answer of a language model without its thoughts, <think>…</think>, and without the fences of a code block."""
    text = _without_thoughts(text)
    lines = text.strip().splitlines()
    return "\n".join(lines[1:-1]) if len(lines) > 2 and lines[0].startswith("```") and lines[-1] == "```" else text


def _without_thoughts(text: str) -> str:
    if match := _THOUGHTS.match(text := text.lstrip()):
        end = f"</{match[1]}>"
        return text[text.rfind(end) + len(end):] if end in text else text
    return text


def _without_html(text: str) -> str:
    """A text with the letters that entities such as &amp; stand for; without tags, if it has more than single ones.

    The thoughts of a language model before its answer are left out as well.
    """
    if "</" in text or "<br" in text:
        text = _TAG.sub(" ", _without_thoughts(text))
    for _ in range(2 if "&" in text else 0):                            # exporters write them twice
        text = without_entities(text)
    return text


def without_entities(text: str) -> str:
    """A text with the letters that entities such as &amp; stand for; numbers of more digits than letters have stay."""
    return _ENTITY.sub(lambda entity: html.unescape(entity[0]), text)


def join_lines(lines: Iterable[str]) -> str:
    """Lines that are one caption: tags, which get commas between them, or a text that was wrapped."""
    lines = [stripped for line in lines if (stripped := tidy(line))]
    are_tags = median([len(line.split()) for line in lines] or [0]) <= 3 and not any(
        re.search(r"[.!?]$", line) for line in lines)
    return ", ".join(line.rstrip(", ") for line in lines) if are_tags else " ".join(lines)


def without_translations(lines: Iterable[str]) -> list[str]:
    """The lines of a text without its translations, like "de.utf8=ein Frosch"; the English one if all are marked so."""
    lines = [line for line in lines if line.strip()]
    marks = [_LANGUAGE.match(line) for line in lines]
    if sum(map(bool, marks)) < 2:
        return lines
    plain = [line for line, mark in zip(lines, marks, strict=True) if mark is None]
    english = [line[mark.end():] for line, mark in zip(lines, marks, strict=True)
               if mark is not None and mark[1].lower() == "en"]
    return plain or english[:1] or lines


def captions_of_xmp(text: str) -> tuple[str, ...] | None:
    """The description in an XMP file, else its keywords as tags, else its title; None if it has none of them.

    Of keywords with those above them, "things|car", the last word counts. Those that darktable adds itself do not.
    """
    for field in ("dc:description", "dc:subject", "lr:hierarchicalSubject", "digiKam:TagsList", "dc:title"):
        items = [without_entities(item.partition(">")[2].partition("</rdf:li>")[0])
                 for item in text.partition(f"<{field}>")[2].partition(f"</{field}>")[0].split("<rdf:li")[1:]]
        if "description" not in field and "title" not in field:
            separator = "/" if field.startswith("digiKam") else "|"
            items = [", ".join(dict.fromkeys(item.rpartition(separator)[2].strip() for item in items
                                             if not item.startswith("darktable|")))]
        if (captions := distinct_captions(items[:1])) and not re.fullmatch(r"\S+\.\w{2,5}", captions[0]):
            return captions                     # and no name of a file
    return None


def description_of_exiftool(content: dict[str, Any]) -> str:
    """The same of a picture whose texts exiftool has written into a JSON object; "" for any other object.

    What cameras write as the description of every picture is none.
    """
    by_name = {key.rpartition(":")[2].lower(): value for key, value in content.items()}       # XMP:Description
    for name in _EXIFTOOL_NAMES if "sourcefile" in by_name else ():
        value = by_name.get(name)
        text = tidy(", ".join(map(str, value)) if isinstance(value, list) else value if isinstance(value, str) else "")
        if text and not _OF_CAMERAS.fullmatch(text):
            return text
    return ""


def captions_under(
    keys: Iterable[str], row: dict[str, Any], place: str, problems: list[tuple[str, str]],
) -> tuple[str, ...]:
    """The captions of `row` under the first of `keys` that holds any.

    Words by which programs write that there is none, as NULL, are no captions. A value that is not text becomes one of
    the `problems`, reported for `place`.
    """
    for key in keys:
        value = _plain(key, row.get(key))
        if value in NOTHING or value != value:                         # a float that is not a number is not itself
            continue
        if value is not None and None in _texts(value):
            problems.append((place, "caption is not text"))
        if captions := distinct_captions(value):
            return captions
    return ()


def _plain(key: str, value: Any) -> Any:
    """The value with a list of tags joined, and with objects like {"caption": …} replaced by their caption."""
    value = structured(value)
    if key.strip().lower() in TAG_KEYS and isinstance(value, dict | list) and (tags := _tags_in(value)):
        return ", ".join(tags)
    if isinstance(value, list):
        return [caption_in(item) for item in value if not (
            isinstance(item, dict) and item.get("from", item.get("role")) in _ASKING)]
    if key in SPACED_TAG_KEYS and isinstance(value, str) and "," not in value:
        return ", ".join(value.split())
    return caption_in(value)


def _tags_in(value: dict[str, Any] | list[Any]) -> list[str]:
    """The tags in a list of texts or of objects with a name, or in such lists by their kind; [] in anything else."""
    groups = list(value.values()) if isinstance(value, dict) else [value]
    if not all(isinstance(group, list) for group in groups):
        return []
    items = [item.get("name", item.get("tag")) if isinstance(item, dict) else item
             for group in groups for item in group]
    tags = [item for item in items if isinstance(item, str)]
    return tags if len(tags) == len(items) else []


def _texts(value: Any) -> list[str | None]:
    """The items of a list as texts; a value that is not a list counts as a list of one item.

    Numbers become the texts that a CSV would hold. In the place of an item of any other kind stands None.
    """
    return [str(item) if type(item) in (str, int) or (type(item) is float and math.isfinite(item)) else None
            for item in (value if isinstance(value, list) else [value])]
