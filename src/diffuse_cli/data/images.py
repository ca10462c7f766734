"""Decode a file to an upright sRGB picture and crop it to a square of pixels, or say in short why that fails.

Every picture of a user is opened here: only regular files, only formats from a list, and limits are checked before
anything is decoded. `decode_workers` runs this module in processes in which a decoder that crashes does no harm.
"""

import contextlib
import functools
import importlib
import io
import os
import re
import stat
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from .folders import plugins

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
MAX_BYTES = 256 * 2**20                         # maximum size of a file
MAX_PIXELS = 178_956_970                        # 179 megapixels, above which Pillow too calls it a bomb
MAX_ASPECT = 100                                # maximum longer side / shorter side: a line of pixels is no picture

_SIGNATURES = re.compile(rb"\x89PNG|\xff\xd8\xff|RIFF....WEBP|BM|GIF8|II\*\0|MM\0\*|....ftypavi[fs]", re.DOTALL)
_UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90}       # EXIF orientation → the operation that turns it upright
_ORIENTATION_TAG = 0x0112
_INTEGER_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")


class ImageRefused(Exception):
    """A file cannot be used as a picture. `reason` is one of a few short texts, so that reasons can be counted."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# ── File → bytes ────────────────────────────────────────────────────────────────────────────────────────────────────


def open_regular(path: Path) -> io.BufferedReader:
    """Open a regular file of 1 byte to 256 MiB for reading. Raises ImageRefused if the file is missing or different."""
    flags = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        # Without O_NONBLOCK, opening a pipe in the place of a picture would wait until somebody writes into it.
        descriptor = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        raise ImageRefused("not there") from error
    except (OSError, ValueError) as error:
        raise ImageRefused("unreadable") from error
    status = os.fstat(descriptor)
    reason = ("not a regular file" if not stat.S_ISREG(status.st_mode) else "empty file" if not status.st_size
              else "over 256 MB" if status.st_size > MAX_BYTES else None)
    if reason:
        os.close(descriptor)
        raise ImageRefused(reason)
    return os.fdopen(descriptor, "rb")


def read(path: Path) -> bytes:
    """All bytes of the file; raises ImageRefused."""
    with open_regular(path) as file:
        try:
            return file.read(MAX_BYTES)
        except OSError as error:
            raise ImageRefused("unreadable") from error


# ── Bytes → picture ─────────────────────────────────────────────────────────────────────────────────────────────────


def open_rgb(path: Path, *, target: int | None = None) -> Image.Image:
    """The first frame of the picture at `path`: upright, sRGB, mode RGB, on white where it is transparent.

    With `target`, a JPEG may be decoded smaller, which is several times faster, but with at least twice `target` pixels
    on each side. `info` of the result holds "size", the width and height in the file, and "mode", the mode in the file.
    Raises ImageRefused.
    """
    return decode_rgb(read(path), target=target)


def decode_rgb(data: bytes, *, target: int | None = None) -> Image.Image:
    """The picture in the bytes of a file, as `open_rgb` returns it. Raises ImageRefused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image: Image.Image = _open(io.BytesIO(data))
            facts: dict[str | tuple[int, int], Any] = {"size": image.size, "mode": image.mode}
            if target is not None:
                image.draft(None, (2 * target, 2 * target))     # has an effect on JPEG only
            image.load()
            image = to_rgb(upright(image))
        except ImageRefused:
            raise
        except Exception as error:              # decoders raise nearly every kind of exception
            raise ImageRefused(_reason(error, data)) from error
    image.info = facts
    return image


def read_png_texts(path: Path) -> dict[str, str]:
    """The text chunks of a PNG. Raises ImageRefused, for other formats as well."""
    with open_regular(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image = _open(file)
            if image.format != "PNG":
                raise ImageRefused("not a PNG, and only those hold how they were made")
            return {str(name): str(text) for name, text in image.text.items()}         # type: ignore[attr-defined]
        except ImageRefused:
            raise
        except Exception as error:
            raise ImageRefused(_reason(error, b"")) from error


def read_short_side(path: Path) -> int | None:
    """Pixels on the shorter side, read from the header alone; None if the file is no picture."""
    try:
        with open_regular(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return min(_open(file).size)
    except Exception:
        return None


def _open(file: io.BufferedIOBase) -> ImageFile.ImageFile:
    """Read the header and check the size in it, before any pixel is decoded. Raises ImageRefused."""
    image = Image.open(file, formats=_formats())    # type: ignore[arg-type]
    width, height = image.size
    if min(width, height) < 1:
        raise ImageRefused("no pixels")
    if width * height > MAX_PIXELS:
        raise ImageRefused("over 179 megapixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageRefused("over 100 times as long as wide")
    return image


@functools.cache
def _formats() -> tuple[str, ...]:
    """FORMATS and those of the installed plugins, which are imported here."""
    of_plugins = []
    for module, name, _ in plugins():
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
            of_plugins.append(name)
    return (*FORMATS, *of_plugins)


def _reason(error: Exception, data: bytes) -> str:
    """The short text for an exception that a decoder raised on `data`."""
    if isinstance(error, Image.DecompressionBombError):
        return "over 179 megapixels"
    if isinstance(error, MemoryError):
        return "needs too much memory"
    if isinstance(error, UnidentifiedImageError) and not _SIGNATURES.match(data):
        return "not an image"
    return "truncated" if "truncated" in str(error).lower() or isinstance(error, EOFError) else "damaged"


# ── Picture → upright sRGB ──────────────────────────────────────────────────────────────────────────────────────────


def upright(image: Image.Image) -> Image.Image:
    """The picture turned by its EXIF orientation; as it is if the EXIF data cannot be read."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:                           # the pixels may be sound although the metadata is damaged
        orientation = None
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture in any mode of Pillow → 8-bit sRGB in mode RGB, on white.

    `convert("RGB")` alone would clip integers, show hidden colours of transparent pixels and ignore colour profiles.
    """
    if image.mode in _INTEGER_MODES:
        return _grey(_sixteen_bits(np.asarray(image)))
    if image.mode == "F":
        return _grey(_stretched(np.asarray(image)))
    if image.has_transparency_data:
        opaque = image.convert("RGBA")          # its RGB are the colours that transparency hides
        rgb = _to_srgb(opaque.convert("RGB"), image.info.get("icc_profile"))
        white = Image.new("RGB", opaque.size, "white")
        white.paste(rgb, mask=opaque.getchannel("A"))
        return white
    if image.mode in ("P", "1", "RGBX", "YCbCr", "HSV"):
        return _to_srgb(image.convert("RGB"), image.info.get("icc_profile"))
    return _to_srgb(image, image.info.get("icc_profile"))


def _sixteen_bits(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """0…65535 → 0…255, where `convert` would clip above 255.

    If a value is outside 0…65535, all values are mapped as in `_stretched`: the lowest to 0, the highest to 255.
    """
    if values.min() < 0 or values.max() > 65535:
        return _stretched(values)
    return (values.astype(np.uint32) + 128) // 257                  # 65535 = 257 · 255, rounded to the nearest


def _stretched(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Lowest … highest finite value → 0…255. Equal values become 0, and so do values that are not finite."""
    values = values.astype(np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    shares = np.where(finite, values, low) / 2 - low / 2            # halves: the range itself may overflow
    return np.round(255 * np.where(finite, shares / ((high / 2 - low / 2) or 1.0), 0.0))


def _grey(values: np.ndarray[Any, Any]) -> Image.Image:
    """Values from 0 to 255 → a grey RGB picture."""
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert by the colour profile if it fits the picture and is not sRGB, else by plain arithmetic."""
    source: Any = None
    if profile:
        with contextlib.suppress(Exception):    # a picture with a damaged profile is still usable
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "srgb" in ImageCms.getProfileDescription(source).lower():
                source = None
    elif image.mode == "LAB":                   # Pillow has no plain arithmetic for it
        source = ImageCms.createProfile("LAB")
    if source is not None:
        with contextlib.suppress(ImageCms.PyCMSError):
            if converted := ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"):
                return converted
    return image.convert("RGB")


# ── Picture → square ────────────────────────────────────────────────────────────────────────────────────────────────


def crop_and_resize(image: Image.Image, resolution: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The centre square of an RGB picture, resized to `resolution` → uint8 (R, R, 3).

    It is made smaller by Lanczos after box averaging by a whole factor, so that nothing aliases, and larger by bicubic
    interpolation. A square of the right size is copied.
    """
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    if side == resolution:
        square = image.crop(box)
    elif side > resolution:
        square = image.resize((resolution, resolution), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0)
    else:
        square = image.resize((resolution, resolution), Image.Resampling.BICUBIC, box=box)
    return np.array(square, dtype=np.uint8)
