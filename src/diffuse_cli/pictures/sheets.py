"""Sheets: many pictures in one, on white, with or without text; and the frames of an animation of them.

Pictures are uint8 arrays (H, W, C). On a sheet, which is (H, W, 3) if nothing else is said, transparent ones lie
on a checkerboard.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageDraw

from .channels import opaque
from .fonts import draw_text, text_width
from .image_files import encode
from .pixels import enlarge

ENLARGED_SIDE = 112                             # √pixels, about, to which small pictures are enlarged
FRAME_MILLISECONDS = 100                        # time of each frame of an animation
LAST_FRAME_REPEATS = 15                         # extra frames at the end of an animation
MAX_STRIP_WIDTH = 2**19                         # pixels of a strip that is read
MAX_STRIP_PIXELS = 2**25                        # in all
MAX_LINES = 3                                   # maximum lines of a caption or title; the rest is cut
_CAPTIONED_SIDE = 128                           # maximum width in pixels to which `captioned_sheet` enlarges pictures
CAPTION_LETTERS = 200                           # maximum letters of a caption on a sheet
_STRIP_TEXT = "width"                           # text of the PNG of a strip: pixels of each of its pictures
_LINE = 14                                      # height of a line of text, in pixels
_FRAME = "#c8c8c8"                              # colour of the line around a picture, which may be white at its edges
_GREY = 128                                     # of texts on a ground of any brightness
_GAP, _CAPTION_GAP = 6, 8                       # white pixels around each picture of `labelled_rows`, `captioned_sheet`
_FONT_SIZE, _CAPTION_FONT_SIZE = 11, 10         # of the texts of `labelled_rows`, `captioned_sheet`, in pixels


# ── Sheets ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def tile(pixels: np.ndarray, *, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """(N, H, W, C) → one picture (H, W, 3) of all, row by row on white with `gap` pixels around each.

    Without `columns`, it is nearly a square.
    """
    count, height, width, _ = pixels.shape
    columns = columns or _columns(count, width, height)
    rows = math.ceil(count / columns)
    result = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, picture in enumerate(opaque(pixels)):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        result[top : top + height, left : left + width] = picture
    return result


def on_one_size(groups: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures (N, H, W, C) of several sizes, each in the middle of a white picture as wide and high as any.

    → (M, H, W, 3), those of the first size first
    """
    height, width = (max(group.shape[axis] for group in groups) for axis in (1, 2))
    return np.concatenate([np.pad(opaque(group), (
        (0, 0), *(((room - side) // 2, room - side - (room - side) // 2) for room, side in (
            (height, group.shape[1]), (width, group.shape[2]))), (0, 0)), constant_values=255) for group in groups])


def grid(pixels: np.ndarray, *, columns: int | None = None) -> np.ndarray:
    """A `tile` of pictures (N, H, W, C), in which small ones are enlarged to about ENLARGED_SIDE pixels."""
    return enlarge(tile(pixels, columns=columns), scale_of(pixels[0]))


def _columns(count: int, width: int, height: int) -> int:
    """So many that the sheet is nearly a square, or up to twice as many if then every row is full.

    For squares that is about the square root: 8 pictures are 2 rows of 4.
    """
    root = _root(count, width, height)
    return next((columns for columns in range(root, 2 * root) if count % columns == 0), root)


def _root(count: int, width: int, height: int) -> int:
    """Columns with which a sheet of `count` pictures is nearly a square."""
    return min(count, math.ceil(math.sqrt(count * height / width)))


def encode_strip(pixels: np.ndarray) -> bytes:
    """The PNG of a `tile` of pictures (N, H, W, C) in one row. It holds their width, unless they are squares."""
    count, height, width, _ = pixels.shape
    return encode(tile(pixels, columns=count), texts={} if width == height else {_STRIP_TEXT: str(width)})


def read_strip(file: Path | IO[bytes], *, gap: int = 2) -> np.ndarray:
    """The file that `encode_strip` wrote → its pictures (N, H, W, 3). Raises ValueError for others."""
    with Image.open(file) as image:
        height, text = image.height - 2 * gap, image.info.get(_STRIP_TEXT)
        width = int(text) if isinstance(text, str) and text.isdecimal() and len(text) < 9 else height
        if not (height > 0 and 0 < width <= image.width - 2 * gap and image.width <= MAX_STRIP_WIDTH
                and image.width * image.height <= MAX_STRIP_PIXELS):
            raise ValueError("this is no strip of pictures")
        pixels = np.asarray(image.convert("RGB"))[gap:-gap]
    return np.stack([pixels[:, left : left + width] for left in range(gap, pixels.shape[1] - width, width + gap)])


def captioned_sheet(images: np.ndarray[Any, np.dtype[np.uint8]], captions: Sequence[Sequence[str]]) -> bytes:
    """Pictures (N, H, W, C), each with its first caption below → the bytes of a PNG, nearly square.

    `captions` holds the alternatives of each picture. " (+2)" after a caption counts the other alternatives; under a
    picture without a caption, a grey line says so.
    """
    count, height, width, _ = images.shape
    scale = max(1, _CAPTIONED_SIDE // width)
    cell = width * scale
    texts = [alternatives[0][:CAPTION_LETTERS] + (f" (+{len(alternatives) - 1})" if len(alternatives) > 1 else "")
             if alternatives else "(no caption)" for alternatives in captions]
    labels = [_wrapped(text, _CAPTION_FONT_SIZE, cell) for text in texts]
    colours = ["black" if alternatives else "grey" for alternatives in captions]
    canvas = _sheet_with_labels(images, labels, colours, scale=scale, cell=cell, lines=MAX_LINES,
                                columns=_root(count, width, height), gap=_CAPTION_GAP, size=_CAPTION_FONT_SIZE)
    return encode(np.asarray(canvas))


@dataclass(frozen=True)
class Row:
    """Pictures of one size side by side, with lines of text under each and a title, wrapped, above all of them."""

    title: str
    pictures: Sequence[np.ndarray]
    labels: Sequence[Sequence[str]]


def column_width(rows: Sequence[Row]) -> int:
    """Width in pixels of a column of `labelled_rows`: of the enlarged picture, or of the longest line and a gap."""
    lines = [line for row in rows for label in row.labels for line in label]
    picture = rows[0].pictures[0]
    return max(len(picture[0]) * scale_of(picture),
               *(math.ceil(text_width(line, _FONT_SIZE)) + _GAP for line in lines))


def labelled_rows(rows: Sequence[Row], *, cell: int | None = None) -> np.ndarray:
    """Rows of pictures with their texts, black on white, in columns of `cell` pixels (default: `column_width`)."""
    cell = cell or column_width(rows)
    scale = scale_of(rows[0].pictures[0])
    columns = max(len(row.pictures) for row in rows)
    broad = columns * (cell + _GAP) - _GAP
    blocks = []
    for row in rows:
        title = _wrapped(row.title, _FONT_SIZE, broad)
        strip = _sheet_with_labels(
            np.stack(row.pictures), row.labels, ["black"] * len(row.pictures), scale=scale, cell=cell,
            lines=max(map(len, row.labels), default=0), columns=columns, gap=_GAP, size=_FONT_SIZE)
        block = Image.new("RGB", (strip.width, strip.height + _LINE * len(title)), "white")
        block.paste(strip, (0, _LINE * len(title)))
        _write_lines(ImageDraw.Draw(block), (_GAP, _GAP), title, "black", _FONT_SIZE)
        blocks.append(np.asarray(block))
    return np.concatenate([*blocks, np.full_like(blocks[0][:_GAP], 255)])


def labelled_rows_on_any_ground(rows: Sequence[Row]) -> np.ndarray:
    """`labelled_rows` (H, W, 4) with grey texts on a transparent ground, which are legible on white and on black."""
    def with_all(value: int) -> np.ndarray:
        return labelled_rows([replace(row, pictures=[np.full((*one.shape[:2], 3), value, np.uint8)
                                                     for one in row.pictures]) for row in rows])

    sheet = labelled_rows(rows)
    inside = (with_all(0) != with_all(255)).any(2)                     # where the pictures are
    ink = np.stack([np.full(inside.shape, _GREY, np.uint8)] * 3 + [255 - sheet[..., 0]], 2)
    return np.where(inside[..., None], np.pad(sheet, ((0, 0), (0, 0), (0, 1)), constant_values=255), ink)


def _sheet_with_labels(
    pixels: np.ndarray, labels: Sequence[Sequence[str]], colours: Sequence[str], *, scale: int, cell: int, lines: int,
    columns: int, gap: int, size: int,
) -> Image.Image:
    """A `tile` of pictures enlarged by `scale`, in cells `cell` pixels wide with room for `lines` of text below.

    A thin line around each picture shows where it ends.
    """
    pixels = enlarge(opaque(pixels), scale)
    _, height, width, _ = pixels.shape
    cells = np.pad(pixels, ((0, 0), (0, lines * _LINE), (0, cell - width), (0, 0)), constant_values=255)
    canvas = Image.fromarray(tile(cells, columns=columns, gap=gap))
    draw = ImageDraw.Draw(canvas)
    for index, (_, label, colour) in enumerate(zip(cells, labels, colours, strict=True)):
        left = gap + index % columns * (cell + gap)
        top = gap + index // columns * (height + lines * _LINE + gap)
        draw.rectangle((left - 1, top - 1, left + width, top + height), outline=_FRAME)      # around the picture
        _write_lines(draw, (left, top + height + 2), label, colour, size)
    return canvas


def scale_of(picture: np.ndarray) -> int:
    """The factor by which a picture (H, W, C) is enlarged to about ENLARGED_SIDE² pixels: a whole number, at least 1.

    A whole number keeps the pixels square and sharp. Pictures are never made smaller.
    """
    height, width, _ = picture.shape
    return max(1, round(ENLARGED_SIDE / math.sqrt(height * width)))


def animation_frames(films: Sequence[np.ndarray], *, columns: int | None = None) -> list[np.ndarray]:
    """Films (frames, H, 2·W, C) of two pictures each, side by side → the frames of an enlarged `tile` of all films.

    A shorter film keeps its last frame. The last frame of all is repeated LAST_FRAME_REPEATS times, so that a person
    can look at it.
    """
    picture = films[0][0][:, : films[0].shape[2] // 2]
    columns, scale = columns or _columns(len(films), picture.shape[1], picture.shape[0]), scale_of(picture)
    frames = [enlarge(tile(np.stack([one[min(number, len(one) - 1)] for one in films]), columns=columns), scale)
              for number in range(max(map(len, films)))]
    return frames + frames[-1:] * LAST_FRAME_REPEATS


# ── Text ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _wrapped(text: str, size: int, width: int) -> list[str]:
    return wrap(text, lambda line: text_width(line, size) <= width)


def wrap(text: str, fits: Callable[[str], bool]) -> list[str]:
    """`text` in at most MAX_LINES lines, each of which `fits`; longer words are broken, and a cut shows as '…'."""
    lines: list[str] = []
    rest = text
    while rest and len(lines) < MAX_LINES:
        last = len(lines) == MAX_LINES - 1
        if fits(rest):
            return [*lines, rest]
        size = max((size for size in range(1, len(rest)) if fits(rest[:size] + ("…" if last else ""))), default=1)
        if last:
            return [*lines, rest[:size] + "…"]
        space = rest.rfind(" ", 0, size + 1)
        size = space if space > 0 else size
        lines.append(rest[:size])
        rest = rest[size:].lstrip()
    return lines


def _write_lines(
    draw: ImageDraw.ImageDraw, corner: tuple[int, int], lines: Sequence[str], colour: str, size: int,
) -> None:
    left, top = corner
    for number, line in enumerate(lines):
        draw_text(draw, (left, top + number * _LINE), line, colour, size)
