"""What an upscaler is given of a small picture: the picture enlarged, with noise of a level that it is told.

Ho et al. 2021, "Cascaded Diffusion Models" (2106.15282), section 4.2: noise on the small picture hides the faults of
the model that drew it. In training its time is drawn uniformly, so that any level can be chosen for sampling.

Enlarging is bilinear, and puts the corner pixels of the small picture on those of the large one, as pipelines of
diffusers do. This moves pixels by up to half of (factor - 1) from their true places.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .schedule import FIRST_TIME, Level, Schedule

START_TIME = 0.6                                # diffusion time at which drawing begins, from the enlarged picture:
#                                                 half of the steps are left, and colours stay those of that picture
NOISE_TIME = 0.1                                # diffusion time of the noise on small pictures


class LowRes(NamedTuple):
    """N small pictures as an upscaler reads them."""

    image: Tensor                               # (N, C, H, W), enlarged, with noise
    level: Tensor                               # (N,) float32, 1000·t - 1 of the times t of this noise

    def of(self, rows: slice | Tensor) -> "LowRes":
        """Those of some of the pictures: a slice, or their numbers (M,) int64."""
        return LowRes(self.image[rows], self.level[rows])

    def part(self, rows: slice, columns: slice) -> "LowRes":
        """A part of each picture."""
        return self._replace(image=self.image[:, :, rows, columns])

    def on(self, device: torch.device) -> "LowRes":
        """The same on a device."""
        return LowRes(self.image.to(device), self.level.to(device))

    def twice(self) -> "LowRes":
        """All pictures, and all of them again."""
        return LowRes(torch.cat([self.image, self.image]), torch.cat([self.level, self.level]))


def uniform_times(uniform: Tensor) -> Tensor:
    """Numbers in [0, 1) → times of the noise on small pictures, in [1/1000, 1), of the same shape, float64."""
    return FIRST_TIME + uniform.double() * (1 - FIRST_TIME)


def enlarge(small: Tensor, height: int, width: int) -> Tensor:
    """Whole pictures (N, C, h, w) → (N, C, height, width)."""
    return F.interpolate(small, (height, width), mode="bilinear", align_corners=True)


def consistent(large: Tensor, small: Tensor) -> Tensor:
    """Large pictures (N, C, H, W) whose means over squares are moved to the pixels of `small`, (N, C, h, w).

    So the large picture keeps the colours of the small one, and its own details: with A the mean over squares, and A⁺
    an enlargement, x + A⁺(y - A·x) (Wang et al. 2023, "DDNM", 2212.00490, eq. 13). The enlargement is smooth and so not
    quite an inverse of A; the second round corrects that.
    """
    factor = large.shape[3] // small.shape[3]
    for _ in range(2):
        large = large + F.interpolate(small - F.avg_pool2d(large, factor), scale_factor=factor, mode="bilinear")
    return large


def with_noise(enlarged: Tensor, noise: Tensor, t: Tensor | Level, time: Tensor, schedule: Schedule) -> LowRes:
    """Add noise to enlarged pictures, (N, C, H, W) both. t: its times (N,) or levels; time: their `level`, (N,)."""
    return LowRes(schedule.add_noise(enlarged, noise, t), time)


# ── Crops ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def window_start(start: Tensor, small: int, large: int, window: int) -> Tensor:
    """Where a window of the small picture begins, from which crops of the large one can be enlarged.

    start: (N,) int64, the first pixel of each crop; small, large: pixels of the pictures along this axis; window:
    `window_length` → (N,) int64
    """
    return torch.clamp(start * (small - 1) // (large - 1), max=small - window)


def window_length(crop: int, small: int, large: int) -> int:
    """Pixels of the small picture that suffice to enlarge any `crop` neighbours of the large one."""
    return min(small, (crop - 1) * (small - 1) // (large - 1) + 3)


def places_in_window(start: Tensor, crop: int, *, small: int, large: int) -> Tensor:
    """From where in its window each pixel of a crop is interpolated: -1 is the window's first pixel, 1 its last.

    start: (N,) int64, the first pixel of each crop → (N, crop) float64
    """
    window = window_length(crop, small, large)
    pixels = start[:, None] + torch.arange(crop)
    places = pixels.double() * (small - 1) / (large - 1) - window_start(start, small, large, window)[:, None]
    return 2 * places / (window - 1) - 1


def enlarge_window(window: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The same crops of what `enlarge` makes of whole small pictures, from windows of them.

    window: (N, C, h, w); rows: (N, H), columns: (N, W), the `places_in_window` → (N, C, H, W)
    """
    shape = (len(window), rows.shape[1], columns.shape[1])
    grid = torch.stack([columns[:, None, :].expand(shape), rows[:, :, None].expand(shape)], dim=-1)
    return F.grid_sample(window, grid.to(window), mode="bilinear", align_corners=True)
