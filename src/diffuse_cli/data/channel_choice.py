"""Whether the pictures of a data set are grey, so that a model of them draws grey pictures."""

from collections.abc import Iterator

import numpy as np

from .listing import Dataset, Pixels

TOLERANCE = 8                                   # levels of 255 by which red, green and blue of a grey pixel may differ:
#                                                 JPEG and the scanner's light colour pictures as little as that
GREY_SHARE = 0.99                               # minimum share of the pixels of a grey picture that are grey
FEW = 0.01                                      # share of coloured pictures up to which they are counted
_PIECE = 2**24                                  # bytes that are looked at once


def choose_channels(dataset: Dataset) -> tuple[int, str]:
    """The number of channels of a model of the pictures, and the reason: one less for colours if all are grey.

    With alpha there is one more. All pictures are looked at, unless they are coloured.
    """
    channels, why = _choose(dataset)
    if len(dataset.names) and dataset.channels == 4 and all(
            (piece[..., 3] == 255).all() for array in dataset.arrays for _, piece in _pieces(array)):
        why += "; none is transparent, so --background none changes nothing"
    return channels, why


def _choose(dataset: Dataset) -> tuple[int, str]:
    total, coloured, first = len(dataset.names), 0, ""
    if not total:
        return dataset.channels, "no picture can be read"
    for number, array in enumerate(dataset.arrays):
        for start, piece in _pieces(array):
            found = np.flatnonzero(~are_grey(piece))
            if len(found) and not coloured:
                first = _name(dataset, number, start + int(found[0]))
            coloured += len(found)
            if coloured > FEW * total:
                return dataset.channels, "pictures have colours"
    if not coloured:
        return dataset.channels - 2, "all pictures are grey"
    return dataset.channels, (f"{coloured:,} of {total:,} pictures {'has' if coloured == 1 else 'have'} colours, for "
                              f"example {first}; without {'it' if coloured == 1 else 'them'}, grey ones would be drawn")


def _pieces(array: Pixels) -> Iterator[tuple[int, Pixels]]:
    """The rows of an array, some at a time, with the number of the first."""
    step = max(1, _PIECE // max(1, array[:1].nbytes))
    return ((start, array[start : start + step]) for start in range(0, len(array), step))


def are_grey(pixels: Pixels) -> np.ndarray:
    """Whether each picture is grey. (N, H, W, 3 or 4) uint8 → (N,) bool"""
    colours = pixels[..., :3]
    differences = colours.max(-1) - colours.min(-1)                     # (N, H, W)
    grey: np.ndarray = (differences <= TOLERANCE).mean((1, 2)) >= GREY_SHARE
    return grey


def _name(dataset: Dataset, number: int, row: int) -> str:
    """The name of the picture in a row of the array of a size."""
    numbers = dataset.size_numbers
    return dataset.names[row if numbers is None else int(np.flatnonzero(numbers == number)[row])]
