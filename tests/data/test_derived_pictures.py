"""Masks, depth maps, thumbnails and previews are counted and named, with a step that leaves them out."""

import shutil
import subprocess

import pytest

from diffuse_cli.data.captions import find_pictures

PICTURES = {f"{letter}.jpg": None for letter in "vwxyz"}


def names_of(found):
    return {picture.name.rpartition("/")[2] for picture in found.pictures}


@pytest.mark.parametrize("pattern", [
    "{}_mask.png", "{}-depth.png", "{}-masklabel.png", "{}-condlabel.png", "{}.preview.png", "{}_thumb.jpg",
    "tn_{}.jpg", "{}-150x100.jpg", "masks/{}.png", "thumbnails/{}.jpg", "a/SegmentationClass/{}.png", "gt/{}_mask.png",
    "_controls/{}.depth.jpg", "_masks/{}.png", "{}_gt.png", "{}@2x.png"])
@pytest.mark.skipif(shutil.which("find") is None, reason="the step that is named uses find")
def test_pictures_made_from_others_are_counted_and_left_out_by_the_step_that_is_named(folder, pattern):
    """A text, and a picture whose name only contains the word, stay."""
    derived = {pattern.format(letter): None for letter in "vwxyz"}
    root = folder({**PICTURES, **derived, "unmasked thumb.jpg": None, "v.txt": "a red car"})
    (warning,) = (warning for warning in find_pictures(root).warnings if "made from others" in warning)
    assert warning.startswith("5 pictures seem to be made from others, as masks and thumbnails are, and will")
    assert f"{pattern.format('v')} from v.jpg" in warning
    step = warning.partition("leave them out: ")[2].partition(", and give")[0]
    subprocess.run(step, shell=True, check=True, cwd=root.parent)
    rest = find_pictures(root.parent / "pictures.txt")
    assert names_of(rest) == {*PICTURES, "unmasked thumb.jpg"}
    assert rest.unusable == ()
    assert {picture.captions for picture in rest.pictures} == {("a red car",), ()}


@pytest.mark.parametrize("names", [
    ("mask/m1.png", "mask/m2.png", "hat/h1.png", "hat/h2.png"),         # classes
    ("red_mask.png", "blue_mask.png"), ("depth.png", "depth2.png"), ("1.png", "mask.png"),
    ("small cat.jpg", "dog.jpg")])
def test_names_that_only_hold_such_words_are_no_matter(folder, names):
    assert find_pictures(folder(dict.fromkeys(names))).warnings == ()


def test_pictures_that_a_table_leaves_out_are_not_warned_of(folder):
    root = folder({"a.png": None, "a_mask.png": None, "metadata.csv": "file_name,text\na.png,red\n"})
    assert find_pictures(root).warnings == ()


def test_kinds_of_one_picture_are_known_by_each_other(folder):
    names = (f"{number}_{kind}.png" for number in range(3) for kind in ("rgb", "depth", "seg"))
    found = find_pictures(folder(dict.fromkeys(names)))
    assert "*_depth.* 3, *_seg.* 3; for example 0_depth.png from 0_rgb.png" in found.warnings[0]
