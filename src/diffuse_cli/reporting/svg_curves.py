"""Curves of a training as SVG inside a page: drawn by matplotlib, in the page's own colours and letters.

Knows numbers, not where they come from; needs no torch. No foreign text may come here: labels are ours.
"""

import io
import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FormatStrFormatter, LogLocator, MaxNLocator, NullFormatter

POINTS = 240                                    # of a curve; longer ones are averaged
_SIZE = (5.2, 2.6)                              # inches; the page scales it to its column
_STAND_IN = "#fe00{:02x}"                       # for the colour of curve number …, which matplotlib cannot know
_SETTINGS: Any = {"svg.fonttype": "none", "text.usetex": False, "font.size": 10, "axes.edgecolor": "#000000",
                  "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.6}


@dataclass(frozen=True, kw_only=True)
class Curve:
    """(x, y) pairs, drawn in a CSS colour. What is not finite is left out."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    marker: str = ""                            # of matplotlib; few points want one


def mixed(share: float) -> str:
    """A CSS colour between those of the first and the second curve: 0 … 1."""
    return f"color-mix(in oklab, var(--curve-2) {share:.0%}, var(--curve-1))"


def svg(curves: Sequence[Curve], *, name: str, x_label: str = "step", log: bool = False) -> str:
    """One plot as an `<svg>` element without any style, script or address in it. `name`: unique in the page."""
    with matplotlib.rc_context({**_SETTINGS, "svg.hashsalt": name}):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        for number, curve in enumerate(curves):
            x, y = _thinned(curve, positive=log)
            axes.plot(x, y, color=_STAND_IN.format(number), label=curve.label, marker=curve.marker, markersize=4)
        axes.set_xlabel(x_label)
        axes.grid(alpha=0.25)
        if x_label == "step":
            axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        if log:
            axes.set_yscale("log")
            low, high = axes.get_ylim()
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0,) if high > 1000 * low else (1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
            axes.yaxis.set_minor_formatter(NullFormatter())
        if len(curves) > 1:
            figure.legend(loc="outside right upper" if len(curves) > 3 else "outside upper center",
                          ncols=1 if len(curves) > 3 else len(curves), frameon=False, handlelength=1.2)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True,
                       metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _at_home(stream.getvalue(), name, [curve.colour for curve in curves])


def _thinned(curve: Curve, *, positive: bool) -> tuple[list[float], list[float]]:
    """At most POINTS points, each the mean of its neighbours."""
    points = [(x, y) for x, y in zip(curve.x, curve.y, strict=True)
              if math.isfinite(x) and math.isfinite(y) and (y > 0 or not positive)]
    count = min(POINTS, len(points))
    edges = [len(points) * index // count for index in range(count + 1)] if count else [0]
    parts = [points[low:high] for low, high in itertools.pairwise(edges)]
    return [sum(x for x, _ in part) / len(part) for part in parts], [sum(y for _, y in part) / len(part)
                                                                     for part in parts]


def _at_home(drawing: str, name: str, colours: Sequence[str]) -> str:
    """matplotlib's SVG as part of a page: the page's colours and letters, no rules of its own, half of the size."""
    drawing = drawing[drawing.index("<svg"):]
    drawing = re.sub(r"\s*<defs>\s*<style.*?</style>\s*</defs>", "", drawing, flags=re.DOTALL)
    _, _, rest = drawing.partition(">")
    box = " ".join(f"{72 * inches:g}" for inches in (0, 0, *_SIZE))
    drawing = f'<svg viewBox="{box}" role="img" aria-label="{name}">{rest}'
    drawing = re.sub(r' id="(?![mp][0-9a-f]{10}")[^"]*"', "", drawing)
    drawing = re.sub(r"font-family: [^;]*; ", "", drawing).replace("xlink:href", "href")
    drawing = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", drawing)
    drawing = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d{2,}", _rounded, tag[0]), drawing)
    drawing = re.sub(r"\s*\n\s*", " ", drawing)
    for number, colour in enumerate(colours):
        drawing = drawing.replace(_STAND_IN.format(number), colour)
    return drawing.replace("#000000", "currentColor").replace("#b0b0b0", "currentColor")


def _rounded(number: re.Match[str]) -> str:
    return f"{float(number[0]):.1f}"
