"""Captions made of the names of folders and files: by what `find_pictures` finds in real folders."""

import os
import shlex

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
    ("猫", "猫"), ("屏幕截图 2024-01-01", ""), ("Captura de pantalla (3)", ""), ("Bildschirmfoto 2020", ""),
    ("red%20car", "red car"), ("rotes_foto", "rotes foto"),
    ("a_red_car_--ar_16_9_--v_6", "a red car"), ("red--car", "red car"),
    ("DALL·E 2024-01-01 10.00.00 - a red car", "a red car"), ("dalle_00001", ""),
    ("face0001", "face"), ("face01b2", ""), ("grass2dirt", "grass2dirt"), ("arm1left_03", "arm1left"),
    ("dQw4w9WgXcQ", ""), ("abc1defg2hij", ""),
])
def test_words_of_a_file_name(stem, words):
    assert words_of_name(stem) == words


def test_folders_of_pascal_voc_say_nothing(folder):
    found = find_pictures(folder({f"{part}/{number}.png": None for part in ("JPEGImages", "SegmentationClass")
                                  for number in range(4)}))
    assert found.caption_source == "none"


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


@pytest.mark.parametrize("pattern", ["ComfyUI_{:05}_", "DJI_{:04}", "train_{:06}", "MVI_{:04}", "P10{:05}",
                                     "GX01{:04}", "FB_IMG_{:013}", "image ({})", "n02085620_{}", "Copy of IMG_{:04}",
                                     "{:05}-123456", "Photo on 01.01.24 at 10.{}", "Gemini_Generated_Image_a{}b2",
                                     "vlcsnap-2024-01-01-10h10m{:02}s1", "Bildschirmfoto 2024-01-01 um 10.10.{:02}"])
def test_names_that_programs_give_are_no_captions(folder, pattern):
    found = find_pictures(folder({f"{pattern.format(number)}.png": None for number in range(9)}))
    assert (found.caption_source, found.conditional) == ("none", False)


def test_names_of_several_programs_and_dates_with_names_of_months_are_no_captions(folder):
    names = ("ChatGPT Image Apr 1, 2025, 10_10_01 AM", "ChatGPT Image May 31, 2025, 11_10_01 PM", "flux_dev_00001_",
             "viber_image_2024-01-01", "ezgif-frame-001", "Screenshot 3 Dec 2024", "2023-December-0012", "07 juillet")
    assert find_pictures(folder({f"{name}.png": None for name in names})).caption_source == "none"


def test_modes_that_cameras_write_behind_the_number_are_no_captions_and_words_of_people_are(folder):
    names = ("PXL_20230115_101112345.PORTRAIT", "PXL_20230115_101113345.NIGHT", "IMG-20230101-WA0001", "IMG_1234_HDR",
             "Screenshot_20230101-101010_Chrome", "Screenshot_20230101-101011_Maps", "DJI_0001_W", "image_picker_12",
             "IMG_20230101_101010_BURST001_COVER", "telegram-cloud-photo-size-2-123-y", "ComfyUI_temp_abcde_00001_")
    assert find_pictures(folder({f"{name}.jpg": None for name in names})).caption_source == "none"
    for name in names:
        (folder({}) / f"{name}.jpg").unlink()
    found = find_pictures(folder({"IMG_1234 red car.jpg": None, "DSC_0001_blue_bus.jpg": None}))
    assert sorted(captions_of(found).values()) == [("blue bus",), ("red car",)]


def test_folders_of_months_are_no_classes_and_those_of_other_words_are(folder):
    dates = {f"{part}/{number}.png": None for part in ("2023/01 January", "2023/02 February", "May 2024",
                                                              "2024_06_June") for number in range(3)}
    assert find_pictures(folder(dates)).caption_source == "none"
    classes = {f"{part}/{number}.png": None for part in ("May", "grid", "Gemini", "flux") for number in range(9)}
    assert {captions for captions in captions_of(find_pictures(folder(classes))).values() if captions} == {
        ("May",), ("grid",), ("Gemini",), ("flux",)}


@pytest.mark.parametrize("name", ["{}/{}.png", "{}-{}.png"])
def test_names_that_are_not_utf8_are_read_in_their_code_page(tmp_path, name):
    """As in a folder unpacked from an old archive."""
    for word in ("кошки", "собаки"):
        for number in range(3):
            path = tmp_path / os.fsdecode(name.format(word, number).encode("cp1251"))
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"picture")
    found = find_pictures(tmp_path)
    assert set(captions_of(found).values()) == {("кошки",), ("собаки",)}
    assert found.notes == ("names of folders or files are not UTF-8 and were read as cp1251",)


def test_names_that_all_say_the_same_are_no_captions_but_named(folder):
    found = find_pictures(folder({f"sks dog ({number}).png": None for number in range(9)}))
    assert found.caption_source == "none"
    assert found.notes == ("the names of all files say “sks dog”, which tells no picture from another; "
                           '--caption "sks dog" would use it',)


def test_nested_folders_and_names_say_what_the_path_says(folder):
    root = folder({"units/undead/archer-idle.png": None, "units/undead/archer-die-2.png": None,
                   "units/elves/bowman.png": None, "units/elves/high-lord/RedCape01.png": None})
    found = find_pictures(root)
    assert found.caption_source == "folder"
    assert captions_of(found) == {
        "units/elves/bowman.png": ("elves bowman",),
        "units/elves/high-lord/RedCape01.png": ("elves high lord Red Cape",),
        "units/undead/archer-die-2.png": ("undead archer die",),
        "units/undead/archer-idle.png": ("undead archer idle",)}
    by_template = find_pictures(root, caption_template="{name}, of the {folder}")
    assert captions_of(by_template)["units/elves/bowman.png"] == ("bowman, of the elves",)
    assert captions_of(find_pictures(root, captions="folder"))["units/elves/bowman.png"] == ("elves",)
    assert captions_of(find_pictures(root, captions="filename"))["units/elves/bowman.png"] == ("bowman",)


def test_a_folder_that_is_in_all_others_says_nothing(folder):
    found = find_pictures(folder({f"{name}/contents/{size}.png": None for name in ("Sea", "Kite") for size in (1, 2)}))
    assert set(captions_of(found).values()) == {("Sea",), ("Kite",)}


def test_a_name_that_repeats_a_folder_further_up_says_it_once(folder):
    found = find_pictures(folder({f"{mod}/textures/{mod}_{name}.png": None
                                  for mod in ("beds", "wool") for name in ("red", "blue")}))
    assert captions_of(found)["wool/textures/wool_red.png"] == ("wool red",)


def test_among_names_with_words_those_of_one_word_count_whatever_they_say(folder):
    wordy = [f"{colour}-{kind}" for colour in ("red", "blue", "grey", "pink") for kind in ("car", "hat", "cap", "cat")]
    others = {"ox": ("ox",), "camera": ("camera",), "camera_2": (), "7x": ()}
    found = captions_of(find_pictures(folder({f"{name}.png": None for name in [*wordy, *others]})))
    assert {name: found[f"{name}.png"] for name in others} == others


def test_names_that_say_nothing_say_nothing_among_their_like(folder):
    assert not find_pictures(folder(dict.fromkeys(["ox.png", "camera.png", "image.png", "hat.png"]))).conditional


def test_a_name_that_repeats_its_folder_says_it_once(folder):
    found = find_pictures(folder({"cat/cat-12.png": None, "cat/cat asleep.png": None, "dog/Dog 3.png": None}))
    assert sorted(captions_of(found).values()) == [("cat",), ("cat asleep",), ("dog",)]


def test_one_stray_picture_or_one_deeper_class_changes_nothing_for_the_others(folder):
    root = folder({"cat/1.png": None, "dog/2.png": None, "3.png": None, "dog/puppy/4.png": None})
    assert captions_of(find_pictures(root)) == {"3.png": (), "cat/1.png": ("cat",), "dog/2.png": ("dog",),
                                                "dog/puppy/4.png": ("dog puppy",)}


def test_a_single_folder_with_repeats_is_a_class(folder):
    assert captions_of(find_pictures(folder({"10_sks dog/1.png": None}))) == {"10_sks dog/1.png": ("sks dog",)}


def test_splits_are_no_classes_and_are_asked_about(folder):
    found = find_pictures(folder({"train/cat/1.png": None, "train/dog/2.png": None, "test/cat/3.png": None}))
    assert captions_of(found) == {"test/cat/3.png": ("cat",), "train/cat/1.png": ("cat",), "train/dog/2.png": ("dog",)}
    assert found.warnings == ("train and test lie side by side, and pictures of both are trained on unless "
                              "--held-out test keeps the latter for validation",)


@pytest.mark.parametrize(("train", "test"), [
    ("seg_train/seg_train", "seg_test/seg_test"), ("training_set", "test_set"), ("trainA", "testA"),
    ("asl alphabet train", "asl alphabet test"), ("images_Tr", "images_Ts"), ("fruits-train2", "fruits-val2")])
def test_names_of_splits_among_other_words_are_no_classes_if_their_counterparts_lie_beside(folder, train, test):
    root = folder({f"{part}/{kind}/{number}.png": None for part in (train, test) for kind in ("cat", "dog")
                   for number in range(2)})
    found = find_pictures(root)
    assert set(captions_of(found).values()) == {("cat",), ("dog",)}
    first, second = (part.partition("/")[0] for part in (train, test))
    assert found.warnings == (f"{first} and {second} lie side by side, and pictures of both are trained on unless "
                              f"--held-out {shlex.quote(second)} keeps the latter for validation",)


def test_names_of_splits_without_a_counterpart_are_classes(folder):
    found = find_pictures(folder({f"{kind}/{number}.png": None for kind in ("toy train", "test tube", "fold3/train bus")
                                  for number in range(3)}))
    assert (set(captions_of(found).values()), found.warnings) == ({("toy train",), ("test tube",), ("train bus",)}, ())


def test_a_train_beside_other_classes_is_a_class(folder):
    pictures = {f"{kind}/{number}.png": None for kind in ("train", "bus", "car") for number in range(2)}
    assert set(captions_of(find_pictures(folder(pictures))).values()) == {("train",), ("bus",), ("car",)}


def test_a_folder_of_regularisation_is_its_class(folder):
    root = folder({"img/10_sks dog/1.png": None, "reg/1_dog/2.png": None})
    assert captions_of(find_pictures(root)) == {"img/10_sks dog/1.png": ("sks dog",), "reg/1_dog/2.png": ("dog",)}


def test_names_of_one_or_two_ideographs_are_captions(folder):
    found = find_pictures(folder({"红车1.png": None, "猫.png": None, "いぬ.png": None, "말.png": None}))
    assert set(captions_of(found).values()) == {("红车",), ("猫",), ("いぬ",), ("말",)}


def test_a_number_before_the_folder_of_all_classes_is_no_number_of_repeats(folder):
    """Caltech-256."""
    found = find_pictures(folder({f"256_ObjectCategories/{name}/{name[:3]}_0001.jpg": None
                                  for name in ("001.ak47", "002.american-flag")}))
    assert sorted(captions_of(found).values()) == [("ak47",), ("american flag",)]
    assert found.warnings == ()


def test_a_counter_with_its_word_says_nothing():
    assert words_of_name("dog_running_frame00012") == "dog running"
    assert words_of_name("frame12") == words_of_name("photo3_view2") == ""
    assert words_of_name("golden frame") == "golden frame"


@pytest.mark.parametrize(("names", "expected"), [
    (["a/abbey/1.jpg", "a/airfield/2.jpg", "b/bar/3.jpg"], ["abbey", "airfield", "bar"]),
    (["A/1.jpg", "B/2.jpg", "B/3.jpg"], ["A", "B", "B"]),               # letters of an alphabet
    (["a/red/1.jpg", "a/blue/2.jpg", "b/bus/3.jpg"], ["a red", "a blue", "bus"])])
def test_letters_that_only_sort_folders_are_no_words(folder, names, expected):
    assert [one for (one,) in captions_of(find_pictures(folder(dict.fromkeys(names)))).values()] == [
        text for _, text in sorted(zip(names, expected, strict=True))]
