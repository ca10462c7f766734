"""Tables whose names end in the numbers of the pictures mean these, where the two series are the same."""

import json

import pytest

from diffuse_cli.data.captions import find_pictures

IDS = [9, 25, 30, 36, 42, 570]                  # with gaps, as in COCO


def coco(form, numbers):
    return json.dumps({"images": [{"id": number, "file_name": form.format(number)} for number in numbers],
                       "annotations": [{"image_id": number, "caption": f"a red car {number}"} for number in numbers]})


def pairs(found):
    return {picture.name: picture.captions for picture in found.pictures}


@pytest.mark.parametrize(("picture", "written"), [
    ("{:012}.jpg", "COCO_train2014_{:012}.jpg"), ("train2017/{:012}.jpg", "COCO_val2014_{:012}.jpg"),
    ("COCO_val2014_{:012}.jpg", "{:012}.jpg"), ("{:06}.png", "frame-{}.jpg"), ("photo{}.png", "{}.jpg"),
    ("image 0{}.png", "Image_{}.png")])
@pytest.mark.parametrize("more", [[], [3, 1004, 5000]])
def test_names_that_end_in_the_numbers_of_the_pictures_mean_these(folder, picture, written, more):
    found = find_pictures(folder({**{picture.format(number): None for number in IDS},
                                  "captions.json": coco(written, [*IDS, *more])}))
    assert pairs(found) == {picture.format(number): (f"a red car {number}",) for number in IDS}
    assert any(f"captions.json gives pictures by their numbers: {start} is taken for {picture.format(9)}" in found.notes
               for start in (written.format(9), 9))


def test_pictures_of_two_splits_are_found_by_one_list(folder):
    found = find_pictures(folder({**{f"COCO_val2014_{number:012}.jpg": None for number in IDS[:3]},
                                  **{f"COCO_train2014_{number:012}.jpg": None for number in IDS[3:]},
                                  "captions.json": coco("{:012}.jpg", IDS)}))
    assert sum(map(bool, pairs(found).values())) == len(IDS)


@pytest.mark.parametrize(("picture", "written", "numbers"), [
    ("cat_{:03}.jpg", "dog_{:03}.jpg", IDS), ("val/{:03}.jpg", "train/{:03}.jpg", IDS),
    ("{:012}.jpg", "COCO_{:012}.jpg", [1, 2, 3, 4]), ("{:012}.jpg", "COCO_{:012}.jpg", [9, 500, 501, 502]),
    ("{:012}.jpg", "COCO_{:012}_b.jpg", IDS)])
def test_numbers_of_something_else_mean_no_picture(folder, picture, written, numbers):
    found = find_pictures(folder({**{picture.format(number): None for number in IDS},
                                  "captions.json": coco(written, numbers)}))
    assert not found.conditional or found.caption_source in ("folder", "filename")
    assert any("captions.json is not used: lists none of the pictures" in line
               for line in (*found.warnings, *found.notes))


def test_words_with_numbers_that_are_no_names_of_files_mean_no_picture(folder):
    pictures = {f"{number:03}.jpg": None for number in IDS}
    for word, conditional in (("image", True), ("chapter", False), ("user", False)):
        texts = json.dumps({f"{word}_{number}": f"a red car {number}" for number in IDS})
        assert find_pictures(folder({**pictures, "all.json": texts})).conditional == conditional


def test_two_names_with_one_number_mean_no_picture(folder):
    rows = "".join(f"{split}_{number}.jpg,a red car\n" for number in IDS for split in ("train", "val"))
    assert not find_pictures(folder({**{f"{number:03}.jpg": None for number in IDS},
                                     "t.csv": "file,text\n" + rows})).conditional
