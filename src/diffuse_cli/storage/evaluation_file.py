"""An evaluation as it lies beside a model: the names of its files, and its entries as people read them.

Standard library only. Whoever shows what these return makes foreign text harmless.
"""

import math
from typing import Any

EVALUATION_FILE, GALLERY_FILE = "evaluation.json", "closest.png"


def entry(found: Any, key: str) -> Any:
    """The entry `outer.inner` of dictionaries in one another, or None."""
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def readable(value: Any, *, missing: str = "–") -> str:
    """A number as people read it, with its standard error where it has one; `missing` for none."""
    if isinstance(value, dict):
        error = value.get("standard_error")
        shown = f" ± {error:.2g}" if type(error) is float and math.isfinite(error) else ""
        return readable(value.get("value"), missing=missing) + shown
    if type(value) is int:
        return f"{value:,}"
    if type(value) is float:
        return f"{value:.4g}" if math.isfinite(value) else missing
    return missing if value is None else str(value)
