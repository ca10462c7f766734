"""TOML in files of others: what the standard library would take minutes for, or end in a crash for, is refused."""

import tomllib
from typing import Any

MAX_DOTS = 100                                  # in a line; the time for a name of n parts grows with n²


class TomlError(ValueError):
    """A text is not TOML that we accept. The message is a part of a sentence: why not."""


def loads_toml(text: str) -> dict[str, Any]:
    """Parse TOML. Raises TomlError."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > MAX_DOTS:
            raise TomlError(f"line {number} has more than {MAX_DOTS} dots")
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TomlError(str(error)) from error
    except RecursionError as error:
        raise TomlError("it is nested too deep") from error
    except ValueError as error:                 # numbers of thousands of digits, dates of the year 0
        raise TomlError("a number or a date in it is out of range") from error
