"""What is wanted of one prompt: the words, how many pictures, their seed, how they are drawn, and what they start from.

Numpy and Pillow at most, so that a picture that cannot be used is refused before torch is imported. Knows no model.
"""

import hashlib
import numbers
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..checks import check_range
from ..config import SEED_RANGE, STRENGTH, Sampling
from ..data import images
from ..errors import DataError, UsageError


@dataclass(frozen=True, eq=False)
class InitImage:
    """A picture to start from, as large as the model's, and how much of it may change."""

    image: np.ndarray                           # (R, R, 3) uint8
    strength: float                             # the time it is diffused to: 0 leaves it as it is, 1 hardly anything
    mask: np.ndarray | None = None              # (R, R) bool, True where new content is wanted; None: everywhere

    def __post_init__(self) -> None:
        check_range("--strength", self.strength, 0, 1)

    @cached_property
    def image_sha256(self) -> str:
        """Of the pixels."""
        return hashlib.sha256(self.image.tobytes()).hexdigest()

    @cached_property
    def mask_sha256(self) -> str | None:
        """Of the mask, a byte for each pixel."""
        return None if self.mask is None else hashlib.sha256(self.mask.tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """`count` pictures of one prompt; picture k has seed + k. Raises UsageError for what is out of range, or no number.
    """

    prompt: str = ""
    negative: str = ""                          # what guidance leads away from, in the place of the empty caption
    count: int = 1
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    init: InitImage | None = None

    def __post_init__(self) -> None:
        for option, text in (("the prompt", self.prompt), ("--negative", self.negative)):
            if not isinstance(text, str):
                raise UsageError(f"{option} must be text, not {str(text)[:40]!r}")
        for option, number in (("--num", self.count), ("--seed", self.seed)):
            if not isinstance(number, numbers.Integral):
                raise UsageError(f"{option} must be a whole number, not {str(number)[:40]!r}")
        for name in ("count", "seed"):                                 # NumPy's, too, draw what Python's do
            object.__setattr__(self, name, int(getattr(self, name)))
        check_range("--num", self.count, 1, 1_000_000)
        check_range("--seed", self.seed, 0, SEED_RANGE[1] - self.count)


def open_init_image(image: Path, mask: Path | None, resolution: int, strength: float | None) -> InitImage:
    """The picture fitted to R×R pixels as training fits it, and with it the mask: at least half white is new.

    strength None: STRENGTH, or 1 with a mask. Raises DataError, and UsageError for a strength out of range.
    """
    new = None if mask is None else open_picture(mask, resolution)
    return init_image(open_picture(image, resolution), new, strength)


def init_image(image: np.ndarray, mask: np.ndarray | None, strength: float | None) -> InitImage:
    """The same from pixels, (R, R, 3) uint8 each."""
    new = None if mask is None else mask.mean(axis=2) >= 127.5
    return InitImage(image, strength if strength is not None else STRENGTH if new is None else 1.0, new)


def open_picture(path: Path, resolution: int) -> np.ndarray:
    """(R, R, 3) uint8: the picture at `path` as training would fit it. Raises DataError."""
    try:
        return images.fit(images.open_rgb(path, target=resolution), resolution)
    except images.ImageRefused as error:
        reason = "it is a folder" if path.is_dir() else error.reason
        raise DataError(f"{path} cannot be used: {reason}", hint="Give another picture") from error


@dataclass(frozen=True)
class Sample:
    """One finished picture."""

    request: SampleRequest
    index: int                                  # among the pictures of its request
    pixels: np.ndarray                          # (H, W, 3) uint8
    seconds: float                              # its share of the time
    frames: np.ndarray | None = None            # (steps, H, 2·W, 3) uint8: noisy picture | estimate, if asked for

    @property
    def prompt(self) -> str:
        return self.request.prompt

    @property
    def seed(self) -> int:
        return self.request.seed + self.index
