"""Texts whose parts have labels: what a person means by them."""

import pytest
from picture_folders import captions_of

from diffuse_cli.data.captions import find_pictures

PARTS = "text files have parts with labels, of which only the caption or the like counts"


@pytest.mark.parametrize(("content", "expected", "is_told"), [
    ("Caption: a red car", ("a red car",), False),
    ("PROMPT: a red car", ("a red car",), False),
    ("**Caption:** a red car", ("a red car",), False),
    ("Image description: a red car", ("a red car",), False),
    ("caption = a red car", ("a red car",), False),
    ("Caption 1: a red car\nCaption 2: a car", ("a red car", "a car"), False),
    ("Caption:\na red car", ("a red car",), False),
    ("# Caption\n\na red car", ("a red car",), False),
    ("Tags: red, car", ("red, car",), False),
    ("Here is a caption for the image: A red car.", ("A red car.",), False),
    ("Sure! Here's a detailed description of the picture:\n\nA red car.", ("A red car.",), False),
    ("Title: Car 7\nDescription: a red car\nTags: red, car", ("a red car",), True),
    ("Artist: Ann\nCaption: a red car", ("a red car",), True),
    ("a red car\nTags: red, car", ("a red car", "red, car"), False),
    ("Caption: a red car\nNegative prompt: ugly", ("a red car",), False),
    ("a red car\nNegative prompt: ugly", ("a red car",), False),
    ("- a red car\n- a car", ("a red car", "a car"), False),
    ("1. a red car\n2. a car", ("a red car", "a car"), False),
    # What only looks like a label stays.
    ("a caption: nothing", ("a caption: nothing",), False),
    ("Prompt delivery of parcels", ("Prompt delivery of parcels",), False),
    ("A sign: stop\nA girl: standing", ("A sign: stop", "A girl: standing"), False),
    ("A sign: stop\nTags: red", ("A sign: stop", "red"), False),
    ("Title: The Sea", ("The Sea",), False),
    ("Here is a dog: it sleeps", ("Here is a dog: it sleeps",), False),
    ("2. a red car\n7. a car", ("2. a red car", "7. a car"), False),
    ("Caption:", (), False),
])
def test_the_part_of_a_text_that_is_the_caption(folder, content, expected, is_told):
    found = find_pictures(folder({"a.png": None, "a.txt": content, "b.png": None, "b.txt": "b"}))
    assert captions_of(found)["a.png"] == expected
    assert any(PARTS in note for note in found.notes) is is_told


def test_labels_are_no_captions_in_tables_and_json_either(folder):
    for name, content in (("t.csv", "file,text\na.png,Caption: a car"), ("a.json", '{"text": "Prompt: a car"}')):
        found = find_pictures(folder({f"{name}/a.png": None, f"{name}/{name}": content}) / name)
        assert captions_of(found) == {"a.png": ("a car",)}
