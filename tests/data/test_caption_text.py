"""Text and JSON values become captions of one clean line."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_folders import captions_of, rows

from diffuse_cli.data import caption_text
from diffuse_cli.data.captions import find_pictures

VALUES = [(5, ("5",), False), (0, ("0",), False), (0.5, ("0.5",), False), (["x", 2], ("x", "2"), False),
          (None, ("else",), False), ("", ("else",), False), ([], ("else",), False),
          ({"a": 1}, ("else",), True), (True, ("else",), True), (False, ("else",), True), (math.nan, ("else",), False),
          ([1, None, "x"], ("1", "x"), True), ([["x"]], ("else",), True)]


@pytest.mark.parametrize(("value", "expected", "wrong"), VALUES)
@pytest.mark.parametrize(("name", "place"), [("a.json", "a.json"), ("metadata.jsonl", "metadata.jsonl line 1")])
def test_a_number_is_text_and_anything_else_is_a_problem(folder, name, place, value, expected, wrong):
    first, second = ("caption", "text") if name == "a.json" else ("text", "caption")
    root = folder({"a.png": None, name: rows({"file_name": "a.png", first: value, second: "else"})})
    found = find_pictures(root)
    assert captions_of(found) == {"a.png": expected}
    assert found.caption_problems == (((place, "caption is not text"),) if wrong else ())


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(st.characters(categories=["Cc", "Cs", "Zs", "Lu"])))
def test_a_tidy_caption_is_one_clean_line(text):
    tidied = caption_text.tidy(text)
    assert tidied == caption_text.tidy(tidied)
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in tidied)
    assert tidied.encode() is not None
    assert tidied == tidied.strip()


def test_an_entity_of_more_digits_than_a_letter_has_stays_as_it_is():
    """Python refuses to read numbers of more than 4,300 digits, which ended the program."""
    long = f"&#{'9' * 5000};"
    text = f"<dc:description><rdf:li>caf&#233; &amp; {long}</rdf:li></dc:description>"
    assert caption_text.captions_of_xmp(text) == (f"café & {long}",)
    assert caption_text.distinct_captions(f"caf&#233; {long}") == (f"café {long}",)
