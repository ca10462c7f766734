"""Tensors, pixels and files of pictures: nothing is lost that the format can hold."""

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image

from diffuse_cli.pictures import image_files, pixels, sheets

RNG = np.random.default_rng(0)


def test_all_values_of_a_pixel_come_back():
    values = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, 3)
    tensor = pixels.from_pixels(values)
    assert tensor.dtype == torch.float32
    assert tensor.shape == (1, 3, 16, 16)
    assert (tensor.min(), tensor.max()) == (-1, 1)
    assert np.array_equal(pixels.to_pixels(tensor), values)


def test_channels_rows_and_columns_keep_their_places():
    drawn = RNG.integers(0, 256, (2, 4, 6, 3), np.uint8)
    tensor = pixels.from_pixels(drawn)
    assert tensor.shape == (2, 3, 4, 6)
    assert tensor[1, 2, 3, 5] == pytest.approx(drawn[1, 3, 5, 2] / 127.5 - 1)
    assert np.array_equal(pixels.to_pixels(tensor), drawn)


def test_what_leaves_the_range_is_clamped_and_the_rest_rounded_to_the_nearest():
    values = torch.tensor([-9.0, -1.0, -1 + 0.9 / 255, -1 + 1.1 / 255, 0.0, 1 - 0.9 / 255, 1.0, 9.0])
    found = pixels.to_pixels(values.reshape(1, 1, 1, 8).expand(1, 3, 1, 8))[0, 0, :, 0]
    assert found.tolist() == [0, 0, 0, 1, 128, 255, 255, 255]


@pytest.mark.parametrize(("count", "open"), [(1, 1), (2, 2), (3, 3), (5, 5), (7, 3), (8, 4), (9, 3), (10, 5)])
@pytest.mark.parametrize("columns", [None, 1, 4])
def test_a_sheet_holds_every_pixel_of_every_picture(count, open, columns):
    """`open`: the columns when they are left open, with full rows if that is not too wide."""
    batch = RNG.integers(0, 200, (count, 5, 7, 3), np.uint8)
    sheet = sheets.sheet(batch, columns=columns, gap=3)
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


PIXELS = RNG.integers(0, 256, (16, 16, 3), np.uint8)
TEXTS = {"parameters": "a red car, “ü”\nSteps: 20, Seed: 7", "diffuse": '{"prompt": "a red car"}'}


def test_a_png_is_lossless_and_keeps_both_texts():
    data = image_files.encode(PIXELS, texts=TEXTS)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == "PNG"
        assert np.array_equal(np.asarray(image), PIXELS)
        assert image.text == TEXTS


@pytest.mark.parametrize(("suffix", "form"), [(".jpg", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP")])
def test_other_formats_keep_the_readable_text(suffix, form):
    data = image_files.encode(PIXELS, suffix=suffix, texts=TEXTS)
    with Image.open(io.BytesIO(data)) as image:
        assert image.format == form
        assert image.size == (16, 16)
        comment = image.getexif().get_ifd(0x8769)[0x9286]
    assert comment.startswith(b"UNICODE\0")
    assert comment[8:].decode("utf-16-be") == TEXTS["parameters"]


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_without_texts_a_file_says_nothing(suffix):
    with Image.open(io.BytesIO(image_files.encode(PIXELS, suffix=suffix))) as image:
        assert getattr(image, "text", {}) == {}
        assert not image.getexif()
        assert not {"exif", "comment", "xmp"} & set(image.info)


def test_equal_pictures_are_equal_files():
    assert image_files.encode(PIXELS, texts=TEXTS) == image_files.encode(PIXELS.copy(), texts=dict(TEXTS))


def test_a_strip_is_read_as_it_was_written(tmp_path):
    drawn = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), np.uint8)
    (tmp_path / "strip.png").write_bytes(image_files.encode(sheets.sheet(drawn, columns=5)))
    assert (sheets.read_strip(tmp_path / "strip.png") == drawn).all()


def test_a_shrunk_picture_keeps_its_means():
    drawn = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    assert np.abs(pixels.shrunk(drawn, 4) - drawn.reshape(4, 2, 4, 2, 3).mean((1, 3))).max() <= 1  # rounded twice
    assert pixels.shrunk(drawn, 8) is drawn
    assert pixels.shrunk(drawn, 16) is drawn
