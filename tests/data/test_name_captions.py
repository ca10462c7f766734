"""Captions made of the names of folders and files: by what `find_pictures` finds in real folders."""

import pytest
from picture_folders import captions_of

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.name_captions import words_of_name


def test_class_folders(folder):
    root = folder({"red_car/1.png": None, "red_car/2.png": None, "big-dog/3.png": None})
    assert captions_of(find_pictures(root)) == {"big-dog/3.png": ("big dog",), "red_car/1.png": ("red car",),
                                                "red_car/2.png": ("red car",)}
    assert captions_of(find_pictures(root, caption_template="a {label} {0.__class__}"))["big-dog/3.png"] == (
        "a big dog {0.__class__}",)


def test_kohya_folders_lose_their_repeats_with_a_notice(folder):
    found = find_pictures(folder({"10_sks dog/1.png": None, "5_cat/2.png": None}))
    assert set(captions_of(found).values()) == {("sks dog",), ("cat",)}
    assert "10_sks dog" in found.warnings[0]


@pytest.mark.parametrize("names", [
    ["cat/1.png"],                              # one name only
    ["cat/1.png", "2.png", "3.png", "dog/4.png", "5.png"],              # most pictures have none
    ["train/1.png", "test/2.png"],              # splits, not labels
    ["images/1.png", "photos/2.png"],           # what is in them, as in any folder
    ["2021-05-03/1.png", "DCIM/100CANON/2.png"],
])
def test_folders_that_are_no_labels(folder, names):
    assert find_pictures(folder(dict.fromkeys(names, ""))).caption_source != "folder"


@pytest.mark.parametrize(("stem", "words"), [
    ("red_car-0012", "red car"), ("IMG_2041", ""), ("DSC01234", ""), ("PXL_20230101_120000123", ""), ("image 7", ""),
    ("20240131_beach", "beach"), ("3f2b8c9d-1234-4abc-9def-0123456789ab", ""), ("d41d8cd98f00b204e9800998ecf8427e", ""),
    ("a cat (3)", "a cat"), ("photo of a dog", "photo of a dog"), ("WhatsApp Image 2020-01-01 at 10.00.00", ""),
    ("rotes_auto12", "rotes auto"), ("facade", "facade"), ("00001", ""), ("frame0001", ""), ("帽子和花", "帽子和花"),
])
def test_words_of_a_file_name(stem, words):
    assert words_of_name(stem) == words


def test_file_names_count_when_four_in_five_say_something(folder):
    root = folder({f"{colour}_car_{index}.png": None for index, colour in enumerate(("red", "blue", "red", "grey"))}
                  | {"IMG_0001.png": None})
    found = find_pictures(root)
    assert found.caption_source == "filename"
    assert captions_of(found)["red_car_2.png"] == ("red car",)
    assert captions_of(found)["IMG_0001.png"] == ()
    folder({"IMG_0002.png": None})
    found = find_pictures(root)
    assert (found.caption_source, found.conditional) == ("none", False)
    assert found.caption_summary == "none found (unconditional model)"
