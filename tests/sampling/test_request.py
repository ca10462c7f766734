"""Requests for samples: values that are out of range are refused."""

import numpy as np
import pytest
from encoded_pictures import tiff
from PIL import Image

from diffuse_cli.data.colours import Rendering
from diffuse_cli.errors import DataError, UsageError
from diffuse_cli.sampling.request import InitImage, SampleRequest, make_init_image, open_fitted, open_init_image

PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.mark.parametrize("wrong", [{"count": 0}, {"seed": -1}, {"seed": 2**63 - 1, "count": 3}])
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(UsageError):
        SampleRequest(**wrong)
    for strength in (-0.1, 1.1, float("nan")):
        with pytest.raises(UsageError, match="--strength"):
            InitImage(PICTURE, strength)


@pytest.mark.parametrize("wrong", [{"count": 1.0}, {"seed": "7"}, {"prompt": 3}, {"negative": None}])
def test_values_of_another_type_are_refused(wrong):
    with pytest.raises(UsageError, match="must be"):
        SampleRequest(**wrong)


def test_numpys_integers_become_pythons():
    request = SampleRequest(count=np.int64(2), seed=np.uint8(7))
    assert (type(request.count), type(request.seed)) == (int, int)
    assert (request.count, request.seed) == (2, 7)


def test_a_mask_selects_the_pixels_that_are_at_least_half_white():
    mask = np.zeros((8, 8, 3), np.uint8)
    mask[0, 0], mask[0, 1], mask[0, 2] = 255, (127, 127, 128), (127, 128, 128)
    start = make_init_image(PICTURE, mask, None)
    assert np.argwhere(start.mask).tolist() == [[0, 0], [0, 2]]
    assert start.strength == 1.0                           # unless one is given, with a mask; without it a smaller one
    assert make_init_image(PICTURE, None, None).strength < 1.0


def test_a_picture_from_a_file_is_rendered_as_in_training_and_the_mask_is_not(tmp_path):
    image = Image.new("RGBA", (8, 8), (200, 0, 0, 255))
    image.paste((0, 0, 0, 0), (0, 0, 4, 8))
    image.save(tmp_path / "a.png")
    start = open_init_image(tmp_path / "a.png", tmp_path / "a.png", 8, None, Rendering(background="blue"))
    assert start.image.flags.writeable
    assert start.image[0, 0].tolist() == [0, 0, 255]
    assert start.image[0, 7].tolist() == [200, 0, 0]
    assert start.mask[0].tolist() == [True] * 4 + [False] * 4       # transparent is white, as it always was


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_and_its_mask_have_the_same_fit(tmp_path, fit):
    """A wide picture, and a mask whose left half is white."""
    Image.new("RGB", (24, 8), (10, 20, 30)).save(tmp_path / "a.png")
    mask = Image.new("RGB", (24, 8), "black")
    mask.paste("white", (0, 1, 8 if fit == "pad" else 12, 7))
    mask.save(tmp_path / "mask.png")
    start = open_init_image(tmp_path / "a.png", tmp_path / "mask.png", 24, None, Rendering(fit=fit))
    assert (start.image == (10, 20, 30)).all()
    columns, rows = np.flatnonzero(start.mask.any(0)), np.flatnonzero(start.mask.any(1))
    assert (columns[0], columns[-1] + 1) == {"crop": (0, 12), "pad": (0, 8), "stretch": (0, 12)}[fit]
    assert (rows[0], rows[-1] + 1) == {"crop": (3, 21), "pad": (9, 15), "stretch": (3, 21)}[fit]


def test_a_picture_that_cannot_be_used_says_what_helps_and_nothing_else(tmp_path, capfd):
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(
        tmp_path / "a.tif", compression="tiff_lzw")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[100:400] = b"\xff" * 300              # of which libtiff complains on file descriptor 2
    (tmp_path / "a.tif").write_bytes(data)
    (tmp_path / "b.tif").write_bytes(tiff(random.integers(0, 256, (9, 9, 5), dtype=np.uint8)))
    (tmp_path / "c.jpg").write_bytes(b"<html>")
    said = []
    for name in ("a.tif", "b.tif", "c.jpg"):
        with pytest.raises(DataError) as caught:
            open_fitted(tmp_path / name, 16)
        said.append(str(caught.value).replace(str(tmp_path), ""))
    assert said[0].startswith(("/a.tif cannot be used: damaged", "/a.tif cannot be used: truncated"))
    assert said[1].startswith("/b.tif cannot be used: 5 bands. 5 bands: choose three bands")
    assert said[2].startswith("/c.jpg cannot be used: web page. web page: the download failed")
    assert capfd.readouterr() == ("", "")
