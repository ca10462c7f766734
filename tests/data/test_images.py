"""Pictures of every mode and format, checked against NumPy; and files that are damaged or no pictures."""

import io
import os
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from diffuse_cli.data import images, picture_files
from diffuse_cli.data.fitting import fitted_pixels
from diffuse_cli.data.images import decode_rgb, open_rgb, read_size
from diffuse_cli.data.picture_files import ImageRefused

SEED = 20240
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "PPM", "TGA", "QOI", "PCX", "ICO", "JPEG2000",
           "DDS", "SGI")
LOSSLESS = ("PNG", "BMP", "TIFF")
WIDTH, HEIGHT = 12, 8
WEBP = {"lossless": True, "exact": True}        # exact: keep the colours that transparency hides


def encoded(image, format, **options):
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def pixels(data, **options):
    image = decode_rgb(data, **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


@pytest.fixture
def noise():
    """Channels of seeded noise: (8, 12, n) uint8."""
    random = np.random.default_rng(SEED)
    return lambda channels: random.integers(0, 256, (HEIGHT, WIDTH, channels), dtype=np.uint8)


def on_white(colour, alpha):
    """Numbers 0…255: the definition of compositing."""
    share = alpha[..., None] / 255
    return colour * share + 255 * (1 - share)


def grey(values):
    return np.repeat(np.asarray(values)[..., None], 3, axis=-1)


# ── The truth table: modes × formats ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("format", [*LOSSLESS, "WEBP"])
def test_rgb(noise, format):
    rgb = noise(3)
    data = encoded(Image.fromarray(rgb), format, **(WEBP if format == "WEBP" else {}))
    np.testing.assert_array_equal(pixels(data), rgb)


@pytest.mark.parametrize("format", LOSSLESS)
def test_grey(noise, format):
    values = noise(1)[..., 0]
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(values), format)), grey(values))


@pytest.mark.parametrize("format", [*LOSSLESS, "GIF"])
def test_one_bit(noise, format):
    bits = noise(1)[..., 0] > 127
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(bits), format)), grey(bits * 255))


@pytest.mark.parametrize("format", [*LOSSLESS, "GIF"])
def test_palette(noise, format):
    indices, palette = noise(1)[..., 0] % 7, noise(3)[0][:7]
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    np.testing.assert_array_equal(pixels(encoded(image, format)), palette[indices])


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_transparent_colour_is_composited_on_white(noise, format):
    rgba = noise(4)
    rgba[0, :, 3], rgba[1, :, 3] = 0, 255
    data = encoded(Image.fromarray(rgba), format, **(WEBP if format == "WEBP" else {}))
    np.testing.assert_allclose(pixels(data), on_white(rgba[..., :3], rgba[..., 3]), atol=1)
    assert (pixels(data)[0] == 255).all()                           # not the hidden colours


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_transparent_grey(noise, format):
    la = noise(2)
    data = encoded(Image.fromarray(la, "LA"), format)
    np.testing.assert_allclose(pixels(data), on_white(grey(la[..., 0]), la[..., 1]), atol=1)


@pytest.mark.parametrize("format", ["PNG", "GIF"])
def test_palette_with_a_transparent_entry(noise, format):
    indices, palette = noise(1)[..., 0] % 5, noise(3)[0][:5]
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    expected = np.where((indices == 2)[..., None], 255, palette[indices])
    np.testing.assert_array_equal(pixels(encoded(image, format, transparency=2)), expected)


def test_palette_with_an_alpha_for_each_entry(noise):
    indices, palette, alphas = noise(1)[..., 0] % 5, noise(3)[0][:5], np.array([0, 60, 128, 200, 255], np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    data = encoded(image, "PNG", transparency=alphas.tobytes())
    np.testing.assert_allclose(pixels(data), on_white(palette[indices], alphas[indices]), atol=1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_one_colour_declared_transparent(mode):
    image = Image.new(mode, (WIDTH, HEIGHT), "black")
    image.paste(Image.new(mode, (4, 4), "grey"), (0, 0))
    data = encoded(image, "PNG", transparency=(0, 0, 0) if mode == "RGB" else 0)
    result = pixels(data)
    assert (result[:4, :4] == 128).all()
    assert (result[4:] == 255).all()


@pytest.mark.parametrize(("format", "order"), [("PNG", "<"), ("TIFF", "<"), ("TIFF", ">")])
def test_sixteen_bits_are_scaled_and_not_clipped(format, order):
    values = np.linspace(0, 65535, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH).astype(np.uint16)
    mode = "I;16" if order == "<" else "I;16B"
    image = Image.frombytes(mode, (WIDTH, HEIGHT), values.astype(f"{order}u2").tobytes())
    np.testing.assert_array_equal(pixels(encoded(image, format)), grey(np.round(values / 65535 * 255)))


def test_every_sixteen_bit_value_is_rounded_to_the_nearest():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.round(values.astype(np.float64) / 65535 * 255)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(values), "PNG")), grey(expected))


@pytest.mark.parametrize(("values", "expected"), [
    ([[0, 65535], [32768, 257]], [[0, 255], [128, 1]]),
    ([[-10, 10], [0, 5]], [[0, 255], [128, 191]]),                 # another range is stretched
    ([[0, 2**31 - 1], [2**30, 0]], [[0, 255], [128, 0]]),
])
def test_integers(values, expected):
    image = Image.fromarray(np.array(values, np.int32))
    np.testing.assert_array_equal(pixels(encoded(image, "TIFF")), grey(expected))


@pytest.mark.parametrize(("values", "expected"), [
    ([[-1.0, 1.0], [0.0, 0.5]], [[0, 255], [128, 191]]),
    ([[0.25, 0.25], [0.25, 0.25]], [[0, 0], [0, 0]]),
    ([[np.nan, np.inf], [-np.inf, 3.0]], [[0, 0], [0, 0]]),
    ([[np.nan, 1.0], [2.0, 3.0]], [[0, 0], [128, 255]]),
    ([[-3e38, 3e38], [0, 0]], [[0, 255], [128, 128]]),
])
def test_real_numbers_are_stretched(values, expected):
    image = Image.fromarray(np.array(values, np.float32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = decode_rgb(encoded(image, "TIFF"))
    np.testing.assert_array_equal(np.asarray(result), grey(expected))
    assert result.info == {"size": (2, 2), "mode": "F", "peak": 0, "notes": ["stretched"]}


def test_cmyk_without_a_profile(noise):
    cmyk = noise(4)
    share = 1 - cmyk / 255
    expected = 255 * share[..., :3] * share[..., 3:]
    np.testing.assert_allclose(pixels(encoded(Image.fromarray(cmyk, "CMYK"), "TIFF")), expected, atol=1)


def test_inverted_cmyk_of_photo_editors(noise):
    cmyk = np.full((HEIGHT, WIDTH, 4), (0, 255, 255, 0), np.uint8)  # red
    assert np.abs(pixels(encoded(Image.fromarray(cmyk, "CMYK"), "JPEG", quality=100)) - (255, 0, 0)).max() <= 3


def test_luma_and_chroma():
    colour = np.array([200, 90, 160])
    y, cb, cr = colour
    expected = [y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128)]
    image = Image.new("YCbCr", (WIDTH, HEIGHT), tuple(colour.tolist()))
    result = pixels(encoded(image, "TIFF", compression="tiff_lzw"))
    np.testing.assert_allclose(result, np.broadcast_to(np.clip(expected, 0, 255), result.shape), atol=2)


def test_lab():
    image = Image.new("LAB", (WIDTH, HEIGHT), (255, 128, 128))       # the lightest, neutral: white
    assert (pixels(encoded(image, "TIFF")) >= 254).all()


@pytest.mark.parametrize("format", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_lossy_formats_come_close(format, mode):
    slope = np.linspace(0, 255, 64).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(slope, (64, 64)).copy()).convert(mode)
    assert np.abs(pixels(encoded(image, format, quality=95)) - grey(np.asarray(image.convert("L")))).mean() < 3


# ── Colour profiles ─────────────────────────────────────────────────────────────────────────────────────────────────


def rgb_profile(primaries, gamma):
    """A display profile made by hand: XYZ (D50) of its primaries in rows, and one gamma. The oracle knows both."""
    def s15(value):
        return struct.pack(">i", round(value * 65536))

    def text(value):
        return b"desc" + bytes(4) + struct.pack(">I", len(value) + 1) + value + bytes(1 + 8 + 3 + 67)

    white = (0.9642, 1.0, 0.8249)
    tags = {b"desc": text(b"Made by hand"), b"cprt": b"text" + bytes(4) + b"none\0",
            b"wtpt": b"XYZ " + bytes(4) + b"".join(map(s15, white))}
    for name, primary in zip((b"r", b"g", b"b"), primaries, strict=True):
        tags[name + b"XYZ"] = b"XYZ " + bytes(4) + b"".join(map(s15, primary))
        tags[name + b"TRC"] = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    offset, table, body = 128 + 4 + 12 * len(tags), b"", b""
    for name, tag in tags.items():
        tag += bytes(-len(tag) % 4)
        table += name + struct.pack(">II", offset + len(body), len(tag))
        body += tag
    head = struct.pack(">I4sI4s4s4s", offset + len(body), b"none", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + b"".join(map(s15, white))
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


# Display P3 and sRGB, adapted to D50; rows are the primaries.
P3 = np.array([[0.51512, 0.24120, -0.00105], [0.29198, 0.69225, 0.04189], [0.15710, 0.06657, 0.78407]])
SRGB = np.array([[0.43607, 0.22249, 0.01392], [0.38515, 0.71687, 0.09708], [0.14307, 0.06061, 0.71410]])


def srgb_curve(linear):
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_a_colour_profile_is_honoured(format):
    colours = np.array([[[120, 100, 90], [90, 140, 100], [100, 100, 150], [180, 180, 180]]], np.uint8)
    linear = (colours / 255) ** 2.2 @ P3 @ np.linalg.inv(SRGB)
    expected = 255 * srgb_curve(np.clip(linear, 0, 1))
    options = {"icc_profile": rgb_profile(P3, 2.2), **(WEBP if format == "WEBP" else {})}
    result = pixels(encoded(Image.fromarray(colours), format, **options))
    np.testing.assert_allclose(result, expected, atol=2)
    assert np.abs(result - colours).max() > 5                       # so that ignoring the profile would be seen


def test_a_profile_and_transparency_together():
    rgba = np.full((4, 4, 4), (120, 100, 90, 128), np.uint8)
    profile = rgb_profile(P3, 2.2)
    opaque = pixels(encoded(Image.fromarray(rgba[..., :3]), "PNG", icc_profile=profile))
    result = pixels(encoded(Image.fromarray(rgba), "PNG", icc_profile=profile))
    np.testing.assert_allclose(result, on_white(opaque, rgba[..., 3]), atol=1)


def test_srgb_changes_nothing_and_a_broken_or_foreign_profile_does_no_harm(noise):
    rgb = noise(3)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"rubbish", srgb[:200], b""):
        np.testing.assert_array_equal(pixels(encoded(Image.fromarray(rgb), "PNG", icc_profile=profile)), rgb)
    values = rgb[..., 0]
    data = encoded(Image.fromarray(values), "PNG", icc_profile=rgb_profile(P3, 2.2))
    np.testing.assert_array_equal(pixels(data), grey(values))


# ── Orientation and frames ──────────────────────────────────────────────────────────────────────────────────────────

TURNS = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: a.swapaxes(0, 1),
         6: lambda a: np.rot90(a, -1), 7: lambda a: np.rot90(a, 2).swapaxes(0, 1), 8: np.rot90}


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation(format, orientation):
    corners = np.zeros((16, 32, 3), np.uint8)
    corners[:8, :16], corners[:8, 16:], corners[8:, :16] = (255, 0, 0), (0, 255, 0), (0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": WEBP, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    result = pixels(encoded(Image.fromarray(corners), format, exif=exif, **options))
    np.testing.assert_allclose(result, TURNS[orientation](corners), atol=12)


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff",
                                  b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
                                  b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x02\0\x01\0\0\0\x36\0\0\0\0\0\0\0"])
def test_damaged_exif_is_no_reason_to_lose_a_picture(noise, exif):
    rgb = noise(3)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(rgb), "PNG", exif=exif)), rgb)


@pytest.mark.parametrize("format", ["GIF", "PNG", "WEBP", "TIFF", "AVIF"])
def test_the_first_frame_of_an_animation(format):
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    options = {"save_all": True, "append_images": frames[1:], **({"quality": 100} if format == "AVIF" else {})}
    np.testing.assert_allclose(pixels(encoded(frames[0], format, **options)), np.full((16, 16, 3), (255, 0, 0)), atol=3)


def test_a_jpeg_that_holds_two_pictures():
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime")]
    data = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    assert np.abs(pixels(data) - (255, 0, 0)).max() < 4


# ── Refused ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def refused(path_or_data):
    with pytest.raises(ImageRefused) as caught:
        (decode_rgb if isinstance(path_or_data, bytes) else open_rgb)(path_or_data)
    return caught.value.reason


def png_header(width, height):
    """A PNG of which only the header is true."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
            + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))


@pytest.mark.parametrize(("data", "reason"), [
    (png_header(100_000, 100_000), "over 179 megapixels"),
    (png_header(13_379, 13_377), "over 179 megapixels"),
    (png_header(1, 50_000), "over 100 times as long as wide"),
    (png_header(101, 1), "over 100 times as long as wide"),
    (png_header(64, 64), "truncated"),
    (b"<html><body>404</body></html>", "web page"),
    (b"a red car", "text"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "drawing"),
    (png_header(64, 64).replace(b"IHDR", b"XXXX"), "damaged"),
], ids=["bomb", "just too large", "line", "thin", "no pixels", "html", "text", "postscript", "rubbish"])
def test_refused_with_a_reason(data, reason):
    assert refused(data) == reason


def test_the_limit_is_ours_and_not_only_pillows(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert refused(png_header(13_379, 13_377)) == "over 179 megapixels"


@pytest.mark.parametrize("size", [(0, 5), (5, 0)])
def test_pictures_without_pixels(size):
    gif = b"GIF89a" + struct.pack("<HH", *size) + b"\0\0\0;"
    assert refused(gif) in ("no pixels", "damaged", "truncated")


def test_the_largest_allowed_header_passes_the_check():
    width = 13_377
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = images._open(io.BytesIO(png_header(width, images.MAX_PIXELS // width)))
    assert image.size == (width, images.MAX_PIXELS // width)


@pytest.mark.parametrize(("format", "reason"), [("EPS", "drawing"), ("PDF", "PDF"), ("SPIDER", "not a picture"),
                                                ("IM", "not a picture"), ("BLP", "not a picture")])
def test_only_the_listed_formats_are_opened(format, reason):
    image = Image.new({"SPIDER": "F", "BLP": "P"}.get(format, "RGB"), (16, 16))
    assert refused(encoded(image, format)) == reason


def test_the_suffix_does_not_matter(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded(Image.new("RGB", (9, 9), "red"), "PNG"))
    assert open_rgb(path).getpixel((4, 4)) == (255, 0, 0)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    with open(tmp_path / "huge.png", "wb") as file:
        file.truncate(picture_files.MAX_BYTES + 1)     # sparse
    reasons = {name: refused(tmp_path / f"{name}.png") for name in ("pipe", "empty", "huge", "missing", "loop")}
    assert reasons == {"pipe": "not a regular file", "empty": "empty file", "huge": "over 256 MB",
                       "missing": "not there", "loop": "unreadable"}
    assert refused(tmp_path / "folder.png") in ("a folder", "unreadable")             # the latter on Windows
    assert refused(type(tmp_path)("/dev/zero")) == "not a regular file"
    assert read_size(tmp_path / "pipe.png") is None


# ── Damage ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def samples():
    """A small file of each format and kind, with what it decodes to."""
    random = np.random.default_rng(SEED)
    rgb = Image.fromarray(random.integers(0, 256, (24, 24, 3), dtype=np.uint8))
    files = {format: encoded(rgb, format) for format in FORMATS}
    files["PNG palette"] = encoded(rgb.quantize(16), "PNG", transparency=3)
    files["PNG 16"] = encoded(Image.fromarray(random.integers(0, 65536, (24, 24), dtype=np.uint16)), "PNG")
    files["TIFF LZW"] = encoded(rgb, "TIFF", compression="tiff_lzw")
    files["JPEG progressive"] = encoded(rgb, "JPEG", progressive=True, icc_profile=rgb_profile(P3, 2.2))
    return files


def test_a_truncated_file_is_refused_or_whole(samples):
    """Cut at every other per cent, and near the end: never less than 98 % of a picture."""
    for name, data in samples.items():
        whole = pixels(data)
        for length in {*(len(data) * percent // 100 for percent in range(0, 100, 2)), *range(len(data) - 9, len(data))}:
            try:
                result = pixels(data[:length])
            except ImageRefused:
                continue
            assert (result == whole).all(axis=-1).mean() >= 0.98, f"{name} of {len(data)} bytes at {length}"


def mutated(data, random):
    """Some bytes flipped, a stretch overwritten, removed or doubled."""
    data = bytearray(data)
    for _ in range(random.integers(1, 6)):
        start, length = int(random.integers(len(data))), int(random.integers(1, 9))
        match int(random.integers(4)):
            case 0:
                data[start] ^= 1 << int(random.integers(8))
            case 1:
                data[start:start + length] = random.bytes(length)
            case 2:
                del data[start:start + length]
            case 3:
                data[start:start] = data[start:start + length]
        if not data:
            return b"\0"
    return bytes(data)


def test_mutated_files_are_refused_or_pictures(samples):
    """1,900 files with damage anywhere: an RGB picture of the right size, or a short reason, and no other exception."""
    random, outcomes = np.random.default_rng(SEED), {"picture": 0}
    for data in samples.values():
        for _ in range(100):
            try:
                image = decode_rgb(mutated(data, random), target=16)
            except ImageRefused as error:
                outcomes[error.reason] = outcomes.get(error.reason, 0) + 1
                continue
            outcomes["picture"] += 1
            result = fitted_pixels(image, 16)
            assert (image.mode, result.shape, result.dtype) == ("RGB", (16, 16, 3), np.uint8)
    assert all(len(reason) < 40 for reason in outcomes)
    assert outcomes["picture"] > 50
    assert sum(outcomes.values()) - outcomes["picture"] > 50


# ── Size ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_drafted_jpeg_is_nearly_the_full_one(tmp_path):
    y, x = np.mgrid[0:768, 0:1024] / 60
    smooth = np.stack([np.sin(x + y), np.cos(x - 2 * y), np.sin(x * y / 9)], -1)
    picture = Image.fromarray((smooth * 127 + 128).astype(np.uint8))
    (tmp_path / "a.jpg").write_bytes(encoded(picture, "JPEG", quality=95))
    drafted, full = open_rgb(tmp_path / "a.jpg", target=64), open_rgb(tmp_path / "a.jpg")
    assert full.size == (1024, 768)
    assert 128 <= min(drafted.size) < 768       # smaller, but never below twice the target
    assert drafted.info["size"] == (1024, 768)
    assert np.abs(fitted_pixels(drafted, 64).astype(int) - fitted_pixels(full, 64)).mean() < 1.5


def test_the_size_is_read_from_the_header_only(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(640, 480)[:60])
    (tmp_path / "b.png").write_bytes(b"text")
    (tmp_path / "c.png").write_bytes(png_header(100_000, 100_000))
    assert [read_size(tmp_path / f"{name}.png") for name in "abc"] == [(640, 480), None, None]


def test_torch_is_not_needed():
    code = "import sys; import diffuse_cli.data.images; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
