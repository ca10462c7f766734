"""Arithmetic of measurements: medians with their range, ratios within a round, exponents of growth. Standard library.

Ratios are taken within each round, where both sides met the same moment of the machine, and then their median: a slow
minute that hits one round hits both sides of one ratio.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median of some repetitions, the lowest and the highest."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], baseline: Sequence[float]) -> Spread:
    """How many times the baseline, round by round; both have as many rounds."""
    return spread([value / base for value, base in zip(values, baseline, strict=True)])


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """(p, residual) of cost ∝ sizeᵖ by least squares of the logarithms; the residual is their root mean square.

    Needs two different sizes; all must be positive.
    """
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    slope, intercept = statistics.linear_regression(x, y)
    squares = [(b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True)]
    return slope, math.sqrt(statistics.fmean(squares))


def shown(value: float, digits: int = 3) -> str:
    """A number for a table: so many significant digits, thousands apart, never in powers of ten."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def shown_spread(values: Sequence[float], digits: int = 3) -> str:
    """median (lowest – highest); one number when there is no more than that."""
    found = spread(values)
    if len(values) == 1:
        return shown(found.median, digits)
    return f"{shown(found.median, digits)} ({shown(found.low, digits)} – {shown(found.high, digits)})"
