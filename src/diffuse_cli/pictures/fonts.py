"""Text on pictures in DejaVu Sans, and in a font of the computer for letters that DejaVu Sans lacks.

DejaVu Sans comes with matplotlib and has Latin, Greek, Cyrillic and Arabic letters, among others.
"""

import contextlib
import functools
import importlib.util
import itertools
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from PIL import ImageDraw, ImageFont

from .. import python_process

_SUFFIXES = (".ttf", ".otf", ".ttc")
_MAX_FONTS = 500                                # maximum fonts of the computer that are looked into
_UNUSUAL = ("bold", "italic", "oblique", "light", "thin", "black", "heavy", "mono", "serif")    # in names of fonts


def text_width(text: str, size: int) -> float:
    """Width of a text in one line, in pixels, if letters are `size` pixels high."""
    return sum(_font(path, size).getlength(run) for path, run in _runs(text))


def draw_text(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, colour: str, size: int) -> None:
    """Draw one line of text, whose upper left corner is given. "?" stands for letters that no font has."""
    left, top = corner
    baseline = top + _font(_dejavu(), size).getmetrics()[0]
    for path, run in _runs(text):
        font = _font(path, size)
        draw.text((left, baseline), run, colour, font, anchor="ls")
        left += round(font.getlength(run))


def missing_letters(texts: Iterable[str]) -> list[str]:
    """The visible letters of texts for which no font is there, in order."""
    return sorted({letter for letters in map(frozenset, texts) for letter in letters
                   if _substitute(letter, _fallback(letters)) == "?" != letter})


def _runs(text: str) -> list[tuple[str, str]]:
    """A text in pieces, each with the path of a font that has its letters, once "?" stands for those that none has."""
    fallback = _fallback(frozenset(text))
    text = "".join(_substitute(letter, fallback) for letter in text)
    fonts: list[str] = []
    for letter in text:                         # a blank belongs to what is before it
        is_blank = letter == " " and fonts
        fonts.append(fonts[-1] if is_blank else _dejavu() if letter in _letters_in(_dejavu()) else fallback)
    pieces = itertools.groupby(zip(fonts, text, strict=True), key=lambda pair: pair[0])
    return [(path, "".join(letter for _, letter in pairs)) for path, pairs in pieces]


def _substitute(letter: str, fallback: str) -> str:
    """The letter if a font has it, else a plainer form of it ("A" for a wide one), "" if it is invisible, else "?"."""
    known = _letters_in(_dejavu()) | {" "}
    if letter in known or letter in _letters_in(fallback):
        return letter
    if unicodedata.category(letter) in ("Cc", "Cf", "Mn", "Me"):        # joiners, marks, selectors of emoji
        return ""
    plain = unicodedata.normalize("NFKC", letter)
    return plain if known.issuperset(plain) else "?"


@functools.cache
def _dejavu() -> str:
    spec = importlib.util.find_spec("matplotlib")                      # its import would take a fifth of a second
    assert spec is not None
    assert spec.origin is not None
    return str(Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf")


@functools.lru_cache(maxsize=256)
def _fallback(letters: frozenset[str]) -> str:
    """The font of the computer that has the most of those letters that DejaVu Sans lacks; DejaVu Sans if none has any.
    """
    lacking = letters - _letters_in(_dejavu()) - {" "}
    best, most = _dejavu(), 0
    for path in _system_fonts() if lacking else ():
        with contextlib.suppress(OSError, RuntimeError, ValueError):    # a font that cannot be read
            count = len(lacking & _letters_in(path))
            if count > most and _font(path, 10).getlength("".join(lacking)):
                best, most = path, count
        if most == len(lacking):
            break
    return best


@functools.cache
def _font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@functools.cache
def _letters_in(path: str) -> frozenset[str]:
    """The letters that a font has. Raises RuntimeError or OSError if it cannot be read."""
    with python_process.elsewhere():
        from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(path).get_charmap()))


@functools.cache
def _system_fonts() -> tuple[str, ...]:
    """The fonts of the computer, those of plain shape first."""
    found = [path for directory in _directories() for path in _files_below(directory)][:_MAX_FONTS]
    return tuple(sorted(found, key=lambda path: (sum(word in Path(path).stem.lower() for word in _UNUSUAL), path)))


def _directories() -> list[Path]:
    if sys.platform == "win32":
        return [Path(os.environ.get("WINDIR", r"C:\Windows"), "Fonts"),
                Path.home() / r"AppData\Local\Microsoft\Windows\Fonts"]
    if sys.platform == "darwin":
        return [Path("/System/Library/Fonts"), Path("/Library/Fonts"), Path.home() / "Library/Fonts"]
    shared = os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share"
    return [*(Path(directory, "fonts") for directory in shared.split(":")), Path.home() / ".local/share/fonts",
            Path.home() / ".fonts"]


def _files_below(directory: Path) -> Iterator[str]:
    for folder, _, names in os.walk(directory):
        yield from (os.path.join(folder, name) for name in sorted(names) if name.lower().endswith(_SUFFIXES))
