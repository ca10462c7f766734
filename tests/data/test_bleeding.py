"""The colours that transparency hides, replaced by those of the nearest visible pixels."""

import numpy as np
import pytest
from PIL import Image

from diffuse_cli.data.bleeding import VISIBLE, with_bled_colours
from diffuse_cli.data.colours import Rendering, to_rgb
from diffuse_cli.data.fitting import fitted_pixels
from diffuse_cli.pictures.channels import opaque

KEEPING = Rendering(background="none")


def _bled(pixels):
    return np.asarray(with_bled_colours(Image.fromarray(pixels)))


def test_nothing_that_is_seen_changes():
    pixels = np.random.default_rng(0).integers(0, 256, (13, 18, 4), np.uint8)
    pixels[:6, :, 3] = 0
    result, seen = _bled(pixels), pixels[..., 3] >= VISIBLE
    assert np.array_equal(result[..., 3], pixels[..., 3])
    assert np.array_equal(result[seen], pixels[seen])


@pytest.mark.parametrize("hidden", [(0, 0, 0), (255, 255, 255), (255, 0, 255)])
def test_hidden_colours_are_those_of_what_is_seen(hidden):
    """Of one colour here, whatever a file hides. Averages of 8 bits lose a level or two."""
    pixels = np.full((32, 24, 4), (*hidden, 0), np.uint8)
    pixels[3:9, 5:11] = (200, 90, 30, 255)
    assert abs(_bled(pixels)[..., :3].astype(int) - (200, 90, 30)).max() <= 3


def test_each_hidden_pixel_has_the_colour_that_is_near():
    pixels = np.zeros((16, 64, 4), np.uint8)
    pixels[6:10, 4:8], pixels[6:10, 56:60] = (250, 0, 0, 255), (0, 0, 250, 255)
    result = _bled(pixels)[8].astype(int)
    assert result[1, 0] > 200 > 50 > result[1, 2]
    assert result[62, 2] > 200 > 50 > result[62, 0]


def test_a_picture_without_anything_to_see_becomes_black():
    assert not _bled(np.zeros((7, 9, 4), np.uint8)).any()
    opaque_one = np.random.default_rng(0).integers(0, 256, (5, 5, 4), np.uint8) | (0, 0, 0, 255)
    assert np.array_equal(_bled(opaque_one.astype(np.uint8)), opaque_one)


@pytest.mark.parametrize("ground", [0, 128, 255])
@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_resized_picture_lies_on_any_ground_as_if_it_had_been_laid_there_before(ground, fit):
    """So no hidden colour leaks into its edges: a circle of one colour, on magenta that nobody sees."""
    rows, columns = np.mgrid[:96, :120]
    alpha = np.clip(40.5 - np.hypot(rows - 47.5, columns - 59.5), 0, 1) * 255
    pixels = np.full((96, 120, 4), (255, 0, 255, 0), np.uint8)
    pixels[alpha > 0, :3] = (40, 160, 80)
    pixels[..., 3] = alpha.round()
    source = Image.fromarray(pixels)
    before = fitted_pixels(to_rgb(source, Rendering(background=f"#{ground:02x}{ground:02x}{ground:02x}")), 24,
                           Rendering(fit=fit, background=f"rgb({ground},{ground},{ground})"))
    after = opaque(fitted_pixels(to_rgb(source, KEEPING), 24, Rendering(fit=fit, background="none")), ground)
    differences = abs(before.astype(int) - after.astype(int))
    assert differences.max() <= 25
    assert differences.mean() <= 1.5


def test_bars_are_transparent_where_the_ground_is_and_its_colour_where_it_is_plain():
    picture = Image.new("RGBA", (40, 20), (9, 200, 9, 255))
    plain = fitted_pixels(to_rgb(picture, KEEPING), 16, Rendering(fit="pad", background="none"))
    assert (plain == (9, 200, 9, 255)).all()
    picture.paste((0, 0, 0, 0), (0, 0, 40, 4))
    clear = fitted_pixels(to_rgb(picture, KEEPING), 16, Rendering(fit="pad", background="none"))
    assert not clear[[0, -1], :, 3].any()
    assert abs(clear[..., :3].astype(int) - (9, 200, 9)).max() <= 20
    assert clear[8, 8].tolist() == [9, 200, 9, 255]
