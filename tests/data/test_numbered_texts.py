"""Texts with the numbers of pictures and other words are captions where no text can mean another picture."""

import pytest

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError

COUNT = range(1, 9)
ASK = "texts have numbers of pictures and may be their captions, but are not used; --captions sidecar takes"


def files(picture, text, *, texts=COUNT, pictures=COUNT):
    """Pictures and texts by number. picture, text: forms of their names, as {:03}.png."""
    return {**{picture.format(number): None for number in pictures},
            **{text.format(number): f"a red car {number}" for number in texts}}


def pairs(found):
    return {picture.name: picture.captions for picture in found.pictures}


@pytest.mark.parametrize(("picture", "text"), [
    ("image_{:04}.png", "caption_{:04}.txt"), ("img/{:04}.png", "txt/caption_{}.txt"), ("photo{}.jpg", "{}.txt"),
    ("images/image{}.png", "captions/caption{}.caption"), ("image ({}).jpg", "caption ({}).txt"),
    ("{:02}_image.png", "{:02}_txt.txt"), ("red_car_{:02}.png", "Prompt-{}.txt"),
    ("a/{:05}.png", "notes/text_{:02}.txt"), ("cat/img/cat{}.png", "cat/txt/cat_caption{}.txt")])
def test_texts_with_the_numbers_of_all_pictures_are_their_captions(folder, picture, text):
    found = find_pictures(folder({**files(picture, text), "README.txt": "my pictures"}))
    assert pairs(found) == {picture.format(number): (f"a red car {number}",) for number in COUNT}
    assert found.warnings == ()
    assert f"texts are captions of the pictures with their numbers: {text.format(1)} is that of {picture.format(1)}" \
        in found.notes


def test_each_folder_has_numbers_of_its_own(folder):
    found = find_pictures(folder({**files("a/image_{}.png", "a/caption_{}.txt"),
                                  **files("b/image_{}.png", "b/caption_{}.txt"), "b/caption_1.txt": "a bus"}))
    assert pairs(found)["a/image_1.png"] == ("a red car 1",)
    assert pairs(found)["b/image_1.png"] == ("a bus",)


def test_numbers_with_gaps_need_not_be_the_same(folder):
    gaps = [3, 90, 217, 1004, 5000]
    found = find_pictures(folder(files("image_{}.png", "caption_{}.txt", pictures=gaps, texts=[*gaps[1:], 7000])))
    assert pairs(found) == {"image_3.png": (), **{f"image_{number}.png": (f"a red car {number}",)
                                                  for number in gaps[1:]}}


@pytest.mark.parametrize(("pictures", "texts"), [(range(8), COUNT), (COUNT, range(1, 7)), (range(3, 7), COUNT)])
def test_counters_that_differ_are_told_with_the_option_that_reads_them(folder, pictures, texts):
    root = folder(files("image_{:02}.png", "caption_{:02}.txt", pictures=pictures, texts=texts))
    found, first = find_pictures(root), max(pictures[0], texts[0])
    assert not found.conditional
    assert f"{ASK} caption_{first:02}.txt for the caption of image_{first:02}.png, and so on" in found.warnings[0]
    assert pairs(find_pictures(root, captions="sidecar"))[f"image_{first:02}.png"] == (f"a red car {first}",)


@pytest.mark.parametrize(("picture", "text", "others"), [
    ("cat_{}.png", "dog_{}.txt", {}), ("image_{}.png", "story_{}.txt", {}), ("image_{}.png", "caption_1{}.txt", {}),
    ("image_{}.png", "caption_{}.txt", {"scan_20.png": None}),
    ("image_{}.png", "caption_{}.txt", {"image_01.png": None}),
    ("image_{}.png", "caption_{}.txt", {"text_20.txt": "a bus"})])
def test_texts_that_may_mean_something_else_are_not_captions(folder, picture, text, others):
    root = folder({**files(picture, text), **others})
    found = find_pictures(root)
    assert not found.conditional
    assert any(f"not read as captions: {text.format(1)}" in warning for warning in found.warnings)
    with pytest.raises(DataError):
        find_pictures(root, captions="sidecar")


def test_a_text_with_the_name_of_a_picture_goes_before_numbers(folder):
    found = find_pictures(folder({**files("image_{}.png", "caption_{}.txt"), "image_1.txt": "a bus"}))
    assert pairs(found)["image_1.png"] == ("a bus",)
    assert len(found.caption_problems) == len(COUNT)        # captions without a picture


@pytest.mark.parametrize(("text", "step"), [
    ("txt/caption_{}.txt", "{0}/txt holds texts with the numbers of these pictures, which are not used; "
                           "give {0}, in which both folders lie: with"),
    ("stuff/caption_{}.txt", "{0}/stuff holds texts with the numbers of these pictures, which are not used; "
                             "give {0}, in which both folders lie: with"),
    ("caption_{}.txt", "{0} holds texts with the numbers of these pictures, which are not used; "
                       "copy them beside the pictures: with")])
def test_texts_around_are_named_by_their_numbers(folder, text, step):
    root = folder(files("img/{:03}.png", text))
    (warning,) = find_pictures(root / "img").warnings
    assert warning == (f"{step.format(root)} --captions sidecar, {text.format(1).split('/')[-1]} is the caption of "
                       "001.png, and so on")
    assert find_pictures(root, captions="sidecar").conditional


def test_a_folder_of_other_pictures_beside_is_not_taken_for_captions(folder):
    root = folder(files("img/{:03}.png", "more/caption_{}.txt"))
    (root / "more" / "img").mkdir()
    assert find_pictures(root / "img").warnings == ()


@pytest.mark.parametrize(("english", "other"), [
    ("en_{}.txt", "de_{}.txt"), ("caption_en_{}.txt", "caption_de_{}.txt"), ("caption_{}.en.txt", "caption_{}.de.txt"),
    ("en/caption_{}.txt", "de/caption_{}.txt"), ("captions/en/{}.txt", "captions/ja/{}.txt"),
    ("caption_{}.txt", "caption_{}_fr.txt"), ("text_{}-english.txt", "text_{}-german.txt")])
def test_of_numbered_texts_in_several_languages_the_english_ones_count(folder, english, other):
    root = folder({**files("img/image_{}.png", other), **files("img/image_{}.png", english, texts=COUNT[:-1]),
                   english.format(8): "a bus"})
    found = find_pictures(root)
    assert pairs(found)["img/image_8.png"] == ("a bus",)
    assert found.caption_problems == found.warnings == ()
    assert f"8 more texts are not used, because the pictures have a text already, for example {other.format(1)}" \
        in found.notes


def test_numbered_texts_in_languages_none_of_which_is_english_are_told_with_the_option_that_reads_them(folder):
    root = folder({**files("image_{}.png", "caption_{}.fr.txt"), **files("image_{}.png", "caption_{}.de.txt")})
    (warning,) = find_pictures(root).warnings
    assert warning == f"8 {ASK} caption_1.de.txt for the caption of image_1.png, and so on"
    found = find_pictures(root, captions="sidecar")
    assert pairs(found)["image_1.png"] == ("a red car 1",)
    assert found.caption_problems == ()


def test_folders_of_numbered_texts_in_languages_around_are_told_once(folder):
    root = folder({**files("img/image_{}.png", "de/caption_{}.txt"), **files("img/image_{}.png", "en/caption_{}.txt")})
    (warning,) = find_pictures(root / "img").warnings
    assert warning.startswith(f"{root}/en holds texts with the numbers of these pictures")
