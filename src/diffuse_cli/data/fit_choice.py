"""How the pictures of a data set get the model's shape, if the user leaves it open: judged by some, always the same.

Pictures on a plain or transparent ground are padded, because more of the same ground changes nothing about them; others
are cropped.
"""

import contextlib
from dataclasses import replace

import numpy as np
from PIL import Image

from ..picture_size import Size, kept_share
from . import decode_workers
from .colours import TRANSPARENT_GROUND, Rendering, background_colour
from .fitting import TOLERANCE, Colour, ground_colour
from .images import read_size
from .listing import PictureListing

PLACES, NEIGHBOURS = 25, 8                      # pictures are looked at in so many places, so many in each: in shards,
#                                                 neighbours are read at once
SIDE = 64                                       # pixels of a side at which a picture is looked at
NEARLY_ALL = 1 / 1.05                           # share of a picture from which a crop loses next to nothing


def choose_fit(found: PictureListing, rendering: Rendering, resolution: Size | int) -> tuple[str, str]:
    """The fit for the pictures, "pad" or "crop", and the reason with its figures.

    At most PLACES · NEIGHBOURS pictures are decoded. rendering: says what is behind transparent pictures; its fit does
    not matter. resolution: of the model, of which only the proportions matter. Raises DataError if the pictures take
    too long.
    """
    target = Size.of(resolution)
    shape, crop = ("square", "the centre square") if target.is_square else (f"of shape {target}", "the crop")
    sizes = ((path, read_size(path)) for path in (
        found.pictures[position].path for position in _positions(len(found.pictures))))
    readable = [(path, size) for path, size in sizes if size is not None]
    other = [path for path, size in readable        # the header of a photograph may hold its sides the other way round
             if any(kept_share(side, target) < NEARLY_ALL for side in (size, size[::-1]))]
    if readable and not other:
        return "crop", f"all pictures that were looked at are {shape}"
    lost: list[float] = []                      # of each picture on such a ground, what the crop loses of it
    lost_area: list[float] = []                 # the same of each other picture
    fitting = 0                                 # pictures that turned out to have the shape
    background = background_colour(rendering)
    whole = replace(rendering, fit="stretch", background="#{:02x}{:02x}{:02x}".format(*background))
    with contextlib.closing(decode_workers.decode_all(other, resolution=SIDE, rendering=whole)) as decoding:
        for picture in decoding:
            kept = 0.0 if picture.reason else kept_share((picture.width, picture.height), target)
            if picture.reason or kept >= NEARLY_ALL:
                fitting += not picture.reason
                continue
            image = Image.frombytes("RGB", (SIDE, SIDE), picture.pixels)
            ground = background if TRANSPARENT_GROUND in picture.notes else ground_colour(image)
            if ground is None:
                lost_area.append(1 - kept)
            else:
                lost.append(lost_share(image, ground, kept, upright=picture.width / picture.height < target.aspect))
    total = len(lost) + len(lost_area)
    if not total:
        return "crop", f"all pictures that were looked at are {shape}" if fitting else "no picture can be looked at"
    counted = f"{len(lost):,} of {total:,} pictures that are not {shape}"
    if 2 * len(lost) > total:
        return "pad", (f"{counted} stand on a plain or transparent ground, and {crop} would cut off "
                       f"{np.mean(lost):.0%} of what is on it")
    cut_off = f"; {np.mean(lost_area):.0%} of the area of the others is cut off" if lost_area else ""
    return "crop", f"only {counted} stand on a plain or transparent ground{cut_off}"


def lost_share(image: Image.Image, ground: Colour, kept: float, *, upright: bool) -> float:
    """The share of the pixels which are not ground that a centre crop loses, 0 to 1.

    image: the whole picture, stretched to a square. kept: the share of its area that the crop keeps. upright: whether
    the crop takes from the height, not from the width.
    """
    differing = np.abs(np.asarray(image, np.int16) - np.array(ground, np.int16)).max(axis=2) > TOLERANCE
    along = differing.sum(axis=1 if upright else 0)                    # (SIDE,), pixels along the side that is cut
    edges = np.linspace(-0.5, 0.5, len(along) + 1).clip(-kept / 2, kept / 2)
    inside = np.diff(edges) * len(along)                               # (SIDE,), share of each in the crop
    return float((along * (1 - inside)).sum() / max(1, along.sum()))


def _positions(count: int) -> list[int]:
    """The positions of the pictures to look at, of `count`, ascending: all, or some in each of several places."""
    if count <= PLACES * NEIGHBOURS:
        return list(range(count))
    starts = (place * (count - NEIGHBOURS) // (PLACES - 1) for place in range(PLACES))
    return [start + number for start in starts for number in range(NEIGHBOURS)]
