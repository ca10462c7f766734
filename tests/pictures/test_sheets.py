"""Sheets: every pixel of every picture is there, with its text, and strips are read back."""

import io
import math

import numpy as np
import pytest
from PIL import Image

from diffuse_cli.pictures import sheets

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("count", "open"), [(1, 1), (2, 2), (3, 3), (5, 2), (7, 3), (8, 4), (9, 3), (10, 5)])
@pytest.mark.parametrize("columns", [None, 1, 4])
def test_a_sheet_holds_every_pixel_of_every_picture(count, open, columns):
    """`open`: the columns when they are left open, with full rows if that is not too wide."""
    batch = RNG.integers(0, 200, (count, 5, 7, 3), np.uint8)
    sheet = sheets.tile(batch, columns=columns, gap=3)
    across = columns or open
    rows = math.ceil(count / across)
    assert sheet.shape == (rows * 8 + 3, across * 10 + 3, 3)
    background = np.ones(sheet.shape[:2], bool)
    for index in range(count):
        row, column = divmod(index, across)
        region = np.s_[3 + row * 8 : 8 + row * 8, 3 + column * 10 : 10 + column * 10]
        assert np.array_equal(sheet[region], batch[index])
        background[region] = False
    assert (sheet[background] == 255).all()


LONG = "a caption of many words " * 20


@pytest.mark.parametrize("captions", [[(LONG,)] * 5, [("a", "b"), (), (LONG, LONG), ("",), ("W" * 99,)]])
def test_captions_stay_below_their_own_pictures(captions):
    pictures = RNG.integers(0, 200, (5, 32, 32, 3), np.uint8)
    with Image.open(io.BytesIO(sheets.captioned_sheet(pictures, captions))) as image:
        sheet = np.array(image)
    side, gap, lines = 4 * 32, 8, 3 * 14
    assert sheet.shape == (2 * (side + lines + gap) + gap, 3 * (side + gap) + gap, 3)
    for index, picture in enumerate(pictures):
        top, left = gap + index // 3 * (side + lines + gap), gap + index % 3 * (side + gap)
        assert np.array_equal(sheet[top : top + side : 4, left : left + side : 4], picture)
        text = sheet[top + side + 1 : top + side + lines, left : left + side]           # below the line around it
        assert (text < 255).any() == (captions[index] != ("",))
        sheet[top - 1 : top + side + lines, left - 1 : left + side + 1] = 255
    assert (sheet == 255).all()


def test_a_white_picture_has_a_line_around_it():
    with Image.open(io.BytesIO(sheets.captioned_sheet(np.full((1, 8, 8, 3), 255, np.uint8), [()]))) as image:
        grey = np.asarray(image.convert("RGB"))
    rows, columns = np.nonzero((grey == 200).all(2))
    side = columns.max() - columns.min() + 1
    assert len(rows) >= 4 * (side - 1)
    inside = grey[rows.min() + 1 : rows.min() + side - 1, columns.min() + 1 : columns.max()]
    assert (inside == 255).all()


def test_rows_have_titles_above_and_labels_below():
    pictures = list(RNG.integers(0, 200, (3, 16, 16, 3), np.uint8))
    rows = [sheets.Row("two", pictures[:2], [("a",), ("b",)]), sheets.Row("", pictures, [("c", "d")] * 3)]
    side, gap, line = 7 * 16, 6, 14
    assert sheets.column_width(rows) == side
    sheet = sheets.labelled_rows(rows, cell=120)
    first, second = side + 2 * line + 2 * gap, side + 2 * line + 2 * gap            # heights of the rows
    assert sheet.shape == (first + second + gap, 3 * (120 + gap) + gap, 3)
    for top, row in ((gap + line, rows[0]), (first + gap, rows[1])):
        for column, picture in enumerate(row.pictures):
            left = gap + column * (120 + gap)
            assert np.array_equal(sheet[top : top + side : 7, left : left + side : 7], picture)
            assert (sheet[top + side + 1 : top + side + line, left : left + 120] < 255).any()
    assert (sheet[:gap + line, :60] < 255).any()                                    # the title of the first
    assert (sheet[first - gap : first + gap - 1] == 255).all()                      # the second has none


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_rows_on_any_ground_have_no_pixel_of_their_own_that_is_white_or_black(channels):
    pictures = list(RNG.choice(np.array([0, 255], np.uint8), (2, 16, 16, channels)))
    rows = [sheets.Row("two", pictures, [("a",), ("b",)])]
    sheet, usual = sheets.labelled_rows_on_any_ground(rows), sheets.labelled_rows(rows)
    inside = np.zeros(usual.shape[:2], bool)
    for left in (6, 6 + 112 + 6):
        inside[6 + 14 : 6 + 14 + 112, left : left + 112] = True
    assert np.array_equal(sheet[inside], np.pad(usual[inside], ((0, 0), (0, 1)), constant_values=255))
    assert (sheet[~inside, :3] == 128).all()
    assert np.array_equal(sheet[~inside, 3], 255 - usual[~inside, 0])              # as opaque as the ink is black


def test_a_strip_is_read_as_it_was_written(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    (tmp_path / "strip.png").write_bytes(sheets.encode_strip(pictures))
    assert (sheets.read_strip(tmp_path / "strip.png") == pictures).all()
