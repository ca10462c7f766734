"""What people wrote into their pictures: the description in the XMP, IPTC or Exif of a JPEG, PNG or WebP.

The file may come from a stranger. Of each form of text, the first that it holds is read, a megabyte at most, by steps
over the other parts. None is read twice: guessing the encoding of a long text takes a tenth of a second.

Forms: XMP specification part 3; IPTC-IIM 4.2; Exif 2.32, section 4.6; Windows' own tags of Exif are UTF-16.
"""

import io
import re
from collections.abc import Iterator
from typing import IO

from .caption_text import captions_of_xmp, tidy
from .code_pages import guess_code_page
from .name_words import words_of_name
from .picture_files import ImageRefused
from .png_texts import first_text

MAX_BYTES = 2**20                               # of a picture in which its texts must be
_MAX_PARTS = 1_000                              # parts of a file that are stepped over
_XMP, _IPTC = b"http://ns.adobe.com/xap/1.0/\0", b"Photoshop 3.0\0"
_PNG_TEXTS = ("XML:com.adobe.xmp", "Description", "Title")
# Exif's ImageDescription; Windows' title, subject and comment; Windows' keywords
_DESCRIPTIONS, _KEYWORDS = (0x010E, 0x9C9B, 0x9C9F, 0x9C9C), 0x9C9E
# Words that cameras and programs write there themselves, besides those that say nothing in the name of a file.
_WORDS = """
    digital still konica minolta kodak casio samsung ricoh pentax leica exif dav sdr cof hdr fbt ptr rhdr oznor rptnb
    bty mde ozedf default x-default ascii created with gimp processed by file written adobe
"""
_OF_CAMERAS = frozenset(_WORDS.split())


def description_in(file: IO[bytes]) -> str:
    """The description in a picture, else its keywords, as tags; "" without either, or if it says nothing."""
    texts = {"description": "", "keywords": ""}
    try:
        for kind, text in _texts(file):
            text = tidy(text)
            if text and not texts[kind] and _says_something(text):
                texts[kind] = text
    except (OSError, ImageRefused):
        return ""
    return texts["description"] or texts["keywords"]


def _says_something(text: str) -> bool:
    words = re.split(r"[\s_/\\]+", text)
    return any(word.lower() not in _OF_CAMERAS and words_of_name(word) for word in words)


def _texts(file: IO[bytes]) -> Iterator[tuple[str, str]]:
    """("description" or "keywords", text) of everything that a picture holds, the most telling first."""
    start = file.read(12)
    file.seek(0)
    if start.startswith(b"\x89PNG"):
        name, text = first_text(file, _PNG_TEXTS)
        if text:
            yield from _texts_of_xmp(text.encode()) if name.startswith("XML:") else (("description", text),)
        return
    parts: dict[str, bytes] = {}
    for form, data in (_parts_of_jpeg(file) if start.startswith(b"\xff\xd8") else
                       _parts_of_webp(file) if start[:4] + start[8:] == b"RIFFWEBP" else ()):
        parts.setdefault(form, data)            # a picture has one of each form
    for form, read in (("xmp", _texts_of_xmp), ("iptc", _texts_of_iptc), ("exif", _texts_of_exif)):
        yield from read(parts.get(form, b""))


# ── Where texts lie ─────────────────────────────────────────────────────────────────────────────────────────────────


def _parts_of_jpeg(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """("xmp", "iptc" or "exif", data) of the segments before the pixels."""
    position = 2
    for _ in range(_MAX_PARTS):
        file.seek(position)
        start = file.read(4)
        length = int.from_bytes(start[2:], "big")
        if position > MAX_BYTES or len(start) < 4 or start[0] != 0xFF or start[1] == 0xDA or length < 2:
            return
        if start[1] in (0xE1, 0xED):
            data = file.read(length - 2)
            if len(data) < length - 2:
                return
            for form, mark in (("xmp", _XMP), ("iptc", _IPTC), ("exif", b"Exif\0\0")):
                if data.startswith(mark):
                    yield form, data.removeprefix(mark)
        position += 2 + length


def _parts_of_webp(file: IO[bytes]) -> Iterator[tuple[str, bytes]]:
    """("xmp" or "exif", data) of the chunks, which may follow the pixels."""
    position = 12
    for _ in range(_MAX_PARTS):
        file.seek(position)
        start = file.read(8)
        length = int.from_bytes(start[4:], "little")
        if len(start) < 8:
            return
        if start[:4] in (b"XMP ", b"EXIF") and length <= MAX_BYTES:
            data = file.read(length)
            if len(data) < length:
                return
            yield ("xmp", data) if start[:4] == b"XMP " else ("exif", data.removeprefix(b"Exif\0\0"))
        position += 8 + length + length % 2


# ── What stands there ───────────────────────────────────────────────────────────────────────────────────────────────


def _texts_of_xmp(data: bytes) -> Iterator[tuple[str, str]]:
    text = data.decode("utf-8", "ignore")
    if captions := captions_of_xmp(text):
        yield "description" if "<dc:description" in text else "keywords", captions[0]


def _texts_of_iptc(data: bytes) -> Iterator[tuple[str, str]]:
    keywords, captions = [], []
    for resource in _resources(data):
        file = io.BytesIO(resource)
        while len(start := file.read(5)) == 5 and start[0] == 0x1C:
            length = int.from_bytes(start[3:], "big")
            if len(value := file.read(length)) < length:
                break
            if start[1:3] == b"\x02\x78":       # record 2, data set 120: caption
                captions.append(value)
            elif start[1:3] == b"\x02\x19":     # data set 25: a keyword
                keywords.append(value)
    yield from (("description", _decoded(value)) for value in captions[:1])            # it must not be repeated
    yield "keywords", _decoded(b", ".join(keywords))


def _resources(data: bytes) -> Iterator[bytes]:
    """The data of the resources of Photoshop that hold IPTC."""
    file = io.BytesIO(data)
    while len(start := file.read(7)) == 7 and start[:4] == b"8BIM":
        file.seek(start[6] + (start[6] + 1) % 2, io.SEEK_CUR)           # a name and its length are padded together
        length = int.from_bytes(file.read(4), "big")
        if start[4:6] == b"\x04\x04":
            yield file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)
        file.seek(length % 2, io.SEEK_CUR)


def _texts_of_exif(data: bytes) -> Iterator[tuple[str, str]]:
    """Of the first directory of a TIFF."""
    order = {b"II": "little", b"MM": "big"}.get(data[:2])
    if order is None:
        return

    def number(at: int, size: int) -> int:
        return int.from_bytes(data[at : at + size], order)              # type: ignore[arg-type]

    directory, found = number(4, 4), {}
    for entry in range(directory + 2, directory + 2 + 12 * min(number(directory, 2), _MAX_PARTS), 12):
        tag, size = number(entry, 2), number(entry + 4, 4)
        if tag in (*_DESCRIPTIONS, _KEYWORDS) and tag not in found and number(entry + 2, 2) in (1, 2):  # bytes, ASCII
            at = entry + 8 if size <= 4 else number(entry + 8, 4)
            value = data[at : at + size] if 8 <= at <= len(data) - size else b""
            found[tag] = _decoded(value.partition(b"\0")[0]) if tag == _DESCRIPTIONS[0] else \
                value.decode("utf-16-le", "ignore").partition("\0")[0]
    for tag in _DESCRIPTIONS:
        yield "description", found.get(tag, "")
    yield "keywords", found.get(_KEYWORDS, "").replace(";", ", ")


def _decoded(data: bytes) -> str:
    """Text in UTF-8, or in the code page that it is probably in."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode(guess_code_page(data) or "cp1252", "ignore")
