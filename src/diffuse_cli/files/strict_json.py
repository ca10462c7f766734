"""Reads JSON strictly, because others may have written it: a model's header, a picture's metadata, a file of prompts.

The callers turn `JsonError` into the error of the file that they read.
"""

import json
import math
import re
from typing import Any

MAX_JSON_BYTES = 2**20                          # default limit of one document
MAX_DEPTH = 100                                 # lists and objects within each other
_LONG = re.compile("[0-9]{19}")                 # digits that may be an integer beyond 64 bits


class JsonError(ValueError):
    """A text is not JSON that we accept. The message is a sentence that begins with "its JSON is"."""


def loads_shallow(text: str, **hooks: Any) -> Any:
    """`json.loads` of at most MAX_DEPTH lists and objects within each other.

    Python 3.13 reads nine thousand, but what then looks at the values calls itself for each, a thousand times at most.
    hooks: as `json.loads` takes them. Raises ValueError, and RecursionError for a deeper text.
    """
    value = json.loads(text, **hooks)
    level = [value] if text.count("[") + text.count("{") > MAX_DEPTH else []
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level if isinstance(outer, dict | list)
                 for inner in (outer.values() if isinstance(outer, dict) else outer) if isinstance(inner, dict | list)]
        if not level:
            return value
    raise RecursionError(f"more than {MAX_DEPTH} lists and objects within each other")


def loads_strict(text: str | bytes, *, limit: int = MAX_JSON_BYTES, infinities: bool = False) -> Any:
    """Parse JSON of at most `limit` bytes (or characters of a str) that means the same to every reader.

    Refuses duplicate keys, NaN, infinities (also those by overflow), integers beyond 64 bits, excessive nesting and
    invalid UTF-8. With `infinities`, the words NaN and Infinity, which the standard forbids, are read as None. Raises
    JsonError.
    """
    if len(text) > limit:
        raise JsonError(f"its JSON is too long ({len(text):,} bytes, at most {limit:,})")
    try:
        text = text.decode() if isinstance(text, bytes) else text
        whole = _small_int if _LONG.search(text) else int               # a call for each number takes most of the time
        return loads_shallow(text, object_pairs_hook=_unique_keys, parse_float=_finite_float, parse_int=whole,
                             parse_constant=_no_constant if infinities else _refuse_constant)
    except RecursionError as error:
        raise JsonError("its JSON is nested too deeply") from error
    except ValueError as error:                                    # includes JSONDecodeError and UnicodeDecodeError
        raise JsonError(f"its JSON is damaged ({error})") from error


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _no_constant(_: str) -> None:
    return None


def _refuse_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number")


def _finite_float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number is out of range")
    return value


def _small_int(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**64:
        raise ValueError("a number is out of range")
    return int(text)
