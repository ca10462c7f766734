"""Decode a file to an upright sRGB picture, or say in short why that fails.

Every picture of a user is opened here: only regular files, only formats from a list, and limits are checked before
anything is decoded. `decode_workers` runs this module in processes in which a decoder that crashes does no harm.
"""

import contextlib
import functools
import importlib
import io
import logging
import sys
import warnings
from typing import IO, TYPE_CHECKING, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from . import damage, tiff
from .colours import DARK, Rendering, convert
from .containers import Location
from .file_types import HEAD, format_of, plugins, what_else
from .fitting import REDUCING_GAP
from .picture_files import TOO_MUCH, ImageRefused, open_regular, read
from .rgb_profiles import note_colours

if TYPE_CHECKING:
    import numpy as np  # `colours` says why it is imported where it is used

MAX_PIXELS = 178_956_970                        # 179 megapixels, above which Pillow too calls it a bomb
MAX_ASPECT = 100                                # maximum longer side / shorter side: a line of pixels is no picture
HUGE = 2**26                                    # pixels of a transparent picture that is first made smaller
WHOLE = 0.98                                    # minimum share of the pixels of a file that lacks its end

_UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
            5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
            8: Image.Transpose.ROTATE_90}       # EXIF orientation → the operation that turns it upright
_LYING = (5, 6, 7, 8)                           # orientations with which width and height change places
_ORIENTATION_TAG = 0x0112
# How 16 bits of a channel are stored → how the same bytes are read to get the lower 8 bits of each.
_LOWER = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}

logging.getLogger("PIL").addHandler(logging.NullHandler())      # else its complaints about files go to stderr


# ── Bytes → picture ─────────────────────────────────────────────────────────────────────────────────────────────────


def open_rgb(path: Location, *, target: int | None = None, rendering: Rendering | None = None) -> Image.Image:
    """The first frame of the picture at `path`: upright, sRGB, mode RGB, on a background where it is transparent, or
    mode RGBA if it is and `rendering` keeps transparency.

    With `target`, a JPEG may be decoded smaller, which is several times faster, but with at least twice `target` pixels
    on each side. `info` of the result holds "size", the width and height in the file, upright, "mode", the mode in the
    file, and "peak" and "notes", as `colours.to_rgb` describes them. Raises ImageRefused.
    """
    return decode_rgb(read(path), target=target, rendering=rendering)


def decode_rgb(data: bytes, *, target: int | None = None, rendering: Rendering | None = None) -> Image.Image:
    """The picture in the bytes of a file, as `open_rgb` returns it. Raises ImageRefused.

    A file that is damaged beside its pixels is read, and one with other bytes before the picture. So is one that lacks
    its end, and at most 2 % of its pixels.
    """
    data = damage.without_prefix(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return _decode(data, target, rendering or Rendering())
        except ImageRefused:
            raise
        except Exception as error:              # decoders raise nearly every kind of exception
            mended = None if isinstance(error, MemoryError) else _decode_damaged(data, target, rendering or Rendering())
            if mended is None:
                raise ImageRefused(_reason(error, data)) from error
            return mended


def _decode(data: bytes, target: int | None, rendering: Rendering) -> Image.Image:
    """`decode_rgb` for a sound file. Raises ImageRefused, and whatever a decoder raises."""
    opened = _open(io.BytesIO(data))
    note_colours(data, opened.info, opened.format)
    size, facts = opened.size, {"mode": opened.mode}
    if target is not None:
        opened.draft(None, (REDUCING_GAP * target, REDUCING_GAP * target))      # has an effect on JPEG only
    coding = _coding(opened)
    opened.load()
    _check_size(opened.size)                    # an icon holds pictures with sizes of their own
    if opened.format == "TIFF" and tiff.is_inverted(opened):
        import numpy as np

        opened.im = Image.fromarray(65535 - np.asarray(opened).astype(np.uint16)).im
    image = _affordable(opened, target) if target is not None else opened
    deep = None
    if image is opened and coding[-4:] in _LOWER and (
            rendering.white_level is not None or _upper_peak(image) <= DARK >> 8):
        deep = _sixteen_bits(data, image, coding)[..., :3]
    orientation = _orientation(opened)
    result, more = convert(image, rendering, deep=deep)
    turned = _turned(result, orientation)
    turned.info = more | facts | {"size": size if turned.size == result.size else size[::-1]}
    return turned


def _affordable(image: ImageFile.ImageFile, target: int) -> Image.Image:
    """A huge transparent picture made smaller, but not below 4·target: memory has no room for its colours and alpha.

    Averages weighted by alpha look the same on any background.
    """
    factor = min(image.size) // (4 * target)
    if image.mode != "RGBA" or image.width * image.height <= HUGE or factor < 2 or not _highest_alpha(image):
        return image
    smaller = image.reduce(factor)
    smaller.info = image.info
    return smaller


def _highest_alpha(image: Image.Image) -> int:
    return int(image.getchannel("A").getextrema()[1])       # type: ignore[arg-type]


def _decode_damaged(data: bytes, target: int | None, rendering: Rendering) -> Image.Image | None:
    """The picture in a file that Pillow refuses; None unless all of its pixels but a few at the end are there."""
    with contextlib.suppress(Exception):
        if format_of(data[:HEAD]) != "PNG":
            return _decode_without_end(data, target, rendering)
        for mended in damage.mended_png(data):
            with contextlib.suppress(Exception):
                return _decode(mended, target, rendering)
    return None


def _decode_without_end(data: bytes, target: int | None, rendering: Rendering) -> Image.Image | None:
    """`_decode_damaged` for all formats but PNG."""
    width, height = _open(io.BytesIO(data)).size
    ends = damage.with_other_ends(data, format_of(data[:HEAD]), pixels=width * height)
    if not ends:
        return None
    import numpy as np

    image, *others = (_decode(end, target, rendering) for end in ends)
    same = np.all([np.asarray(other) == np.asarray(image) for other in others], axis=(0, -1))
    return image if same.mean() >= WHOLE else None


def read_size(path: Location) -> tuple[int, int] | None:
    """Width and height in the file, read from the header alone; None if the file is no picture."""
    try:
        return _read_size(path)
    except Exception:
        return None


def read_upright_size(path: Location) -> tuple[int, int] | None:
    """Width and height of the upright picture, read from the header alone; None if the file is no picture.

    The orientation of a PNG is not looked at: Pillow would decode the picture first.
    """
    try:
        with _open_without_prefix(path) as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = _open(file)
            lies = image.format != "PNG" and _orientation(image) in _LYING
            return image.size[::-1] if lies else image.size
    except Exception:
        return None


def reason_in_header(path: Location) -> str:
    """The reason why the header of a file is not that of a picture; empty if it is."""
    try:
        _read_size(path)
    except ImageRefused as error:
        return error.reason
    except Exception:
        return "damaged"
    return ""


def _read_size(path: Location) -> tuple[int, int]:
    with _open_without_prefix(path) as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _open(file).size


def _open_without_prefix(path: Location) -> IO[bytes]:
    """A picture without other bytes before it, as an open file. Raises ImageRefused, OSError."""
    file = open_regular(path)
    head = file.read(HEAD)
    file.seek(0)
    if format_of(head) is not None:
        return file
    with file:
        return io.BytesIO(damage.without_prefix(file.read()))


def _open(file: IO[bytes]) -> ImageFile.ImageFile:
    """Read the header and check the size in it, before any pixel is decoded. Raises ImageRefused."""
    head = file.read(HEAD)
    format = format_of(head)
    if format is None:
        raise ImageRefused(what_else(head))
    file.seek(0)
    image = Image.open(file, formats=(_ready(format),))     # type: ignore[arg-type]
    _check_size(image.size)
    if format == "TIFF":
        tiff.seek_largest_page(image)
        _check_size(image.size)
        if reason := tiff.reason_against(image):
            raise ImageRefused(reason)
    return image


def _check_size(size: tuple[int, int]) -> None:
    width, height = size
    if min(width, height) < 1:
        raise ImageRefused("no pixels")
    if width * height > MAX_PIXELS:
        raise ImageRefused("over 179 megapixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageRefused("over 100 times as long as wide")


@functools.cache
def _ready(format: str) -> str:
    """The format, after the plugin that reads it was imported, if it is one of a plugin."""
    for module, name, _ in plugins():
        if name == format:
            with contextlib.suppress(ImportError):
                importlib.import_module(module)
    return format


def _reason(error: Exception, data: bytes) -> str:
    """The short text for an exception that a decoder raised on `data`."""
    if isinstance(error, Image.DecompressionBombError):
        return "over 179 megapixels"
    if isinstance(error, MemoryError):
        return TOO_MUCH
    if isinstance(error, UnidentifiedImageError) and format_of(data[:HEAD]) == "TIFF":
        return tiff.description(data)
    is_cut = "truncated" in str(error).lower() or isinstance(error, EOFError) or damage.lacks_end(
        data, format_of(data[:HEAD]))
    return "truncated" if is_cut else "damaged"


# ── 16 bits in each of several channels, of which Pillow keeps the upper 8 ──────────────────────────────────────────


def _coding(image: Image.Image) -> str:
    """How pixels are stored in the file, as Pillow calls it: "RGB;16B", for instance; "" if it does not say."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else None
    coding = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return coding if isinstance(coding, str) and coding.startswith("RGB") else ""


def _upper_peak(image: Image.Image) -> int:
    """The highest value of red, green and blue."""
    return int(max(high for _, high in image.convert("RGB").getextrema()))          # type: ignore[misc]


def _sixteen_bits(data: bytes, image: Image.Image, coding: str) -> "np.ndarray[Any, Any]":
    """All 16 bits of the channels of a picture, of which `image` holds the upper 8 → (H, W, channels) uint16.

    The file is decoded once more in the other byte order, whose upper 8 bits are the lower ones of this.
    """
    import numpy as np

    again = _open(io.BytesIO(data))
    tile = again.tile[0]
    other = coding[:-4] + _LOWER[coding[-4:]]
    again.tile = [one._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other)
                  for one in again.tile]
    again.load()
    values: np.ndarray[Any, Any] = np.asarray(image).astype(np.uint16) << 8 | np.asarray(again)
    return values


# ── Upright ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def upright(image: Image.Image) -> Image.Image:
    """The picture turned by its EXIF orientation; as it is if the EXIF data cannot be read."""
    return _turned(image, _orientation(image))


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(_ORIENTATION_TAG)
    except Exception:                           # the pixels may be sound although the metadata is damaged
        return None


def _turned(image: Image.Image, orientation: Any) -> Image.Image:
    method = _UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return image if method is None else image.transpose(method)
