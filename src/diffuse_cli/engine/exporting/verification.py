"""What an exported model must have in common with the original, as figures: the lines of `export.json`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ExportError


@dataclass(frozen=True)
class Comparison:
    """The largest difference between two answers to the same question, and how large it may be."""

    what: str
    max_abs: float
    limit: float

    @property
    def holds(self) -> bool:
        """False as well for what is not a number."""
        return self.max_abs <= self.limit and math.isfinite(self.max_abs)


def judge(comparisons: Sequence[Comparison]) -> None:
    """Raise ExportError for the first comparison that does not hold."""
    for found in comparisons:
        if not found.holds:
            raise ExportError(f"what was exported is not the model: {found.what} differs by {found.max_abs:.3g}, "
                              f"at most {found.limit:g} is allowed")
