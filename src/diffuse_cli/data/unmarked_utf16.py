"""Recognises UTF-16 without a mark at its beginning, by how common the characters are that its bytes would mean.

Where a text has letters of ASCII, every second byte is zero, and `text_files` sees it at once. In a text of other
letters alone no byte is zero, and the same bytes may be a text in a code page, or even in ASCII.
"""

import codecs
import functools
import itertools
import unicodedata
from collections.abc import Iterable, Iterator

UNMARKED = ("utf-16-be", "utf-16-le")           # the latter counts among equals
_SAMPLE = 4096                                  # bytes that are looked at
_SHARE, _LOW_SHARE = 0.9, 0.5                   # minimum share of common characters; where other texts are in UTF-16
_CONTROLS = bytes({*range(32)} - {*b"\t\n\r\f\x1a\x1b"})            # bytes that no text holds
# Characters that stand in texts of all scripts.
_NEUTRAL = frozenset({*map(chr, range(0x20, 0x7f)), *"\t\r\n\ufeff\u200d\xa0·・ー", *map(chr, range(0x2010, 0x2028)),
                      *map(chr, range(0x3000, 0x3040)), *map(chr, range(0xff00, 0xff66))})
_ALPHABETS = range(0x20)                        # upper bytes of the letters of alphabets
# Code page → the first bytes of the characters in its first level, which are the common ones.
_FIRST_LEVELS: tuple[tuple[str, Iterable[int]], ...] = (
    ("gb2312", range(0xb0, 0xd8)), ("big5", range(0xa4, 0xc7)), ("euc_jp", (0xa4, 0xa5, *range(0xb0, 0xd0))),
    ("euc_kr", range(0xb0, 0xc9)))


def unmarked_utf16(data: bytes) -> str | None:
    """utf-16-le or utf-16-be, if nearly all characters that the bytes would mean are common ones; None otherwise.

    They must be those of one script, unless zeros among the bytes show that these are no letters one by one.
    """
    if len(data) % 2:
        return None
    share, encoding = max((_commonness(data[:_SAMPLE], encoding), encoding) for encoding in UNMARKED)
    return encoding if share >= _SHARE else None


def fits_utf16(data: bytes, encoding: str) -> bool:
    """Whether a text is in a kind of UTF-16, if most others of its folder are."""
    return len(data) % 2 == 0 and _commonness(data[:_SAMPLE], encoding) >= _LOW_SHARE


def is_no_text_of_bytes(data: bytes) -> bool:
    """Whether bytes cannot be letters one by one: control characters are among them, or white space is every second."""
    start = data[:_SAMPLE]
    if len(start.translate(None, _CONTROLS)) < len(start):
        return True
    if 2 * len(start.translate(None, b"\t\n\r\f")) > len(start):
        return False
    halves = start[::2], start[1::2]
    return any(not half.strip(b"\t\n\r\f") and len({*other.strip()}) > 2 and not other.isalnum()
               for half, other in (halves, halves[::-1]))


def share_of_common(text: str, *, mixed: bool = False) -> float:
    """The share of characters that are common in one script, of those that are not neutral; 0 without any.

    mixed: in any script.
    """
    letters = [letter for letter in text[:_SAMPLE] if letter not in _NEUTRAL]
    if not letters:
        return 0.0
    sets = _common_characters()
    if mixed:
        found = sum(_is_of_alphabet(letter) or any(letter in common for common in sets) for letter in letters)
    else:
        found = max(sum(map(_is_of_alphabet, letters)), *(sum(map(common.__contains__, letters)) for common in sets))
    return found / len(letters)


def _is_of_alphabet(letter: str) -> bool:
    return ord(letter) >> 8 in _ALPHABETS and unicodedata.category(letter)[0] in "LM"


def _commonness(data: bytes, encoding: str) -> float:
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(data, final=len(data) < _SAMPLE)
    except UnicodeDecodeError:
        return 0.0
    return share_of_common(text, mixed=0 in data)


@functools.cache
def _common_characters() -> tuple[frozenset[str], ...]:
    """The common characters of each of the _FIRST_LEVELS."""
    return tuple(frozenset(_characters(page, first)) for page, first in _FIRST_LEVELS)


def _characters(page: str, first: Iterable[int]) -> Iterator[str]:
    for pair in itertools.product(first, range(0x40, 0xff)):
        yield from bytes(pair).decode(page, "ignore")
