"""The crops on which an upscaler is trained, and the small pictures that it is given with them.

A small picture is cut from the whole picture, reduced. It is enlarged as in sampling, and gets noise of a random level.
All draws are functions of keys.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.fitting import reduced
from ..data.listing import Dataset
from ..denoiser import network_time
from ..diffusion import upscaling
from ..diffusion.schedule import Level, Schedule
from ..diffusion.upscaling import NOISE_TIME, LowRes
from ..model_config import ModelConfig
from ..pictures.pixels import to_unit_range
from ..runtime import randomness


class SmallPictures(NamedTuple):
    """What the device needs to make a `LowRes` of N crops: all but `crops` are about their small pictures."""

    crops: Tensor                               # (N, H, W, 3) uint8
    small: Tensor                               # (N, H/factor, W/factor, 3) uint8
    time: Tensor                                # (N,) float32, the `network_time` of their noise
    alpha: Tensor                               # (N,), as the next two: its level
    sigma: Tensor
    log_snr: Tensor
    keys: Tensor                                # (N,) int64, of their noise

    @classmethod
    def of(cls, dataset: Dataset, positions: np.ndarray, draws: Tensor, keys: Tensor, *, config: ModelConfig,
           schedule: Schedule) -> "SmallPictures":
        """Crops of the pictures at these positions (N,), which have one size. They begin with pixels of the small ones.

        draws: (N, 3) uniform numbers in [0, 1), for the row, the column and the level of noise. That of a student is
        always the one of drawing. keys: (N,) int64
        """
        network = config.network
        assert network.upscaling is not None
        factor, crop = network.upscaling.factor, network.resolution
        array = dataset.arrays[dataset.size_number(positions[0])]
        pictures = [array[row] for row in dataset.rows(positions).tolist()]
        small = [reduced(picture, factor) for picture in pictures]
        sides = torch.tensor([crop.height, crop.width]) // factor
        starts = (draws[:, :2] * (torch.tensor(small[0].shape[:2]) - sides + 1)).long()            # (N, 2), row, column
        t = upscaling.uniform_times(draws[:, 2]) if config.student is None else torch.full_like(draws[:, 2], NOISE_TIME)
        level = schedule.at(t)
        return cls(_cut(pictures, factor * starts, factor * sides), _cut(small, starts, sides),
                   network_time(t).float(), level.alpha, level.sigma, level.log_snr, keys)

    def without_noise(self) -> Tensor:
        """The small pictures, enlarged to the crops (N, 3, H, W), on the device where the tensors are."""
        return upscaling.enlarge(to_unit_range(self.small), self.crops.shape[1] // self.small.shape[1])

    def with_noise(self, enlarged: Tensor, schedule: Schedule) -> LowRes:
        """The small pictures as the network reads them, from those `without_noise`."""
        noise = randomness.normal(self.keys, tuple(enlarged.shape[1:]))
        level = Level(self.alpha, self.sigma, self.log_snr)
        return upscaling.with_noise(enlarged, noise, level, self.time, schedule)


def _cut(pictures: list[np.ndarray], starts: Tensor, sides: Tensor) -> Tensor:
    """One piece of each picture (*, *, 3), of `sides` (2,) rows and columns. starts: (N, 2) → (N, H, W, 3)"""
    height, width = sides.tolist()
    return torch.from_numpy(np.stack([
        picture[row : row + height, column : column + width]
        for picture, (row, column) in zip(pictures, starts.tolist(), strict=True)]))
