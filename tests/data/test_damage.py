"""Files that are damaged beside their pixels, or lack their end: read if the pixels are there, else refused."""

import struct
import zlib

import numpy as np
import pytest
from encoded_pictures import encoded, png_chunk
from PIL import Image

from diffuse_cli.data.damage import with_other_ends
from diffuse_cli.data.images import decode_rgb, read_size, read_upright_size
from diffuse_cli.data.picture_files import ImageRefused

RGB = np.random.default_rng(5).integers(0, 256, (40, 50, 3), dtype=np.uint8)


def smooth(height=192, width=256):
    """A soft picture with something in every block."""
    y, x = np.mgrid[0:height, 0:width] / 25
    waves = np.stack([np.sin(x + y), np.cos(x - 2 * y), np.sin(x * y / 9)], -1)
    return Image.fromarray((waves * 127 + 128).astype(np.uint8))


def pixels(data):
    return np.asarray(decode_rgb(data))


def reason(data):
    with pytest.raises(ImageRefused) as caught:
        decode_rgb(data)
    return caught.value.reason


def with_chunks(*chunks, **options):
    """A PNG with such chunks between its header and its pixels."""
    data = encoded(Image.fromarray(RGB), "PNG", **options)
    return data[:33] + b"".join(chunks) + data[33:]


def spoiled(chunk):
    """The chunk with a wrong checksum."""
    return chunk[:-1] + bytes([chunk[-1] ^ 1])


TEXT = png_chunk(b"tEXt", b"Title\0a red car")
BOMB = png_chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(80 * 2**20), 9))


@pytest.mark.parametrize("data", [
    with_chunks(spoiled(TEXT)),
    with_chunks(spoiled(png_chunk(b"iCCP", b"name\0\0" + zlib.compress(b"profile")))),
    with_chunks(png_chunk(b"iCCP", b"name\0\0rubbish")),
    with_chunks(spoiled(png_chunk(b"eXIf", b"MM\0*rubbish"))),
    with_chunks(png_chunk(b"iTXt", b"\xff\xfe")),
    with_chunks(png_chunk(b"tIME", b"")),
    with_chunks(png_chunk(b"gAMA", b"\0")),
    with_chunks(png_chunk(b"cHRM", b"\0" * 5)),
    with_chunks(png_chunk(b"pHYs", b"")),
    with_chunks(BOMB),
    with_chunks(*[png_chunk(b"zTXt", b"Title\0\0" + zlib.compress(bytes(2**20 - 9), 9))] * 80),
    with_chunks(struct.pack(">I", 99_999) + TEXT[4:]),                  # a length that leads past the end
    with_chunks(struct.pack(">I", 7) + TEXT[4:]),                       # one that ends in the middle of the text
    with_chunks(b"\0\0\0\5\xff\xff\0\0" + TEXT),                        # no name
    encoded(Image.fromarray(RGB), "PNG")[:-12],                         # no IEND
    encoded(Image.fromarray(RGB), "PNG")[:-16],                         # nor a checksum of the pixels
    encoded(Image.fromarray(RGB), "PNG")[:-20],                         # nor the one inside them
    encoded(Image.fromarray(RGB), "PNG") + b"trailing" * 999,
    b"\x09PNH" + encoded(Image.fromarray(RGB), "PNG")[4:],
    encoded(Image.fromarray(RGB), "PNG").replace(b"IHDR", b"IHDR", 1)[:29] + b"????" + encoded(
        Image.fromarray(RGB), "PNG")[33:],                              # the checksum of the header
], ids=lambda _: "png")
def test_a_png_whose_pixels_are_whole_is_read(data):
    np.testing.assert_array_equal(pixels(data), RGB)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1", "I;16"])
def test_every_kind_of_png_is_mended_to_what_it_was(mode):
    image = Image.fromarray(RGB)
    image = Image.fromarray(RGB[..., 0].astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    data = encoded(image, "PNG")
    np.testing.assert_array_equal(pixels(data[:33] + spoiled(TEXT) + data[33:-12]), pixels(data))


@pytest.mark.parametrize(("channels", "kind"), [(1, 0), (3, 2), (4, 6)])
@pytest.mark.parametrize("size", [(40, 50), (3, 2), (9, 1)])
def test_interlaced_pngs_are_mended_as_well(channels, kind, size):
    """Pillow reads but does not write them, so the seven passes are made here."""
    values, raw = np.random.default_rng(6).integers(0, 256, (*size, channels), dtype=np.uint8), b""
    if channels == 4:
        values[..., 3] = 255
    for x, y, dx, dy in ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
                         (0, 1, 1, 2)):
        part = values[y::dy, x::dx]
        raw += b"".join(b"\0" + row.tobytes() for row in part) if part.size else b""
    header = struct.pack(">IIBBBBB", size[1], size[0], 8, kind, 0, 0, 1)
    data = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + spoiled(TEXT) + png_chunk(b"IDAT", zlib.compress(raw))
    np.testing.assert_array_equal(pixels(data), np.broadcast_to(values[..., :3], (*size, 3)))
    if len(raw) > 100:
        assert reason(data[:-20]) in ("truncated", "damaged")


def test_a_palette_and_its_transparency_survive_the_mending():
    image = Image.fromarray(RGB).quantize(9)
    data = encoded(image, "PNG", transparency=3)
    assert not (pixels(data) == np.asarray(image.convert("RGB"))).all()
    np.testing.assert_array_equal(pixels(data[:33] + spoiled(TEXT) + data[33:]), pixels(data))


def test_a_png_with_a_doubtful_pixel_is_refused():
    data = encoded(Image.fromarray(RGB), "PNG")
    assert reason(data[:len(data) // 2]) == "truncated"
    assert reason(data[:-40]) == "truncated"
    for place in (60, len(data) // 2, len(data) - 40):                  # a byte of the pixels: no checksum is right
        assert reason(data[:place] + bytes([data[place] ^ 16]) + data[place + 1:]) in ("damaged", "truncated")


@pytest.mark.parametrize("before", [
    b"\xef\xbb\xbf", b"\n", b"\r\n\r\n", b"\0" * 700, b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n",
    b"<br />\n<b>Warning</b>: session_start() in <b>/www/a.php</b><br />\n" * 20, b"{\"status\": \"ok\"}\n"])
def test_bytes_before_a_picture_do_no_harm(before, tmp_path):
    for format in ("PNG", "JPEG", "GIF", "WEBP"):
        data = encoded(Image.fromarray(RGB), format)
        np.testing.assert_array_equal(pixels(before + data), pixels(data))
        path = tmp_path / f"a.{format}"
        path.write_bytes(before + data)
        assert read_size(path) == read_upright_size(path) == (RGB.shape[1], RGB.shape[0])


def test_a_picture_inside_a_file_of_another_kind_is_not_taken_out():
    jpeg = encoded(Image.fromarray(RGB), "JPEG")
    for before, expected in ((b"PK\x03\x04", "archive"), (b"%PDF-1.4\n", "PDF"), (b"8BPS", "picture with layers"),
                             (b"FUJIFILMCCD-RAW ", "raw photograph")):
        assert reason(before + jpeg) == expected


def test_a_wrong_checksum_around_right_pixels_is_no_reason():
    """The stream has a checksum of its own, and one of the two is enough."""
    data = encoded(Image.fromarray(RGB), "PNG")
    np.testing.assert_array_equal(pixels(data[:-16] + b"????" + data[-12:]), RGB)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 95, "subsampling": 0},
                                     {"restart_marker_rows": 2}])
def test_a_jpeg_that_lacks_only_its_end_is_read(options):
    data = encoded(smooth(), "JPEG", **options)
    whole = pixels(data).astype(int)
    np.testing.assert_array_equal(pixels(data[:-2]), whole)
    np.testing.assert_array_equal(pixels(data[:-1]), whole)
    np.testing.assert_array_equal(pixels(data + b"\0" * 500), whole)
    nearly = pixels(data[:-12])
    assert 0.98 <= (nearly == whole).all(-1).mean() < 1
    for share in (0.2, 0.5, 0.8, 0.95):
        assert reason(data[:int(len(data) * share)]) == "truncated"


def test_a_progressive_jpeg_without_its_last_scans_is_blurred_and_refused():
    """At the end of a scan nothing is missing from any row, but the picture is."""
    data = encoded(smooth(), "JPEG", progressive=True)
    scans = [place for place in range(len(data) - 1) if data[place:place + 2] == b"\xff\xda"]
    assert len(scans) > 3
    for place in scans[1:]:
        assert reason(data[:place]) == "truncated"


@pytest.mark.parametrize(("format", "options"), [
    ("BMP", {}), ("TGA", {}), ("TGA", {"compression": "tga_rle"}), ("PPM", {}), ("TIFF", {}), ("PCX", {}), ("QOI", {}),
    ("SGI", {}), ("GIF", {})])
def test_other_formats_without_their_last_byte(format, options):
    data = encoded(smooth(), format, **options)
    assert (pixels(data[:-1]) == pixels(data)).all(-1).mean() > 0.99
    assert reason(data[:len(data) // 2]) in ("truncated", "damaged")


@pytest.mark.parametrize(("format", "options"), [
    ("WEBP", {}), ("AVIF", {}), ("JPEG2000", {}), ("JPEG2000", {"no_jp2": True}), ("ICNS", {}),
    ("TIFF", {"compression": "tiff_lzw"})])
@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_file_that_ends_too_early_is_called_truncated(format, options, share):
    """Pillow reads none of these without their end."""
    try:
        whole = encoded(smooth(64, 64), format, **options)
    except (KeyError, OSError):
        pytest.skip(f"this Pillow writes no {format}")
    cut = whole[:int(share * len(whole))]
    if format == "ICNS" and share > 0.9:        # its largest picture, which is a PNG, is there
        assert np.array_equal(pixels(cut), pixels(whole))
    else:
        assert reason(cut) == "truncated"


def test_no_end_is_much_longer_than_the_file():
    """A decoder that needs a microsecond for each byte took minutes for 16 bytes that declare 151 megapixels."""
    data = b"qoif\0\0\x31\0\0\0\x30\x16\4\1\0\xaf"
    assert max(map(len, with_other_ends(data, "QOI", pixels=12544 * 12310))) < 2000
    assert reason(data)
