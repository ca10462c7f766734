"""Encode pixels as the bytes of PNG, JPEG, WebP and GIF files, with metadata as text."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from .channels import opaque

# Suffix of a file → Pillow's name of the format.
FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
ANIMATIONS = {".webp": "WEBP", ".gif": "GIF"}
MAX_ANIMATION_BYTES = 1_000_000                 # that are sent and opened without waiting
QUALITIES = (90, 70, 50, 30)                    # of lossy WebP
_EXIF_IFD, _USER_COMMENT = 0x8769, 0x9286       # EXIF tags


def to_pil(pixels: np.ndarray) -> Image.Image:
    """(H, W, C) uint8 → a picture in mode L, LA, RGB or RGBA."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def encode(pixels: np.ndarray, *, suffix: str = ".png", texts: Mapping[str, str] | None = None) -> bytes:
    """(H, W, C) uint8 → the bytes of an image file. A JPEG, which has no transparency, is laid on white.

    `suffix` is one of FORMATS. A PNG holds all `texts` as text chunks; JPEG and WebP hold only the text "parameters",
    as EXIF UserComment.
    """
    if FORMATS[suffix] == "JPEG" and pixels.shape[-1] % 2 == 0:
        pixels = opaque(pixels, 255)
    image, stream = to_pil(pixels), io.BytesIO()
    texts = texts or {}
    if FORMATS[suffix] == "PNG":
        chunks = PngImagePlugin.PngInfo()
        for name, text in texts.items():
            chunks.add_itxt(name, text) if not text.isascii() else chunks.add_text(name, text)
        image.save(stream, "PNG", pnginfo=chunks)
        return stream.getvalue()
    exif = Image.Exif()
    if "parameters" in texts:
        exif.get_ifd(_EXIF_IFD)[_USER_COMMENT] = b"UNICODE\0" + texts["parameters"].encode("utf-16-be")
    image.save(stream, FORMATS[suffix], quality=95, exif=exif if "parameters" in texts else b"")
    return stream.getvalue()


def encode_animation(frames: Sequence[np.ndarray], *, suffix: str, milliseconds: int) -> bytes:
    """Frames (H, W, 3) uint8 → the bytes of a WebP or GIF that repeats for ever.

    A WebP is lossless, or has the highest of QUALITIES that keeps it below MAX_ANIMATION_BYTES, because noise does not
    compress. `milliseconds` is the time of each frame; `suffix` is one of ANIMATIONS.
    """
    first, *others = (Image.fromarray(frame) for frame in frames)
    tries: list[dict[str, Any]] = [{"lossless": True}, *({"quality": quality} for quality in QUALITIES)]
    for options in tries if suffix == ".webp" else [{}]:
        stream = io.BytesIO()
        first.save(stream, ANIMATIONS[suffix], save_all=True, append_images=others, duration=milliseconds, loop=0,
                   **options)
        if stream.tell() <= MAX_ANIMATION_BYTES:
            break
    return stream.getvalue()
