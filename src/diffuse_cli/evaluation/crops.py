"""The crops on which an upscaler is measured, and the small pictures that it is given with them, as in drawing."""

import numpy as np
import torch
from torch import Tensor

from ..data.fitting import reduced
from ..data.listing import Dataset
from ..diffusion import upscaling
from ..model_config import NetworkConfig
from ..pictures.pixels import from_pixels
from ..runtime import randomness


def crops_of(
    network: NetworkConfig, dataset: Dataset, positions: np.ndarray, *, seed: int,
) -> tuple[np.ndarray, Tensor]:
    """One crop of each picture at `positions` (N,), at a place that the seed decides.

    → the crops (N, H, W, 3) uint8, and the same places of the small pictures, enlarged (N, 3, H, W)
    """
    assert network.upscaling is not None
    height, width = network.resolution.height, network.resolution.width
    draws = randomness.uniform(randomness.keys(seed, "evaluated crop", 0, torch.arange(len(positions))), 2)
    crops, enlarged = [], []
    for position, draw in zip(positions, draws, strict=True):
        picture = dataset.pixels(np.array([position]))[0]
        rows, columns, _ = picture.shape
        top, left = (draw * torch.tensor([rows - height + 1, columns - width + 1])).long().tolist()
        place = slice(top, top + height), slice(left, left + width)
        small = from_pixels(reduced(picture, network.upscaling.factor)[None])
        crops.append(picture[place])
        enlarged.append(upscaling.enlarge(small, rows, columns)[0, :, *place])
    return np.stack(crops), torch.stack(enlarged)
