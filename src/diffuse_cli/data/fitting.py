"""From a picture of any shape to that of the model: its middle, or all of it, padded or stretched (`--fit`).

Pillow alone does it, because the processes that decode pictures do not import NumPy.
"""

from typing import TYPE_CHECKING, Any

from PIL import Image

from ..picture_size import Size
from .bleeding import with_bled_colours
from .colours import TRANSPARENT_GROUND, Rendering, background_colour, border
from .picture_files import TOO_SMALL, ImageRefused

if TYPE_CHECKING:
    import numpy as np

REDUCING_GAP = 2                                # minimum size before Lanczos, in sizes after it
TOLERANCE = 16                                  # levels of 255 by which a channel of a plain ground may vary
PLAIN_SHARE = 0.6                               # minimum share of the border in the colour of a plain ground

Colour = tuple[int, int, int]                   # red, green, blue, 0 to 255


def fitted_pixels(
    image: Image.Image, resolution: Size | int, rendering: Rendering | None = None,
) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The result of `fitted` as an array → uint8 (H, W, C), with the channels of `rendering`."""
    import numpy as np

    return np.array(fitted(image, resolution, rendering), dtype=np.uint8)


def fitted(image: Image.Image, resolution: Size | int, rendering: Rendering | None = None) -> Image.Image:
    """An RGB or RGBA picture in the size `resolution` (an int: of a square), by the `fit` of `rendering`.

    If `rendering` keeps transparency, the result is in mode RGBA, and `with_bled_colours` decides on the colours that
    transparency hides. Otherwise it is in mode RGB.

    `crop` keeps the centre, as much as has the proportions of the result. `pad` keeps all, between bars in the colour
    of the picture's ground, or of the background if its ground is transparent or not plain; where transparency is kept,
    these are transparent. `stretch` keeps all, and changes the proportions. `buckets` pads a picture on a plain or
    transparent ground and crops any other; `resolution` is the nearest of the model's sizes, so little is left to pad
    or crop.

    A picture is made larger by bicubic interpolation, and smaller by Lanczos, after averages over whole boxes of pixels
    have brought it near twice the size. Colours count as much as they are opaque. What has the right size is copied.
    Raises ImageRefused for a picture that would have to be made larger, if `rendering` forbids that.
    """
    rendering, target = rendering or Rendering(), Size.of(resolution)
    if rendering.keeps_alpha:
        return with_bled_colours(_fitted(image.convert("RGBA"), target, rendering))
    return _fitted(image, target, rendering)


def _fitted(image: Image.Image, target: Size, rendering: Rendering) -> Image.Image:
    """`fitted` for a picture in the mode of the result; hidden colours stay what they are."""
    width, height = image.size
    if rendering.fit == "stretch":
        return _resized(image, (0, 0, width, height), target, rendering)
    size = _largest(target, aspect=Size(width, height))
    ground = None if rendering.fit == "crop" or size == target else _colour_of_bars(image, rendering)
    if rendering.fit == "crop" or (rendering.fit == "buckets" and size != target and ground is None):
        kept = _largest(Size(width, height), aspect=target)
        left, top = (width - kept.width) // 2, (height - kept.height) // 2
        return _resized(image, (left, top, left + kept.width, top + kept.height), target, rendering)
    inner = _resized(image, (0, 0, width, height), size, rendering)
    if size == target:
        return inner
    result = Image.new(image.mode, target, ground or _background(rendering))
    result.paste(inner, ((target.width - size.width) // 2, (target.height - size.height) // 2))
    return result


def reduced(
    pixels: "np.ndarray[Any, np.dtype[np.uint8]]", factor: int,
) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """A picture (H, W, 3), whose sides are multiples of `factor`, made smaller as `fitted` does → (H/f, W/f, 3)."""
    height, width, _ = pixels.shape
    return fitted_pixels(Image.fromarray(pixels), Size(width // factor, height // factor))


def _colour_of_bars(image: Image.Image, rendering: Rendering) -> tuple[int, ...] | None:
    """The colour of the ground of a picture: of the background if it is transparent, None if it is not plain."""
    if TRANSPARENT_GROUND in image.info.get("notes", ()):
        return _background(rendering)
    ground = ground_colour(image)
    return (*ground, 255) if ground is not None and image.mode == "RGBA" else ground


def _background(rendering: Rendering) -> tuple[int, ...]:
    """The colour behind transparent pictures: red, green, blue, and with `keeps_alpha` no opacity."""
    return (0, 0, 0, 0) if rendering.keeps_alpha else background_colour(rendering)


def _largest(room: Size, *, aspect: Size) -> Size:
    """The largest size within `room` that has the proportions of `aspect`, rounded to whole pixels."""
    if room.width * aspect.height >= room.height * aspect.width:
        return Size(max(1, round(room.height * aspect.width / aspect.height)), room.height)
    return Size(room.width, max(1, round(room.width * aspect.height / aspect.width)))


def _resized(image: Image.Image, box: tuple[int, int, int, int], size: Size, rendering: Rendering) -> Image.Image:
    """The pixels in the box (left, top, right, bottom), resized. Raises ImageRefused as `fitted` does."""
    width, height = box[2] - box[0], box[3] - box[1]
    if not rendering.enlarge and (width < size.width or height < size.height):
        raise ImageRefused(f"{TOO_SMALL} {size} px")
    if (width, height) == size:
        return image.crop(box)
    if width <= size[0] and height <= size[1]:
        return image.resize(size, Image.Resampling.BICUBIC, box=box)
    return image.resize(size, Image.Resampling.LANCZOS, box=box, reducing_gap=REDUCING_GAP)


def ground_colour(image: Image.Image) -> Colour | None:
    """The colour of the ground on which an RGB or RGBA picture stands; None unless the ground is plain.

    The border, one pixel wide, shows it: its median colour is that of a plain ground if in each channel at least
    PLAIN_SHARE of the border differ from it by at most TOLERANCE.
    """
    counts = [sum(values) for values in zip(*(strip.histogram() for strip in border(image)), strict=True)]
    red, green, blue = (_plain_level(counts[start:start + 256]) for start in (0, 256, 512))
    return None if red is None or green is None or blue is None else (red, green, blue)


def _plain_level(counts: list[int]) -> int | None:
    """The median of a channel; None unless enough values are near it. counts: how often each of 256 values occurs."""
    total, below, median = sum(counts), 0, 0
    while 2 * (below + counts[median]) < total:
        below += counts[median]
        median += 1
    near = sum(counts[max(0, median - TOLERANCE):median + TOLERANCE + 1])
    return median if near >= PLAIN_SHARE * total else None
