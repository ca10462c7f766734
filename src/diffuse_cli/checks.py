"""Checks values with messages that name the option: choices, ranges, durations; and reads dictionaries strictly.

Uses the standard library only: it is imported before torch.
"""

import dataclasses
import difflib
import math
import numbers
import re
import types
import typing
from typing import Any, TypeVar

from .errors import UsageError
from .picture_size import Size

MIN_SIDE, MAX_SIDE = 8, 512                     # pixels along a side of a square; others have at most as many pixels


def check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise UsageError, with the nearest choice, unless `value` is one of `choices`."""
    if value not in choices:
        near = difflib.get_close_matches(value, choices, 1)
        meant = f"Did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"{option} does not know {value!r}", hint=f"{meant}Choose from: {', '.join(choices)}")


def check_range(option: str, value: float, low: float, high: float) -> None:
    """Raise UsageError unless `low <= value <= high`. NaN is refused as well."""
    if not isinstance(value, numbers.Real):
        raise UsageError(f"{option} must be a number, not {str(value)[:40]!r}")
    if not low <= value <= high:
        raise UsageError(f"{option} must be between {_number(low)} and {_number(high)}, not {_number(value)}")


def _number(value: float) -> str:
    """A number as people write it: 1,000, 0.1 or 2, never 2.0."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.15g}"


def check_size(option: str, size: Size, *, multiple: int = 1) -> None:
    """Raise UsageError unless each side has at least MIN_SIDE pixels, all together at most MAX_SIDE².

    multiple: each side must be a multiple of it.
    """
    if size.is_square:
        check_range(option, size.width, MIN_SIDE, MAX_SIDE)
    elif min(size) < MIN_SIDE:
        raise UsageError(f"{option} {size} is too small", hint=f"Each side must have at least {MIN_SIDE} pixels")
    elif size.pixels > MAX_SIDE**2:
        raise UsageError(f"{option} {size} has {size.pixels:,} pixels, and at most {MAX_SIDE**2:,} are possible",
                         hint=f"{MAX_SIDE}x{MAX_SIDE} has so many")
    if any(side % multiple for side in size):
        near = Size(*(max(multiple, round(side / multiple) * multiple) for side in size))
        what = f"a multiple of {multiple}" if size.is_square else f"multiples of {multiple} as width and height"
        raise UsageError(f"{option} must be {what}, not {size}", hint=f"For example {near}")


def check_colours(background: str, white_level: float | None) -> None:
    """Raise UsageError unless these can be the values of --background and --white-level. Knows no names of colours."""
    if not background.strip() or len(background) > 40:
        raise UsageError("--background takes a colour", hint="Give a name, such as white or black, or #rrggbb")
    if white_level is not None:
        check_range("--white-level", white_level, 1e-6, 2**32 - 1)


def parse_duration(option: str, text: str) -> float:
    """'90s', '30m', '2h' or '1h30m' → seconds. Raises UsageError."""
    match = re.fullmatch(r"(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?", text.strip())
    if not text.strip() or match is None:
        raise UsageError(f"{option} does not understand {text!r}", hint="Write 90s, 30m, 2h or 1h30m")
    hours, minutes, seconds = (float(group or 0) for group in match.groups())
    return hours * 3600 + minutes * 60 + seconds


def parse_size(text: str, option: str = "--resolution") -> Size:
    """'64' or '96x64', the value of an option, → the size of a square, or width and height. Raises UsageError."""
    match = re.fullmatch(r"(-?\d{1,9})(?:[xX×](-?\d{1,9}))?", text.strip())
    if match is None:
        raise UsageError(f"{option} does not understand {text[:40]!r}",
                         hint="Write 64 for squares, or width x height in pixels: 96x64")
    return Size(int(match[1]), int(match[2] or match[1]))


def parse_interval(option: str, text: str) -> tuple[str, float]:
    """'500' → ("steps", 500), '5m' → ("seconds", 300), '10%' → ("share", 0.1). Raises UsageError."""
    try:
        if text.endswith("%"):
            share = float(text[:-1]) / 100
            check_range(option, share * 100, 0.1, 100)
            return "share", share
        if text.isdecimal():
            check_range(option, int(text), 1, 100_000_000)
            return "steps", int(text)
        return "seconds", max(1.0, parse_duration(option, text))
    except (ValueError, UsageError) as error:
        if isinstance(error, UsageError) and "does not understand" not in error.what:
            raise
        raise UsageError(f"{option} does not understand {text!r}", hint="Write 500, 5m or 10%") from error


# ── Dictionaries, strictly ──────────────────────────────────────────────────────────────────────────────────────────

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A config as dictionaries and lists that can be written as JSON."""
    return dataclasses.asdict(config, dict_factory=lambda entries: {
        name: _sizes_as_json(value) for name, value in entries})


def _sizes_as_json(value: Any) -> Any:
    """A size, or a tuple of sizes, as it is written; any other value as it is."""
    if isinstance(value, Size):
        return value.to_json()
    return tuple(map(_sizes_as_json, value)) if isinstance(value, tuple) else value


def from_dict(cls: type[T], data: Any, *, where: str = "config") -> T:
    """Build the dataclass `cls` from JSON data. Raises UsageError for entries that are unknown, missing or ill-typed.

    Messages call an entry by its place in `where`. If `where` is empty, they call it as an option: --batch-size.
    """
    if not isinstance(data, dict):
        raise UsageError(f"{where} is not a dictionary")
    fields = {field.name: field for field in dataclasses.fields(cls)}        # type: ignore[arg-type]
    if unknown := sorted(map(str, set(data) - set(fields))):
        raise UsageError(f"{where or 'it'} has unknown entries: {', '.join(unknown)[:200]}")
    hints = typing.get_type_hints(cls)
    values = {}
    for name, field in fields.items():
        if name in data:
            place = f"{where}.{name}" if where else f"--{name.replace('_', '-')}"
            values[name] = _coerce(hints[name], data[name], place)
        elif field.default is dataclasses.MISSING:
            raise UsageError(f"{where}.{name} is missing")
    return cls(**values)


_KINDS = {float: "a number", int: "a whole number", str: "a text", bool: "true or false"}


def _coerce(hint: Any, value: Any, where: str) -> Any:
    if isinstance(hint, types.UnionType):
        if value is None and type(None) in hint.__args__:
            return None
        (hint,) = (option for option in hint.__args__ if option is not type(None))
    if hint is Size:
        return value if isinstance(value, Size) else size_of_json(value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple) or len(value) > 10_000:
            raise UsageError(f"{where} is not a list")
        return tuple(_coerce(typing.get_args(hint)[0], item, where) for item in value)
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(Any, hint), value, where=where)
    if hint is float and type(value) is int:
        value = float(value) if abs(value) < 2**53 else math.inf
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise UsageError(f"{where} should be {_KINDS.get(hint, hint.__name__)}, not {str(value)[:40]!r}")
    if hint is int and abs(value) >= 2**63:
        raise UsageError(f"{where} is out of range")
    return value


def size_of_json(value: Any, where: str) -> Size:
    """The inverse of `Size.to_json`. Raises UsageError for any other value."""
    if type(value) is int and abs(value) < 2**31:
        return Size(value, value)
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})", value) if isinstance(value, str) else None
    if match is None:
        raise UsageError(f"{where} should be a whole number, or a text such as 96x64, not {str(value)[:40]!r}")
    return Size(int(match[1]), int(match[2]))
