"""Convert tensors in [-1, 1] to pixels in 0…255 and back; shrink and enlarge pictures."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pixels(images: Tensor) -> np.ndarray:
    """(N, C, H, W) in [-1, 1] → (N, H, W, C) uint8, rounded as diffusers' pipelines do."""
    unit = (images.float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def from_pixels(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(N, H, W, C) uint8 → (N, C, H, W) float32 in [-1, 1], converted on the device: moving uint8 is cheaper."""
    return to_unit_range(torch.from_numpy(np.ascontiguousarray(pixels)).to(device))


def to_unit_range(pixels: Tensor) -> Tensor:
    """(N, H, W, C) uint8 → (N, C, H, W) float32 in [-1, 1], on the device of the pixels."""
    return pixels.permute(0, 3, 1, 2).float().div(127.5).sub(1)


def shrink(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """(H, W, 3) → (height, width, 3), each pixel the mean of those it replaces. What has that size is returned as is.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX))


def enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    """(…, H, W, C) → (…, scale·H, scale·W, C): every pixel becomes a square."""
    return pixels.repeat(scale, axis=-3).repeat(scale, axis=-2)
