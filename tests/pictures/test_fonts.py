"""Text in scripts that DejaVu Sans lacks: in another font if there is one, and never boxes."""

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image, ImageDraw

from diffuse_cli.pictures import fonts, sheets


@pytest.fixture
def computer_with(monkeypatch, tmp_path):
    """A function that makes a computer with one font, which has some letters, all of them black squares."""
    def make(letters):
        names = [".notdef", *(f"letter{number}" for number in range(len(letters)))]
        pen = TTGlyphPen(None)
        pen.moveTo((0, 0))
        for corner in ((0, 900), (900, 900), (900, 0)):
            pen.lineTo(corner)
        pen.closePath()
        font = FontBuilder(1000)
        font.setupGlyphOrder(names)
        font.setupCharacterMap({ord(letter): name for letter, name in zip(letters, names[1:], strict=True)})
        font.setupGlyf(dict.fromkeys(names, pen.glyph()))
        font.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
        font.setupHorizontalHeader(ascent=900, descent=-100)
        font.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
        font.setupOS2()
        font.setupPost()
        font.save(tmp_path / "squares.ttf")
        (tmp_path / "broken.otf").write_bytes(b"OTTO no font")
        monkeypatch.setattr(fonts, "_directories", lambda: [tmp_path, tmp_path / "none"])
        forget()

    def forget():
        fonts._system_fonts.cache_clear()
        fonts._fallback.cache_clear()

    yield make
    forget()


def drawn(text):
    """The pixels of a text, 0 where it is black."""
    image = Image.new("L", (200, 20), 255)
    fonts.draw_text(ImageDraw.Draw(image), (2, 2), text, "black", 10)
    return np.asarray(image)


def test_letters_that_dejavu_lacks_are_drawn_in_a_font_that_has_them(computer_with):
    computer_with("猫犬")
    assert fonts.missing_letters(["a 猫", "犬"]) == []
    assert fonts.text_width("猫犬", 10) == 20
    assert fonts.text_width("ab 猫", 10) == fonts.text_width("ab ", 10) + 10
    assert (drawn("猫")[3:11, 3:10] == 0).all()
    left = drawn("ab ")
    assert (drawn("ab 猫")[left < 255] == left[left < 255]).all()        # the others stay in DejaVu Sans


def test_letters_without_any_font_become_question_marks(computer_with):
    computer_with("犬")
    assert fonts.missing_letters(["a 猫?", "ab", "빨간"]) == ["猫", "간", "빨"]
    assert np.array_equal(drawn("a 猫"), drawn("a ?"))
    assert np.array_equal(drawn("ＡＢ\u200d\ufe0f"), drawn("AB"))       # wide letters, and marks that one cannot see


@pytest.mark.parametrize("text", ["", " ", "  猫", "\U0001f408\u200d\u2b1b", "a\nb", "\ud800", "\U0010ffff"])
def test_no_text_is_too_odd(computer_with, text):
    computer_with("犬")
    sheets.captioned_sheet(np.zeros((1, 8, 8, 3), np.uint8), [(text,)])
