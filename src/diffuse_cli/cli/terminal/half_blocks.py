"""Pictures as coloured characters of a terminal: each shows two pixels, one above the other."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.color import Color
from rich.segment import Segment, Segments
from rich.style import Style

if TYPE_CHECKING:
    import numpy as np


def half_blocks(pictures: "Sequence[np.ndarray]") -> Segments:
    """Pictures side by side, (H, W, 3) uint8 each, with the same even H."""
    segments = []
    for row in range(0, len(pictures[0]), 2):
        for number, pixels in enumerate(pictures):
            segments += [Segment(" ")] if number else []
            segments += [Segment("▀", Style(color=Color.from_rgb(*top), bgcolor=Color.from_rgb(*bottom)))
                         for top, bottom in zip(pixels[row].tolist(), pixels[row + 1].tolist(), strict=True)]
        segments.append(Segment.line())
    return Segments(segments)


def fitted(pixels: "np.ndarray", columns: int) -> "np.ndarray":
    """A picture (H, W, 3) at most `columns` wide and of even height, by the pixels in the middle of each new one."""
    height, width, _ = pixels.shape
    columns = min(columns, width)
    rows = 2 * max(1, round(height * columns / width / 2))
    xs = [(2 * column + 1) * width // (2 * columns) for column in range(columns)]
    ys = [(2 * row + 1) * height // (2 * rows) for row in range(rows)]
    return pixels[ys][:, xs]
