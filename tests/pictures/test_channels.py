"""Pictures in the channels of a model, and on a ground."""

import io

import numpy as np
import pytest
from PIL import Image

from diffuse_cli.pictures import image_files, sheets
from diffuse_cli.pictures.channels import opaque, to_channels

RGB = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 3), np.uint8)
RGBA = np.random.default_rng(1).integers(0, 256, (2, 5, 8, 4), np.uint8)


def test_grey_is_the_brightness():
    expected = np.stack([np.array(Image.fromarray(picture).convert("L")) for picture in RGB])[..., None]
    assert abs(to_channels(RGB, 1).astype(int) - expected).max() <= 1              # Pillow rounds the shares
    equal = np.repeat(RGB[..., :1], 3, axis=-1)
    assert np.array_equal(to_channels(equal, 1), equal[..., :1])
    assert np.array_equal(to_channels(RGBA, 2)[..., 1], RGBA[..., 3])


def test_a_picture_without_alpha_is_opaque():
    assert np.array_equal(to_channels(RGB, 4), np.pad(RGB, ((0, 0),) * 3 + ((0, 1),), constant_values=255))
    assert np.array_equal(to_channels(RGBA, 4), RGBA)
    assert np.array_equal(to_channels(RGB, 3), RGB)


@pytest.mark.parametrize("ground", [0, 128, 255])
def test_transparent_pictures_are_laid_on_the_ground(ground):
    for picture, shown in zip(RGBA, opaque(RGBA, ground), strict=True):
        below = Image.new("RGBA", (8, 5), (ground,) * 3)
        expected = np.array(Image.alpha_composite(below, Image.fromarray(picture)).convert("RGB"))
        assert abs(shown.astype(int) - expected).max() <= 1
    grey = opaque(RGBA[..., 2:], ground)
    assert (grey == grey[..., :1]).all()


def test_what_is_opaque_is_shown_as_it_is():
    assert np.array_equal(opaque(RGB), RGB)
    assert np.array_equal(opaque(RGB[..., :1]), np.repeat(RGB[..., :1], 3, axis=-1))
    assert np.array_equal(opaque(to_channels(RGB, 4)), RGB)


def test_nothing_but_transparency_shows_a_checkerboard():
    board = opaque(np.zeros((8, 12, 4), np.uint8))
    assert (board == board[..., :1]).all()
    values = board[..., 0].astype(int)
    assert len(np.unique(values)) == 2
    assert (values[:4, :4] == values[4:, 4:8]).all()
    assert (values[:4, :4] != values[:4, 4:8]).all()


SHEETS = {
    "tile": sheets.tile, "grid": sheets.grid, "on one size": lambda pixels: sheets.on_one_size([pixels]),
    "strip": lambda pixels: sheets.read_strip(io.BytesIO(sheets.encode_strip(pixels))),
    "captioned": lambda pixels: sheets.captioned_sheet(pixels, [("one",), ("two",)]),
    "labelled": lambda pixels: sheets.labelled_rows([sheets.Row("title", list(pixels), [("one",), ("two",)])]),
    "animation": lambda pixels: sheets.animation_frames([np.concatenate([pixels, pixels], axis=2)]),
    "jpeg": lambda pixels: image_files.encode(pixels[0], suffix=".jpg"),
}


@pytest.mark.parametrize("sheet", SHEETS)
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_sheets_show_pictures_as_they_are_shown(sheet, channels):
    """A JPEG has a white ground, and may be grey itself."""
    pixels = {1: RGBA[..., :1], 2: RGBA[..., 2:], 4: RGBA}[channels]
    shown = opaque(pixels, 255 if sheet == "jpeg" else None)
    found, expected = SHEETS[sheet](pixels), SHEETS[sheet](shown)
    if sheet == "jpeg" and channels == 1:
        with Image.open(io.BytesIO(found)) as image:
            assert image.mode == "L"
        return
    assert type(found) is type(expected)
    assert found == expected if isinstance(found, bytes) else np.array_equal(found, expected)
