"""Text from elsewhere becomes one harmless line; durations."""

import math
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffuse_cli.cli.terminal.plain_text import clean, duration


@pytest.mark.parametrize(("text", "shown"), [
    ("a red car", "a red car"), ("é 日本 😀", "é 日本 😀"), ("[bold]x[/bold]", "[bold]x[/bold]"),
    ("\x1b[31m", "\\x1b[31m"),
    ("a\nb\tc\r", "a\\x0ab\\x09c\\x0d"), ("\x00\x7f\x9b", "\\x00\\x7f\\x9b"), ("\u202egnp.exe", "\\u202egnp.exe"),
    ("\u200b\u2028\ufeff", "\\u200b\\u2028\\ufeff"), ("\udc80.png", "\\x80.png"), ("\ud800", "\\ud800"),
    ("\U000e0041", "\\U000e0041"),
])
def test_clean_makes_the_invisible_visible(text, shown):
    assert clean(text) == shown


@given(st.text(st.characters(), max_size=300))
def test_clean_text_is_one_short_harmless_line(text):
    shown = clean(text)
    assert len(shown) <= 200
    assert not {unicodedata.category(character) for character in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    shown.encode()                                                  # no surrogates


def test_clean_cuts_what_is_long():
    assert clean("x" * 10_000) == "x" * 197 + "..."
    assert clean("x" * 200) == "x" * 200


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"),
                                               (360_000, "100:00:00"), (math.inf, "-:--:--"), (math.nan, "-:--:--")])
def test_durations(seconds, text):
    assert duration(seconds) == text
