"""What an upscaler is given of a small picture: windows give the same as whole pictures, and noise has its level."""

import pytest
import torch
import torch.nn.functional as F

from diffuse_cli.diffusion import upscaling
from diffuse_cli.diffusion.schedule import make_schedule


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("crop", [(8, 8), (16, 24), (32, 48)])
def test_an_enlarged_window_is_the_crop_of_the_enlarged_picture(factor, crop):
    large = (32, 48)
    small = tuple(side // factor for side in large)
    pictures = torch.randn(40, 3, *small, generator=torch.Generator().manual_seed(0))
    whole = upscaling.enlarge(pictures, *large)
    room = torch.tensor([side - part + 1 for side, part in zip(large, crop, strict=True)])
    starts = (torch.rand(40, 2, generator=torch.Generator().manual_seed(1)) * room).long()
    starts[0], starts[1] = 0, room - 1                                 # both corners
    windows, places = pictures, []
    for axis in (0, 1):
        length = upscaling.window_length(crop[axis], small[axis], large[axis])
        begin = upscaling.window_start(starts[:, axis], small[axis], large[axis], length)
        windows = torch.stack([window.narrow(1 + axis, first, length)
                               for window, first in zip(windows, begin.tolist(), strict=True)])
        places.append(upscaling.places_in_window(starts[:, axis], crop[axis], small=small[axis], large=large[axis]))
    expected = torch.stack([picture[:, row : row + crop[0], column : column + crop[1]]
                            for picture, (row, column) in zip(whole, starts.tolist(), strict=True)])
    assert torch.allclose(upscaling.enlarge_window(windows, *places), expected, atol=2e-5)


def test_the_noise_has_the_amplitude_of_its_time():
    schedule = make_schedule("cosine", 64)
    t = upscaling.uniform_times(torch.tensor([0.0, 0.5, 1 - 2**-53], dtype=torch.float64))
    assert t.tolist() == pytest.approx([0.001, 0.5005, 1.0])
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
