"""Draws the charts of the report as pixels: the lines and texts of an SVG, as `reporting.svg_curves` writes them."""

import re
from collections.abc import Mapping
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image, ImageColor, ImageDraw

from .fonts import draw_text, text_width

SCALE = 2                                       # pixels for each unit of a chart
_SMOOTH = 2                                     # it is drawn so much larger, and averaged, which smooths the lines
_ASCENT = 0.93                                  # of the font: from the top of a line to its base line, in letter sizes
_TITLE = 13                                     # size of a title's letters, in units, as the next
_TITLE_HEIGHT = 24
_SHARES = {"start": 0, "middle": 0.5, "end": 1}              # of a text that lies left of its place


def draw_chart(svg: str, title: str, colours: Mapping[str, str]) -> np.ndarray:
    """A chart in black on white below its title. → (H, W, 3) uint8

    colours: the hexadecimal colour of every variable of the style sheet that the chart's lines are drawn in.
    """
    root = ET.fromstring(svg)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    factor = SCALE * _SMOOTH
    canvas = Image.new("RGB", (round(width * factor), round((height + _TITLE_HEIGHT) * factor)), "white")
    draw = ImageDraw.Draw(canvas)
    draw_text(draw, (8 * factor, 6 * factor), title, "black", _TITLE * factor)
    size = round(float(_style(root)["font-size"].removesuffix("px")) * factor)
    for element in root:
        if element.tag == "path":
            _draw_lines(draw, element, factor, colours)
        elif element.tag == "text" and element.text:
            left, base = (float(element.attrib[name]) * factor for name in ("x", "y"))
            left -= _SHARES[element.attrib["text-anchor"]] * text_width(element.text, size)
            top = base + _TITLE_HEIGHT * factor - _ASCENT * size
            draw_text(draw, (round(left), round(top)), element.text, "black", size)
    return np.asarray(canvas.reduce(_SMOOTH))


def _draw_lines(draw: ImageDraw.ImageDraw, path: ET.Element, factor: int, colours: Mapping[str, str]) -> None:
    style = _style(path)
    colour = _faded(_colour(style["stroke"], colours), float(style.get("opacity", 1)))
    width = float(style["stroke-width"]) * factor
    for line in path.attrib["d"].split("M")[1:]:
        points = [(float(x) * factor, (float(y) + _TITLE_HEIGHT) * factor)
                  for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", line)]
        if "stroke-linecap" in style:           # a dot is a line without length and with round ends
            draw.circle(points[0], width / 2, colour)
        else:
            draw.line(points, colour, max(1, round(width)), joint="curve")


def _style(element: ET.Element) -> dict[str, str]:
    pairs = (entry.split(":", 1) for entry in element.attrib["style"].split(";"))
    return {name.strip(): value.strip() for name, value in pairs}


def _colour(text: str, colours: Mapping[str, str]) -> tuple[int, ...]:
    """`currentColor`, a variable of the style sheet, or a mixture of two."""
    names = [ImageColor.getrgb(colours[name]) for name in re.findall(r"var\((--[\w-]+)\)", text)]
    share = re.search(r"(\d+)%", text)
    if share is not None:
        part = int(share[1]) / 100
        return tuple(round(part * a + (1 - part) * b) for a, b in zip(*names, strict=True))
    return names[0] if names else (0, 0, 0)


def _faded(colour: tuple[int, ...], opacity: float) -> tuple[int, ...]:
    """The colour on white."""
    return tuple(round(255 - opacity * (255 - part)) for part in colour)
