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
    """One crop of each picture at `positions` (N,), at a place that the seed decides, of whole pixels of the small one.

    → the crops (N, H, W, 3) uint8, and the same places of the small pictures, enlarged (N, 3, H, W)
    """
    assert network.upscaling is not None
    factor, crop = network.upscaling.factor, network.resolution
    height, width = crop.height // factor, crop.width // factor
    draws = randomness.uniform(randomness.keys(seed, "evaluated crop", 0, torch.arange(len(positions))), 2)
    crops, small = [], []
    for position, draw in zip(positions, draws, strict=True):
        picture = dataset.pixels(np.array([position]))[0]
        whole = reduced(picture, factor)
        top, left = (draw * torch.tensor([whole.shape[0] - height + 1, whole.shape[1] - width + 1])).long().tolist()
        small.append(whole[top : top + height, left : left + width])
        crops.append(picture[factor * top :, factor * left :][: factor * height, : factor * width])
    return np.stack(crops), upscaling.enlarge(from_pixels(np.stack(small)), factor)
