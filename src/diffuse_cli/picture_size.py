"""The size of a picture: its width and its height in pixels, in this order, as all programs for pictures write them.

A square is written as one number, 64, and any other picture as WxH: 96x64 is wider than it is high. `checks` reads what
is written so. Uses the standard library only: it is imported before torch.
"""

import math
from typing import NamedTuple


class Size(NamedTuple):
    """Width and height, in pixels."""

    width: int
    height: int

    @classmethod
    def of(cls, size: "Size | int") -> "Size":
        """A size as it is, or the size of the square whose sides are given."""
        return cls(size, size) if isinstance(size, int) else cls(*size)

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
