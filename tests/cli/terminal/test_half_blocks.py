"""Pictures as characters: two pixels in each, with their own colours."""

import numpy as np
import pytest

from diffuse_cli.cli.terminal.half_blocks import fitted, half_blocks


def _colours(segments):
    """(upper, lower) colours of every character with a style."""
    return [(tuple(segment.style.color.triplet), tuple(segment.style.bgcolor.triplet))
            for segment in segments.segments if segment.style]


def test_a_character_shows_two_pixels_one_above_the_other():
    pixels = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    rows = pixels.reshape(2, 2, 3, 3).transpose(0, 2, 1, 3).reshape(6, 2, 3)
    assert _colours(half_blocks([pixels])) == [(tuple(upper), tuple(lower)) for upper, lower in rows.tolist()]


def test_pictures_stand_side_by_side_with_a_space_between():
    one, other = np.zeros((2, 2, 3), np.uint8), np.full((2, 1, 3), 255, np.uint8)
    text = "".join(segment.text for segment in half_blocks([one, other]).segments)
    assert text == "▀▀ ▀\n"


@pytest.mark.parametrize(("shape", "columns", "lines", "fitted_shape"), [
    ((64, 64), 80, 40, (64, 64)), ((64, 64), 16, 40, (16, 16)), ((30, 60), 20, 40, (10, 20)), ((5, 8), 80, 40, (4, 8)),
    ((1, 100), 50, 40, (2, 50)), ((64, 64), 80, 22, (44, 44)), ((64, 96), 48, 22, (32, 48)),
    ((256, 256), 80, 3, (6, 6))])
def test_a_picture_fits_into_columns_and_lines_with_an_even_height(shape, columns, lines, fitted_shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    small = fitted(pixels, columns, lines)
    assert small.shape == (*fitted_shape, 3)
    if small.shape == pixels.shape:
        assert np.array_equal(small, pixels)


def test_a_reduced_picture_is_the_mean_of_its_pixels_so_that_thin_lines_stay():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, 1::2] = 254
    assert (fitted(stripes, 32, 40) == 127).all()
