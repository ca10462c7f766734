"""What an upscaler is given of a small picture: the picture enlarged, with noise of a level that it is told.

Ho et al. 2021, "Cascaded Diffusion Models" (2106.15282), section 4.2: noise on the small picture hides the faults of
the model that drew it. In training its time is drawn uniformly up to a limit, so that any level below it can be chosen
for sampling.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .schedule import FIRST_TIME, Level, Schedule

START_TIME = 0.6                                # diffusion time at which drawing begins, from the enlarged picture:
#                                                 half of the steps are left, and colours stay those of that picture
NOISE_TIME = 0.1                                # diffusion time of the noise on small pictures
NOISE_LIMIT = 0.3                               # the longest in training; pipelines of diffusers draw at 0.251


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
    """Numbers in [0, 1) → times of the noise on small pictures, in [1/1000, NOISE_LIMIT), of the same shape, float64.
    """
    return FIRST_TIME + uniform.double() * (NOISE_LIMIT - FIRST_TIME)


def enlarge(small: Tensor, factor: int) -> Tensor:
    """Pictures (N, C, h, w) → (N, C, factor·h, factor·w), bilinear. Each pixel stays in its place."""
    return F.interpolate(small, scale_factor=factor, mode="bilinear")


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
