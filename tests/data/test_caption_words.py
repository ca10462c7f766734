"""The words of captions: how they are cut, and which are counted."""

from diffuse_cli.data import caption_words
from diffuse_cli.data.caption_words import count_words, split_words


def test_words_are_lower_case_without_the_punctuation_around_them():
    assert split_words('  A "Red", car; it\'s (very) fast! ... ') == ["a", "red", "car", "it's", "very", "fast"]
    assert split_words("x" * 41) == []


def test_words_are_counted_and_the_rarest_forgotten(monkeypatch):
    assert count_words(["a b a", "b, a", "c"]) == {"a": 3, "b": 2, "c": 1}
    assert list(count_words(["b a", "c"])) == ["a", "b", "c"]                # equal counts in alphabetical order
    monkeypatch.setattr(caption_words, "MAX_WORDS", 2)
    assert count_words(["a b a", "b, a", "c"]) == {"a": 3, "b": 2}
