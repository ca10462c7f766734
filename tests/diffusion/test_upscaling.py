"""What an upscaler is given of a small picture: pixels stay in their places, and noise has its level."""

import pytest
import torch
import torch.nn.functional as F

from diffuse_cli.diffusion import upscaling
from diffuse_cli.diffusion.schedule import make_schedule


@pytest.mark.parametrize("factor", [2, 4])
def test_enlarging_moves_no_pixel(factor):
    """A slope stays where it is: the mean over the square of a pixel is that pixel, but at the edges."""
    rows, columns = torch.meshgrid(torch.arange(6.0), torch.arange(5.0), indexing="ij")
    small = torch.stack([rows, columns, 2 * rows - columns])[None]
    large = upscaling.enlarge(small, factor)
    assert large.shape == (1, 3, 6 * factor, 5 * factor)
    assert torch.allclose(F.avg_pool2d(large, factor)[:, :, 1:-1, 1:-1], small[:, :, 1:-1, 1:-1], atol=1e-5)


def test_the_noise_has_the_amplitude_of_its_time():
    schedule = make_schedule("cosine", 64)
    t = upscaling.uniform_times(torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64))
    assert t.tolist() == pytest.approx([0.001, 0.1505, 0.3])
    image, noise = torch.ones(3, 1, 2, 2), 2 * torch.ones(3, 1, 2, 2)
    given = upscaling.with_noise(image, noise, t, torch.arange(3.0), schedule)
    alpha, sigma = schedule.alpha_sigma(t)
    assert torch.allclose(given.image[:, 0, 0, 0].double(), alpha + 2 * sigma)
    assert torch.equal(given.of(slice(1, 2)).level, torch.tensor([1.0]))


@pytest.mark.parametrize("factor", [2, 4])
def test_consistent_pictures_keep_their_details_and_have_the_colours_of_the_small_ones(factor):
    random = torch.Generator().manual_seed(0)
    small = torch.rand(2, 3, 6, 5, generator=random)
    small = F.avg_pool2d(F.pad(small, (2, 2, 2, 2), mode="replicate"), 5, stride=1)     # smooth, as colours mostly are
    large = torch.rand(2, 3, 6 * factor, 5 * factor, generator=random)
    found = upscaling.consistent(large, small)
    before, after = (F.avg_pool2d(one, factor) - small for one in (large, found))
    assert after.abs().mean() < before.abs().mean() / 3
    details = [one - F.interpolate(F.avg_pool2d(one, factor), scale_factor=factor, mode="bilinear")
               for one in (large, found)]
    assert torch.corrcoef(torch.stack([one.flatten() for one in details]))[0, 1] > 0.97
    assert torch.allclose(upscaling.consistent(large + 0.3, small), found, atol=1e-5)   # a lighter picture is mended


def test_an_even_colour_stays_what_it_is():
    small = torch.full((1, 3, 4, 4), 0.25)
    assert torch.allclose(upscaling.consistent(torch.zeros(1, 3, 16, 16), small), torch.full((1, 3, 16, 16), 0.25))
