"""Doors to texts that other programs write, as functions of bytes, and sound inputs of each: see `doors`.

Texts inside pictures and beside them, prompts of other programs, and the form of the page.
"""

import io
import json
import struct
import tempfile
from pathlib import Path

from PIL import Image, PngImagePlugin

from diffuse_cli.cli import prompt_files
from diffuse_cli.data import embedded_captions
from diffuse_cli.data.containers import File
from diffuse_cli.data.sidecar_texts import SidecarReader
from diffuse_cli.data.source_captions import SourceCaptions
from diffuse_cli.sampling import other_tools
from diffuse_cli.sampling.png_metadata import _FOREIGN
from diffuse_cli.ui.form import Form

PROMPTS = (".txt", ".csv", ".tsv", ".json", ".toml")
SIDECARS = (".txt", ".json", ".xmp", ".caption")
_PLACE = Path(tempfile.mkdtemp(prefix="text-doors-"))


def _chosen(data: bytes, choices: tuple[str, ...]) -> tuple[str, bytes]:
    """What the first byte chooses, and the rest."""
    return choices[(data[:1] or b"\0")[0] % len(choices)], data[1:]


# ── The doors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def embedded(data: bytes) -> None:
    """A picture of which only the texts inside are read."""
    suffix = ".png" if data[1:4] == b"PNG" else ".webp" if data[:4] == b"RIFF" else ".jpg"
    path = _PLACE / f"given{suffix}"
    path.write_bytes(data)
    text, _ = embedded_captions._text_of(File(path.name, path))
    assert text == " ".join(text.split())
    text.encode()


def sidecar(data: bytes) -> None:
    """A text beside a picture; the first byte chooses its form."""
    suffix, text = _chosen(data, SIDECARS)
    path = _PLACE / f"given{suffix}"
    path.write_bytes(text)
    reader = SidecarReader(SourceCaptions("texts beside the pictures", present=True), joined=bool(len(text) % 2))
    reader.read([File(path.name, path)])
    for _, captions in reader.captions.items():
        assert all(caption and "\n" not in caption for caption in captions)


def prompts(data: bytes) -> None:
    """A file of prompts, or a text in a PNG of another program; the first byte chooses which."""
    which, text = _chosen(data, PROMPTS + _FOREIGN)
    if which in _FOREIGN:
        found = other_tools.parse_png_text(which, text.decode("utf-8", "replace"))
        assert found is None or len(found.ignored) < 10_000
        return
    path = _PLACE / f"given{which}"
    path.write_bytes(text)
    for line in prompt_files.read_prompts(str(path)):
        assert isinstance(line.prompt, str)


def form(data: bytes) -> None:
    """What the page sends, without pictures."""
    given = Form.read(data)
    assert not given.seed or int(given.seed) >= 0


# ── Sound inputs ────────────────────────────────────────────────────────────────────────────────────────────────────

WEBUI = "a red car, <lora:x:0.8> (road:1.2)\nNegative prompt: ugly\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1"
GRAPH = {"3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "cfg": 7.5, "sampler_name": "euler",
                                                    "positive": ["6", 0], "negative": ["7", 0]}},
         "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red car", "clip": ["4", 1]}},
         "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["4", 1]}}}
WORKFLOW = {"nodes": [{"id": 6, "type": "CLIPTextEncode", "inputs": [{"name": "clip", "link": 3}],
                       "widgets_values": ["a red car"]},
                      {"id": 3, "type": "KSampler", "inputs": [{"name": "positive", "link": 4}]},
                      {"id": 9, "mode": 2, "type": "KSampler", "inputs": [{"name": "positive", "link": 3}]}],
            "links": [[3, 4, 1, 6, 0, "CLIP"], [4, 6, 0, 3, 0, "CONDITIONING"]]}
XMP = ('<x:xmpmeta><dc:description><rdf:Alt><rdf:li xml:lang="x-default">a red &amp; old &#99;ar</rdf:li></rdf:Alt>'
       "</dc:description><dc:subject><rdf:Bag><rdf:li>car</rdf:li><rdf:li>red</rdf:li></rdf:Bag></dc:subject>"
       "</x:xmpmeta>")


def encoded(format: str, **options) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (200, 30, 30)).save(stream, format, **options)
    return stream.getvalue()


def exif_of(entries: list[tuple[int, int, bytes]], order: str = "<") -> bytes:
    """A TIFF with one directory of (tag, type, data)."""
    start, directory, values = 10 + 12 * len(entries) + 4, b"", b""
    for tag, kind, data in entries:
        size = len(data)
        place = data.ljust(4, b"\0") if size <= 4 else struct.pack(f"{order}I", start + len(values))
        values += data if size > 4 else b""
        directory += struct.pack(f"{order}HHI", tag, kind, size) + place
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(entries)) + directory + \
        bytes(4) + values


def iptc_of(fields: list[tuple[int, bytes]]) -> bytes:
    """Photoshop's resource that holds fields of IPTC: 25 is a keyword, 120 the caption."""
    data = b"".join(b"\x1c\x02" + bytes([number]) + struct.pack(">H", len(value)) + value for number, value in fields)
    return b"8BIM\x04\x04\0\0" + struct.pack(">I", len(data)) + data


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    """A JPEG with segments of (marker, data) before all others."""
    data = encoded("JPEG")
    return data[:2] + b"".join(bytes([0xFF, marker]) + struct.pack(">H", len(text) + 2) + text
                               for marker, text in segments) + data[2:]


def webp_with(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP with chunks of (name, data) behind the pixels."""
    body = encoded("WEBP")[8:] + b"".join(
        name + struct.pack("<I", len(text)) + text + bytes(len(text) % 2) for name, text in chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _png_with(name: str, text: str) -> bytes:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(name, text) if name.startswith("XML") else chunks.add_text(name, text, zip=len(text) > 200)
    return encoded("PNG", pnginfo=chunks)


def _embedded() -> list[bytes]:
    exif = exif_of([(0x010E, 2, b"a red car\0"), (0x9C9B, 1, "ein Auto".encode("utf-16-le")),
                    (0x9C9E, 1, "car;red".encode("utf-16-le"))])
    iptc = b"Photoshop 3.0\0" + b"8BIM\x04\x0a\x02ab\0" + struct.pack(">I", 3) + b"xyz\0" + iptc_of(
        [(25, b"car"), (25, b"caf\xe9"), (120, b"a red car")])
    xmp = b"http://ns.adobe.com/xap/1.0/\0" + XMP.encode()
    comment = Image.Exif()
    comment.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + WEBUI.encode("utf-16-be")
    return [jpeg_with((0xE1, b"Exif\0\0" + exif)), jpeg_with((0xED, iptc)), jpeg_with((0xE1, xmp)),
            jpeg_with((0xE1, b"Exif\0\0" + exif_of([(0x010E, 2, b"gr\xfcn\0")], ">")), (0xED, iptc), (0xE1, xmp)),
            webp_with((b"EXIF", exif), (b"XMP ", XMP.encode())), encoded("JPEG", exif=comment),
            encoded("WEBP", exif=comment), _png_with("parameters", WEBUI), _png_with("prompt", json.dumps(GRAPH)),
            _png_with("prompt", json.dumps(WORKFLOW)), _png_with("XML:com.adobe.xmp", XMP),
            _png_with("Comment", '{"prompt": "a red car", "uc": "ugly"}')]


def _sidecars() -> list[bytes]:
    texts = {".txt": ["a red car\na car, red", "de.utf8=ein Auto\nen.utf8=a car", "0 0.5 0.5 0.1 0.1", WEBUI,
                      "<p>a car &amp;amp; a caf&eacute;</p><br/>", '{"caption": "a car"}'],
             ".json": ['{"caption": ["a car", "red"], "tags": "car, red"}', json.dumps(GRAPH), json.dumps(WORKFLOW),
                       '{"flags": {"car": true}, "shapes": [], "imagePath": "a.png"}',
                       '{"node": {"edges": [{"text": "a"}]}, "title": "a.png", "description": "b"}',
                       '{"conversations": [{"from": "human", "value": "?"}, {"from": "gpt", "value": "a car"}]}'],
             ".xmp": [XMP], ".caption": ["['a car', \"it's red\"]"]}
    encoded = [(suffix, text.encode()) for suffix, several in texts.items() for text in several]
    encoded.append((".txt", "Größe, café, naïve".encode("latin-1")))
    return [bytes([SIDECARS.index(suffix)]) + text for suffix, text in encoded]


def _prompts() -> list[bytes]:
    files = {".txt": ["a red car\n# no\na car --n ugly --s 20 --l 7\n" + '{"prompt": "a", "seed": 3}', WEBUI],
             ".csv": ["prompt,seed,steps\na red car,1,20\n\"a, b\",2,\n"], ".tsv": ["prompt\tcfg\na\t7\n"],
             ".json": ['[{"prompt": "a", "negative_prompt": "b"}, "c"]', '{"prompts": ["a", "b"]}'],
             ".toml": ['[prompt]\nsteps = 20\n[[prompt.subset]]\nprompt = "a"\nseed = 1\n']}
    foreign = {"parameters": WEBUI, "prompt": json.dumps(GRAPH), "workflow": json.dumps(WORKFLOW),
               "invokeai_metadata": '{"positive_prompt": "a car", "negative_prompt": "b", "steps": 30, "seed": 7}',
               "sd-metadata": '{"image": {"prompt": [{"prompt": "a", "weight": 1}], "steps": 9}}',
               "fooocus_scheme": '{"prompt": "a", "guidance_scale": 4}'}
    choices = PROMPTS + _FOREIGN
    return [bytes([choices.index(name)]) + text.encode() for name, several in
            ({**files, **{name: [text] for name, text in foreign.items()}}).items() for text in several]


def _forms() -> list[bytes]:
    return [json.dumps(values).encode() for values in (
        {"model": "demo", "prompt": "a car", "seed": "7", "count": 2, "steps": 4, "guidance": 3.5, "sampler": "ddim",
         "guidance_interval": [0.2, 6.0], "batch_size": 8, "precision": "fp32", "size": "256x256"},
        {"model": "demo", "init": "AAAA", "init_name": "a.png", "mask": "AAAA", "strength": 0.5})]


DOORS = {function.__name__: (function, inputs) for function, inputs in (
    (embedded, _embedded), (sidecar, _sidecars), (prompts, _prompts), (form, _forms))}
