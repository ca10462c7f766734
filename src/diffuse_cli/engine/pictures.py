"""Tensors → pictures in files: pixels, contact sheets, PNG with metadata. Knows nothing of how pictures come about."""

import io
import math
from collections.abc import Mapping

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}


def to_pixels(images: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] → (N, H, W, 3) uint8, rounded as stock pipelines do."""
    unit = (images.float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def from_pixels(pixels: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def sheet(pixels: np.ndarray, *, columns: int | None = None, gap: int = 2) -> np.ndarray:
    """(N, H, W, 3) → one picture of all, row by row on white; as square as possible unless `columns` is given."""
    count, height, width, _ = pixels.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    result = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 255, np.uint8)
    for index, picture in enumerate(pixels):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        result[top : top + height, left : left + width] = picture
    return result


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
