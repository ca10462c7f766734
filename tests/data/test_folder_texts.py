"""Texts about whole folders, and names of classes behind ids."""

import json

import pytest
from picture_folders import captions_of

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError, UsageError

CLASSES = {"n02084071": "dog", "n02121808": "domestic cat", "n02958343": "car"}
SYNSETS = {f"train/{folder}/{folder}_{number}.JPEG": None for folder in CLASSES for number in range(2)}
NUMBERS = {f"train/{folder}/{number}.png": None for folder in range(3) for number in range(2)}
NAMES = ("fire engine", "ship", "bird")


def by_class(found):
    return {picture.name.split("/")[-2]: picture.captions[0] for picture in found.pictures if picture.captions}


@pytest.mark.parametrize(("file", "content"), [
    ("LOC_synset_mapping.txt", "n02084071 dog, domestic dog, Canis familiaris\nn02121808 domestic cat, house cat\n"
                               "n02958343 car, auto\nn01440764 tench, Tinca tinca\n"),
    ("words.txt", "n00001740\tentity\nn02084071\tdog, domestic dog\nn02121808\tdomestic cat\nn02958343\tcar\n"),
    ("imagenet_class_index.json", json.dumps({str(n): [key, name.replace(" ", "_")]
                                              for n, (key, name) in enumerate(CLASSES.items())})),
    ("Labels.json", json.dumps(CLASSES)), ("class_ids.json", json.dumps({name: key for key, name in CLASSES.items()})),
    ("synsets.csv", "wnid,words\n" + "".join(f"{key},{name}\n" for key, name in CLASSES.items()))])
def test_ids_of_classes_become_their_names(folder, file, content):
    root = folder({**SYNSETS, file: content})
    found = find_pictures(root)
    assert by_class(found) == CLASSES
    assert found.caption_summary == f"folder name by {file} (6 of 6 files)"
    assert (found.notes, found.warnings) == ((), ())


@pytest.mark.parametrize(("file", "content"), [
    ("classes.txt", "\n".join(NAMES)), ("names.txt", "0 fire engine\n1 ship\n2 bird\n"),
    ("data.yaml", "train: ../train\nnc: 3\nnames: ['fire engine', 'ship', 'bird']\n"),
    ("data.yaml", "names:\n  0: fire engine\n  1: ship\n  2: bird\nnc: 3\n"),
    ("data.yaml", "names:\n- fire engine\n- ship\n- bird\nnc: 3\n"),
    ("dataset.json", json.dumps(NAMES)), ("class_to_idx.json", json.dumps({name: n for n, name in enumerate(NAMES)})),
    ("signnames.csv", "ClassId,SignName\n" + "".join(f"{n},{name}\n" for n, name in enumerate(NAMES)))])
def test_numbers_of_classes_become_their_names(folder, file, content):
    found = find_pictures(folder({**NUMBERS, file: content}))
    assert by_class(found) == {str(number): name for number, name in enumerate(NAMES)}


@pytest.mark.parametrize("counts", [{"count": 6, "failed": 0, "seconds": 1.5}, {"count": 3, "failed": 0, "lost": 0}])
def test_counts_are_no_numbers_of_classes(folder, counts):
    found = find_pictures(folder({**NUMBERS, "stats.json": json.dumps(counts)}))
    assert not found.conditional


def test_a_list_counts_from_one_if_the_folders_do(folder):
    pictures = {f"{number:03d}/1.png": None for number in (1, 2, 3)}
    assert by_class(find_pictures(folder({**pictures, "classes.txt": "\n".join(NAMES)}))) == {
        f"{number:03d}": name for number, name in enumerate(NAMES, 1)}


def test_numbers_of_pictures_are_no_numbers_of_the_folders_of_their_shards(folder):
    """As img2dataset writes."""
    names = [f"0000{shard}/0000{shard}000{number}" for shard in range(2) for number in range(3)]
    tables = {f"0000{shard}.csv": "key,caption\n" + "".join(f"0000{shard}000{number},thing {shard} {number}\n"
                                                            for number in range(3)) for shard in range(2)}
    found = find_pictures(folder({**{f"{name}.jpg": None for name in names}, **tables}))
    assert captions_of(found) == {f"{name}.jpg": (f"thing {name[4]} {name[-1]}",) for name in names}
    assert found.warnings == ()


def test_a_list_that_may_count_either_way_is_not_used(folder):
    pictures = {f"{number}/1.png": None for number in (1, 2)}
    assert not find_pictures(folder({**pictures, "classes.txt": "\n".join(NAMES)})).conditional


def test_ids_without_names_mean_no_caption(folder):
    found = find_pictures(folder(SYNSETS))
    assert not found.conditional
    assert found.warnings == (
        "names of folders such as n02084071 say nothing; a file classes.csv beside them, with a line for each "
        "(“n02084071, a word”), makes them captions",)
    classes = "".join(f"{key}, {name}\n" for key, name in CLASSES.items())          # as the warning says
    assert by_class(find_pictures(folder({"train/classes.csv": classes}))) == CLASSES


@pytest.mark.parametrize("header", ["", "class,text\n"])
def test_a_class_may_be_called_like_a_picture(folder, header):
    pictures = {f"{number % 3}/{number}.png": None for number in range(12)}
    rows = "".join(f"{number},{name}\n" for number, name in enumerate(NAMES))
    found = find_pictures(folder({**pictures, "classes.csv": header + rows}))
    assert by_class(found) == {str(number): name for number, name in enumerate(NAMES)}
    assert found.caption_summary == "folder name by classes.csv (12 of 12 files)"


RUSSIAN = ["пожарная машина", "корабль", "птица"]


@pytest.mark.parametrize("captions", ["auto", "path"])
@pytest.mark.parametrize(("file", "content"), [
    ("classes.txt", "\n".join(RUSSIAN)), ("classes.csv", "".join(f"{n},{name}\n" for n, name in enumerate(RUSSIAN))),
    ("names.json", json.dumps(RUSSIAN, ensure_ascii=False)), ("data.yaml", f"names: [{', '.join(RUSSIAN)}]")])
def test_a_guessed_encoding_of_names_of_classes_is_told(folder, captions, file, content):
    root = folder({**NUMBERS, file: content.encode("cp1251")})
    found = find_pictures(root, captions=str(root / file) if captions == "path" else captions)
    assert by_class(found) == {str(number): name for number, name in enumerate(RUSSIAN)}
    assert f"{file} is not UTF-8 and was read as cp1251" in found.notes


def test_a_guessed_encoding_of_names_for_numbers_in_a_table_is_told(folder):
    found = find_pictures(folder({"a.png": None, "b.png": None, "labels.csv": "file,label\na.png,2\nb.png,0\n",
                                  "classes.txt": "\n".join(RUSSIAN).encode("cp1251")}))
    assert captions_of(found) == {"a.png": ("птица",), "b.png": ("пожарная машина",)}
    assert found.notes == ("classes.txt is not UTF-8 and was read as cp1251",)


def test_what_there_is_to_say_about_texts_about_folders_is_said_where_they_were_asked_for(folder):
    root = folder({"cats/a.png": None, "dogs/b.png": None, "cats/caption.txt": "рыжая кошка спит".encode("cp1251")})
    assert find_pictures(root, captions="folder").notes == ("1 caption file is not UTF-8 and was read as cp1251",)


def test_a_list_of_classes_in_yaml_above_the_folder_is_found_by_option(folder):
    root = folder({**{f"images/{name}": None for name in NUMBERS}, "data.yaml": f"names: [{', '.join(NAMES)}]"})
    assert f"{root / 'data.yaml'} holds names for these folders; --captions {root / 'data.yaml'} uses them" \
        in find_pictures(root / "images").warnings
    assert by_class(find_pictures(root / "images", captions=str(root / "data.yaml"))) == {
        str(number): name for number, name in enumerate(NAMES)}
    (root / "data.yaml").write_text("rate: 3")
    with pytest.raises(DataError, match=r"data.yaml gives no names to the folders"):
        find_pictures(root / "images", captions=str(root / "data.yaml"))


@pytest.mark.parametrize("captions", ["captions.xlsx", "./captions", "/captions"])
def test_captions_that_are_no_table_are_refused_with_what_is_taken(folder, captions):
    with pytest.raises(UsageError, match=f"--captions does not read {captions}.*a folder of texts is given behind"):
        find_pictures(folder(NUMBERS), captions=captions)


def test_names_in_the_folder_above_are_found_by_option(folder):
    root = folder({**SYNSETS, "Labels.json": json.dumps(CLASSES)})
    found = find_pictures(root / "train")
    assert f"{root / 'Labels.json'} holds names for these folders; --captions {root / 'Labels.json'} uses them" \
        in found.warnings
    assert by_class(find_pictures(root / "train", captions=str(root / "Labels.json"))) == CLASSES


def test_numbers_in_a_table_become_names(folder):
    table = "image_id,label\n" + "".join(f"a{number}.png,{number % 3}\n" for number in range(6))
    pictures = {f"a{number}.png": None for number in range(6)}
    found = find_pictures(folder({**pictures, "train.csv": table}))
    assert captions_of(found)["a1.png"] == ("1",)
    assert found.warnings == ("the captions are only numbers, such as 0; a file classes.txt beside the pictures, with "
                              "the name of one class in each line, gives them words",)
    found = find_pictures(folder({"names.json": json.dumps(dict(enumerate(NAMES)))}))
    assert captions_of(found)["a1.png"] == ("ship",)
    assert found.caption_summary == "train.csv by names.json (6 of 6 files)"


def test_classes_in_folders_and_in_a_table(folder):
    """Tiny ImageNet: the names of folders for training, a table with boxes for validation."""
    table = "val_0.JPEG\tn02121808\t0\t32\t44\t62\nval_1.JPEG\tn02958343\t1\t3\t4\t6\n"
    found = find_pictures(folder({
        **SYNSETS, "val/images/val_0.JPEG": None, "val/images/val_1.JPEG": None, "val/val_annotations.txt": table,
        "words.txt": "".join(f"{key}\t{name}\n" for key, name in CLASSES.items())}))
    assert captions_of(found)["val/images/val_0.JPEG"] == ("domestic cat",)
    assert captions_of(found)["train/n02084071/n02084071_0.JPEG"] == ("dog",)


# ── One caption for a folder ────────────────────────────────────────────────────────────────────────────────────────

FOLDERS = {f"{name}/{number}.png": None for name in ("c1", "c2") for number in range(3)}
EXPECTED = {"c1": "a tabby cat", "c2": "an old dog"}


@pytest.mark.parametrize("files", [
    {"c1/caption.txt": "a tabby cat", "c2/caption.txt": "an old dog\n"},
    {"c1/prompt.txt": "a tabby cat", "c2/Label.txt": "an old dog"},
    {"c1/caption.json": '{"caption": "a tabby cat"}', "c2/description.caption": "an old dog"},
    {"c1.txt": "a tabby cat", "c2.txt": "an old dog"}, {"c1/c1.txt": "a tabby cat", "c2/c2.txt": "an old dog"},
    {"folders.csv": "folder,caption\nc1,a tabby cat\nc2,an old dog\n"}, {"captions.json": json.dumps(EXPECTED)},
    {"captions.txt": "c1\ta tabby cat\nc2\tan old dog\n"},
    {"p.jsonl": '{"folder": "c1", "text": "a tabby cat"}\n{"folder": "c2", "text": "an old dog"}\n'}])
def test_a_caption_for_a_folder_is_that_of_its_pictures(folder, files):
    found = find_pictures(folder({**FOLDERS, **files}))
    assert by_class(found) == EXPECTED
    assert len(captions_of(found)) == 6
    assert (found.notes, found.warnings, found.caption_problems) == ((), (), ())


def test_one_caption_in_the_data_set_itself(folder):
    found = find_pictures(folder({"1.png": None, "more/2.png": None, "prompt.txt": "a photo of sks dog"}))
    assert captions_of(found) == {"1.png": ("a photo of sks dog",), "more/2.png": ("a photo of sks dog",)}
    assert found.caption_summary == "prompt.txt (2 of 2 files)"


def test_folders_without_a_text_keep_their_names(folder):
    found = find_pictures(folder({"cat/1.png": None, "dog/1.png": None, "cat/caption.txt": "a fat cat"}))
    assert captions_of(found) == {"cat/1.png": ("a fat cat",), "dog/1.png": ("dog",)}
    assert found.caption_summary == "cat/caption.txt and folder name (2 of 2 files)"


def test_a_text_of_a_folder_fills_gaps_and_is_named_if_there_are_none(folder):
    found = find_pictures(folder({"1.png": None, "2.png": None, "1.txt": "one", "caption.txt": "a photo"}))
    assert captions_of(found) == {"1.png": ("one",), "2.png": ("a photo",)}
    found = find_pictures(folder({"2.txt": "two"}))
    assert captions_of(found) == {"1.png": ("one",), "2.png": ("two",)}
    assert found.caption_problems == ()
    assert found.notes == ("caption.txt: texts about folders are not used as captions (for example “a photo”); "
                           "--captions folder would use them",)


def test_a_line_for_each_picture_is_not_given_to_all(folder):
    found = find_pictures(folder({"1.png": None, "2.png": None, "captions.txt": "one\ntwo\n"}))
    assert not found.conditional
    assert found.warnings == (
        "captions.txt has a line for each of the 2 pictures, but does not say whose it is, and is not used; begin each "
        "line with the name of a file and a tab",)


def test_a_table_about_folders_with_words_counts_only_for_its_captions(folder):
    found = find_pictures(folder({"cat/1.png": None, "dog/1.png": None, "kinds.csv": "id,kind\ncat,mammal\ndog,pet\n"}))
    assert by_class(found) == {"cat": "cat", "dog": "dog"}


def test_a_table_gives_captions_to_folders_whose_names_say_nothing(folder):
    """Frames of videos."""
    found = find_pictures(folder({"video1/1.png": None, "video2/1.png": None, "captions.csv":
                                  "video,caption\nvideo1,a dog runs\nvideo2,a cat sleeps\n"}))
    assert by_class(found) == {"video1": "a dog runs", "video2": "a cat sleeps"}


def test_names_behind_ids_of_freebase_are_read_in_the_first_language(folder):
    root = folder({f"m.0{part}/{number}.jpg": None for part in "ab" for number in range(2)} | {
        "list.tsv": 'm.0a\t"Ann Lee"@en\nm.0a\t"アン"@ja\nm.0b\t"Bob Ray"@en\nm.0c\t"Else"@en\n'})
    assert by_class(find_pictures(root)) == {"m.0a": "Ann Lee", "m.0b": "Bob Ray"}
