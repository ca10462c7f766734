"""Pictures that say what their colours are without a profile, against published matrices."""

import io
import struct

import numpy as np
import pytest
from encoded_pictures import png, png_chunk
from PIL import Image

from diffuse_cli.data.colours import BRIGHT
from diffuse_cli.data.images import decode_rgb

RNG = np.random.default_rng(3)
SOFT = RNG.integers(70, 190, (16, 16, 3), np.uint8)                     # colours inside of all these spaces
# Linear light in a space → linear sRGB, as published for D65.
P3 = ((1.2249, -0.2247, 0), (-0.0420, 1.0419, 0), (-0.0197, -0.0786, 1.0979))
BT2020 = ((1.6605, -0.5876, -0.0728), (-0.1246, 1.1329, -0.0083), (-0.0182, -0.1006, 1.1187))
ADOBE = ((1.3984, -0.3984, 0), (0, 1, 0), (0, -0.0429, 1.0429))
CHRM_P3 = (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
CHRM_SRGB = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)


def srgb_light(values):
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def expected(values, matrix, light=srgb_light):
    linear = np.clip(light(values / 255) @ np.array(matrix).T, 0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


def pixels(data):
    return np.asarray(decode_rgb(data)).astype(float)


def chunk(name, *values):
    return name, struct.pack(f">{len(values)}{'B' if name == b'cICP' else 'I'}", *values)


@pytest.mark.parametrize(("chunks", "matrix", "light"), [
    ([chunk(b"cICP", 12, 13, 0, 1)], P3, srgb_light), ([chunk(b"cICP", 9, 13, 0, 1)], BT2020, srgb_light),
    ([chunk(b"cICP", 9, 8, 0, 1)], BT2020, lambda values: values), ([chunk(b"cHRM", *CHRM_P3)], P3, srgb_light),
    ([chunk(b"gAMA", 45455), chunk(b"cHRM", *CHRM_P3)], P3, lambda values: values ** 2.2),
    ([chunk(b"cICP", 1, 13, 0, 1), chunk(b"cHRM", *CHRM_P3)], np.eye(3), srgb_light)])
def test_colours_of_a_png_are_converted(chunks, matrix, light):
    np.testing.assert_allclose(pixels(png(SOFT, chunks=chunks)), expected(SOFT, matrix, light), atol=1.6)


@pytest.mark.parametrize("chunks", [
    [(b"sRGB", b"\0"), chunk(b"cHRM", *CHRM_P3)], [chunk(b"cHRM", *CHRM_SRGB)], [chunk(b"cICP", 1, 13, 0, 1)],
    [chunk(b"cHRM", *[0] * 8)], [chunk(b"cHRM", *[31270, 32900] * 4)], [chunk(b"cHRM", 2**31, *CHRM_P3[1:])],
    [chunk(b"cICP", 200, 13, 0, 1)], [chunk(b"cICP", 12)], [(b"cICP", b"")]])
def test_what_says_srgb_or_nothing_changes_no_pixel(chunks):
    assert np.array_equal(pixels(png(SOFT, chunks=chunks)), SOFT)


def test_grey_stays_grey():
    grey = np.repeat(SOFT[..., :1], 3, axis=2)
    assert np.abs(np.ptp(pixels(png(grey, chunks=[chunk(b"cICP", 12, 8, 0, 1)])), axis=-1)).max() <= 1


@pytest.mark.parametrize("curve", [16, 18])
def test_high_dynamic_range_is_noted_and_left_alone(curve):
    picture = decode_rgb(png(SOFT, chunks=[chunk(b"cICP", 9, curve, 0, 1)]))
    assert picture.info["notes"] == [BRIGHT]
    assert np.array_equal(np.asarray(picture), SOFT)


def exif(order, *, space=None, interoperability=None):
    """Exif data with the tag ColorSpace, or with an index of interoperability."""
    short = f"{order}H"
    head = {"<": b"II*\0", ">": b"MM\0*"}[order]

    def entry(tag, kind, count, value):
        return struct.pack(f"{order}HHI", tag, kind, count) + value

    def directory(*entries):
        return struct.pack(short, len(entries)) + b"".join(entries) + b"\0" * 4

    pointer = directory(entry(0x8769, 4, 1, struct.pack(f"{order}I", 26)))
    if space is not None:
        inner = directory(entry(0xa001, 3, 1, struct.pack(f"{order}HH", space, 0)))
    else:
        inner = directory(entry(0xa005, 4, 1, struct.pack(f"{order}I", 44)))
        inner += directory(entry(1, 2, 4, interoperability))
    return b"Exif\0\0" + head + struct.pack(f"{order}I", 8) + pointer + inner


def jpeg(data):
    stream = io.BytesIO()
    Image.new("RGB", (16, 16), (150, 90, 100)).save(stream, "JPEG", quality=100, exif=data)
    return stream.getvalue()


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(("tags", "is_adobe"), [
    ({"space": 2}, True), ({"space": 1}, False), ({"space": 65535}, False), ({"interoperability": b"R03\0"}, True),
    ({"interoperability": b"R98\0"}, False)])
def test_adobe_rgb_in_exif(order, tags, is_adobe):
    data = exif(order, **tags)
    with Image.open(io.BytesIO(jpeg(data))) as image:                   # Pillow finds the same tags
        inner = image.getexif().get_ifd(0x8769)
        assert inner.get(0xa001) == tags.get("space")
        plain = np.asarray(image).astype(float)
    colour = expected(plain, ADOBE, lambda values: values ** (563 / 256)) if is_adobe else plain
    np.testing.assert_allclose(pixels(jpeg(data)), colour, atol=1.6)


def test_display_p3_in_an_avif_without_a_profile():
    stream = io.BytesIO()
    try:
        Image.new("RGB", (16, 16), (150, 90, 100)).save(stream, "AVIF", quality=100, subsampling="4:4:4")
    except (KeyError, OSError, ValueError):
        pytest.skip("this Pillow writes no AVIF")
    data = stream.getvalue()
    start = data.index(b"colrnclx") + len(b"colrnclx")
    plain = pixels(data)
    wide = data[:start] + struct.pack(">HH", 12, 13) + data[start + 4:]
    np.testing.assert_allclose(pixels(wide), expected(plain, P3), atol=2.6)


def test_a_damaged_png_keeps_its_colours():
    data = png(SOFT, chunks=[chunk(b"cICP", 12, 13, 0, 1)])
    damaged = bytearray(data[:-12] + png_chunk(b"tEXt", b"a\0b") + data[-12:])
    damaged[-14] ^= 1                                                   # the checksum of the text
    np.testing.assert_allclose(pixels(bytes(damaged)), expected(SOFT, P3), atol=1.6)
