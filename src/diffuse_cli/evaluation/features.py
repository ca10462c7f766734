"""Pictures → features, in which distances between pictures mean something.

`trained_features` takes them from an encoder that is trained on the data set itself; `features_file` reads a network of
the user's choice.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..pictures.channels import MID_GREY, opaque
from ..pictures.pixels import from_pixels

BATCH = 64                                      # pictures whose features are computed at once


@dataclass(frozen=True)
class Features:
    """A function from pictures to features: (N, H, W, C) uint8 → (N, D) float32 on the CPU.

    It sees red, green and blue: grey pictures as such, and transparent ones on a grey ground.
    """

    name: str                                   # for people
    device: torch.device
    function: Callable[[Tensor], Tensor]        # (BATCH, 3, H, W) float32 in [-1, 1] → (BATCH, D)

    def __call__(self, pixels: np.ndarray) -> Tensor:
        """Compute the features of all pictures. (N, H, W, C) uint8, N > 0 → (N, D) float32 on the CPU

        Every batch has BATCH pictures, as another batch size could change the last bits of a feature. Pictures from the
        beginning fill up the last batch.
        """
        parts = []
        with torch.no_grad():
            for start in range(0, len(pixels), BATCH):
                rows = np.arange(start, start + BATCH) % len(pixels)
                images = from_pixels(opaque(pixels[rows], MID_GREY), self.device)
                parts.append(self.function(images).float().cpu()[: len(pixels) - start])
        return torch.cat(parts)
