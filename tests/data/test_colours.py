"""Transparency, depth, profiles and gamma, against closed forms; and TIFFs that Pillow reads wrongly or not at all."""

import struct

import numpy as np
import pytest
from encoded_pictures import encoded, png, png_chunk, tiff
from PIL import Image, ImageCms

from diffuse_cli.config import Recipe
from diffuse_cli.data import colours
from diffuse_cli.data.colours import Rendering, background_colour
from diffuse_cli.data.images import ImageRefused, decode_rgb
from diffuse_cli.errors import UsageError

HEIGHT, WIDTH = 24, 32
NOISE = np.random.default_rng(9).integers(0, 256, (HEIGHT, WIDTH, 8), dtype=np.uint8)
RGB = NOISE[..., :3]
DEEP = np.random.default_rng(10).integers(0, 65536, (HEIGHT, WIDTH, 4), dtype=np.uint16)


def pixels(data, **options):
    return np.asarray(decode_rgb(data, rendering=Rendering(**options)))


def notes(data, **options):
    return decode_rgb(data, rendering=Rendering(**options)).info["notes"]


def refused(data):
    with pytest.raises(ImageRefused) as caught:
        decode_rgb(data)
    return caught.value.reason


def rgba(alpha, colour=RGB):
    return Image.fromarray(np.dstack([colour, np.broadcast_to(alpha, colour.shape[:2]).astype(np.uint8)]))


# ── Transparency ────────────────────────────────────────────────────────────────────────────────────────────────────


def bmp_with_an_alpha_mask(colour, alpha):
    """As screen captures write it: a mask for alpha, and zeros there."""
    rows = np.dstack([colour[::-1, :, ::-1], np.full(colour.shape[:2], alpha, np.uint8)]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 108, WIDTH, HEIGHT, 1, 32, 3, len(rows), 0, 0, 0, 0)
    head += struct.pack("<IIII", 0xff0000, 0xff00, 0xff, 0xff000000) + b"sRGB" + bytes(48)
    return b"BM" + struct.pack("<IHHI", 14 + len(head) + len(rows), 0, 0, 14 + len(head)) + head + rows


@pytest.mark.parametrize("data", [
    encoded(rgba(0), "PNG"), encoded(rgba(0), "TGA"), encoded(rgba(0), "TIFF"), bmp_with_an_alpha_mask(RGB, 0),
    encoded(rgba(0), "WEBP", lossless=True, exact=True), encoded(rgba(0), "DDS"), encoded(rgba(0), "QOI"),
    tiff(np.dstack([RGB, np.zeros((HEIGHT, WIDTH), np.uint8)]), photometric=2, extra=[2]),
], ids=["png", "tga", "tiff", "bmp", "webp", "dds", "qoi", "tiff by hand"])
def test_alpha_that_is_zero_everywhere_means_nothing(data):
    np.testing.assert_array_equal(pixels(data), RGB)
    np.testing.assert_array_equal(pixels(data, background="red"), RGB)
    assert notes(data) == []


def test_grey_and_palettes_with_alpha_zero_everywhere():
    grey = RGB[..., 0]
    data = encoded(Image.merge("LA", [Image.fromarray(grey), Image.new("L", (WIDTH, HEIGHT), 0)]), "PNG")
    np.testing.assert_array_equal(pixels(data), np.repeat(grey[..., None], 3, 2))
    palette = Image.fromarray(RGB).quantize(7)
    data = encoded(palette, "PNG", transparency=bytes(7))
    np.testing.assert_array_equal(pixels(data), np.asarray(palette.convert("RGB")))


def test_an_empty_picture_shows_the_background():
    """Black or white below alpha zero is how programs store nothing."""
    for nothing in (Image.new("RGBA", (9, 9)), Image.new("LA", (1, 1), (255, 0))):
        assert (pixels(encoded(nothing, "PNG"), background="red") == (255, 0, 0)).all()
        assert colours.PLAIN in notes(encoded(nothing, "PNG"))
    assert (pixels(encoded(Image.new("RGBA", (9, 9), (200, 0, 0, 0)), "PNG")) == (200, 0, 0)).all()


def test_one_pixel_that_is_not_transparent_makes_alpha_count():
    alpha = np.zeros((HEIGHT, WIDTH))
    alpha[3, 4] = 255
    result = pixels(encoded(rgba(alpha), "PNG"), background="#102030")
    assert (result[3, 4] == RGB[3, 4]).all()
    result = result.reshape(-1, 3).tolist()
    assert result.count([16, 32, 48]) >= HEIGHT * WIDTH - 1


@pytest.mark.parametrize(("background", "expected"), [
    ("white", (255, 255, 255)), ("black", (0, 0, 0)), ("Grey", (128, 128, 128)), ("#f00", (255, 0, 0)),
    ("#102030", (16, 32, 48)), (" rgb(1, 2, 3) ", (1, 2, 3))])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_the_background_is_mixed_in_by_alpha(background, expected, mode):
    assert background_colour(Rendering(background=background)) == expected
    alpha = NOISE[..., 3] | 1
    if mode == "P":
        image = Image.new("P", (WIDTH, HEIGHT), 1)
        image.putpalette([9, 9, 9, 200, 100, 50])
        data, colour, share = encoded(image, "PNG", transparency=bytes([255, 64])), np.array([200, 100, 50]), 64 / 255
    else:
        colour = RGB if mode == "RGBA" else np.repeat(RGB[..., :1], 3, 2)
        image = rgba(alpha) if mode == "RGBA" else Image.fromarray(np.dstack([RGB[..., 0], alpha]), "LA")
        data, share = encoded(image, "PNG"), alpha[..., None] / 255
    mixed = colour * share + np.array(expected) * (1 - share)
    np.testing.assert_allclose(pixels(data, background=background), np.broadcast_to(mixed, RGB.shape), atol=1)


@pytest.mark.parametrize("background", ["blakc", "#12", "12", "rgb(1)"])
def test_colours_that_nobody_knows(background):
    with pytest.raises(UsageError, match="--background"):
        background_colour(Rendering(background=background))


@pytest.mark.parametrize("background", ["", "  ", "white" * 20])
def test_a_colour_must_have_a_name(background):
    with pytest.raises(UsageError, match="--background"):
        Recipe(background=background)


def test_the_defaults_of_a_recipe_are_those_of_a_picture():
    assert Rendering(**Recipe().colour_options) == Rendering()


def test_alpha_that_hides_nearly_everything_is_noted():
    assert notes(encoded(rgba(10), "PNG")) == [colours.TRANSPARENT_GROUND, colours.NEARLY_TRANSPARENT]
    assert notes(encoded(rgba(200), "PNG")) == []
    flat = np.full_like(RGB, 77)
    small = np.zeros((HEIGHT, WIDTH))
    small[3, 4] = 255
    flat[3, 4] = 0
    assert notes(encoded(rgba(small, flat), "PNG")) == [colours.TRANSPARENT_GROUND]     # hides nothing else


def test_a_ground_is_transparent_if_it_is_so_in_the_border():
    inside = np.full((HEIGHT, WIDTH), 255)
    inside[2:-2, 2:-2] = 0
    assert notes(encoded(rgba(inside), "PNG")) == []
    for row, column in ((0, 5), (HEIGHT - 1, 5), (5, 0), (5, WIDTH - 1)):
        hole = inside.copy()
        hole[row, column] = 0
        assert notes(encoded(rgba(hole), "PNG")) == [colours.TRANSPARENT_GROUND]


def test_a_white_drawing_on_white_is_noted_and_shown_on_black():
    alpha = np.zeros((HEIGHT, WIDTH))
    alpha[4:20, 6:26] = 255
    data = encoded(rgba(alpha, np.full_like(RGB, 255)), "PNG")
    assert notes(data) == [colours.TRANSPARENT_GROUND, colours.PLAIN]
    assert notes(data, background="black") == [colours.TRANSPARENT_GROUND]
    np.testing.assert_array_equal(pixels(data, background="black")[..., 0], alpha)
    assert notes(encoded(Image.new("RGB", (9, 9), "white"), "PNG")) == []           # which no background would change
    assert notes(encoded(rgba(255, np.full_like(RGB, 255)), "PNG")) == []


# ── Depth ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("top", [255, 1023, 4095, 16383, 65535])
def test_the_highest_value_is_found_and_the_white_level_scales_to_it(top):
    values = np.linspace(0, top, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    for data in (encoded(Image.fromarray(values), "PNG"), tiff(values[..., None]), tiff(values[..., None], order=">")):
        assert decode_rgb(data).info["peak"] == top
        np.testing.assert_array_equal(pixels(data)[..., 1], np.round(values / 65535 * 255))
        np.testing.assert_array_equal(pixels(data, white_level=top)[..., 1], np.round(values / top * 255))


@pytest.mark.parametrize("encode", [
    lambda values: png(values, bits=16), lambda values: tiff(values, photometric=2),
    lambda values: tiff(values, photometric=2, order=">"),
    lambda values: tiff(np.dstack([values, values[..., :1]]), photometric=2, extra=[0])],
    ids=["png", "little-endian", "big-endian", "four bands"])
def test_sixteen_bits_of_each_colour_keep_their_lower_half(encode):
    """Pillow keeps the upper 8 of 16 bits, which are 4 of 12."""
    values = DEEP[..., :3] >> 4
    image = decode_rgb(encode(values))
    assert image.info["peak"] == values.max() > 4000
    np.testing.assert_array_equal(np.asarray(image), np.round(values / 65535 * 255))
    np.testing.assert_array_equal(pixels(encode(values), white_level=4095), np.round(values / 4095 * 255))
    full = DEEP[..., :3]
    assert np.abs(pixels(encode(full)) - full / 257).max() <= 1
    np.testing.assert_array_equal(pixels(encode(full), white_level=65535), np.round(full / 65535 * 255))


def test_sixteen_bits_with_alpha():
    values = np.dstack([DEEP[..., :3] >> 4, np.where(DEEP[..., 3] > 20000, 65535, 0)])
    result = pixels(png(values, kind=6, bits=16), white_level=4095)
    expected = np.where(values[..., 3:] > 0, np.round(values[..., :3] / 4095 * 255), 255)
    np.testing.assert_array_equal(result, expected)


def test_values_beyond_the_white_level_are_white():
    values = np.array([[0, 500, 1000, 5000]], np.uint16)
    assert pixels(encoded(Image.fromarray(values), "PNG"), white_level=1000)[0, :, 0].tolist() == [0, 128, 255, 255]


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_the_white_level_also_gives_real_and_large_numbers_one_range(dtype):
    values = np.array([[-5, 0, 1, 2], [4, 8, 70_000, 3]], dtype)[..., None]
    assert notes(tiff(values)) == [colours.STRETCHED]
    assert notes(tiff(values), white_level=4) == []
    assert pixels(tiff(values), white_level=4)[..., 0].tolist() == [[0, 0, 64, 128], [255, 255, 255, 191]]


def test_one_grey_of_sixteen_bits_declared_transparent():
    values = np.array([[7, 65535, 7, 0]], np.uint16)
    data = png(values[..., None], kind=0, bits=16, chunks=[(b"tRNS", struct.pack(">H", 7))])
    assert pixels(data, background="red").tolist() == [[[255, 0, 0], [255] * 3, [255, 0, 0], [0] * 3]]


# ── TIFF ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("values", "options"), [
    (RGB, {"photometric": 2}), (RGB, {"photometric": 2, "planar": True}),
    (NOISE[..., :4], {"photometric": 2, "extra": [0]}), (NOISE[..., :5], {"photometric": 2, "extra": [0, 0]})],
    ids=["rgb", "planes", "rgb and infrared", "five"])
def test_the_first_three_bands_of_an_rgb_tiff(values, options):
    np.testing.assert_array_equal(pixels(tiff(values, **options)), values[..., :3])


def test_white_that_is_zero():
    grey = RGB[..., :1]
    np.testing.assert_array_equal(pixels(tiff(grey, photometric=0))[..., 0], 255 - grey[..., 0])
    deep = DEEP[..., :1]
    np.testing.assert_array_equal(pixels(tiff(deep, photometric=0))[..., 0], np.round((65535 - deep[..., 0]) / 257))


@pytest.mark.parametrize(("values", "options", "reason"), [
    (NOISE[..., :4], {}, "4 bands"), (NOISE[..., :3], {}, "3 bands"), (NOISE[..., :2], {}, "2 bands"),
    (NOISE[..., :4], {"planar": True}, "4 bands"), (NOISE[..., :8], {}, "8 bands"), (DEEP, {}, "4 bands"),
    (NOISE[..., :4], {"planar": True, "photometric": 2, "extra": [0]}, "4 bands"),
    (NOISE[..., :7], {"photometric": 2, "extra": [0] * 4}, "7 bands"),
    (DEEP[..., :3], {"planar": True, "photometric": 2}, "3 planes of 16 bits"),
    (RGB.astype(np.float32), {"photometric": 2}, "32-bit real numbers"),
    (RGB[..., :1].astype(np.float64), {}, "64-bit real numbers"),
    (RGB[..., :1].astype(np.float16), {}, "16-bit real numbers"),
    (RGB[..., :1].astype(np.uint64), {}, "64-bit numbers"),
    (RGB[..., :1].astype(np.int8), {}, "signed 8-bit numbers")])
def test_other_tiffs_are_refused_by_what_they_are(values, options, reason, capfd):
    for order in "<>":
        assert refused(tiff(values, order=order, **options)) == reason
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits", "raw"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "I;16", "CMYK"])
def test_compressed_tiffs(compression, mode):
    if mode == "I;16":
        image = Image.fromarray(DEEP[..., 0])
    else:
        image = Image.fromarray(RGB).convert(mode)
    np.testing.assert_array_equal(pixels(encoded(image, "TIFF", compression=compression)),
                                  pixels(encoded(image, "TIFF")))


def test_a_tiff_of_one_bit_and_one_with_jpeg_inside():
    bits = Image.fromarray(RGB[..., 0] > 127)
    data = encoded(bits, "TIFF", compression="group4")
    np.testing.assert_array_equal(pixels(data)[..., 0], (RGB[..., 0] > 127) * 255)
    soft = Image.linear_gradient("L").convert("RGB")
    data = encoded(soft, "TIFF", compression="jpeg", quality=95)
    assert np.abs(pixels(data).astype(int) - np.asarray(soft)).max() < 6


# ── Profiles and gamma ──────────────────────────────────────────────────────────────────────────────────────────────


def profile(primaries, curve, *, name=b"Made by hand", kind=b"RGB "):
    """An ICC profile: XYZ (D50) of its primaries in rows, and one curve, a gamma or a table of light for 0…1."""
    def number(value):
        return struct.pack(">i", round(value * 65536))

    table = [round(curve * 256)] if isinstance(curve, float) else [round(value * 65535) for value in curve]
    tone = b"curv" + bytes(4) + struct.pack(f">I{len(table)}H", len(table), *table)
    white = b"".join(map(number, (0.9642, 1.0, 0.8249)))
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", len(name) + 1) + name + bytes(79),
            b"cprt": b"text" + bytes(4) + b"none\0", b"wtpt": b"XYZ " + bytes(4) + white}
    if kind == b"GRAY":
        tags[b"kTRC"] = tone
    else:
        for letter, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
            tags[letter + b"XYZ"] = b"XYZ " + bytes(4) + b"".join(map(number, primary))
            tags[letter + b"TRC"] = tone
    start, entries, body = 132 + 12 * len(tags), b"", b""
    for tag, content in tags.items():
        content += bytes(-len(content) % 4)
        entries += tag + struct.pack(">II", start + len(body), len(content))
        body += content
    head = struct.pack(">I4sI4s4s4s", start + len(body), b"none", 0x02100000, b"mntr", kind, b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + white
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + entries + body


# Rows are the primaries, adapted to D50.
SRGB = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])
ADOBE = np.array([[0.60974, 0.31111, 0.01947], [0.20528, 0.62567, 0.06087], [0.14919, 0.06322, 0.74457]])
PROPHOTO = np.array([[0.79767, 0.28804, 0.0], [0.13519, 0.71188, 0.0], [0.03134, 0.00009, 0.82491]])
P3 = np.array([[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]])
SOFT = np.array([[[120, 100, 90], [90, 140, 100], [100, 100, 150], [180, 180, 180], [60, 50, 40]]], np.uint8)


def encode_srgb(light):
    light = np.clip(light, 0, 1)
    return 255 * np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def srgb_curve(points):
    value = np.linspace(0, 1, points)
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


@pytest.mark.parametrize("name", [b"sRGB", b"c2", b"uRGB", b"My monitor", b"Adobe RGB (1998)"])
def test_a_profile_that_is_srgb_in_fact_changes_no_pixel_whatever_its_name(name):
    data = encoded(Image.fromarray(RGB), "PNG", icc_profile=profile(SRGB, srgb_curve(1024), name=name))
    np.testing.assert_array_equal(pixels(data), RGB)


@pytest.mark.parametrize(("primaries", "gamma"), [(P3, 2.2), (ADOBE, 2.19921875), (PROPHOTO, 1.8), (SRGB, 1.0),
                                                  (SRGB, 1.8)])
def test_any_other_profile_is_honoured_even_if_it_calls_itself_srgb(primaries, gamma):
    expected = encode_srgb((SOFT / 255) ** gamma @ primaries @ np.linalg.inv(SRGB))
    data = encoded(Image.fromarray(SOFT), "PNG", icc_profile=profile(primaries, gamma, name=b"sRGB IEC61966-2.1"))
    result = pixels(data)
    np.testing.assert_allclose(result, expected, atol=2)
    assert np.abs(result - SOFT.astype(int)).max() > 4


def test_grey_profiles_with_and_without_alpha():
    grey = np.arange(0, 256, 5, dtype=np.uint8)[None]
    old = profile(None, 1.8, kind=b"GRAY")
    expected = encode_srgb((grey / 255) ** 1.8)
    both = Image.merge("LA", [Image.fromarray(grey), Image.new("L", grey.shape[::-1], 255)])
    for image in (Image.fromarray(grey), both, Image.fromarray(grey.astype(np.uint16) * 257)):
        np.testing.assert_allclose(pixels(encoded(image, "PNG", icc_profile=old))[..., 1], expected, atol=2)


def test_a_profile_that_is_broken_or_of_other_colours_is_ignored():
    good = profile(ADOBE, 2.2)
    for broken in (b"rubbish", good[:200], b"", profile(None, 1.8, kind=b"GRAY"), good.replace(b"acsp", b"????")):
        np.testing.assert_array_equal(pixels(encoded(Image.fromarray(RGB), "PNG", icc_profile=broken)), RGB)


def test_a_profile_is_read_once_for_all_pictures_that_have_it(monkeypatch):
    colours._srgb_transform.cache_clear()
    built, honest = [], ImageCms.buildTransform
    monkeypatch.setattr(ImageCms, "buildTransform", lambda *arguments: built.append(1) or honest(*arguments))
    data = encoded(Image.fromarray(RGB), "PNG", icc_profile=profile(ADOBE, 2.2))
    for _ in range(5):
        pixels(data)
    assert built == [1]


@pytest.mark.parametrize("gamma", [1.0, 1 / 1.8, 1 / 1.4])
def test_the_gamma_of_a_png_is_undone(gamma):
    data = png(SOFT, chunks=[(b"gAMA", struct.pack(">I", round(gamma * 100_000)))])
    np.testing.assert_allclose(pixels(data), encode_srgb((SOFT / 255) ** (1 / gamma)), atol=1)


@pytest.mark.parametrize("chunks", [
    [(b"gAMA", struct.pack(">I", 45455))], [(b"gAMA", struct.pack(">I", 0))], [(b"gAMA", struct.pack(">I", 4_000_000))],
    [(b"sRGB", b"\0"), (b"gAMA", struct.pack(">I", 100_000))],
    [(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))]])
def test_other_statements_of_a_png_change_nothing(chunks):
    np.testing.assert_array_equal(pixels(png(SOFT, chunks=chunks)), SOFT)


def test_a_profile_counts_before_the_gamma():
    linear = struct.pack(">I", 100_000)
    data = encoded(Image.fromarray(SOFT), "PNG", icc_profile=profile(SRGB, srgb_curve(1024)))
    np.testing.assert_array_equal(pixels(data[:33] + png_chunk(b"gAMA", linear) + data[33:]), SOFT)
