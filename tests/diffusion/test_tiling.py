"""Tiles: together they are the whole, one that covers everything changes nothing, and no seam is left."""

import itertools

import pytest
import torch
from noise import random

from diffuse_cli.diffusion import tiling
from diffuse_cli.diffusion.samplers import Denoised


@pytest.mark.parametrize("multiple", [1, 8, 128])
@pytest.mark.parametrize("length", [1, 4, 5, 64, 65, 87, 255, 500])
def test_windows_cover_everything_and_their_weights_add_up_to_1(length, multiple):
    length *= multiple
    total, ends = torch.zeros(length, dtype=torch.float64), []
    for window, weight in tiling.windows(length, multiple):
        assert len(weight) % multiple == 0
        assert len(weight) == window.stop - window.start <= tiling.TILE
        assert (weight > 0).all()
        total[window] += weight
        ends.append(window)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)
    assert all(before.stop - after.start >= tiling.OVERLAP for before, after in itertools.pairwise(ends))
    assert len({window.stop - window.start for window in ends}) == 1
    assert len(ends) == 1 if length <= tiling.TILE else len(ends) > 1


def test_one_tile_is_the_denoiser_itself():
    def denoise(noisy, t):
        return Denoised(noisy)

    asked = []
    found = tiling.tiled(lambda rows, columns: (asked.append((rows, columns)), denoise)[1], 512, 40)
    assert found is denoise
    assert asked == [(slice(0, 512), slice(0, 40))]


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(tiling, "TILE", 16)
    monkeypatch.setattr(tiling, "OVERLAP", 4)


@pytest.mark.usefixtures("small")
def test_tiles_of_a_denoiser_that_sees_single_pixels_are_the_whole():
    noisy, known = random(2, 3, 41, 30), random(2, 3, 41, 30, seed=1)
    shapes = set()

    def denoiser_of(rows, columns):
        def denoise(part, t):
            shapes.add(part.shape[2:])
            return Denoised(torch.tanh(part) * t + known[:, :, rows, columns], part.square(), guided=True)
        return denoise

    found = tiling.tiled(denoiser_of, 41, 30)(noisy, 0.5)
    (shape,) = shapes
    assert max(shape) <= 16
    assert found.guided
    torch.testing.assert_close(found.image, torch.tanh(noisy) * 0.5 + known)
    torch.testing.assert_close(found.log_fraction, noisy.square())


@pytest.mark.usefixtures("small")
def test_tiles_that_disagree_leave_no_seam():
    count = iter(range(100))

    def denoiser_of(rows, columns):
        value = float(next(count) % 2)
        return lambda part, t: Denoised(torch.full_like(part, value))

    image = tiling.tiled(denoiser_of, 16, 100)(torch.zeros(1, 3, 16, 100), 0.5).image
    assert (image.min(), image.max()) == (0, 1)
    assert image.diff(dim=3).abs().max() <= 1 / 4 + 1e-6
    assert image.diff(dim=2).abs().max() == 0
