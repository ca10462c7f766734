"""The text chunks of a PNG, read without Pillow and without a pixel: how a picture was made.

The file may come from a stranger. Chunks are stepped over, not read, except for texts with the wanted name; and a text
that is compressed is unpacked no further than the limit. The form of the chunks is that of the PNG specification.
"""

import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

from .file_types import HEAD, format_of, what_else
from .picture_files import ImageRefused, open_regular

MAX_CHUNKS = 10_000                             # maximum chunks; a sampled picture has a few
MAX_TEXT_BYTES = 2**20                          # maximum bytes of a text chunk, before and after it is unpacked
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_png_text(path: Path, name: str) -> str | None:
    """The text called `name` in a PNG; None if it has none. Raises ImageRefused, for other formats as well."""
    with open_regular(path) as file:
        head = file.read(HEAD)
        if not head.startswith(_SIGNATURE):
            raise ImageRefused("not a PNG, and only those hold how they were made" if format_of(head)
                               else what_else(head))
        try:
            return _find(file, (name,))[1]
        except OSError as error:
            raise ImageRefused("unreadable") from error


def first_text(file: IO[bytes], names: Collection[str]) -> tuple[str, str]:
    """The name and the text of the first text with one of these names that stands before the pixels of a PNG.

    ("", "") if there is none. Raises ImageRefused, also for other formats, and OSError.
    """
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise ImageRefused("not a PNG")
    name, text = _find(file, names, end=b"IDAT")
    return name, text or ""


def _find(file: IO[bytes], names: Collection[str], *, end: bytes = b"IEND") -> tuple[str, str | None]:
    """The name and the text of the first text with one of these names; ("", None) if none stands before `end`.

    The chunks that follow it are not looked at. Raises ImageRefused.
    """
    file.seek(len(_SIGNATURE))
    for _ in range(MAX_CHUNKS):
        start = file.read(8)
        length, kind = int.from_bytes(start[:4], "big"), start[4:]
        if len(start) < 8:
            raise ImageRefused("truncated")
        if kind in (b"IEND", end):
            return "", None
        if kind in (b"tEXt", b"zTXt", b"iTXt"):
            data = file.read(min(length, MAX_TEXT_BYTES))
            found, _, rest = data.partition(b"\0")
            if (name := found.decode("latin-1")) in names:
                if length > MAX_TEXT_BYTES:
                    raise ImageRefused("a text in it is over 1 MB")
                if zlib.crc32(kind + data).to_bytes(4, "big") != file.read(4):
                    raise ImageRefused("truncated" if len(data) < length else "damaged")
                return name, _text(kind, rest)
            length -= len(data)
        file.seek(length + 4, 1)
    raise ImageRefused("damaged")


def _text(kind: bytes, data: bytes) -> str:
    """The text in a chunk, of which `data` is what follows the name. Raises ImageRefused."""
    if kind == b"tEXt":
        return data.decode("latin-1")
    packed = data[:1] == b"\0" if kind == b"zTXt" else data[:2] == b"\x01\0"
    if kind == b"zTXt":
        body = data[1:]
    else:                                       # two bytes, and two names that end in zeros: language, translated name
        body = data[2:].partition(b"\0")[2].partition(b"\0")[2]
    if packed:
        unpacking = zlib.decompressobj()
        try:
            body = unpacking.decompress(body, MAX_TEXT_BYTES)
        except zlib.error as error:
            raise ImageRefused("damaged") from error
        if unpacking.unconsumed_tail:
            raise ImageRefused("a text in it is over 1 MB")
    try:
        return body.decode("utf-8" if kind == b"iTXt" else "latin-1")
    except UnicodeDecodeError as error:
        raise ImageRefused("damaged") from error
