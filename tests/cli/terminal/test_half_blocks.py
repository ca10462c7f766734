"""Pictures as characters."""

import numpy as np
import pytest

from diffuse_cli.cli.terminal.half_blocks import fitted


@pytest.mark.parametrize("columns", [120, 150, 200])
def test_a_reduced_picture_keeps_its_frame_on_all_four_sides(columns):
    """Sheets stand in a white frame; it was lost on the right and below."""
    sheet = np.zeros((40, 280, 3), np.uint8)
    sheet[:2], sheet[-2:], sheet[:, :2], sheet[:, -2:] = 255, 255, 255, 255
    small = fitted(sheet, columns)
    edges = small[0], small[-1], small[:, 0], small[:, -1]
    assert small.shape[1] == columns
    assert all((edge == 255).all() for edge in edges)
