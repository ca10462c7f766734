"""Tensors in [-1, 1] to pixels in 0…255 and back, and pictures at another size."""

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def to_pixels(images: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] → (N, H, W, 3) uint8, rounded as stock pipelines do."""
    unit = (images.float() / 2 + 0.5).clamp(0, 1)
    return (unit * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def from_pixels(pixels: np.ndarray, device: torch.device | str = "cpu") -> Tensor:
    """(N, H, W, 3) uint8 → (N, 3, H, W) float32 in [-1, 1], on the device: what travels there are the bytes."""
    return torch.from_numpy(np.ascontiguousarray(pixels)).to(device).permute(0, 3, 1, 2).float().div(127.5).sub(1)


def shrunk(pixels: np.ndarray, side: int) -> np.ndarray:
    """(H, W, 3) → (side, side, 3), every pixel the mean of those it stands for; smaller pictures stay as they are."""
    if len(pixels) <= side:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BOX))


def enlarged(pixels: np.ndarray, scale: int) -> np.ndarray:
    """Every pixel of the last three axes (H, W, 3) as a square of `scale`."""
    return pixels.repeat(scale, axis=-3).repeat(scale, axis=-2)
