"""A request for pictures of one prompt, the picture that it may start from, and the finished sample.

Imports numpy and Pillow at most, so that an unusable picture is refused before the slow import of torch.
"""

import hashlib
import numbers
import re
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..checks import check_range
from ..config import SEED_RANGE, STRENGTH, Sampling
from ..data.colours import KEEP_ALPHA, Rendering, background_colour
from ..data.decode_workers import decode_one
from ..data.file_types import remedies
from ..data.picture_files import ImageRefused
from ..errors import DataError, ModelError, UsageError
from ..model_config import ModelConfig
from ..picture_size import Resolution, Size
from ..storage import registry
from ..storage.model_info import TrainingSummary

PROMPT_CHARACTERS = 48                          # of a prompt at most, in the name of its picture


@dataclass(frozen=True, eq=False)
class InitImage:
    """A picture to start from, at the model's resolution, and how much of it may change."""

    image: np.ndarray                           # (H, W, 3) uint8, or with transparency (H, W, 4)
    strength: float                             # diffusion time to start at: 0 keeps it as it is, 1 hardly at all
    mask: np.ndarray | None = None              # (H, W) bool, True where new content is generated; None: everywhere

    def __post_init__(self) -> None:
        check_range("--strength", self.strength, 0, 1)

    @property
    def size(self) -> Size:
        """Width and height of the picture."""
        return _size_of(self.image)

    @cached_property
    def image_sha256(self) -> str:
        """The SHA-256 of the pixels, as hexadecimal digits."""
        return hashlib.sha256(self.image.tobytes()).hexdigest()

    @cached_property
    def mask_sha256(self) -> str | None:
        """The SHA-256 of the mask, one byte per pixel, as hexadecimal digits."""
        return None if self.mask is None else hashlib.sha256(self.mask.tobytes()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class SampleRequest:
    """`count` pictures of one prompt; picture k has seed + k.

    Raises UsageError for a value that is out of range or of the wrong type.
    """

    prompt: str = ""
    negative: str = ""                          # guidance leads away from this, instead of from the empty caption
    count: int = 1
    seed: int = 0
    sampling: Sampling = field(default_factory=Sampling)
    init: InitImage | None = None
    size: Size | None = None                    # of the pictures; None: that of `init`, or the model's first

    def __post_init__(self) -> None:
        for option, text in (("the prompt", self.prompt), ("--negative", self.negative)):
            if not isinstance(text, str):
                raise UsageError(f"{option} must be text, not {str(text)[:40]!r}")
        for option, number in (("--num", self.count), ("--seed", self.seed)):
            if not isinstance(number, numbers.Integral):
                raise UsageError(f"{option} must be a whole number, not {str(number)[:40]!r}")
        for name in ("count", "seed"):                                 # NumPy's integers too become Python's
            object.__setattr__(self, name, int(getattr(self, name)))
        check_range("--num", self.count, 1, 1_000_000)
        check_range("--seed", self.seed, 0, SEED_RANGE[1] - self.count)
        if self.init is not None:
            if self.size not in (None, self.init.size):
                raise UsageError(f"the picture to start from has {self.init.size} px, and --size is {self.size}",
                                 hint="Leave --size out")
            object.__setattr__(self, "size", self.init.size)


def rendering_of(config: ModelConfig, training: TrainingSummary) -> Rendering:
    """How pictures became those of a model in its training. Raises ModelError if its file says what cannot be."""
    try:
        options = training.rendering_options
        if config.network.has_alpha:            # whatever a file says, or says not
            options["background"] = KEEP_ALPHA
        rendering = Rendering(**options)
        background_colour(rendering)
    except UsageError as error:
        raise ModelError(f"the model says something impossible about its pictures: {error.what}",
                         hint="Use another copy of it") from error
    return rendering


def open_init_image(
    image: Path, mask: Path | None, resolution: Resolution, strength: float | None, rendering: Rendering,
) -> InitImage:
    """Open a picture to start from, and its mask: both are fitted to the size `resolution` as training fits them.

    Of several sizes, both get that which is nearest to the picture. rendering: how the picture gets that shape; of it,
    the mask only has the fit. Mask and strength: see `make_init_image`. Raises DataError, and UsageError for a strength
    out of range.
    """
    pixels = open_fitted(image, resolution, rendering)
    mask_pixels = None if mask is None else open_fitted(mask, _size_of(pixels), Rendering(fit=rendering.fit))
    return make_init_image(pixels, mask_pixels, strength)


def make_init_image(image: np.ndarray, mask: np.ndarray | None, strength: float | None) -> InitImage:
    """Make an `InitImage` of pixels, (H, W, C) uint8 each. New content is generated where the mask is at least half
    white.

    strength None means STRENGTH, or 1 with a mask. Raises UsageError for a strength out of range.
    """
    inpainted = None if mask is None else mask.mean(axis=2) >= 127.5
    return InitImage(image, strength if strength is not None else STRENGTH if inpainted is None else 1.0, inpainted)


def _size_of(pixels: np.ndarray) -> Size:
    """The size of a picture (H, W, C)."""
    return Size(width=pixels.shape[1], height=pixels.shape[0])


def open_fitted(path: Path, resolution: Resolution, rendering: Rendering | None = None) -> np.ndarray:
    """Open the picture at `path` and fit it as training would, in a process of its own, where it can do no harm.

    resolution: an int is the side of a square; of several sizes, it gets the nearest. → (H, W, C) uint8 with the
    channels of `rendering`. Raises DataError.
    """
    try:
        size, pixels = decode_one(path, resolution=resolution, rendering=rendering)
    except ImageRefused as error:
        raise DataError(f"{path} cannot be used: {error.reason}",
                        hint="; ".join(remedies([error.reason])) or "Give another picture") from error
    return np.frombuffer(pixels, np.uint8).reshape(size.height, size.width, -1).copy()       # writable, for PyTorch


@dataclass(frozen=True)
class Sample:
    """One finished picture."""

    request: SampleRequest
    index: int                                  # number of the picture within its request, from 0
    pixels: np.ndarray                          # (H, W, C) uint8
    seconds: float                              # its share of the wall time
    frames: np.ndarray | None = None            # (steps, H, 2·W, C) uint8, on request: noisy picture | estimate

    @property
    def size(self) -> Size:
        """Width and height of the picture."""
        return _size_of(self.pixels)

    @property
    def prompt(self) -> str:
        return self.request.prompt

    @property
    def seed(self) -> int:
        return self.request.seed + self.index

    @property
    def file_stem(self) -> str:
        """The name of its file, without number and suffix."""
        return file_stem(self.prompt, self.seed)


def file_stem(prompt: str, seed: int) -> str:
    """The seed of a picture, and its prompt in letters, digits and hyphens."""
    slug = re.sub(r"[^a-z0-9]+", "-", registry.plain(prompt)).strip("-")[:PROMPT_CHARACTERS].strip("-")
    return f"{seed}-{slug}" if slug else str(seed)
