"""Charts as pixels: lines, dots and texts lie where the SVG has them, in its colours."""

import numpy as np

from diffuse_cli.pictures.line_charts import SCALE, draw_chart
from diffuse_cli.reporting.svg_curves import HEIGHT, WIDTH, Curve, mixed, svg

COLOURS = {"--curve-1": "#0000ff", "--curve-2": "#ff0000"}


def _drawn(*curves: Curve) -> tuple[np.ndarray, str]:
    chart = svg(list(curves), name="")
    return draw_chart(chart, "Loss", COLOURS), chart


def _of_colour(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return np.argwhere((pixels == colour).all(2))                      # (N, 2): rows and columns


def test_a_curve_lies_where_the_svg_has_it():
    pixels, chart = _drawn(Curve(label="", x=[0, 10], y=[1, 1], colour="var(--curve-1)"))
    line = next(part for part in chart.split("<path")[1:] if "var(--curve-1)" in part)
    _, left, base, _, right, _ = line.split('"')[1].split()            # "M x y L x y"
    left, base, right = float(left), float(base), float(right)
    blue = _of_colour(pixels, (0, 0, 255))
    title = pixels.shape[0] - SCALE * HEIGHT
    assert pixels.shape[1] == SCALE * WIDTH
    assert abs(blue[:, 1].min() - SCALE * left) <= 2
    assert abs(blue[:, 1].max() - SCALE * right) <= 2
    assert np.abs(blue[:, 0] - title - SCALE * base).max() <= 3
    assert base > 0


def test_dots_texts_and_mixed_colours_are_drawn():
    plain, _ = _drawn(Curve(label="", x=[0, 5, 10], y=[1, 2, 3], colour="var(--curve-1)"))
    dotted, _ = _drawn(Curve(label="", x=[0, 5, 10], y=[1, 2, 3], colour="var(--curve-1)", dots=True))
    assert len(_of_colour(dotted, (0, 0, 255))) > len(_of_colour(plain, (0, 0, 255)))
    half, _ = _drawn(Curve(label="", x=[0, 10], y=[1, 1], colour=mixed(0.5)))
    assert len(_of_colour(half, (128, 0, 128)))
    legend, _ = _drawn(*(Curve(label=label, x=[0, 10], y=[1, 1], colour="var(--curve-2)") for label in "ab"))
    top = slice(legend.shape[0] - SCALE * HEIGHT, legend.shape[0] - SCALE * (HEIGHT - 20))
    assert (legend[top, 200:] == 0).all(2).any()                             # the letters of the legend
    assert not (plain[top, 200:] == 0).all(2).any()                    # right of the axis, only grid and curve
    assert (plain[: legend.shape[0] - SCALE * HEIGHT] == 0).all(2).any()          # the title
