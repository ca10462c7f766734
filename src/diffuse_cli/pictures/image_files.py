"""Tensors → pictures in files: pixels, contact sheets, PNG with metadata. Knows nothing of how pictures come about."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin
from torch import Tensor

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ANIMATIONS = {".webp": "WEBP", ".gif": "GIF"}
SIDE = 112                                      # to which small pictures are enlarged, about
FRAME_MILLISECONDS, HELD = 100, 15              # of an animation: each frame; repetitions of the last
LINES = 3                                       # of a caption or title; the rest is cut
_FONT_SIZE, _LINE, _GAP = 11, 14, 6             # pixels


def to_pixels(images: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] → (N, H, W, 3) uint8, rounded as stock pipelines do."""
    unit = (images.float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def from_pixels(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) float32 in [-1, 1], on the device: what travels there are the bytes."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


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


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) → (side, side, 3), every pixel the mean of those it stands for; smaller pictures stay as they are."""
    if len(pixels) <= side:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX))


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


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Every pixel of the last three axes (H, W, 3) as a square of `scale`."""
    return pixels.repeat(scale, axis=-3).repeat(scale, axis=-2)


def encode(pixels: np.ndarray, *, suffix: str = ".png", texts: Mapping[str, str] | None = None) -> bytes:
    """(H, W, 3) uint8 → the bytes of an image file.

    `texts` become PNG text chunks; JPEG and WebP keep only "parameters", as EXIF UserComment. suffix: one of FORMATS.
    """
    image, stream = Image.fromarray(pixels), io.BytesIO()
    texts = texts or {}
    if FORMATS[suffix] == "PNG":
        chunks = PngImagePlugin.PngInfo()
        for name, text in texts.items():
            chunks.add_itxt(name, text) if not text.isascii() else chunks.add_text(name, text)
        image.save(stream, "PNG", pnginfo=chunks)
        return stream.getvalue()
    exif = Image.Exif()
    if "parameters" in texts:
        user_comment = 0x9286
        exif.get_ifd(0x8769)[user_comment] = b"UNICODE\0" + texts["parameters"].encode("utf-16-be")
    image.save(stream, FORMATS[suffix], quality=95, exif=exif if "parameters" in texts else b"")
    return stream.getvalue()


def film(films: Sequence[np.ndarray], *, columns: int | None = None) -> list[np.ndarray]:
    """Films (frames, H, W, 3) of any length → the frames of a sheet of all, enlarged; the end is shown longest."""
    scale, length = max(1, round(SIDE / films[0].shape[1])), max(map(len, films))
    frames = [enlarged(sheet(np.stack([one[min(number, len(one) - 1)] for one in films]), columns=columns), scale)
              for number in range(length)]
    return frames + frames[-1:] * HELD


def encode_animation(frames: Sequence[np.ndarray], *, suffix: str, milliseconds: int) -> bytes:
    """Frames (H, W, 3) uint8 → the bytes of an animation that repeats, a WebP or GIF."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    stream = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    first.save(stream, ANIMATIONS[suffix], save_all=True, append_images=others, duration=milliseconds, loop=0,
               **options)
    return stream.getvalue()
