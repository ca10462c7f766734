"""The colours that transparency hides, replaced by those of the nearest visible pixels ("alpha bleeding").

A file may hold any colour where nothing is seen: black, white, or what an editor erased. A network would learn it, and
mix it into the half-transparent edges that it draws: a fringe around everything.

Pillow alone does it, because the processes that decode pictures do not import NumPy.
"""

from PIL import Image

VISIBLE = 8                                     # alpha, of 255, from which a pixel keeps its colour: below, 8 bits in
#                                                 which colours were multiplied by alpha hold little of them


def with_bled_colours(image: Image.Image) -> Image.Image:
    """An RGBA picture with the same alpha, whose colours continue where it is invisible.

    They are those of ever larger averages over visible pixels, the smallest that reach so far. A picture without
    visible pixels becomes black.
    """
    alpha = image.getchannel("A")
    if alpha.getextrema()[0] >= VISIBLE:        # type: ignore[operator]
        return image
    known = image.copy()
    known.putalpha(alpha.point(lambda value: 255 if value >= VISIBLE else 0))
    result = _filled(known)
    result.putalpha(alpha)
    return result


def _filled(known: Image.Image) -> Image.Image:
    """The colours of an RGBA picture, in mode RGB, where each pixel has a known one (alpha 255) or none (alpha 0)."""
    rgb, alpha = known.convert("RGB"), known.getchannel("A")
    if max(known.size) == 1 or alpha.getextrema()[0] == 255:
        return rgb
    smaller = known.reduce(2)                   # Pillow weights colours by alpha
    smaller.putalpha(smaller.getchannel("A").point(lambda value: 255 if value else 0))
    result = _filled(smaller).resize(known.size, Image.Resampling.BILINEAR)
    result.paste(rgb, mask=alpha)
    return result
