"""Tensors → pictures in files: pixels, contact sheets, PNG with metadata. Knows nothing of how pictures come about."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ANIMATIONS = {".webp": "WEBP", ".gif": "GIF"}


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


def encode_animation(frames: Sequence[np.ndarray], *, suffix: str, milliseconds: int) -> bytes:
    """Frames (H, W, 3) uint8 → the bytes of an animation that repeats, a WebP or GIF."""
    first, *others = (Image.fromarray(frame) for frame in frames)
    stream = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if suffix == ".webp" else {}
    first.save(stream, ANIMATIONS[suffix], save_all=True, append_images=others, duration=milliseconds, loop=0,
               **options)
    return stream.getvalue()
