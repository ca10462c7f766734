"""Captions inside lists and objects, and lists and objects inside texts, as programs write them to a value of a table.

Standard library only. The forms are those of JSON, of Python's `repr`, and of NumPy's, which has no commas.
"""

import re
from typing import Any

from ..files.strict_json import loads_shallow

# Of an object in the place of a caption.
CAPTION_KEYS = ("caption", "text", "raw", "sentence", "value", "content", "prompt", "description", "assistant")
LANGUAGE_KEYS = ("en", "en_US", "en-US", "english")                     # of translations, instead of CAPTION_KEYS
# Keys around a caption in the answers of services.
_WRAPPERS = ("edges", "node", "response", "body", "choices", "message", "content")
_QUOTED = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LIST = re.compile(rf"\[\s*{_QUOTED}(?:[\s,]+{_QUOTED})*[\s,]*\]", re.DOTALL)
_PAIR = re.compile(rf"({_QUOTED})\s*:\s*({_QUOTED}|{_LIST.pattern}|[\w.+-]+)", re.DOTALL)
_MAP = re.compile(rf"\{{\s*{_PAIR.pattern}(?:\s*,\s*{_PAIR.pattern})*[\s,]*\}}", re.DOTALL)
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|(.))", re.DOTALL)


def structured(value: Any) -> Any:
    """The list or object that a text holds; any other value as it is.

    A list counts if it holds texts or objects alone: "[red] car" and "[1, 2]" are texts.
    """
    text = value.strip() if isinstance(value, str) else ""
    if text[:1] + text[-1:] not in ("[]", "{}"):
        return value
    try:
        parsed = loads_shallow(text)
    except (ValueError, RecursionError):
        return _literal(text) or value
    are_texts = isinstance(parsed, list) and bool(parsed) and all(isinstance(item, str | dict) for item in parsed)
    return parsed if are_texts or isinstance(parsed, dict) else value


def _literal(text: str) -> Any:
    """The value of a literal of Python or NumPy: texts, and lists and maps of them; None for any other text."""
    if text[0] in "'\"":
        return _ESCAPE.sub(lambda match: chr(int(match[1] or match[2], 16)) if match[1] or match[2] else
                           " " if match[3] in "nrt" else match[3], text[1:-1])
    if _LIST.fullmatch(text):
        return list(map(_literal, re.findall(_QUOTED, text, re.DOTALL)))
    return {_literal(key): _literal(item) for key, item in _PAIR.findall(text)} if _MAP.fullmatch(text) else None


def caption_in(value: Any) -> Any:
    """The caption in an object, or in the text of one; the captions in a list of them; any other value as it is."""
    value = structured(value)
    if isinstance(value, list):
        return [caption_in(item) for item in value]
    if isinstance(value, dict) and isinstance(parts := value.get("content"), list) and all(
            isinstance(part, dict) and "type" in part for part in parts):          # of a message: texts and pictures
        return " ".join(part["text"] for part in parts if isinstance(part.get("text"), str))
    if not isinstance(value, dict):
        return value
    if known := next((value[key] for key in (*CAPTION_KEYS, *LANGUAGE_KEYS) if isinstance(value.get(key), str)), ""):
        return known
    if isinstance(choices := value.get("choices"), list) and all(isinstance(choice, str) for choice in choices):
        return ", ".join(choices)               # of Label Studio
    inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), dict | list)), None)
    return value if inner is None else caption_in(inner)
