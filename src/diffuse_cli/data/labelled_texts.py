"""Texts whose parts have labels, “Caption: a red car” and “Tags: red, car”, as hands and language models write them.

Standard library only.
"""

import re
from collections.abc import Sequence

# Words before the colon, or in what a model says before its answer; the part with the first that is there counts.
_SENTENCES = ("caption", "prompt", "description")
_KINDS = (*_SENTENCES, "tag", "keyword", "title")
_WORD = r"(?P<kind>caption|prompt|description|tag|keyword)s?"
_ADJECTIVE = r"(?:image|picture|photo|img|detailed|short|long|brief|full|final|main|positive|scene|visual)"
_SIGNS = r"[\s>*_#-]*"
_SAID = (r"(?:(?:sure|certainly|of course|okay|ok)\b\W+)?here(?:['’]s| is| are)\b[^:\n]{0,80}?\b"
         rf"{_WORD.replace('kind', 'said')}\b[^:\n]{{0,60}}:")
_LABEL = re.compile(rf"{_SIGNS}(?:(?:{_ADJECTIVE}[ _-]){{0,2}}{_WORD}(?: ?\(?\d+\)?)?[*_ ]*[:：=]|{_SAID})[*_]*\s*",
                    re.IGNORECASE)
_TITLE = re.compile(rf"{_SIGNS}title[*_ ]*[:：][*_]*\s*", re.IGNORECASE)
_HEADING = re.compile(rf"\s*#+ *(?:{_ADJECTIVE} )?{_WORD}\s*", re.IGNORECASE)
_OTHER = re.compile(r"[\s>*_#-]*[A-Z][A-Za-z /-]{1,30}[*_]*[:：](?!//)")        # “Style: oil”, “Negative prompt: ugly”
_BULLET = re.compile(r"\s*[-*•–]\s+(?=\S)")
_NUMBER = re.compile(r"\s*(\d+)[.)]\s+(?=\S)")


def without_label(text: str) -> str:
    """A text without a label such as “Caption:” at its beginning."""
    match = _LABEL.match(text) if _may_be_labelled(text) else None
    return text[match.end():] if match and match.end() < len(text.rstrip()) else text


def _may_be_labelled(line: str) -> bool:
    """Whether a line holds one of the signs of a label, which is seen in less time than the label."""
    return ":" in line or "=" in line or "：" in line or "#" in line


def caption_part(lines: Sequence[str]) -> tuple[list[str], bool]:
    """The lines of the most important part of a text, without its label, and whether other parts are left out.

    A text is returned as it is if it has no labels, or begins with lines without one.
    """
    if not any(map(_may_be_labelled, lines)):
        return list(lines), False
    parts: list[tuple[str, list[str]]] = [("", [])]         # with the kind of their label
    for line in lines:
        kind, rest = _label_of(line)
        if kind or (_OTHER.match(line) and len(parts) > 1):
            parts.append((kind or "other", []))
        if rest.strip():
            parts[-1][1].append(rest)
    before = parts[0][1]                        # the first label, perhaps with labels that mean something else
    if len(parts) == 1 or not all(map(_OTHER.match, before)) or (
            before and not any(kind in _SENTENCES for kind, _ in parts)):
        return list(lines), False
    filled = {kind for kind, text in parts if text}
    best = next((kind for kind in (*_KINDS, "other") if kind in filled), "")
    return [line for kind, text in parts if kind == best for line in text], len(filled) > 1


def _label_of(line: str) -> tuple[str, str]:
    """The kind of the label at the beginning of a line, "" without one that is known; and what follows it."""
    if match := _LABEL.match(line) or _HEADING.fullmatch(line):
        found = match.groupdict()
        return (found["kind"] or found["said"]).lower(), line[match.end():]
    match = _TITLE.match(line)
    return ("title", line[match.end():]) if match else ("", line)


def without_bullets(lines: Sequence[str]) -> list[str]:
    """The lines of a list without the signs or numbers before them; any other lines as they are."""
    if len(lines) < 2:
        return list(lines)
    if all(map(_BULLET.match, lines)):
        return [_BULLET.sub("", line, count=1) for line in lines]
    numbers = [int(match[1]) for match in map(_NUMBER.match, lines) if match]
    if numbers == [*range(1, len(lines) + 1)]:
        return [_NUMBER.sub("", line, count=1) for line in lines]
    return list(lines)
