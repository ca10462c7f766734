"""Large pictures in tiles: a denoiser of any size, made of one that is asked about a tile at a time.

At every step the estimates of overlapping tiles are blended (Bar-Tal et al. 2023, "MultiDiffusion", 2302.08113), so
that neighbours agree and no seam is seen. Only one tile at a time takes the memory of a network's activations.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from .samplers import Denoised, Denoiser

TILE = 512                                      # side of a tile in pixels, at most
OVERLAP = 64                                    # pixels that neighbours have in common, at least

DenoiserOf = Callable[[slice, slice], Denoiser]                        # rows and columns → the denoiser of that tile


def windows(length: int, multiple: int = 1) -> list[tuple[slice, Tensor]]:
    """Windows that cover so many neighbours, and the weight of each pixel in them, (at most TILE,) float64.

    All have one size, a multiple of `multiple`; `length` and TILE must be multiples, too. The weights of a pixel add up
    to 1. In an overlap they rise from one window to the next.
    """
    count = max(1, math.ceil((length - OVERLAP) / (TILE - OVERLAP)))
    size = min(length, math.ceil((length + (count - 1) * OVERLAP) / count / multiple) * multiple)
    starts = [min(number * (size - OVERLAP), length - size) for number in range(count)]
    places = torch.arange(1, size + 1, dtype=torch.float64)
    slope = torch.minimum(places, places.flip(0)).clamp(max=OVERLAP)   # also at the picture's edges, where it cancels
    total = torch.zeros(length, dtype=torch.float64)
    for start in starts:
        total[start : start + size] += slope
    return [(slice(start, start + size), slope / total[start : start + size]) for start in starts]


def tiled(denoiser_of: DenoiserOf, height: int, width: int, *, multiple: int = 1) -> Denoiser:
    """The denoiser of pictures (N, C, height, width) from those of its tiles, of at most TILE² pixels each.

    multiple: of which height, width and the sides of tiles are multiples; TILE is one, too.
    """
    tiles = [(rows, columns, denoiser_of(rows, columns), weights[:, None] * weights_across)
             for rows, weights in windows(height, multiple) for columns, weights_across in windows(width, multiple)]

    def denoise(noisy: Tensor, t: float) -> Denoised:
        whole = Denoised(torch.zeros_like(noisy))
        for rows, columns, denoise_tile, weight in tiles:
            part = denoise_tile(noisy[:, :, rows, columns], t)
            if part.log_fraction is not None and whole.log_fraction is None:
                whole = whole._replace(log_fraction=torch.zeros_like(noisy))
            for sums, estimate in zip(whole[:2], part[:2], strict=True):
                if sums is not None and estimate is not None:
                    sums[:, :, rows, columns] += weight.to(noisy) * estimate
        return whole._replace(guided=part.guided)

    return denoise if len(tiles) > 1 else tiles[0][2]
