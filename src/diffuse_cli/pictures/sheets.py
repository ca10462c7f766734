"""A contact sheet: pictures as the model will see them, each with its caption underneath.

Pixels in, the bytes of a PNG out. Knows nothing of files, caches or where the pictures come from.
"""

import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .pixels import enlarged

CELL = 128                                      # pixels: small pictures are enlarged to about this
_GAP = 8
_LINE = 14                                      # height of a line of text
_FONT_SIZE = 10


def captioned_sheet(images: np.ndarray[Any, np.dtype[np.uint8]], captions: Sequence[Sequence[str]]) -> bytes:
    """(N, R, R, 3) and N lists of alternative captions → the bytes of a PNG, about as wide as it is high."""
    resolution = images.shape[1]
    side = resolution * max(1, CELL // resolution)      # whole multiples keep the pixels square and sharp
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = side + _GAP, side + LINES * _LINE + _GAP
    sheet = Image.new("RGB", (columns * width + _GAP, rows * height + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), label_font(_FONT_SIZE)
    for index, (pixels, alternatives) in enumerate(zip(images, captions, strict=True)):
        left, top = _GAP + index % columns * width, _GAP + index // columns * height
        picture = Image.fromarray(np.asarray(pixels)).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(picture, (left, top))
        text = alternatives[0] if alternatives else "(no caption)"
        more = f" (+{len(alternatives) - 1})" if len(alternatives) > 1 else ""
        for number, line in enumerate(wrap(text[:200] + more, lambda line: font.getlength(line) <= side)):
            draw.text((left, top + side + 2 + number * _LINE), line, "black" if alternatives else "grey", font)
    stream = io.BytesIO()
    sheet.save(stream, "PNG")
    return stream.getvalue()


SIDE = 112                                      # to which small pictures are enlarged, about
FRAME_MILLISECONDS, HELD = 100, 15              # of an animation: each frame; repetitions of the last
LINES = 3                                       # of a caption or title; the rest is cut
_FONT_SIZE, _LINE, _GAP = 11, 14, 6             # pixels


def sheet(pixels: np.ndarray, *, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """(N, H, W, 3) → one picture of all, row by row on white; in nearly a square unless `columns` is given."""
    count, height, width, _ = pixels.shape
    columns = columns or _columns(count)
    rows = math.ceil(count / columns)
    result = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, picture in enumerate(pixels):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        result[top : top + height, left : left + width] = picture
    return result


def _columns(count: int) -> int:
    """About the square root, but up to twice as many if then every row is full: 8 pictures are 2 rows of 4."""
    root = math.ceil(math.sqrt(count))
    return next((columns for columns in range(root, 2 * root) if count % columns == 0), root)


def read_strip(path: Path, *, gap: int = 2) -> np.ndarray:
    """The file of a `sheet` in one row → its pictures (N, H, H, 3)."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"))[gap:-gap]
    side = len(pixels)
    return np.stack([pixels[:, left : left + side] for left in range(gap, pixels.shape[1] - side, side + gap)])


@dataclass(frozen=True)
class Row:
    """Pictures side by side, (H, W, 3) uint8 each, with lines of text under each and a title, wrapped, above all."""

    title: str
    pictures: Sequence[np.ndarray]
    labels: Sequence[Sequence[str]]


def cell_width(rows: Sequence[Row]) -> int:
    """Pixels that a column of `labelled` takes: for the picture, enlarged to about SIDE pixels, and for every line."""
    font = label_font(_FONT_SIZE)
    lines = [line for row in rows for label in row.labels for line in label]
    return max(len(rows[0].pictures[0][0]) * _scale(rows), *(math.ceil(font.getlength(line)) for line in lines))


def labelled(rows: Sequence[Row], *, cell: int | None = None) -> np.ndarray:
    """Rows of pictures with their texts, black on white, in columns of `cell` pixels (default: `cell_width`)."""
    scale, font, cell = _scale(rows), label_font(_FONT_SIZE), cell or cell_width(rows)
    below = [row.pictures[0].shape[0] * scale for row in rows]
    columns = max(len(row.pictures) for row in rows)
    broad = columns * (cell + _GAP) - _GAP
    titles = [wrap(row.title, lambda line: font.getlength(line) <= broad) for row in rows]
    heights = [_LINE * (len(title) + max(map(len, row.labels), default=0)) + high + 2 * _GAP
               for row, title, high in zip(rows, titles, below, strict=True)]
    canvas = Image.new("RGB", (columns * (cell + _GAP) + _GAP, sum(heights) + _GAP), "white")
    draw, top = ImageDraw.Draw(canvas), _GAP
    for row, title, high, height in zip(rows, titles, below, heights, strict=True):
        for number, line in enumerate(title):
            draw.text((_GAP, top + number * _LINE), line, "black", font)
        edge = top + _LINE * len(title)
        for column, (pixels, texts) in enumerate(zip(row.pictures, row.labels, strict=True)):
            left = _GAP + column * (cell + _GAP)
            canvas.paste(Image.fromarray(enlarged(pixels, scale)), (left, edge))
            for number, line in enumerate(texts):
                draw.text((left, edge + high + 2 + number * _LINE), line, "black", font)
        top += height
    return np.asarray(canvas)


def _scale(rows: Sequence[Row]) -> int:
    return max(1, round(SIDE / len(rows[0].pictures[0][0])))


def label_font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib: Latin, Greek and Cyrillic letters."""
    return ImageFont.truetype(str(resources.files("matplotlib") / "mpl-data/fonts/ttf/DejaVuSans.ttf"), size)


def wrap(text: str, fits: Callable[[str], bool]) -> list[str]:
    """`text` in at most LINES lines that each `fits`; words that do not fit a line are broken, a cut shows as '…'."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < LINES:
        last = len(lines) == LINES - 1
        if fits(rest):
            return [*lines, rest]
        size = max((size for size in range(1, len(rest)) if fits(rest[:size] + ("…" if last else ""))), default=1)
        if last:
            return [*lines, rest[:size] + "…"]
        broken = rest.rfind(" ", 0, size + 1)
        size = broken if broken > 0 else size
        lines.append(rest[:size])
        rest = rest[size:].lstrip()
    return lines


def film(films: Sequence[np.ndarray], *, columns: int | None = None) -> list[np.ndarray]:
    """Films (frames, H, W, 3) of any length → the frames of a sheet of all, enlarged; the end is shown longest."""
    scale, length = max(1, round(SIDE / films[0].shape[1])), max(map(len, films))
    frames = [enlarged(sheet(np.stack([one[min(number, len(one) - 1)] for one in films]), columns=columns), scale)
              for number in range(length)]
    return frames + frames[-1:] * HELD
