"""What a file is, by its suffix and by its first bytes; and the remedy for what is no picture."""

import base64
import importlib.util
import io
import struct

import numpy as np
import pytest
from encoded_pictures import encoded
from PIL import Image

from diffuse_cli.data import file_types
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.file_types import FORMATS, format_of, remedies, what_else
from diffuse_cli.data.images import decode_rgb
from diffuse_cli.data.picture_files import ImageRefused
from diffuse_cli.errors import DataError

RGB = Image.fromarray(np.random.default_rng(3).integers(0, 256, (32, 48, 3), dtype=np.uint8))
RED = Image.new("RGB", (4, 4), "red")
LOSSLESS = ("PNG", "BMP", "TIFF", "PPM", "TGA", "QOI", "PCX", "ICO", "JPEG2000", "DDS", "SGI")


def box(brand, *others):
    return struct.pack(">I", 16 + 4 * len(others)) + b"ftyp" + brand + bytes(4) + b"".join(others) + bytes(60)


@pytest.mark.parametrize("format", LOSSLESS)
def test_every_format_gives_the_pixels_that_were_saved(format):
    options = {"ICO": {"sizes": [RGB.size]}}.get(format, {})
    np.testing.assert_array_equal(np.asarray(decode_rgb(encoded(RGB, format, **options))), np.asarray(RGB))


@pytest.mark.parametrize(("mode", "format"), [
    ("L", "PPM"), ("1", "PPM"), ("L", "TGA"), ("P", "TGA"), ("L", "PCX"), ("P", "PCX"), ("1", "PCX"), ("L", "SGI"),
    ("L", "JPEG2000"), ("L", "DDS"), ("1", "BMP"), ("P", "BMP"), ("1", "ICO")])
def test_grey_palettes_and_bits_in_the_rarer_formats(mode, format):
    image = RGB.convert("L").point(lambda value: 255 * (value > 127), "1") if mode == "1" else RGB.convert(mode)
    options = {"sizes": [RGB.size]} if format == "ICO" else {}
    np.testing.assert_array_equal(np.asarray(decode_rgb(encoded(image, format, **options))),
                                  np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("header", [b"P3\n2 1\n255\n", b"P3 # comment\n# more\n2\n1 255 "])
def test_a_picture_written_as_text(header):
    assert np.asarray(decode_rgb(header + b"1 2 3  250 251 252\n")).tolist() == [[[1, 2, 3], [250, 251, 252]]]


def test_a_grey_map_of_another_range_is_scaled_to_it():
    data = b"P5 3 1 1000\n" + np.array([0, 500, 1000], ">u2").tobytes()
    assert np.asarray(decode_rgb(data))[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("format", ["ICO", "ICNS"])
def test_the_largest_picture_of_an_icon(format):
    image = Image.new("RGB", (64, 64), "blue")
    small = Image.new("RGB", (16, 16), "red")
    data = encoded(image, format, sizes=[(16, 16), (64, 64)], append_images=[small])
    result = decode_rgb(data)
    assert min(result.size) >= 64
    assert (np.asarray(result) == (0, 0, 255)).all()


def test_the_largest_page_of_a_tiff_that_begins_with_a_small_copy():
    pages = [Image.new("RGB", (16, 16), "red"), Image.new("RGB", (64, 64), "blue")]
    data = encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:], tiffinfo={254: 1})
    assert decode_rgb(data).size == (64, 64)
    assert decode_rgb(encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:])).size == (16, 16)


HEADS = {
    "HEIC": (box(b"heic", b"mif1"), box(b"mif1", b"heic")),
    "JPEG XL": (b"\xff\x0a" + b"x" * 50, b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(30)),
    "video": (box(b"isom", b"mp41"), box(b"qt  "), b"\x1aE\xdf\xa3" + bytes(30), b"RIFF\1\0\0\0AVI LIST"),
    "raw photograph": (box(b"crx "), b"FUJIFILMCCD-RAW 0201", b"II*\0\x10\0\0\0CR\2\0" + bytes(30), b"IIRO\x08\0\0\0"),
    "drawing": (b"<svg xmlns='x'/>", b"\xef\xbb\xbf<?xml version='1.0'?>\n<!-- by hand -->\n<svg width='9'/>",
                b"<?xml version='1.0'?><!DOCTYPE svg PUBLIC ''>", b"%!PS-Adobe-3.0"),
    "picture with layers": (b"8BPS\0\1" + bytes(30), b"gimp xcf v011"),
    "PDF": (b"%PDF-1.4\n",),
    "web page": (b"<!DOCTYPE html><html>", b"\n <HTML><HEAD>", b"<?xml version='1.0'?><!DOCTYPE html PUBLIC>",
                 b"HTTP/1.1 403 Forbidden"),
    "error message": (b'{"error": "not found"}', b"<h1>Bad gateway</h1>", b"{}", b"404: Not Found", b'["no"]',
                      b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code>", b"Not Found",
                      b"404 page not found"),
    "Git LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n",),
    "git-annex pointer": (b"/annex/objects/SHA256E-s100--aa.jpg\n",),
    "link as a text": (b"../img/real.jpg", b"XSym\n0020\nabc\n../img/real.jpg\n", b"!<symlink>\xff\xfe/\0x\0"),
    "gzip data": (b"\x1f\x8b\x08\0" + bytes(30),),
    "archive": (b"PK\3\4" + bytes(30), b"Rar!\x1a\7", b"7z\xbc\xaf\x27\x1c"),
    "only zeros": (bytes(512), bytes(20)),
    "unsupported type": (b"SIMPLE  =                    T", b"\x76\x2f\x31\x01" + bytes(9), b"#?RADIANCE\n"),
    "picture as text": (b"data:image/png;base64,iVBORw0KGgo", base64.b64encode(encoded(RED, "PNG")),
                        base64.encodebytes(encoded(RED, "JPEG")), b'"' + base64.b64encode(encoded(RED, "WEBP")) + b'"',
                        base64.b64encode(encoded(RED, "GIF")), b'{"image": "' + base64.b64encode(encoded(RED, "PNG")),
                        b"MIME-Version: 1.0\r\nContent-Transfer-Encoding: base64\r\n\r\n/9j/4AAQSkZJRg"),
    "saved as text": (encoded(RED, "JPEG").decode("latin-1").encode(), encoded(RED, "JPEG").decode("utf8", "replace")
                      .encode()),
    "text": (b"a red car", b"BMW cars", b"P3 players", b"GIF of a cat", b"https://example.org/a.jpg", "фото".encode()),
    "not a picture": (b"II", b"\0\1\2\3" * 20, b"MZ\x90\0", b"\n"),
}


@pytest.mark.parametrize(("reason", "head"), [(reason, head) for reason, heads in HEADS.items() for head in heads])
def test_what_is_no_picture_is_named_by_its_contents(reason, head):
    assert format_of(head) is None
    assert what_else(head) == reason
    with pytest.raises(ImageRefused) as caught:
        decode_rgb(head)
    assert caught.value.reason == reason


def test_every_reason_of_the_contents_but_the_last_has_a_remedy():
    lines = remedies([*HEADS, "truncated", "empty file", "7 bands", "64-bit real numbers", "truncated"])
    assert len(lines) == len(HEADS) - 1 + 4
    assert lines[0] == "HEIC: pip install pillow-heif"
    assert remedies(["not a picture", "took too long"]) == []
    assert all(line.partition(": ")[2] for line in lines)


def test_formats_are_opened_by_their_signature_alone(monkeypatch):
    """Pillow would take nearly any bytes for a TGA, and run other programs for PostScript."""
    random = np.random.default_rng(11)
    assert sum(format_of(random.bytes(64)) is not None for _ in range(20_000)) < 20
    assert not {"EPS", "PSD", "FITS", "WMF", "MPEG", "PDF"} & set(FORMATS)


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def jpeg():
    return encoded(RGB, "JPEG")


@pytest.mark.parametrize("name", [
    "a.jfif", "a.JPE", "a.jif", "a.jpg_large", "a.JPG!d", "a.jpeg~", "a.jpg@80w", "a.png:large", "a.webp-1", "a.apng",
    "a.pnm", "a.ppm", "a.pgm", "a.pbm", "a.tga", "a.qoi", "a.pcx", "a.ico", "a.icns", "a.dds", "a.jp2", "a.j2k",
    "a.mpo", "a.dib", "a.sgi", "a.avif", "a.TIF"])
def test_these_suffixes_are_those_of_pictures(folder, name):
    assert [picture.name for picture in find_pictures(folder({name: b"anything"})).pictures] == [name]


@pytest.mark.parametrize("name", ["0a1b2c3d", "photo", "a.jpg.1", "a.jpg (1)", "a.image", "a.jpeg?w=80", "a.v2/photo",
                                  "a.heic", "a.psd", "a.unknown-suffix", "a.jpg.old"])
def test_a_picture_under_any_other_name_is_known_by_its_contents(folder, name):
    found = find_pictures(folder({name: jpeg()}))
    assert [picture.name for picture in found.pictures] == [name]
    assert found.unusable == ()


def test_the_caption_of_a_picture_without_a_suffix(folder):
    found = find_pictures(folder({"v1.5/0a1b": jpeg(), "v1.5/0a1b.txt": "a red car"}))
    assert found.pictures[0].captions == ("a red car",)


@pytest.mark.parametrize("content", [b"", b"BMW, a red car", b"P3 is a player", b"GIF", b"a red car", b"\xff\xfea\0",
                                     b'{"caption": "a"}', b"%PDF-1.4", b"PK\3\4", b"<html>", b"\0" * 99])
def test_other_files_of_unknown_names_are_no_pictures_and_not_reported(folder, content):
    found = find_pictures(folder({"a.png": None, "LICENSE": content, "b.words": content}))
    assert [picture.name for picture in found.pictures] == ["a.png"]
    assert found.unusable == ()


@pytest.mark.parametrize(("head", "reason"), [(HEADS["HEIC"][0], "HEIC"), (b"8BPS\0\1", "picture with layers"),
                                              (HEADS["JPEG XL"][0], "JPEG XL"), (b"<svg/>", "drawing")])
def test_pictures_of_unknown_names_that_cannot_be_opened_are_reported(folder, head, reason):
    assert find_pictures(folder({"a.png": None, "photo": head})).unusable == (("photo", reason),)


@pytest.mark.parametrize(("name", "reason"), [
    ("a.svg", "drawing"), ("a.HEIC", "HEIC"), ("a.hif", "HEIC"), ("a.jxl", "JPEG XL"), ("a.nef", "raw photograph"),
    ("a.DNG", "raw photograph"), ("a.psd", "picture with layers"), ("a.exr", "unsupported type")])
def test_unsupported_suffixes_have_their_reason(folder, name, reason, monkeypatch):
    monkeypatch.setattr(file_types, "PLUGINS", ())
    tiff = encoded(RGB, "TIFF")                 # as raw photographs begin
    assert find_pictures(folder({"b.png": None, name: tiff if reason == "raw photograph" else b""})).unusable == (
        (name, reason),)


def test_a_folder_without_a_picture_says_what_it_holds_and_what_helps(folder, monkeypatch):
    monkeypatch.setattr(file_types, "PLUGINS", ())
    root = folder({"a.heic": box(b"heic"), "b.heic": box(b"heic"), "c.svg": "<svg/>", "notes": "text"})
    with pytest.raises(DataError, match=r"holds no picture that can be read \(HEIC 2, drawing 1\)") as caught:
        find_pictures(root)
    assert "HEIC: pip install pillow-heif" in caught.value.hint


def test_no_known_suffix_is_looked_into(folder, monkeypatch):
    """So that a hundred thousand pictures are listed fast."""
    root = folder({"a.png": None, "a.txt": "A", "b.jpg": None, "metadata.jsonl": '{"file_name": "a.png"}\n', "c": "C"})
    looked, honest = [], file_types.format_of
    monkeypatch.setattr("diffuse_cli.data.file_tree.format_of", lambda head: looked.append(head) or honest(head))
    find_pictures(root, captions="none")
    assert looked == [b"C"]


def test_plugins_are_searched_for_once_and_not_for_every_file(folder, monkeypatch):
    root = folder({"a.png": None, **{f"{number}.sound": b"\0" for number in range(9)}})
    searched, search = [], importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: searched.append(name) or search(name))
    file_types._is_installed.cache_clear()
    find_pictures(root)
    assert sorted(searched) == ["pillow_heif", "pillow_jxl"]


def test_a_pipe_without_a_suffix_is_not_waited_for(folder):
    import os
    root = folder({"a.png": None})
    os.mkfifo(root / "pipe")
    assert len(find_pictures(root).pictures) == 1


def test_a_known_picture_in_memory_is_the_same_from_a_stream():
    assert Image.open(io.BytesIO(jpeg())).size == decode_rgb(jpeg()).size
