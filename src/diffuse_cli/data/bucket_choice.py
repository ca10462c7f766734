"""Which sizes a model gets with `--fit buckets`: a few of about the same area, chosen from the shapes of the pictures.

A crop to the nearest of them should keep nearly all of a picture, and each costs a step about as much as the others.
"""

import numpy as np

from ..errors import UsageError
from ..picture_size import Size, kept_share
from .images import read_upright_size
from .listing import Dataset, PictureListing

PROBED_PICTURES = 500                           # rough number of pictures whose shapes are looked at
MAX_ASPECT = 4                                  # of a size, either way; longer pictures are cropped or padded
MIN_AREA = 0.9                                  # of a size, as a share of the area that was asked for; none has more
MAX_SIZES = 8                                   # that are chosen
MIN_GAIN = 0.01                                 # of the area of all pictures, that a further size must keep
MIN_PICTURES = 8                                # of those looked at, for which a further size must be better: a batch
#                                                 has one size, and should not show one picture again and again


def choose_sizes(found: PictureListing, area: Size, *, multiple: int) -> tuple[tuple[Size, ...], str]:
    """Sizes for the pictures, the commonest first, and a sentence with the figures. Headers alone are read.

    Each further size is the one that keeps most of all pictures beyond what the earlier ones keep. area: the size whose
    number of pixels all have, or up to a tenth less. multiple: all sides are multiples of it. Raises UsageError if
    no size is possible.
    """
    possible = possible_sizes(area, multiple=multiple)
    every = max(1, len(found.pictures) // PROBED_PICTURES)
    probed = (read_upright_size(picture.path) for picture in found.pictures[::every])
    pictures = [size for size in probed if size is not None]
    if not pictures:
        return possible[:1], "no picture can be looked at"
    kept = np.array([[kept_share(picture, size) for size in possible] for picture in pictures])     # (N, sizes)
    chosen: list[int] = []
    best = np.zeros(len(pictures))
    while len(chosen) < MAX_SIZES:
        gains = np.maximum(kept - best[:, None], 0)
        gains[:, (gains > 0).sum(0) < (MIN_PICTURES if chosen else 0)] = 0
        most = int(gains.mean(0).argmax())
        if chosen and gains[:, most].mean() < MIN_GAIN:
            break
        chosen.append(most)
        best = np.maximum(best, kept[:, most])
    counts = np.bincount(kept[:, chosen].argmax(1), minlength=len(chosen))
    sizes = tuple(possible[chosen[place]] for place in np.argsort(-counts, kind="stable"))
    of_area = np.mean([kept_share(picture, area) for picture in pictures])
    return sizes, (f"{len(sizes)} shape{'' if len(sizes) == 1 else 's'}, to which a crop keeps {best.mean():.0%} of a "
                   f"picture on average; to {area} alone it would keep {of_area:.0%}")


def possible_sizes(area: Size, *, multiple: int) -> tuple[Size, ...]:
    """All sizes with about as many pixels as `area`, the squarest first. Raises UsageError if there is none."""
    found: dict[Size, None] = {}
    for short in range(int(area.side) // multiple * multiple, 0, -multiple):
        long = area.pixels // short // multiple * multiple
        if long <= MAX_ASPECT * short and short * long >= MIN_AREA * area.pixels:
            found |= {Size(long, short): None, Size(short, long): None}
    if not found:
        raise UsageError(f"--fit buckets finds no shape of about {area} px",
                         hint=f"Give a --resolution whose sides are multiples of {multiple}")
    return tuple(found)


def describe_sizes(dataset: Dataset) -> str:
    """How many pictures have each size: '64 px: 210 pictures, 80x48 px: 98'."""
    counts = [f"{size} px: {len(array):,}" for size, array in zip(dataset.sizes, dataset.arrays, strict=True)]
    return f"{counts[0]} pictures, {', '.join(counts[1:])}" if len(counts) > 1 else f"{counts[0]} pictures"
