"""Whether the pictures of a data set are grey: all of them are looked at, and no colour is lost."""

import dataclasses

import numpy as np
import pytest
import tiny

from diffuse_cli.data import channel_choice
from diffuse_cli.data.channel_choice import TOLERANCE, are_grey, choose_channels

COUNT = 400


def _grey(channels=3):
    """A data set of grey pictures, with a channel for alpha if there are four."""
    dataset = tiny.dataset([()] * COUNT)
    shape = (*dataset.images.shape[:3], channels)
    images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    images[..., :3] = images[..., :1]
    return dataclasses.replace(dataset, images=images)


@pytest.mark.parametrize("piece", [1, 5_000, 10**9])
@pytest.mark.parametrize("channels", [3, 4])
def test_one_picture_with_colours_is_found_wherever_it_is(monkeypatch, channels, piece):
    monkeypatch.setattr(channel_choice, "_PIECE", piece)
    dataset = _grey(channels)
    assert choose_channels(dataset) == (channels - 2, "all pictures are grey")
    dataset.images[317, 2:4, :, 0] ^= 128
    chosen, why = choose_channels(dataset)
    assert chosen == channels
    assert why.startswith(f"1 of {COUNT} pictures has colours, for example 317.png")
    dataset.images[::2, 2:4, :, 0] ^= 128
    assert choose_channels(dataset) == (channels, "pictures have colours")


def test_of_several_sizes_the_right_picture_is_named():
    dataset = _grey()
    first, second = dataset.images[::2].copy(), dataset.images[1::2].copy()
    second[70, 3:5] ^= np.array([128, 0, 0], np.uint8)
    several = dataclasses.replace(dataset, images=first, other_images=(second,),
                                  size_numbers=np.arange(COUNT).astype(np.uint8) % 2)
    assert "for example 141.png" in choose_channels(several)[1]


def test_a_trace_of_colour_is_none():
    """As JPEG leaves it everywhere, or a stamp in a corner."""
    pixels = np.full((4, 32, 32, 3), 100, np.uint8)
    pixels[0, ..., 2] += TOLERANCE
    pixels[1, ..., 2] += TOLERANCE + 1
    pixels[2, :3, :3, 1] += 90                                          # 9 of 1024 pixels
    pixels[3, :4, :4, 1] += 90                                          # 16
    assert are_grey(pixels).tolist() == [True, False, True, False]


def test_grey_is_the_green_channel_and_alpha_stays():
    dataset = _grey(4)
    assert np.array_equal(dataset.with_channels(2).images, dataset.images[..., [0, 3]])
    assert np.array_equal(_grey().with_channels(1).pixels(np.arange(3)), _grey().images[:3, ..., :1])
    assert dataset.with_channels(4) is dataset
    assert dataset.with_channels(2).channels == 2
    assert dataset.with_channels(2).content_id == dataset.content_id


def test_a_set_without_transparency_is_told_so():
    dataset = _grey(4)
    dataset.images[..., 3] = 255
    assert "none is transparent" in choose_channels(dataset)[1]
    dataset.images[390, 3, 3, 3] = 254
    assert choose_channels(dataset) == (2, "all pictures are grey")


def test_no_picture_is_of_no_colour():
    nothing = dataclasses.replace(_grey(), images=np.empty((0, 8, 8, 3), np.uint8), names=())
    assert choose_channels(nothing) == (3, "no picture can be read")
