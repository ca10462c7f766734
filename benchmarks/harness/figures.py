"""Arithmetic on measurements: medians with their range, ratios within a round, exponents of growth.

A ratio compares two sides within one round, in which both met the machine in the same state, and the median is that of
the ratios: a slow minute during one round slows both sides of one ratio.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """The median, the lowest and the highest of some values."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    """The spread of at least one value."""
    return Spread(statistics.median(values), min(values), max(values))


def ratios(values: Sequence[float], baseline: Sequence[float]) -> Spread:
    """The spread of value/baseline, round by round; both have the same number of rounds."""
    return spread([value / base for value, base in zip(values, baseline, strict=True)])


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """Fit cost ∝ sizeᵖ by least squares of the logarithms. → (p, root mean square of the residuals)

    Needs at least two different sizes; all sizes and costs must be positive.
    """
    x, y = [math.log(size) for size in sizes], [math.log(cost) for cost in costs]
    slope, intercept = statistics.linear_regression(x, y)
    squares = [(b - slope * a - intercept) ** 2 for a, b in zip(x, y, strict=True)]
    return slope, math.sqrt(statistics.fmean(squares))


def format_number(value: float, digits: int = 3) -> str:
    """A number for a table: significant digits, commas between thousands, no powers of ten."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def format_spread(values: Sequence[float], digits: int = 3) -> str:
    """The text "median (lowest – highest)"; of a single value, that number alone."""
    result = spread(values)
    if len(values) == 1:
        return format_number(result.median, digits)
    low, high = format_number(result.low, digits), format_number(result.high, digits)
    return f"{format_number(result.median, digits)} ({low} – {high})"
