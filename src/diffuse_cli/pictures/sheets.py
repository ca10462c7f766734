"""A contact sheet: pictures as the model will see them, each with its caption underneath.

Pixels in, the bytes of a PNG out. Knows nothing of files, caches or where the pictures come from.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from .image_files import LINES, label_font, wrap

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
