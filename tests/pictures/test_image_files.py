"""Files of pictures: nothing is lost that the format can hold."""

import io

import numpy as np
import pytest
from PIL import Image

from diffuse_cli.pictures import image_files

PIXELS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
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


@pytest.mark.parametrize(("limit", "lossless"), [(20_000, True), (4_000, False)])
def test_an_animation_is_lossless_or_below_the_limit(monkeypatch, limit, lossless):
    monkeypatch.setattr(image_files, "MAX_ANIMATION_BYTES", limit)
    frames = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), np.uint8)
    data = image_files.encode_animation(frames, suffix=".webp", milliseconds=100)
    assert len(data) <= limit
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.n_frames == 4
        assert np.array_equal(np.asarray(animation.convert("RGB")), frames[0]) == lossless
