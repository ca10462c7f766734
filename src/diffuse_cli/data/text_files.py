"""Text files in the encodings that editors and shells write: UTF-8, UTF-16, UTF-32, or a code page of 8 bits or more.

Most files are UTF-8, or begin with a mark that names their encoding. A code page can only be guessed. Its guess is as
good as the text is long, so the caller may show more text of the same origin.
"""

import codecs
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Literal, Protocol

from ..files.input_files import open_input
from .file_types import HEAD, reason_against_text

TABLE_LIMIT = 4 * 2**30                         # maximum bytes of a text that is read line by line
SAMPLE_LIMIT = 64 * 1024                        # maximum bytes from which a code page is guessed
_BLOCK = 2**20                                  # bytes read at once

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
          (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
# Code pages of Latin scripts. The library's confidence tells them apart badly, so letters are looked at in their place.
_LATIN = ("cp1252", "mac_roman", "cp850", "cp1250", "cp1254", "cp852", "iso8859_2")
# Encodings of 7 bits, which are UTF-8 as well: what begins their other letters, and their names.
_ESCAPES = ((b"\x1b$)C", "iso2022_kr"), (b"\x1b$", "iso2022_jp_ext"))
# Code pages of other scripts, of which the first counts among equals.
_OTHER_SCRIPTS = ("cp1251", "koi8-r", "cp866", "cp1253", "cp1255", "cp1256", "cp874", "cp932", "euc_jp", "gb18030",
                  "big5", "cp949")
# Code pages of names of files on Windows. The last is that of the first programs, and reads all bytes.
NAME_PAGES = ("cp932", "big5", "gb18030", "cp949", "cp866", "cp1251", "cp737", "cp850", "cp852", "cp857", "cp862",
              "cp437")
_CERTAIN = 0.2                                  # minimum confidence of a non-Latin script; a Latin one reaches 0.16
_WORD = 3                                       # bytes of a word that is long enough to tell its script
_FEW = 4                                        # letters beyond ASCII with fewer of which that confidence is chance
_CONFIDENCE_STEP = 0.03                         # difference of confidence that counts between Latin code pages
_BINARY = bytes({*range(32)} - {*b"\t\n\r\f\v\x1a\x1b"})               # bytes that no 8-bit text holds


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


def decode_text(data: bytes, *, sample: bytes = b"") -> tuple[str, str]:
    """The text in the bytes of a file, and its encoding as Python names it. Raises NotText.

    sample: bytes of other files, none of them UTF-8, that were probably written by the same program.
    """
    if reason := reason_against_text(data[:HEAD]):
        raise NotText(reason)
    for encoding in _candidates(data, sample):
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
    if not _is_mostly_binary(data):
        yield "utf-8"
    for guess in (guess_code_page(known) for known in (sample + data, data)):
        if guess is not None:
            yield guess


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
            if _is_mostly_binary(block):
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


def guess_code_page(data: bytes) -> str | None:
    """The most probable code page of a text that is not UTF-8, as Python names it; None if it is no text."""
    import chardet  # a library of language models; only texts that are not UTF-8 need it

    data = data[:SAMPLE_LIMIT]
    if not data or _is_binary(data):
        return None
    guesses = {str(guess["encoding"]): guess["confidence"] for guess in chardet.detect_all(data, ignore_threshold=True)
               if _is_known(str(guess["encoding"]))}                    # None where it finds nothing
    best = max(guesses, key=lambda name: guesses[name], default=None)
    if best is not None and guesses[best] >= _CERTAIN:
        return codecs.lookup(best).name
    confidence = {codecs.lookup(name).name: value for name, value in guesses.items()}
    if sum(byte > 127 for byte in data) < _FEW:
        confidence = {}
    usable = [name for name in _LATIN if _decodes(data, name)]
    if (_is_without_ascii_letters(data) or not any(_is_plausible(data.decode(name)) for name in usable)) and (
            other := guess_among(data, _OTHER_SCRIPTS)) and _is_plausible(data.decode(other, "replace")):
        return codecs.lookup(other).name
    return max(usable, default=None, key=lambda name: (
        _plausibility(data.decode(name)), round(confidence.get(name, 0.0) / _CONFIDENCE_STEP), -_LATIN.index(name)))


def _is_without_ascii_letters(data: bytes) -> bool:
    """Whether most bytes beyond ASCII stand in words of nothing else, as in no Latin script."""
    words = re.findall(rb"[A-Za-z\x80-\xff]+", data)
    whole = sum(len(word) for word in words if len(word) >= _WORD and min(word) > 127)
    return 2 * whole > sum(byte > 127 for byte in data)


def guess_among(data: bytes, encodings: Iterable[str]) -> str | None:
    """The most probable of some encodings, the first of those that are equally so; None if the bytes are in none."""
    import chardet

    data = data[:SAMPLE_LIMIT]
    confidence = {codecs.lookup(name).name: guess["confidence"]
                  for guess in chardet.detect_all(data, ignore_threshold=True)
                  if _is_known(name := str(guess["encoding"]))}

    def merit(name: str) -> tuple[bool, int]:
        return _is_plausible(data.decode(name, "replace")), round(confidence.get(name, 0.0) / _CONFIDENCE_STEP)

    return max((name for name in encodings if _begins_in(data, name)), default=None, key=merit)


def _marked_encoding(data: bytes) -> str | None:
    """The encoding that a mark at the beginning, escape sequences, or else the places of zero bytes, give away."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    for escape, encoding in _ESCAPES:
        if escape in data and _begins_in(data, encoding):
            return encoding
    start = data[:4096]
    even, odd = start[::2].count(0), start[1::2].count(0)
    if len(start) >= 4 and max(even, odd) > 0.6 * (len(start) // 2) and min(even, odd) <= 0.05 * len(start):
        return "utf-16-be" if even > odd else "utf-16-le"
    return None


def _is_binary(data: bytes) -> bool:
    """Whether bytes of an 8-bit text hold control characters that no text has."""
    return len(data.translate(None, _BINARY)) < len(data)


def _is_mostly_binary(data: bytes) -> bool:
    """Whether more than a tenth of the bytes are control characters; a few may have strayed into a text."""
    return 10 * (len(data) - len(data.translate(None, _BINARY))) > len(data)


def _is_known(name: str) -> bool:
    try:
        codecs.lookup(name)
    except LookupError:
        return False
    return True


def _decodes(data: bytes, encoding: str) -> bool:
    try:
        data.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _begins_in(data: bytes, encoding: str) -> bool:
    """Whether bytes are the beginning of a text, which may end within a character."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeDecodeError:
        return False
    return True


def _is_mark_or_letter(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "LM"


def _is_plausible(text: str) -> bool:
    """Whether all characters beyond ASCII stand where they do in texts."""
    return _plausibility(text) == sum(not letter.isascii() for letter in text)


def _plausibility(text: str) -> int:
    """How well the characters beyond ASCII stand where they do: letters in words, signs outside of them."""
    padded, score = f" {text} ", 0
    for left, letter, right in zip(padded, padded[1:], padded[2:], strict=False):
        if letter.isascii():
            continue
        inside = left.isalpha() and right.isalpha()
        if letter == "ƒ":
            good = False
        elif letter.isalpha():
            touches = _is_mark_or_letter(left) or right.isalpha() or left.isspace()
            good = touches and (letter.islower() or not (left.islower() or (right.islower() and left.isalpha())))
        elif _is_mark_or_letter(letter):        # a vowel of Thai, for instance
            good = _is_mark_or_letter(left)
        elif letter in "、。，！？：；（）「」『』《》":
            good = not left.isascii()
        elif letter in "‘“„«‚¿¡":
            good = not left.isalnum() and not right.isspace()
        elif letter in "’”»":
            good = not left.isspace() and (letter == "’" or not inside)
        elif letter in "°©®™€£½¼¾§²³·•–—…×":
            good = not inside
        else:
            good = False
        score += 1 if good else -2
    return score
