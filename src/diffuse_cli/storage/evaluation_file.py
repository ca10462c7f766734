"""The files that an evaluation leaves beside a model: their names, and their entries as people read them.

The texts may be foreign: the callers escape them before they show them.
"""

import math
from typing import Any

EVALUATION_FILE, GALLERY_FILE = "evaluation.json", "closest.png"


def nested_entry(contents: Any, key: str) -> Any:
    """The entry "outer.inner" of nested dictionaries, or None."""
    for part in key.split("."):
        contents = contents.get(part) if isinstance(contents, dict) else None
    return contents


def readable(value: Any, *, missing: str = "–") -> str:
    """A number as people read it, with its standard error if it has one; `missing` where there is no number."""
    if isinstance(value, dict):
        error = value.get("standard_error")
        spread = f" ± {error:.2g}" if type(error) is float and math.isfinite(error) else ""
        return readable(value.get("value"), missing=missing) + spread
    if type(value) is int:
        return f"{value:,}"
    if type(value) is float:
        return f"{value:.4g}" if math.isfinite(value) else missing
    return missing if value is None else str(value)
