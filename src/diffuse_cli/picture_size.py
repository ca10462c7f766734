"""The size of a picture: its width and its height in pixels, in this order, as all programs for pictures write them.

A square is written as one number, 64, and any other picture as WxH: 96x64 is wider than it is high. `checks` reads what
is written so. A model may have several sizes. Uses the standard library only: it is imported before torch.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Size(NamedTuple):
    """Width and height, in pixels."""

    width: int
    height: int

    @classmethod
    def of(cls, size: "Size | int") -> "Size":
        """A size as it is, or the size of the square whose sides are given."""
        return cls(size, size) if isinstance(size, int) else cls(*size)

    def scaled(self, factor: int) -> "Size":
        """`factor` times as wide and high."""
        return Size(factor * self.width, factor * self.height)

    def to_json(self) -> int | str:
        """64 for a square, "64x96" for any other size: files of squares are those of versions that knew no others."""
        return self.width if self.is_square else str(self)

    def __str__(self) -> str:
        return str(self.width) if self.is_square else f"{self.width}x{self.height}"

    @property
    def is_square(self) -> bool:
        return self.width == self.height

    @property
    def pixels(self) -> int:
        return self.width * self.height

    @property
    def side(self) -> float:
        """√(width·height): the side of the square with as many pixels. Noise hides both alike."""
        return self.width if self.is_square else math.sqrt(self.pixels)

    @property
    def aspect(self) -> float:
        """width / height"""
        return self.width / self.height


Resolution = Size | int | Sequence[Size]        # one size, the side of a square, or several sizes


def sizes_of(resolution: Resolution) -> tuple[Size, ...]:
    """The sizes that a resolution stands for, at least one."""
    return (Size.of(resolution),) if isinstance(resolution, int | Size) else tuple(resolution)


def kept_share(picture: tuple[int, int], target: Size) -> float:
    """The share of a picture that a crop to the proportions of `target` keeps, 0 to 1. picture: its width and height.
    """
    ratio = picture[0] / picture[1] / target.aspect
    return min(ratio, 1 / ratio)


def nearest(sizes: Sequence[Size], picture: tuple[int, int]) -> Size:
    """The size that is nearest to the proportions of a picture: a crop to it keeps most. The first, if several do.

    picture: its width and height.
    """
    return max(sizes, key=lambda size: kept_share(picture, size))
