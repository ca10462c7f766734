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


def fitted(picture: "np.ndarray", columns: int, lines: int) -> "np.ndarray":
    """A picture (H, W, 3), reduced to at most so many columns and lines, and of even height."""
    from ...pictures import pixels

    height, width, _ = picture.shape
    scale = min(1, columns / width, 2 * lines / height)
    return pixels.shrink(picture, max(1, round(scale * width)), 2 * max(1, round(scale * height / 2)))
