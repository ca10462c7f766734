"""Lists and objects in the values of a table: the captions in them, and never their signs."""

import json

import pytest
from picture_folders import captions_of

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.structured_texts import caption_in, structured


@pytest.mark.parametrize(("text", "value"), [
    ('["a red car", "two dogs"]', ["a red car", "two dogs"]),
    ("['a red car', \"a dog's life\"]", ["a red car", "a dog's life"]),
    ("['a red car'\n 'two dogs']", ["a red car", "two dogs"]),                     # NumPy
    (r"['caf\xe9 \'x\'', 'a\nb \u4e00']", ["café 'x'", "a b 一"]),
    ("{'en': 'a red car', 'score': 0.5, 'all': ['a', 'b'],}",
     {"en": "a red car", "score": None, "all": ["a", "b"]}),
    ('[{"caption": "a"}]', [{"caption": "a"}])])
def test_lists_and_objects_in_texts(text, value):
    assert structured(f" {text} ") == value


@pytest.mark.parametrize("text", [
    "[red] car [blue]", "[]", "[1, 2]", "[bold]", "{a|b}", "['a', b]", "['a", "{'a'}", "{'a': [1]}", "[['a']]", "", "[",
    "['a' + 'b']", "[" * 100_000 + "]" * 100_000, '{"node":' * 150 + '"x"' + "}" * 150])
def test_other_texts_stay_as_they_are(text):
    assert structured(text) is text


@pytest.mark.parametrize("middle", [
    "'a', ", "'a' ", "'", "' ", " ", "\\", "'a': 'b', ", "'a': ['b'], ", "'a': ", "{'a':"])
@pytest.mark.parametrize("ends", ["[]", "{}"])
def test_long_texts_take_time_that_grows_with_their_length_alone(middle, ends):
    text = f"{ends[0]}{middle * 50_000}?{ends[1]}"
    assert structured(text) is text


@pytest.mark.parametrize("value", [
    {"caption": "a red car", "en": "not this"}, {"en": "a red car", "de": "ein Auto"}, '{"text": "a red car"}',
    {"edges": [{"node": {"text": "a red car"}}]}, {"body": {"choices": [{"message": {"content": "a red car"}}]}},
    {"message": {"content": [{"type": "text", "text": "a red car"}]}}, ["a red car"]])
def test_the_caption_inside(value):
    assert caption_in(value) in ("a red car", ["a red car"])


@pytest.mark.parametrize(("column", "value", "captions"), [
    ("captions", "['a red car', 'two dogs']", ("a red car", "two dogs")),
    ("caption", json.dumps({"en": "a red car", "de": "ein Auto"}), ("a red car",)),
    ("caption", "{'en': 'a red car', 'de': 'ein Auto'}", ("a red car",)),
    ("tags", "['red', 'car']", ("red, car",)),
    ("choice", '{"choices": ["red", "car"]}', ("red, car",)),                       # Label Studio
    ("anything", "['a red car here', 'x']", ("a red car here", "x")),
    ("response", {"body": {"choices": [{"message": {"role": "assistant", "content": "a red car here"}}]}},
     ("a red car here",)),
    ("messages", [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
                  {"role": "assistant", "content": [{"type": "text", "text": "a red car"}]}], ("a red car",)),
    ("messages", [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "a red car"}],
     ("a red car",))])
@pytest.mark.parametrize("name", ["0.png", ["0.png"]])
def test_columns_of_lists_and_objects(folder, column, value, captions, name):
    rows = [{"file": name, column: value}, {"file": "1.png", column: "another old car"}]
    found = find_pictures(folder({"0.png": None, "1.png": None, "all.json": json.dumps(rows)}), checking=True)
    assert captions_of(found)["0.png"] == captions
    assert found.caption_problems == ()


def test_an_object_without_a_caption_is_never_trained_on(folder):
    found = find_pictures(folder({"0.png": None, "a.csv": 'file,text\n0.png,"{""box"": 3}"\n'}))
    assert captions_of(found) == {"0.png": ()}
    assert found.caption_problems == (("a.csv line 2", "caption is not text"),)
