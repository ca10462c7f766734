"""Text files in the encodings that editors and shells write: UTF-8, UTF-16, UTF-32, or a code page of 8 bits or more.

Most files are UTF-8, or begin with a mark that names their encoding. A code page can only be guessed: `code_pages`.
"""

import codecs
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Literal, Protocol

from ..files.input_files import open_input
from .code_pages import (
    SAMPLE_LIMIT,
    begins_in,
    guess_code_page,
    is_common,
    is_mostly_binary,
    probable_pages,
    reads_well,
)
from .file_types import HEAD, reason_against_text
from .unmarked_utf16 import fits_utf16, is_no_text_of_bytes, unmarked_utf16

TABLE_LIMIT = 4 * 2**30                         # maximum bytes of a text that is read line by line
_BLOCK = 2**20                                  # bytes read at once

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Encodings of 7 bits, which are UTF-8 as well: what begins their other letters, and their names.
_ESCAPES = ((re.compile(rb"\x1b\$\)C"), "iso2022_kr"), (re.compile(rb"\x1b\$"), "iso2022_jp_ext"),
            (re.compile(rb"~\{(?:[!-w][!-~])+(?:~\}|[!-w]?\Z)"), "hz"))
_HIGHEST_PLANE = 16                             # third byte of the highest character
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1f]")      # characters that no text holds
_SHIFT = re.compile(rb"\+[A-Za-z0-9/+][a-z]{0,9}[A-Z0-9/+]")            # begins other letters in UTF-7, but no word


class Opens(Protocol):
    """A path, or a file in a container."""

    def open(self, mode: Literal["rb"]) -> IO[bytes]:
        """The contents as an open file. Raises OSError."""


class NotText(Exception):
    """The bytes are no text in any encoding that is known, or that of a web page, for instance: `reason` says so."""

    def __init__(self, reason: str = "not text") -> None:
        super().__init__(reason)
        self.reason = reason


def open_text(path: Opens, *, limit: int = TABLE_LIMIT) -> IO[bytes]:
    """The bytes of a file of at most `limit` bytes, as an open file. Raises OSError."""
    return open_input(path, limit=limit) if isinstance(path, Path) else path.open("rb")


def decode_text(data: bytes, *, sample: bytes = b"", utf16: str | None = None) -> tuple[str, str]:
    """The text in the bytes of a file, and its encoding as Python names it. Raises NotText.

    sample: bytes of other files, none of them UTF-8, that were probably written by the same program. utf16: the kind
    of UTF-16 without a mark that most of these are in.
    """
    if reason := reason_against_text(data[:HEAD]):
        raise NotText(reason)
    for encoding in [utf16] if utf16 and fits_utf16(data, utf16) else _candidates(data, sample):
        try:
            return data.decode(encoding), encoding
        except UnicodeDecodeError:
            continue
    raise NotText


def _candidates(data: bytes, sample: bytes) -> Iterator[str]:
    """Encodings that the bytes may have, the most probable first; guesses are costly, and come last."""
    if marked := _marked_encoding(data):
        yield marked
        return
    if not is_mostly_binary(data):
        yield "utf-8"
    encoding = unmarked_utf16(data) if len(data) > 2 else None
    if encoding and not any(reads_well(data, page) for page in probable_pages(data, sample)):
        yield encoding
    yield from probable_pages(data, sample)


def was_guessed(encoding: str) -> bool:
    """Whether an encoding is told by nothing but the text itself, so that a person should know of it."""
    return encoding not in ("utf-8", *(known for _, known in _MARKS))


def is_unicode(data: bytes) -> bool:
    """Whether the encoding of the bytes need not be guessed."""
    if _marked_encoding(data):
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def encoding_of_file(path: Opens) -> str:
    """The encoding of a file of any size, which is read in pieces. Raises NotText, OSError."""
    with open_text(path) as file:
        block = file.read(_BLOCK)
        if reason := reason_against_text(block[:HEAD]):
            raise NotText(reason)
        if encoding := _marked_encoding(block):
            return encoding
        decoder, sample, valid = codecs.getincrementaldecoder("utf-8")(), io.BytesIO(), True
        while block:
            if is_mostly_binary(block):
                raise NotText
            try:
                decoder.decode(block)
            except UnicodeDecodeError:
                valid = False
                decoder.reset()
            if not valid and sample.tell() < SAMPLE_LIMIT:
                sample.writelines(line for line in block.splitlines(keepends=True) if not line.isascii())
            block = file.read(_BLOCK)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        valid = False
    if valid:
        return "utf-8"
    if (guess := guess_code_page(sample.getvalue())) is None:
        raise NotText
    return guess


def read_lines(path: Opens, encoding: str, *, limit: int) -> Iterator[str]:
    """The lines of a text file, each with its end, which may have been written as LF, CR LF or CR.

    A line of more than `limit` characters comes in pieces. Raises NotText if the bytes are not in the encoding.
    """
    try:
        with open_text(path) as binary, \
                io.TextIOWrapper(binary, encoding=encoding, newline=None) as file:
            yield from iter(lambda: file.readline(limit + 1), "")
    except UnicodeError as error:
        raise NotText from error


def _marked_encoding(data: bytes) -> str | None:
    """The encoding that a mark at the beginning, escape sequences, or else the places of zero bytes, give away."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    for escape, encoding in _ESCAPES:
        if escape.search(data) and begins_in(data, encoding):
            return encoding
    if _SHIFT.search(data) and begins_in(data, "utf-7") and is_common(data.decode("utf-7", "ignore")):
        return "utf-7"
    start = data[:4096]
    if len(data) >= 8 and len(data) % 4 == 0:
        for encoding, first, second in (("utf-32-le", 3, 2), ("utf-32-be", 0, 1)):
            if not any(start[first::4]) and max(start[second::4]) <= _HIGHEST_PLANE and begins_in(data, encoding) and (
                    not _CONTROL.search(start.decode(encoding, "ignore"))):
                return encoding
    even, odd = start[::2].count(0), start[1::2].count(0)
    if len(start) >= 4 and max(even, odd) > 0.6 * (len(start) // 2) and min(even, odd) <= 0.05 * len(start):
        return "utf-16-be" if even > odd else "utf-16-le"
    return unmarked_utf16(data) if even + odd or is_no_text_of_bytes(start) else None
