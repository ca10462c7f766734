"""TIFF, which can hold nearly anything: what Pillow cannot read, or would read wrongly, is told by its tags.

Decodes no pixel.
"""

import contextlib
import io
from typing import Any

from PIL import ImageFile

_SUBFILE, _BITS, _COMPRESSION, _PHOTOMETRIC, _BANDS, _PLANES, _NUMBERS = 254, 258, 259, 262, 277, 284, 339      # tags
_SIGNED, _REAL = 2, 3                           # kinds of numbers
_MAX_PAGES = 16                                 # pages among which the largest is looked for


def seek_largest_page(image: ImageFile.ImageFile) -> None:
    """Go to the largest page of a TIFF whose first page says that it is only a small copy of another."""
    if int(_tags(image).get(_SUBFILE, 0)) & 1:
        areas = []
        with contextlib.suppress(EOFError):     # there are no more
            for page in range(_MAX_PAGES):
                image.seek(page)
                areas.append(image.width * image.height)
        image.seek(areas.index(max(areas)))


def is_inverted(image: ImageFile.ImageFile) -> bool:
    """Whether 0 is white in a page of 16 bits. Pillow knows this for 8 bits alone."""
    return image.mode.startswith("I;16") and int(_tags(image).get(_PHOTOMETRIC, 1)) == 0


def reason_against(image: ImageFile.ImageFile) -> str | None:
    """The reason not to use a page that Pillow opens, because it would read the values wrongly."""
    tags = _tags(image)
    bits, bands = _first(tags, _BITS), int(tags.get(_BANDS, 1))
    if bits == 16 and bands > 1 and tags.get(_PLANES) == 2:
        return f"{bands} planes of 16 bits"
    return "signed 8-bit numbers" if bits == 8 and _first(tags, _NUMBERS) == _SIGNED else None


def description(data: bytes) -> str:
    """What a TIFF is that Pillow does not open, in a few words."""
    from PIL import TiffImagePlugin  # a worker starts sooner without it

    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(data[:16 if b"+" in data[2:4] else 8])
        stream = io.BytesIO(data)
        if tags.next >= len(data):
            return "truncated"
        stream.seek(tags.next)
        tags.load(stream)
        bits, bands = _first(tags, _BITS), int(tags.get(_BANDS, 1))
        is_grey, kind = int(tags.get(_PHOTOMETRIC, 1)) <= 1, _first(tags, _NUMBERS)
    except Exception:                           # the file is damaged, and may say anything
        return "damaged"
    if bands > 3 or (bands > 1 and is_grey):
        return f"{bands} bands"
    if kind == _REAL or bits > 16:
        return f"{bits}-bit {'real ' if kind == _REAL else ''}numbers"
    return "unusual TIFF"


def _tags(image: ImageFile.ImageFile) -> Any:
    return image.tag_v2                         # type: ignore[attr-defined]


def _first(tags: Any, tag: int) -> int:
    """The first value of a tag, or its only one; 1 if it is not there."""
    value = tags.get(tag, 1)
    return int(value[0] if isinstance(value, tuple) else value)
