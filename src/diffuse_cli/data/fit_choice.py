"""How the pictures of a data set become squares, if the user leaves it open: judged by some of them, always the same.

Pictures on a plain or transparent ground are padded, because more of the same ground changes nothing about them; others
are cropped.
"""

import contextlib
from dataclasses import replace

import numpy as np
from PIL import Image

from . import decode_workers
from .colours import TRANSPARENT_GROUND, Rendering, background_colour
from .images import read_size
from .listing import PictureListing
from .squares import TOLERANCE, Colour, ground_colour

PLACES, NEIGHBOURS = 25, 8                      # pictures are looked at in so many places, so many in each: in shards,
#                                                 neighbours are read at once
SIDE = 64                                       # pixels of a side at which a picture is looked at
NEARLY_SQUARE = 1.05                            # longer side / shorter side up to which a crop loses next to nothing


def choose_fit(found: PictureListing, rendering: Rendering) -> tuple[str, str]:
    """The fit for the pictures, "pad" or "crop", and the reason with its figures.

    At most PLACES · NEIGHBOURS pictures are decoded. rendering: says what is behind transparent pictures; its fit does
    not matter. Raises DataError if they take too long.
    """
    sizes = ((path, read_size(path)) for path in (
        found.pictures[position].path for position in _positions(len(found.pictures))))
    readable = [(path, size) for path, size in sizes if size is not None]
    oblong = [path for path, size in readable if max(size) > NEARLY_SQUARE * min(size)]
    if readable and not oblong:
        return "crop", "all pictures that were looked at are square"
    lost: list[float] = []                      # of each picture on such a ground, what the centre square loses of it
    lost_area: list[float] = []                 # the same of each other picture
    whole, background = replace(rendering, fit="stretch"), background_colour(rendering)
    with contextlib.closing(decode_workers.decode_all(oblong, resolution=SIDE, rendering=whole)) as decoding:
        for picture in decoding:
            if picture.reason:
                continue
            short, long = sorted((picture.width, picture.height))
            image = Image.frombytes("RGB", (SIDE, SIDE), picture.pixels)
            ground = background if TRANSPARENT_GROUND in picture.notes else ground_colour(image)
            if ground is None:
                lost_area.append(1 - short / long)
            else:
                lost.append(lost_share(image, ground, short / long, upright=picture.height == long))
    total = len(lost) + len(lost_area)
    if not total:
        return "crop", "no picture can be looked at"
    counted = f"{len(lost)} of {total} pictures that are not square"
    if 2 * len(lost) > total:
        return "pad", (f"{counted} stand on a plain or transparent ground, and the centre square would cut off "
                       f"{np.mean(lost):.0%} of what is on it")
    cut_off = f"; {np.mean(lost_area):.0%} of the area of the others is cut off" if lost_area else ""
    return "crop", f"only {counted} stand on a plain or transparent ground{cut_off}"


def lost_share(image: Image.Image, ground: Colour, aspect: float, *, upright: bool) -> float:
    """The share of the pixels which are not ground that lies outside of the centre square, 0 to 1.

    image: the whole picture, stretched to a square. aspect: its shorter side / its longer one, in the file. upright:
    whether the longer side is the height.
    """
    differing = np.abs(np.asarray(image, np.int16) - np.array(ground, np.int16)).max(axis=2) > TOLERANCE
    along = differing.sum(axis=1 if upright else 0)                    # (SIDE,), pixels along the longer side
    edges = np.linspace(-0.5, 0.5, len(along) + 1).clip(-aspect / 2, aspect / 2)
    inside = np.diff(edges) * len(along)                               # (SIDE,), share of each in the centre square
    return float((along * (1 - inside)).sum() / max(1, along.sum()))


def _positions(count: int) -> list[int]:
    """The positions of the pictures to look at, of `count`, ascending: all, or some in each of several places."""
    if count <= PLACES * NEIGHBOURS:
        return list(range(count))
    starts = (place * (count - NEIGHBOURS) // (PLACES - 1) for place in range(PLACES))
    return [start + number for start in starts for number in range(NEIGHBOURS)]
