"""Texts of a PNG are read chunk by chunk, bounded, and as Pillow reads them; damaged ones are refused."""

import random
import struct
import zlib

import pytest
from PIL import Image, PngImagePlugin

from diffuse_cli.data import png_texts
from diffuse_cli.data.picture_files import ImageRefused
from diffuse_cli.data.png_texts import read_png_text

SIGNATURE = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(path, *chunks: bytes):
    path.write_bytes(SIGNATURE + chunk(b"IHDR", bytes(13)) + b"".join(chunks) + chunk(b"IEND"))
    return path


def refused(path, reason: str) -> None:
    with pytest.raises(ImageRefused) as refusal:
        read_png_text(path, "diffuse")
    assert reason in refusal.value.reason


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(("text", "international"), [
    ('{"a": 1}', False), ("é", False), ("漢字 \x1b[2J", True), ("", True)])
def test_the_texts_that_pillow_writes_are_read(tmp_path, text, international, zipped):
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("other", "nothing")
    (chunks.add_itxt if international else chunks.add_text)("diffuse", text, zip=zipped)
    Image.new("RGB", (4, 4)).save(tmp_path / "made.png", pnginfo=chunks)
    assert read_png_text(tmp_path / "made.png", "diffuse") == text
    assert read_png_text(tmp_path / "made.png", "other") == "nothing"
    assert read_png_text(tmp_path / "made.png", "missing") is None


def test_what_is_no_png_is_named(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "made.jpg")
    refused(tmp_path / "made.jpg", "not a PNG")
    (tmp_path / "page.png").write_bytes(b"<!DOCTYPE html><html></html>")
    refused(tmp_path / "page.png", "web page")
    refused(tmp_path / "missing.png", "not there")


def test_bounded_in_every_way(tmp_path, monkeypatch):
    bomb = b"diffuse\0\0" + zlib.compress(bytes(2**24))
    refused(png(tmp_path / "bomb.png", chunk(b"zTXt", bomb)), "over 1 MB")
    refused(png(tmp_path / "long.png", chunk(b"tEXt", b"diffuse\0" + bytes(2**20))), "over 1 MB")
    many = png(tmp_path / "many.png", *[chunk(b"abCd")] * 20)
    assert read_png_text(many, "diffuse") is None
    monkeypatch.setattr(png_texts, "MAX_CHUNKS", 20)
    refused(many, "damaged")


def test_a_long_chunk_is_stepped_over(tmp_path):
    path = tmp_path / "long.png"
    with path.open("wb") as file:
        file.write(SIGNATURE + struct.pack(">I", 200 * 2**20) + b"IDAT")
        file.seek(200 * 2**20 + 4, 1)           # takes no room on the disk
        file.write(chunk(b"tEXt", b"diffuse\0found"))
    assert read_png_text(path, "diffuse") == "found"


@pytest.mark.parametrize(("change", "reason"), [
    (lambda data: data[:-20], "truncated"), (lambda data: data.replace(b"found", b"fOund"), "damaged"),
    (lambda data: SIGNATURE, "truncated"), (lambda data: data[:8] + b"\xff" * 8, "truncated"),
    (lambda data: data.replace(chunk(b"tEXt", b"diffuse\0found"), chunk(b"iTXt", b"diffuse\0\0\0\0\0\xff")), "damaged"),
    (lambda data: data.replace(chunk(b"tEXt", b"diffuse\0found"), chunk(b"zTXt", b"diffuse\0\0xyz")), "damaged"),
])
def test_damaged_ones_are_refused(tmp_path, change, reason):
    path = png(tmp_path / "made.png", chunk(b"tEXt", b"diffuse\0found"))
    path.write_bytes(change(path.read_bytes()))
    refused(path, reason)


def test_mutations_raise_nothing_else(tmp_path):
    rng, path = random.Random(0), tmp_path / "mutated.png"
    sound = png(path, chunk(b"zTXt", b"diffuse\0\0" + zlib.compress(b"found")), chunk(b"iTXt", b"diffuse\0\0\0\0\0x")
                ).read_bytes()
    for _ in range(500):
        mutated = bytearray(sound)
        for _ in range(rng.randint(1, 4)):
            place = rng.randrange(len(mutated))
            mutated[place : place + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
        path.write_bytes(mutated)
        try:
            assert isinstance(read_png_text(path, "diffuse"), str | None)
        except ImageRefused:
            continue
