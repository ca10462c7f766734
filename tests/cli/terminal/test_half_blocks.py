"""Pictures as characters."""

import numpy as np
import pytest

from diffuse_cli.cli.terminal.half_blocks import fitted


def test_a_reduced_picture_is_the_mean_of_its_pixels_so_that_thin_lines_stay():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, 1::2] = 254
    assert (fitted(stripes, 32, 100) == 127).all()


@pytest.mark.parametrize(("height", "width", "columns", "lines", "expected"), [
    (64, 64, 80, 22, (44, 44)), (64, 64, 19, 22, (20, 19)), (64, 96, 48, 22, (32, 48)), (8, 8, 80, 22, (8, 8)),
    (256, 256, 80, 3, (6, 6)), (9, 9, 80, 22, (8, 9))])
def test_a_picture_fits_into_columns_and_lines_and_is_not_enlarged(height, width, columns, lines, expected):
    assert fitted(np.zeros((height, width, 3), np.uint8), columns, lines).shape == (*expected, 3)
