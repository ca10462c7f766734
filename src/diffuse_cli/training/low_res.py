"""The crops on which an upscaler is trained, and the small pictures that it is given with them.

A small picture is the whole picture, reduced. It is enlarged as in sampling, and the crop of that gets noise of a
random level. All draws are functions of keys.
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
    windows: Tensor                             # (N, h, w, 3) uint8, of the small pictures
    rows: Tensor                                # (N, H), `upscaling.places_in_window`
    columns: Tensor                             # (N, W)
    time: Tensor                                # (N,) float32, the `network_time` of their noise
    alpha: Tensor                               # (N,), as the next two: its level
    sigma: Tensor
    log_snr: Tensor
    keys: Tensor                                # (N,) int64, of their noise

    @classmethod
    def of(cls, dataset: Dataset, positions: np.ndarray, draws: Tensor, keys: Tensor, *, config: ModelConfig,
           schedule: Schedule) -> "SmallPictures":
        """Crops of the pictures at these positions (N,), which have one size.

        draws: (N, 3) uniform numbers in [0, 1), for the row, the column and the level of noise. That of a student is
        always the one of drawing. keys: (N,) int64
        """
        network = config.network
        assert network.upscaling is not None
        factor, crop = network.upscaling.factor, network.resolution
        array = dataset.arrays[dataset.size_number(positions[0])]
        pictures = [array[row] for row in dataset.rows(positions).tolist()]
        small = [reduced(picture, factor) for picture in pictures]
        sides = array.shape[1:3]
        room = torch.tensor([sides[0] - crop.height + 1, sides[1] - crop.width + 1])
        starts = (draws[:, :2] * room).long()                                           # (N, 2), row and column
        corners, places, windows = [], [], []
        for axis, (large, side) in enumerate(zip(sides, (crop.height, crop.width), strict=True)):
            window = upscaling.window_length(side, large // factor, large)
            corners.append(upscaling.window_start(starts[:, axis], large // factor, large, window))
            places.append(upscaling.places_in_window(starts[:, axis], side, small=large // factor, large=large))
            windows.append(window)
        t = upscaling.uniform_times(draws[:, 2]) if config.student is None else torch.full_like(draws[:, 2], NOISE_TIME)
        rows, columns = places
        level = schedule.at(t)
        return cls(
            _cut(pictures, starts, (crop.height, crop.width)), _cut(small, torch.stack(corners, dim=1), windows),
            rows, columns, network_time(t).float(), level.alpha, level.sigma, level.log_snr, keys)

    def without_noise(self) -> Tensor:
        """The small pictures, enlarged to the crops (N, 3, H, W), on the device where the tensors are."""
        return upscaling.enlarge_window(to_unit_range(self.windows), self.rows, self.columns)

    def with_noise(self, enlarged: Tensor, schedule: Schedule) -> LowRes:
        """The small pictures as the network reads them, from those `without_noise`."""
        noise = randomness.normal(self.keys, tuple(enlarged.shape[1:]))
        level = Level(self.alpha, self.sigma, self.log_snr)
        return upscaling.with_noise(enlarged, noise, level, self.time, schedule)


def _cut(pictures: list[np.ndarray], starts: Tensor, sides: "tuple[int, int] | list[int]") -> Tensor:
    """One piece of each picture (*, *, 3), of `sides` rows and columns. starts: (N, 2), its first → (N, H, W, 3)"""
    height, width = sides
    return torch.from_numpy(np.stack([
        picture[row : row + height, column : column + width]
        for picture, (row, column) in zip(pictures, starts.tolist(), strict=True)]))
