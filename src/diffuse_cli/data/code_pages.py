"""Guesses of the code page of bytes that are no Unicode: by language models, and by where letters stand in words.

A guess is as good as the text is long, so the caller may show more text of the same origin.
"""

import codecs
import functools
import re
import unicodedata
from collections.abc import Iterable, Iterator

from .unmarked_utf16 import share_of_common

SAMPLE_LIMIT = 64 * 1024                        # maximum bytes from which a code page is guessed
# Code pages of Latin scripts. The library's confidence tells them apart badly, so letters are looked at in their place.
_LATIN = ("cp1252", "mac_roman", "cp850", "cp1250", "cp1254", "cp852", "iso8859_2", "cp1257", "cp775")
# Vietnamese in code page 1258: a mark of tone stands behind its vowel, and there are no letters but these.
_TONE = re.compile(rb"[aeiouyAEIOUY\xc2\xc3\xca\xd4\xd5\xdd\xe2\xe3\xea\xf4\xf5\xfd][\xcc\xd2\xde\xec\xf2]")
_VIETNAMESE = re.compile(rb"(?:" + _TONE.pattern + rb"|[\x00-\xc3\xc8-\xca\xcd\xd0\xd3-\xd5\xd9\xda\xdd"
                         rb"\xe0-\xe3\xe8-\xea\xed\xf0\xf3-\xf5\xf9\xfa\xfd])*+")
# Code pages of other scripts, of which the first counts among equals.
_OTHER_SCRIPTS = ("cp1251", "koi8-r", "cp866", "cp1253", "cp1255", "cp1256", "cp874", "cp932", "euc_jp", "gb18030",
                  "big5", "cp949")
_JAPANESE = {"cp932": "euc_jp", "euc_jp": "cp932"}                      # a folder may hold texts in both
# Code pages of names of files on Windows. The last is that of the first programs, and reads all bytes.
NAME_PAGES = ("cp932", "big5", "gb18030", "cp949", "cp866", "cp1251", "cp737", "cp850", "cp852", "cp857", "cp862",
              "cp437")
_CERTAIN = 0.2                                  # minimum confidence of a non-Latin script; a Latin one reaches 0.16
_WORD = 3                                       # bytes of a word that is long enough to tell its script
_FEW = 4                                        # letters beyond ASCII with fewer of which that confidence is chance
_CONFIDENCE_STEP = 0.03                         # difference of confidence that counts between Latin code pages
_LONG = 8                                       # bytes beyond ASCII from which a text tells its own script
_COMMON = 0.9                                   # minimum share of common characters in a text without an alphabet
_OF_TWO_BYTES = ("cp932", "euc_jp", "gb18030", "big5", "cp949")
_OTHER_ALPHABETS = re.compile(r"[\u0370-\u0e7f]")
_TOUCHING = re.compile(rf"(?<=[A-Za-z]){_OTHER_ALPHABETS.pattern}|{_OTHER_ALPHABETS.pattern}(?=[A-Za-z])")
_AROUND_WORDS = "!\"'(),-./:;?_“”„«»‘’…–—&°"
_WORD_FORM = re.compile(r"(?:[^\W\d_]+[-'’_/.&]?)*\d*")
_CASES = re.compile(r"[a-zà-öø-ÿ][A-ZÀ-ÖØ-Þ]")
_BINARY = bytes({*range(32)} - {*b"\t\n\r\f\v\x1a\x1b"})               # bytes that no 8-bit text holds


def probable_pages(data: bytes, sample: bytes) -> Iterator[str]:
    """Code pages that the bytes of a text may be in, as Python names them, the most probable first.

    sample: texts of the same origin. Their page counts, unless the text itself shows clearly that it is in another.
    """
    shared = _guess_of_sample(sample)
    if (shared in _OF_TWO_BYTES or (shared in _LATIN and not _is_without_ascii_letters(data))) and reads_well(
            data, shared):
        yield shared
    is_plausible = shared is not None and _is_plausible_in(data, shared)
    sibling = _JAPANESE.get(shared or "")
    if sibling and not is_plausible and _is_plausible_in(data, sibling):
        yield sibling
    may_differ = sum(byte > 127 for byte in data) >= _LONG and (
        shared not in _LATIN or _is_without_ascii_letters(data))
    own = guess_code_page(data) if not is_plausible or may_differ else None
    is_clear = own not in (None, *_LATIN) or not (is_plausible or shared in _LATIN)
    yield from (guess for guess in ((own, shared) if is_clear else (shared, own)) if guess is not None)


@functools.lru_cache(maxsize=4)
def _guess_of_sample(sample: bytes) -> str | None:
    return guess_code_page(sample)


def guess_code_page(data: bytes) -> str | None:
    """The most probable code page of a text that is not UTF-8, as Python names it; None if it is no text."""
    import chardet  # a library of language models; only texts that are not UTF-8 need it

    data = data[:SAMPLE_LIMIT]
    if not data or _is_binary(data):
        return None
    guesses = {str(guess["encoding"]): guess["confidence"] for guess in chardet.detect_all(data, ignore_threshold=True)
               if _is_known(str(guess["encoding"]))}                    # None where it finds nothing
    best = max((name for name in guesses if not _mixes_alphabets(data.decode(name, "replace"))),
               key=lambda name: guesses[name], default=None)
    if best is not None and guesses[best] >= _CERTAIN:
        return codecs.lookup(best).name
    if len(_TONE.findall(data)) > 1 and _VIETNAMESE.fullmatch(data) and _decodes(data, "cp1258"):
        return "cp1258"
    confidence = {codecs.lookup(name).name: value for name, value in guesses.items()}
    if sum(byte > 127 for byte in data) < _FEW:
        confidence = {}
    usable = [name for name in _LATIN if _decodes(data, name)]
    if (_is_without_ascii_letters(data) or not any(_is_plausible(data.decode(name)) for name in usable)) and (
            other := guess_among(data, _OTHER_SCRIPTS)) and _is_plausible_in(data, other):
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

    return max((name for name in encodings if begins_in(data, name)), default=None, key=merit)


def is_common(text: str) -> bool:
    """Whether a text is plausible, and its letters are more than ASCII and stand in one code page, as by no chance."""
    def stands_in(encoding: str) -> bool:
        try:
            text.encode(encoding)
        except UnicodeEncodeError:
            return False
        return True

    is_foreign = any(letter.isalpha() and not letter.isascii() for letter in text)
    pages = (*_LATIN, *(page for page in _OTHER_SCRIPTS if page != "gb18030"), "gb2312")
    return is_foreign and _is_plausible(text) and any(map(stands_in, pages))


def _is_binary(data: bytes) -> bool:
    """Whether bytes of an 8-bit text hold control characters that no text has."""
    return len(data.translate(None, _BINARY)) < len(data)


def is_mostly_binary(data: bytes) -> bool:
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


def begins_in(data: bytes, encoding: str) -> bool:
    """Whether bytes are the beginning of a text, which may end within a character."""
    try:
        codecs.getincrementaldecoder(encoding)().decode(data)
    except UnicodeError:                        # some decoders of Asian encodings raise no UnicodeDecodeError
        return False
    return True


def reads_well(data: bytes, encoding: str) -> bool:
    """Whether a text in a code page consists of words, as by chance only short texts in another one do."""
    text = data[:SAMPLE_LIMIT].decode(encoding, "replace").replace("\xa0", " ")
    if encoding in _OF_TWO_BYTES:
        return share_of_common(text) >= _COMMON
    foreign = [word.strip(_AROUND_WORDS) for word in text.split() if not word.isascii()]
    return _is_plausible(text) and not _mixes_alphabets(text) and all(
        _WORD_FORM.fullmatch(word) and not _CASES.search(word) for word in foreign)


def _mixes_alphabets(text: str) -> bool:
    """Whether many of the letters of other alphabets touch ASCII letters, as by chance alone."""
    return 5 * len(_TOUCHING.findall(text)) > len(_OTHER_ALPHABETS.findall(text))


def _is_mark_or_letter(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "LM"


def _is_plausible(text: str) -> bool:
    """Whether all characters beyond ASCII stand where they do in texts."""
    return _plausibility(text) == sum(not letter.isascii() for letter in text)


def _is_plausible_in(data: bytes, encoding: str) -> bool:
    return _is_plausible(data.decode(encoding, "replace"))


def _plausibility(text: str) -> int:
    """How well the characters beyond ASCII stand where they do: letters in words, signs outside of them."""
    padded, score = f" {text} ".replace("_", " "), 0
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
