"""The doors as functions of bytes, with sound inputs to mutate: what a stranger sends is accepted or refused, no more.

Each door returns, or raises the errors in `REFUSALS`; anything else is a finding. `tests/corpus/DOOR` holds inputs
that once were findings, and small ones of every kind; all are replayed by every test run. Not a test itself.
`fuzz.py` looks for findings, guided by coverage.
"""

import contextlib
import io
import json
import random
import re
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import text_doors
from PIL import Image, PngImagePlugin

from diffuse_cli.checks import from_dict
from diffuse_cli.cli.prompt_files import PromptLine
from diffuse_cli.data import archives, fitting, images, tables
from diffuse_cli.data.arrow_files import ARROW_SUFFIXES, ArrowTable
from diffuse_cli.data.containers import File
from diffuse_cli.data.picture_files import ImageRefused
from diffuse_cli.data.png_texts import read_png_text
from diffuse_cli.data.text_files import NotText, decode_text
from diffuse_cli.errors import DiffuseError
from diffuse_cli.files.strict_json import JsonError, loads_strict
from diffuse_cli.network.tokenizer import load_tokenizer, train_tokenizer
from diffuse_cli.storage import diffusers_config, safetensors_file, safetensors_header
from diffuse_cli.storage.model_info import info_of_header

CORPUS = Path(__file__).parents[1] / "corpus"
REFUSALS = (DiffuseError, ImageRefused, JsonError, NotText, tables.NoTable)
TABLES = (".csv", ".tsv", ".jsonl", ".json", ".txt", ".parquet")
_PLACE = Path(tempfile.mkdtemp(prefix="doors-"))


def _file(data: bytes, name: str = "given") -> Path:
    path = _PLACE / name
    path.write_bytes(data)
    return path


# ── The doors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def model_header(data: bytes) -> None:
    """A model file: its header, configuration, summary and words, and its seal."""
    path = _file(data)
    with contextlib.suppress(DiffuseError):
        safetensors_file.verify_seal(path)
    info = info_of_header(safetensors_file.read_header(path))
    info.training.to_json()


def tokenizer(data: bytes) -> None:
    load_tokenizer(data.decode(errors="replace"))


def picture(data: bytes) -> None:
    image = images.decode_rgb(data, target=8)
    pixels = fitting.fitted_pixels(image, 8)
    assert (image.mode, pixels.shape, pixels.dtype) == ("RGB", (8, 8, 3), np.uint8)


def captions(data: bytes) -> None:
    """A table of captions; the first byte chooses its form. The same bytes as a text and as a file of prompts."""
    file = File("given", _file(data[1:], f"given{TABLES[(data[:1] or b'a')[0] % len(TABLES)]}"))
    with contextlib.suppress(*REFUSALS):
        for place, row in tables.read_rows(file, is_picture=lambda value: value.endswith(".png"), notes=[]):
            assert (type(place), type(row)) == (str, dict)
    text, _ = decode_text(data[1:])
    for line in text.splitlines()[:20]:
        with contextlib.suppress(*REFUSALS):
            from_dict(PromptLine, loads_strict(line), where="it")


def png_text(data: bytes) -> None:
    text = read_png_text(_file(data), "diffuse")
    assert text is None or len(text) <= 2**20
    if text is not None:
        from diffuse_cli.sampling.png_metadata import SampleMetadata

        from_dict(SampleMetadata, loads_strict(text, limit=128 * 1024), where="metadata")


def folder(data: bytes) -> None:
    """The JSON files of a folder in diffusers' form, as one JSON object."""
    parts = safetensors_header.parse_json(data, infinities=True)
    parts = parts if isinstance(parts, dict) else {}
    part = {name: parts[name] if isinstance(parts.get(name), dict) else {} for name in ("unet", "text", "scheduler")}
    with contextlib.suppress(DiffuseError):
        diffusers_config.read_scheduler(part["scheduler"])
    with contextlib.suppress(DiffuseError):
        diffusers_config.read_unet(part["unet"], None)
    diffusers_config.read_unet(part["unet"], diffusers_config.read_text_encoder(part["text"]))


def archive(data: bytes) -> None:
    """A zip or tar file; the first byte chooses which. Its members are listed and read."""
    path = _file(data[1:], "given.zip" if (data[:1] or b"a")[0] % 2 else "given.tar")
    for number, (_, member) in enumerate(archives._members(path, [])):
        assert number < 1000
        with contextlib.suppress(OSError):
            if not isinstance(member, str):     # otherwise why it cannot be read
                member.read_bytes()


def rows(data: bytes) -> None:
    """A parquet or Arrow file; the first byte chooses which. Its texts and its pictures are read."""
    table = ArrowTable(_file(data[1:], f"given{ARROW_SUFFIXES[(data[:1] or b'a')[0] % 2]}"))
    column = table.image_column()
    assert all(type(row) is dict for row in table.texts(column or ""))
    for row in range(min(table.rows, 10) if column else 0):
        _, piece = table.piece_with(row, column)
        piece.to_pylist()


DOORS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function
    for function in (model_header, tokenizer, picture, captions, png_text, folder, archive, rows)} | {
    name: function for name, (function, _) in text_doors.DOORS.items()}


def is_safe(door: str, data: bytes) -> bool:
    """Whether the door accepts the bytes. Anything but an acceptance or a refusal is raised."""
    try:
        DOORS[door](data)
    except REFUSALS as refusal:
        line = refusal.reason if isinstance(refusal, ImageRefused) else str(refusal)
        assert "\n" not in line, line
        assert len(line) < 1000, line
        return False
    return True


# ── Sound inputs ────────────────────────────────────────────────────────────────────────────────────────────────────


def sound(door: str) -> list[bytes]:
    """Inputs that the door accepts."""
    return {"model_header": _models, "tokenizer": _tokenizers, "picture": _pictures, "captions": _captions,
            "png_text": _png_texts, "folder": _folders, "archive": _archives, "rows": _rows,
            **{name: inputs for name, (_, inputs) in text_doors.DOORS.items()}}[door]()


CONFIG = {"network": {"resolution": 8, "widths": [8], "depths": [1], "attention": ["none"], "head_dim": 8, "groups": 1,
                      "time_width": 8, "text": None}, "schedule": "cosine", "prediction": "v"}


def _models() -> list[bytes]:
    metadata = {"diffuse.format_version": "1", "diffuse.config": json.dumps(CONFIG), "diffuse.words": '{"red": 2}',
                "diffuse.training": '{"name": "a", "step": 3, "lr": 0.1}', "modelspec.title": "a"}
    tensors = [("a.weight", "F32", (2, 2), bytes(16)), ("b", "F16", (), bytes(2))]
    return [b"".join(map(bytes, safetensors_file.encode(tensors, metadata)))]


def _tokenizers() -> list[bytes]:
    return [train_tokenizer(["a red car", "a blue fish"], vocabulary=265).to_str().encode()]


def _encoded(image: Image.Image, format: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


TIFF_COMPRESSIONS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma", "webp")
BILEVEL_COMPRESSIONS = ("group3", "group4", "tiff_ccitt")


def _pictures() -> list[bytes]:
    """A small picture in every format and mode that Pillow writes here, and with every compression of TIFF."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (12, 14, 3), np.uint8))
    found = []
    for mode in ("RGB", "RGBA", "L", "1", "P", "CMYK", "LA", "I;16", "F"):
        for format in ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "AVIF", "JPEG2000", "PPM", "TGA", "ICO", "QOI"):
            with contextlib.suppress(Exception):        # not every format holds every mode
                image = colours.convert(mode) if mode != "I;16" else Image.fromarray(
                    rng.integers(0, 65536, (12, 14), np.uint16))
                found.append(_encoded(image, format))
    for compression in TIFF_COMPRESSIONS + BILEVEL_COMPRESSIONS:
        with contextlib.suppress(Exception):
            image = colours.convert("1") if compression in BILEVEL_COMPRESSIONS else colours
            found.append(_encoded(image, "TIFF", compression=compression))
    frames = [Image.fromarray(rng.integers(0, 256, (12, 14, 3), np.uint8)) for _ in range(2)]
    found += [_encoded(colours, format, save_all=True, append_images=frames) for format in ("GIF", "PNG", "WEBP")]
    exif = b"Exif\0\0II*\0\x08\0\0\0" + bytes(20)
    found.append(_encoded(colours, "JPEG", progressive=True, exif=exif))
    return [data for data in found if is_safe("picture", data)]


def _captions() -> list[bytes]:
    texts = {".csv": b"file_name,text\na.png,a red car\n\"b.png\",\"x, y\"\n", ".tsv": b"a.png\ta car\nb.png\tb\n",
             ".jsonl": b'{"file_name": "a.png", "text": "a"}\n{"file_name": "b.png", "n": 1}\n',
             ".json": b'{"images": [{"id": 1, "file_name": "a.png"}],'
                      b'"annotations": [{"image_id": 1, "caption": "a"}]}',
             ".txt": b"a.png|a\nb.png|b\n"}
    encoded = [(suffix, text.decode().encode(encoding)) for suffix, text in texts.items()
               for encoding in ("utf-8", "utf-16", "utf-8-sig")]
    return [bytes([TABLES.index(suffix)]) + text for suffix, text in encoded] + [
        b'\x02{"prompt": "a", "n": 2, "seed": 3, "steps": 4, "sampler": "ddim", "guidance": 2.5}',
        "\x04a.png|Größe, café".encode("latin-1")]


SETTINGS = {"prompt": "a", "seed": 1, "sampler": "ddim", "steps": 4, "guidance": 3.0, "guidance_interval": [0.2, 6.0],
            "batch_size": 8, "precision": "fp32", "size": [8, 8], "model": "m", "model_sha256": "0" * 64,
            "version": "0.1.0"}


def _png_texts() -> list[bytes]:
    found = []
    for international in (False, True):
        for zipped in (False, True):
            chunks = PngImagePlugin.PngInfo()
            (chunks.add_itxt if international else chunks.add_text)("diffuse", json.dumps(SETTINGS), zip=zipped)
            found.append(_encoded(Image.new("RGB", (2, 2)), "PNG", pnginfo=chunks))
    return found


def _folders() -> list[bytes]:
    from diffuse_cli.model_config import ModelConfig, NetworkConfig, TextConfig

    network = NetworkConfig(resolution=8, widths=(8, 8), depths=(1, 1), attention=("none", "full"), head_dim=4,
                            groups=4, time_width=16, text=TextConfig(vocabulary=280, width=16, layers=1))
    config = ModelConfig(network=network, schedule="linear", prediction="v")
    betas = [1e-4 + (0.02 - 1e-4) * step / 999 for step in range(1000)]
    return [json.dumps({"unet": diffusers_config.unet_config(network),
                        "text": diffusers_config.text_encoder_config(network.text),
                        "scheduler": diffusers_config.scheduler_config(config, "ddpm", betas)}).encode()]


def _archives() -> list[bytes]:
    """The first byte says which kind of archive follows."""
    files = {"a.png": b"x" * 600, f"{'long' * 40}.png": b"y", "dir/é.txt": b"a red car"}
    found = []
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", compression) as packed:
            for name, data in files.items():
                packed.writestr(name, data)
        found.append(b"a" + stream.getvalue())
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=format) as tar:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                with contextlib.suppress(ValueError):               # a name that is too long for the oldest format
                    tar.addfile(info, io.BytesIO(data))
        found.append(b"b" + stream.getvalue()[:8192])
    return found


def _rows() -> list[bytes]:
    """The first byte says which kind of file follows: odd for Arrow."""
    import pyarrow
    from pyarrow import ipc, parquet

    picture = _encoded(Image.new("RGB", (2, 2)), "PNG")
    table = pyarrow.table({
        "image": [{"bytes": picture, "path": f"{number}.png"} for number in range(3)], "text": ["a", None, "Größe"],
        "label": pyarrow.array([0, 1, 0]), "tags": [["x", "y"], [], None],
        "kind": pyarrow.array(["p", "q", "p"]).dictionary_encode()})
    found = []
    for compression in ("none", "snappy", "zstd"):
        stream = io.BytesIO()
        parquet.write_table(table, stream, row_group_size=2, compression=compression)
        found.append(b"b" + stream.getvalue())
    for compression in (None, "zstd"):
        for new in (ipc.new_file, ipc.new_stream):
            stream = io.BytesIO()
            with new(stream, table.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
                writer.write_table(table, max_chunksize=2)
            found.append(b"a" + stream.getvalue())
    return found


# ── Mutations ───────────────────────────────────────────────────────────────────────────────────────────────────────

ODD_NUMBERS = (b"0", b"-1", b"1e999", b"NaN", b"1.5", b"18446744073709551616", b"9" * 400, b"null", b"[]", b"{}", b'""',
               b'"\\u0000"', b'"\\ud800"', b"true", b"4294967296")
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?")
_WORD = re.compile(rb'"[^"\\]{1,40}"')


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four changes: bits, bytes, pieces, cuts, repeats, numbers and names."""
    result = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 4))):
        place, length = rng.randrange(len(result) + 1), rng.choice((0, 1, 2, 4, 8, 64))
        kind = rng.randrange(9)
        if kind == 0 and place < len(result):
            result[place] ^= 1 << rng.randrange(8)
        elif kind == 1:
            result[place : place + length] = rng.randbytes(length)
        elif kind == 2:
            del result[place : place + length]
        elif kind == 3:
            result[place:place] = rng.randbytes(length)
        elif kind == 4:
            del result[place:]
        elif kind == 5:
            other = rng.randrange(len(result) + 1)
            result[place:place] = result[other : other + length]
        elif kind == 6:
            result[place : place + 4] = struct.pack(rng.choice("<>") + "I", rng.choice((0, 1, 2**31, 2**32 - 1, 65535)))
        elif kind == 7 and (numbers := [*_NUMBER.finditer(result)]):
            match = rng.choice(numbers)
            result[match.start() : match.end()] = rng.choice(ODD_NUMBERS)
        elif words := [*_WORD.finditer(result)]:
            first, second = rng.choice(words), rng.choice(words)
            result[first.start() : first.end()] = bytes(second[0])
        if not result:
            return b""
    return bytes(result)


def resealed(data: bytes) -> bytes:
    """A mutated model whose header's length and seal fit again, as a stranger would write it; as it is if none can."""
    import hashlib

    body = data[8:]
    end = body.rfind(b"}", 0, body.find(b"\0") if b"\0" in body else len(body)) + 1
    head, rest = body[:end], body[end:].lstrip(b" ")
    head += b" " * (-len(head) % 8)
    whole = len(head).to_bytes(8, "little") + head + rest
    place = re.search(rb'"diffuse\.seal":"([^"]{64})"', whole)
    if place is None:
        return whole
    zeroed = whole[: place.start(1)] + b"0" * 64 + whole[place.end(1) :]
    return whole[: place.start(1)] + hashlib.sha256(zeroed).hexdigest().encode() + whole[place.end(1) :]


def mended_png(data: bytes) -> bytes:
    """The PNG with right check sums, so that mutations reach what is behind them."""
    result, place = bytearray(data[:8]), 8
    while place + 8 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunk = data[place + 4 : place + 8 + length]
        result += data[place : place + 4] + chunk + struct.pack(">I", zlib.crc32(chunk))
        place += 12 + length
    return bytes(result)


def mutations(door: str, count: int, rng: random.Random) -> Iterable[bytes]:
    """`count` mutations of the door's sound inputs; half of the models and PNGs are made to fit again."""
    inputs = sound(door)
    for number in range(count):
        data = mutated(inputs[number % len(inputs)], rng)
        if number // len(inputs) % 2:
            data = resealed(data) if door == "model_header" else mended_png(data) if data[1:4] == b"PNG" else data
        yield data


def corpus(door: str) -> list[Path]:
    return sorted((CORPUS / door).iterdir()) if (CORPUS / door).is_dir() else []
