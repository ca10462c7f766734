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


@pytest.mark.parametrize(("shape", "columns", "fitted_shape"), [
    ((64, 64), 80, (64, 64)), ((64, 64), 16, (16, 16)), ((30, 60), 20, (10, 20)), ((5, 8), 80, (4, 8)),
    ((1, 100), 50, (2, 50))])
def test_a_picture_is_fitted_to_the_width_with_an_even_height(shape, columns, fitted_shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), np.uint8)
    small = fitted(pixels, columns)
    assert small.shape == (*fitted_shape, 3)
    assert {tuple(pixel) for pixel in small.reshape(-1, 3).tolist()} <= {
        tuple(pixel) for pixel in pixels.reshape(-1, 3).tolist()}
