"""From a decoded picture in any mode of Pillow to 8-bit sRGB: bit depth, transparency, colour profile, gamma.

`Image.convert("RGB")` alone would clip integers, show the hidden colours of transparent pixels and ignore profiles. It
knows no files, and remembers what a person may want to look into: `info` of a result holds "peak" and "notes".

NumPy and most of Pillow are imported where they are used: a worker starts several times as fast without them, and most
pictures need none of them.
"""

import contextlib
import functools
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import UsageError
from .rgb_profiles import HIGH_RANGE, icc_profile

if TYPE_CHECKING:
    import numpy as np
    from PIL import ImageCms

    Values = np.ndarray[Any, Any]

# Notes about a picture.
STRETCHED, NEARLY_TRANSPARENT, PLAIN, BRIGHT = "stretched", "nearly transparent", "plain", "high dynamic range"
TRANSPARENT_GROUND = "transparent ground"       # there are invisible pixels in the border, one pixel wide

_INTEGER_MODES = ("I", "I;16", "I;16L", "I;16B", "I;16N")
KEEP_ALPHA = "none"                             # the value of --background with which pictures stay transparent
_WHITE = 65535                                  # what is white in pictures of 16 bits
DARK = 16383                                    # highest value of 14 bits: pictures below are nearly black
_FAINT = 51                                     # alpha of 20 %: up to here, one hardly sees a pixel
_PLAIN = 8                                      # levels of 255 between which all values of a plain picture lie
_SAME_COLOUR = 2                                # levels of 255 by which a profile may differ from sRGB and count as it
_CHANGING = ("transparency", "icc_profile", "gamma", "rgb")    # entries of `info` that may change colours
_SRGB_GAMMA = 1 / 2.2                           # what a gAMA chunk says about sRGB


@dataclass(frozen=True)
class Rendering:
    """How the file of a picture becomes pixels of the model's size. The defaults are what the first versions did."""

    background: str = "white"                   # behind transparent pictures: a name, #rrggbb, or KEEP_ALPHA
    white_level: float | None = None            # value that is white in pictures of 16 bits or real numbers
    fit: str = "crop"                           # one of `config.FITS`, but not "auto": see `fitting.fitted`
    enlarge: bool = True                        # whether a smaller picture is enlarged to that size, and not refused

    @property
    def keeps_alpha(self) -> bool:
        """Whether pictures keep their transparency, as a fourth channel."""
        return self.background.strip().lower() == KEEP_ALPHA

    @property
    def channels(self) -> int:
        """The number of channels of a pixel: red, green, blue, and with `keeps_alpha` alpha."""
        return 4 if self.keeps_alpha else 3


def background_colour(rendering: Rendering) -> tuple[int, int, int]:
    """The red, green and blue, 0 to 255, of --background; white if transparency is kept. Raises UsageError."""
    from PIL import ImageColor

    if rendering.keeps_alpha:
        return 255, 255, 255
    try:
        colour = ImageColor.getrgb(rendering.background.strip())[:3]
        if min(colour) < 0 or max(colour) > 255:
            raise ValueError
        return colour
    except ValueError as error:
        raise UsageError(f"--background does not know the colour {rendering.background!r}",
                         hint=f"Give a name, such as white, black or grey, or #rrggbb; {KEEP_ALPHA} keeps transparency"
                         ) from error


def to_rgb(image: Image.Image, rendering: Rendering | None = None, *, deep: "Values | None" = None) -> Image.Image:
    """A picture in any mode of Pillow → 8-bit sRGB in mode RGB, on the background of `rendering` (default: white).

    If `rendering` keeps transparency, the mode of a transparent picture is RGBA.

    deep: the same pixels with 16 bits, (H, W, 3) uint16, where Pillow has kept only the upper 8 of them. `info` of the
    result holds "peak", the highest value of a picture of 16 bits, else 0, and "notes", a list.
    """
    rgb, facts = convert(image, rendering or Rendering(), deep=deep)
    if rgb is image:
        rgb = image.copy()
    rgb.info = facts
    return rgb


def convert(
    image: Image.Image, rendering: Rendering, *, deep: "Values | None" = None,
) -> tuple[Image.Image, dict[str | tuple[int, int], Any]]:
    """The picture as `to_rgb` returns it, but the given object itself if nothing has to be changed; and its facts."""
    if image.mode == "RGB" and deep is None and image.info.keys().isdisjoint(_CHANGING):
        return image, {"peak": 0, "notes": []}
    notes: list[str] = []
    colour, alpha = _colour_and_alpha(image, rendering, notes)
    peak = 0
    if deep is not None:
        peak, colour = int(deep.max()), Image.fromarray(_scaled(deep, rendering.white_level or _WHITE))
    elif image.mode in _INTEGER_MODES:
        import numpy as np

        peak = 0 if STRETCHED in notes else int(np.asarray(image).max())
    profile = image.info.get("icc_profile")
    if "rgb" in image.info and colour.mode in ("L", "RGB"):
        primaries, gamma = image.info["rgb"]
        if gamma == HIGH_RANGE:
            notes.append(BRIGHT)
        elif found := icc_profile(primaries, gamma):
            profile, colour = found, colour.convert("RGB")
    rgb = _to_srgb(colour, profile if isinstance(profile, bytes) else None)
    if not profile and "srgb" not in image.info:
        rgb = _without_gamma(rgb, image.info.get("gamma"))
    if alpha is not None:
        rgb = _with_alpha(rgb, alpha, rendering, notes)
    return rgb, {"peak": peak, "notes": notes}


def _colour_and_alpha(
    image: Image.Image, rendering: Rendering, notes: list[str],
) -> tuple[Image.Image, Image.Image | None]:
    """The colours, in a mode that a profile may describe, and the alpha channel if there is one."""
    if image.mode in _INTEGER_MODES or image.mode == "F":
        import numpy as np

    if image.mode in _INTEGER_MODES:
        values = np.asarray(image)
        colour, alpha = Image.fromarray(_from_integers(values, rendering.white_level, notes)), None
        if isinstance(clear := image.info.get("transparency"), int):
            alpha = Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8))
        return colour, alpha
    if image.mode == "F":
        if rendering.white_level is None:
            notes.append(STRETCHED)
            return Image.fromarray(_stretched(np.asarray(image))), None
        return Image.fromarray(_scaled(np.asarray(image), rendering.white_level)), None
    if image.has_transparency_data:
        if image.mode in ("LA", "La"):
            grey = image if image.mode == "LA" else image.convert("LA")
            return grey.getchannel("L"), grey.getchannel("A")
        rgba = image.convert("RGBA")            # its RGB are the colours that transparency hides
        return rgba.convert("RGB"), rgba.getchannel("A")
    if image.mode == "1":
        return image.convert("L"), None
    if image.mode in ("P", "RGBX", "YCbCr", "HSV"):
        return image.convert("RGB"), None
    return image, None


# ── More than 8 bits ────────────────────────────────────────────────────────────────────────────────────────────────


def _from_integers(values: "Values", white_level: float | None, notes: list[str]) -> "Values":
    """0…65535, or 0…white_level, → 0…255. If a value is outside 0…65535, all are stretched, unless a level is given."""
    if white_level is not None:
        return _scaled(values, white_level)
    if values.min() < 0 or values.max() > _WHITE:
        notes.append(STRETCHED)
        return _stretched(values)
    return ((values.astype("uint32") + 128) // 257).astype("uint8")       # 65535 = 257 · 255, to the nearest


def _scaled(values: "Values", white: float) -> "Values":
    """0…white → 0…255, rounded. Values outside become black or white; values that are not numbers become black."""
    import numpy as np

    shares = np.nan_to_num(values.astype(np.float64) / white, nan=0.0, posinf=1.0, neginf=0.0)
    return np.round(255 * np.clip(shares, 0, 1)).astype(np.uint8)


def _stretched(values: "Values") -> "Values":
    """Lowest … highest finite value → 0…255. Equal values become 0, and so do values that are not finite."""
    import numpy as np

    values = values.astype(np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    shares = np.where(finite, values, low) / 2 - low / 2            # halves: the range itself may overflow
    return np.round(255 * np.where(finite, shares / ((high / 2 - low / 2) or 1.0), 0.0)).astype(np.uint8)


# ── Transparency ────────────────────────────────────────────────────────────────────────────────────────────────────


def _with_alpha(rgb: Image.Image, alpha: Image.Image, rendering: Rendering, notes: list[str]) -> Image.Image:
    """Lay the picture on the background, or give it its alpha channel if that is kept.

    If it is transparent everywhere, its alpha means nothing, and is ignored; unless nothing but black, or
    nothing but white, is hidden there.
    """
    from PIL import ImageChops

    hidden = {value for channel in rgb.split() for value in channel.getextrema()}
    if _highest(alpha) == 0 and hidden not in ({0}, {255}):
        return rgb
    if rendering.keeps_alpha:
        result = rgb.copy()
        result.putalpha(alpha)
        is_plain = _highest(alpha) <= _FAINT
    else:
        result = Image.new("RGB", rgb.size, background_colour(rendering))
        result.paste(rgb, mask=alpha)
        is_plain = _spread(result) <= _PLAIN
    if min(_lowest(strip) for strip in border(alpha)) <= _FAINT:
        notes.append(TRANSPARENT_GROUND)
    faint = alpha.point(lambda value: 255 if value <= _FAINT else 0)
    if faint.histogram()[255] > 0.99 * alpha.width * alpha.height and _spread(rgb, faint) > _PLAIN:
        notes.append(NEARLY_TRANSPARENT)
    elif is_plain and _highest(ImageChops.invert(alpha)) > 0:
        notes.append(PLAIN)
    return result


def border(image: Image.Image) -> list[Image.Image]:
    """The border of a picture, one pixel wide, in one to four strips, each pixel once."""
    width, height = image.size
    boxes = [(0, 0, width, 1), (0, height - 1, width, height), (0, 1, 1, height - 1), (width - 1, 1, width, height - 1)]
    lengths = (1, height - 1, height - 2, min(width - 1, height - 2))  # none above 0 if the strip repeats another
    return [image.crop(box) for box, length in zip(boxes, lengths, strict=True) if length > 0]


def _lowest(channel: Image.Image) -> int:
    return int(channel.getextrema()[0])         # type: ignore[arg-type]


def _highest(channel: Image.Image) -> int:
    return int(channel.getextrema()[1])         # type: ignore[arg-type]


def _spread(image: Image.Image, mask: Image.Image | None = None) -> int:
    """The largest difference of two values of one channel, 0 to 255, where the mask is white."""
    from PIL import ImageStat

    extrema = ImageStat.Stat(image, mask).extrema
    return int(max(high - low for low, high in extrema))


# ── Colour profiles and gamma ───────────────────────────────────────────────────────────────────────────────────────


def _to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert by the colour profile, or by plain arithmetic if there is none, or none that fits the picture."""
    if profile or image.mode == "LAB":          # Pillow has no plain arithmetic for LAB
        transform = _srgb_transform(profile, image.mode) or (
            _srgb_transform(None, "LAB") if image.mode == "LAB" else None)
        if transform is not None:
            from PIL import ImageCms

            with contextlib.suppress(ImageCms.PyCMSError):
                return ImageCms.applyTransform(image, transform) or image
    return image.convert("RGB")


@functools.lru_cache(maxsize=16)                # the pictures of a folder have few profiles
def _srgb_transform(profile: bytes | None, mode: str) -> "ImageCms.ImageCmsTransform | None":
    """From a profile, or without one from LAB itself, to sRGB; None if it cannot be used or changes no colour visibly.

    The name of a profile says nothing. So it is tried on colours from everywhere in the cube.
    """
    try:
        import numpy as np
        from PIL import ImageCms

        source = ImageCms.ImageCmsProfile(io.BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode in ("L", "RGB"):
            steps = np.arange(0, 256, 15, dtype=np.uint8)               # 18 of them
            cube = np.stack(np.meshgrid(steps, steps, steps), -1).reshape(18, -1, 3)
            probe = Image.fromarray(cube if mode == "RGB" else np.ascontiguousarray(cube[..., 0]))
            changed = np.asarray(ImageCms.applyTransform(probe, transform), np.int16) - np.asarray(probe.convert("RGB"))
            if np.abs(changed).max() <= _SAME_COLOUR:
                return None
    except Exception:                           # a picture with a damaged profile, or a foreign one, is still usable
        return None
    return transform


def _without_gamma(image: Image.Image, gamma: Any) -> Image.Image:
    """Undo the gamma of a PNG without a profile: value = light ** gamma. Nothing is done if it is that of sRGB."""
    if not isinstance(gamma, float) or not 0.1 <= gamma <= 3 or abs(gamma / _SRGB_GAMMA - 1) < 0.05:
        return image
    import numpy as np

    light = (np.arange(256) / 255) ** (1 / gamma)
    encoded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return image.point([round(255 * value) for value in encoded] * 3)
