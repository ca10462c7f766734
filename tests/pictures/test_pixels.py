"""Tensors to pixels and back, and pictures at another size."""

import numpy as np
import pytest
import torch

from diffuse_cli.pictures import pixels

RNG = np.random.default_rng(0)


def test_all_values_of_a_pixel_come_back():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    tensor = pixels.from_pixels(values)
    assert tensor.dtype == torch.float32
    assert tensor.shape == (1, 3, 16, 16)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(pixels.to_pixels(tensor), values)


def test_channels_rows_and_columns_keep_their_places():
    values = RNG.integers(0, 256, (2, 4, 6, 3), np.uint8)
    tensor = pixels.from_pixels(values)
    assert tensor.shape == (2, 3, 4, 6)
    assert tensor[1, 2, 3, 5] == pytest.approx(values[1, 3, 5, 2] / 127.5 - 1)
    assert np.array_equal(pixels.to_pixels(tensor), values)


def test_what_leaves_the_range_is_clamped_and_the_rest_rounded_to_the_nearest():
    values = torch.tensor([-9.0, -1.0, -1 + 0.9 / 255, -1 + 1.1 / 255, 0.0, 1 - 0.9 / 255, 1.0, 9.0])
    result = pixels.to_pixels(values.reshape(1, 1, 1, 8).expand(1, 3, 1, 8))[0, 0, :, 0]
    assert result.tolist() == [0, 0, 0, 1, 128, 255, 255, 255]


def test_a_shrunk_picture_keeps_its_means():
    picture = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.abs(pixels.shrink(picture, 4, 4) - picture.reshape(4, 2, 4, 2, 3).mean((1, 3))).max() <= 1  # twice
    assert pixels.shrink(picture, 8, 8) is picture
