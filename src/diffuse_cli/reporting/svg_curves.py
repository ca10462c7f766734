"""Line charts as SVG elements inside a page, in the page's own colours and letters.

Writes the SVG itself, with the standard library: the few charts of a report need little more than axes, lines and a
legend. The same data give the same bytes.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

POINTS = 240                                    # largest number of points of a curve; longer ones are averaged
WIDTH, HEIGHT = 374, 187                        # of a chart in its own pixels; the page scales it to its column
FONT_SIZE, LETTER_WIDTH = 10, 6.2               # pixels; the width estimates that of an average letter
_TICK, _LINE, _DOT = 3.5, 1.6, 5.0              # pixels: length of a tick, width of a curve, diameter of its dots
_MARGIN = 0.04                                  # share of the data's range that stays free on either side
_INTERVALS = 8                                  # largest number of intervals between the ticks of an axis
_TICK_LETTERS = 6                               # of the y axis that have room; those of an enlarged part need it
_LEGEND_BESIDE = 4                              # smallest number of curves whose legend is a column on the right

Points = list[tuple[float, float]]


@dataclass(frozen=True, kw_only=True)
class Curve:
    """(x, y) pairs and the CSS colour of their line. Values that are not finite are left out."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dots: bool = False                          # whether each point is marked, as suits curves of few points


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Some curves with their title and explanation."""

    title: str
    explanation: str
    curves: Sequence[Curve]
    x_label: str = "step"
    log: bool = False                           # whether the y axis is logarithmic

    @property
    def known(self) -> list[Curve]:
        """The curves that have a number."""
        return [curve for curve in self.curves if any(map(math.isfinite, curve.y))]


def mixed(share: float) -> str:
    """A CSS colour between that of the first curve (share 0) and that of the second (share 1)."""
    return f"color-mix(in oklab, var(--curve-2) {share:.0%}, var(--curve-1))"


def svg(curves: Sequence[Curve], *, name: str, x_label: str = "step", log: bool = False) -> str:
    """One chart as an `<svg>` element that contains no style sheet, script, address or identifier.

    `name` describes the chart to screen readers. With `log`, the y axis is logarithmic and only positive values are
    drawn. An x axis labelled "step" has ticks at whole numbers only.
    """
    lines = [_thinned(curve, positive=log) for curve in curves]
    x_axis = _Axis.around([x for line in lines for x, _ in line], whole=x_label == "step")
    y_axis = _Axis.around([y for line in lines for _, y in line], log=log)
    legend_beside, legend_above = len(curves) >= _LEGEND_BESIDE, 1 < len(curves) < _LEGEND_BESIDE
    frame = _Frame(
        left=_TICK + 8 + LETTER_WIDTH * max([_TICK_LETTERS, *(len(text) for _, text in y_axis.ticks)]),
        right=WIDTH - 8 - (26 + LETTER_WIDTH * max(len(curve.label) for curve in curves) if legend_beside else 0),
        top=26 if legend_above else 8, bottom=HEIGHT - 32)
    chart = ET.Element("svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": name,
                               "style": f"font-size: {FONT_SIZE}px", "data-x": x_label,
                               "data-axes": _placed_axes(frame, x_axis, y_axis)})
    _draw_axes(chart, frame, x_axis, y_axis, x_label)
    for curve, line in zip(curves, lines, strict=True):
        placed = [(frame.x(x_axis.share(x)), frame.y(y_axis.share(y))) for x, y in line]
        _draw_curve(chart, curve, placed, dots=placed)
        chart[-1 - curve.dots].set("data-label", curve.label)         # its line, before the dots
    if legend_beside:
        for row, curve in enumerate(curves):
            _draw_legend(chart, curve, frame.right + 10, frame.top + 6 + 14 * row)
    elif legend_above:
        widths = [34 + LETTER_WIDTH * len(curve.label) for curve in curves]
        starts = itertools.accumulate(widths, initial=(frame.left + frame.right - sum(widths)) / 2)
        for curve, start in zip(curves, starts, strict=False):
            _draw_legend(chart, curve, start, 10)
    return ET.tostring(chart, encoding="unicode")


def _thinned(curve: Curve, *, positive: bool) -> Points:
    """The curve as at most POINTS points, each the mean of a part. The parts follow each other without overlap.

    Points that are not finite are left out. If `positive`, so are those with y ≤ 0.
    """
    points = [(x, y) for x, y in zip(curve.x, curve.y, strict=True)
              if math.isfinite(x) and math.isfinite(y) and (y > 0 or not positive)]
    count = min(POINTS, len(points))
    edges = [len(points) * index // count for index in range(count + 1)] if count else [0]
    parts = [points[low:high] for low, high in itertools.pairwise(edges)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


# ── Axes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Axis:
    """The range of one axis and its ticks, (value, text). On a logarithmic axis, `low` and `high` are powers of ten."""

    low: float
    high: float
    log: bool
    ticks: list[tuple[float, str]]

    @classmethod
    def around(cls, values: Sequence[float], *, log: bool = False, whole: bool = False) -> "_Axis":
        """The axis whose range holds all values with a margin. `whole`: it has ticks at whole numbers only."""
        placed = [math.log10(value) if log else value for value in values] or [0.0, 1.0]
        low, high = min(placed), max(placed)
        if high - low <= 1e-9 * max(abs(low), abs(high), 1e-200):      # all the same
            spread = 0.05 * abs(low) if abs(low) > 1e-200 and not log else 1.0
        else:
            spread = _MARGIN * (high - low)
        low, high = low - spread, high + spread
        return cls(low, high, log, _log_ticks(low, high) if log else _linear_ticks(low, high, whole=whole))

    def share(self, value: float) -> float:
        """How far along the axis a value lies, from 0 to 1."""
        return ((math.log10(value) if self.log else value) - self.low) / (self.high - self.low)


def _linear_ticks(low: float, high: float, *, whole: bool = False) -> list[tuple[float, str]]:
    """Ticks from `low` to `high` at multiples of a step, which is 1, 2, 2.5 or 5 times a power of ten.

    `whole`: the step is rounded up to a whole number.
    """
    least = (high - low) / _INTERVALS * (1 - 1e-9)                    # smallest distance of ticks, less rounding errors
    power = 10.0 ** math.floor(math.log10(least))
    step = next(step for step in (power, 2 * power, 2.5 * power, 5 * power, 10 * power) if step >= least)
    if whole:
        step = max(1.0, math.ceil(step))
    decimals = next((places for places in range(8) if math.isclose(step, round(step, places))), None)
    values = [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]
    return [(value, _text_of(value, decimals)) for value in values]


def _log_ticks(low: float, high: float) -> list[tuple[float, str]]:
    """Ticks from 10^low to 10^high at powers of ten, and at 2 and 5 times these if the range is at most three decades.

    A range with fewer than two such numbers has linear ticks.
    """
    digits, stride = ((1, 2, 5), 1) if high - low <= 3 else ((1,), math.ceil((high - low) / 8))
    powers = range(math.floor(low / stride) * stride, math.ceil(high) + 1, stride)
    values = [float(f"{digit}e{power}") for power in powers for digit in digits]
    ticks = [(value, f"{value:g}") for value in values if value > 0 and low <= math.log10(value) <= high]
    return ticks if len(ticks) > 1 else _linear_ticks(10.0**low, 10.0**high)


def _text_of(value: float, decimals: int | None) -> str:
    """10000 as "10k", 2500000 as "2.5M"; numbers below 1000 with that many decimals, or in short form if None."""
    text = f"{value:.10g}" if decimals is None else f"{value:.{decimals}f}"
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            text = f"{value / size:.10g}{letter}"
            break
    return text.replace("-", "−")


def _placed_axes(frame: "_Frame", x_axis: _Axis, y_axis: _Axis) -> str:
    """From where to where an axis lies in pixels, and its range there: x, then y, then 1 if y is logarithmic.

    The page's script turns places back into values by it.
    """
    numbers = (frame.left, frame.right, x_axis.low, x_axis.high, frame.bottom, frame.top, y_axis.low, y_axis.high,
               int(y_axis.log))
    return " ".join(f"{number:.6g}" for number in numbers)


# ── Drawing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class _Frame:
    """Where the axes lie, in pixels from the upper left corner."""

    left: float
    right: float
    top: float
    bottom: float

    def x(self, share: float) -> float:
        return self.left + share * (self.right - self.left)

    def y(self, share: float) -> float:
        return self.bottom + share * (self.top - self.bottom)


def _draw_axes(chart: ET.Element, frame: _Frame, x_axis: _Axis, y_axis: _Axis, x_label: str) -> None:
    columns = [(frame.x(x_axis.share(value)), text) for value, text in x_axis.ticks]
    rows = [(frame.y(y_axis.share(value)), text) for value, text in y_axis.ticks]
    grid = [[(x, frame.top), (x, frame.bottom)] for x, _ in columns]
    grid += [[(frame.left, y), (frame.right, y)] for y, _ in rows]
    axes = [[(frame.left, frame.top), (frame.left, frame.bottom), (frame.right, frame.bottom)]]
    axes += [[(x, frame.bottom), (x, frame.bottom + _TICK)] for x, _ in columns]
    axes += [[(frame.left - _TICK, y), (frame.left, y)] for y, _ in rows]
    _draw_lines(chart, grid, "stroke: currentColor; stroke-width: 0.8; opacity: 0.25")
    _draw_lines(chart, axes, "stroke: currentColor; stroke-width: 0.8")
    for x, text in columns:
        _draw_text(chart, x, frame.bottom + _TICK + 10, text, anchor="middle")
    for y, text in rows:
        _draw_text(chart, frame.left - _TICK - 3, y + 3.5, text, anchor="end")
    _draw_text(chart, (frame.left + frame.right) / 2, HEIGHT - 6, x_label, anchor="middle")


def _draw_curve(chart: ET.Element, curve: Curve, line: Points, *, dots: Points) -> None:
    _draw_lines(chart, [line], f"stroke: {curve.colour}; stroke-width: {_LINE}; stroke-linejoin: round")
    if curve.dots:                              # a line without length and with round ends is a dot
        _draw_lines(chart, [[point, point] for point in dots],
                    f"stroke: {curve.colour}; stroke-width: {_DOT}; stroke-linecap: round")


def _draw_legend(chart: ET.Element, curve: Curve, x: float, y: float) -> None:
    _draw_curve(chart, curve, [(x, y), (x + 12, y)], dots=[(x + 6, y)])
    _draw_text(chart, x + 18, y + 3.5, curve.label)


def _draw_lines(chart: ET.Element, lines: Sequence[Points], style: str) -> None:
    path = " ".join("M " + " L ".join(f"{x:.1f} {y:.1f}" for x, y in line) for line in lines if line)
    ET.SubElement(chart, "path", {"d": path, "style": f"fill: none; {style}"})


def _draw_text(chart: ET.Element, x: float, y: float, text: str, *, anchor: str = "start") -> None:
    element = ET.SubElement(chart, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor})
    element.text = text
