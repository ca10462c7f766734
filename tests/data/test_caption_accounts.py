"""Every file that looks like captions is read, or named with the command that would read it."""

import io
import os
import zipfile

import pytest
from picture_folders import captions_of

from diffuse_cli.data.captions import find_pictures

PICTURES = {f"{number}.png": None for number in range(4)}


def files(suffix, text):
    return {name.replace(".png", suffix): f"{text} {name[0]}" for name in PICTURES}


def test_a_table_that_loses_against_text_files_is_named(folder):
    root = folder({**PICTURES, **files(".txt", "red"), "labels.csv": "file,text\n0.png,blue\n1.png,blue\n"})
    found = find_pictures(root)
    assert captions_of(found)["0.png"] == ("red 0",)
    assert found.notes == (
        f"labels.csv holds captions for 2 pictures and is not used; --captions {root / 'labels.csv'} uses it",)
    used = find_pictures(root, captions=str(root / "labels.csv"))
    assert captions_of(used)["0.png"] == ("blue",)


def test_text_files_that_lose_against_a_table_are_named(folder):
    table = "file,text\n" + "".join(f"{name},blue\n" for name in PICTURES)
    found = find_pictures(folder({**PICTURES, "0.txt": "red", "labels.csv": table}))
    assert captions_of(found)["0.png"] == ("blue",)
    assert found.notes == ("sidecar .txt is not used, because labels.csv has more captions; --captions sidecar would "
                           "use it",)


def test_other_text_files_beside_pictures_are_named(folder):
    root = folder({**PICTURES, **files(".txt", "red"), **files(".tags", "blue"), **files(".booru", "green")})
    found = find_pictures(root)
    assert found.notes == ("4 .tags files are not used, because .txt files count; --caption-ext .tags would use them",
                           "4 .booru files lie beside pictures and are not used; --caption-ext .booru would read "
                           "captions from them")
    assert found.warnings == ()
    assert captions_of(find_pictures(root, caption_ext=".booru"))["0.png"] == ("green 0",)


@pytest.mark.parametrize(("content", "named"), [("a red car", True), (b"OggS\0\2\0\0", False), ("<?xml version='1.0'?>",
                                                                                              False)])
def test_files_of_an_unknown_kind_are_a_warning_if_they_hold_words(folder, content, named):
    found = find_pictures(folder({**PICTURES, **{f"{number}.xyz": content for number in range(4)}}))
    assert found.warnings == (("4 .xyz files lie beside pictures and are not used; --caption-ext .xyz would read "
                               "captions from them",) if named else ())


@pytest.mark.parametrize("suffix", [".yaml", ".yml", ".toml"])
def test_files_of_named_values_are_not_advised_as_lines_of_captions(folder, suffix):
    found = find_pictures(folder({**PICTURES, **files(suffix, "caption: a red car\nrating: 1\nnumber:")}))
    assert found.warnings == (f"not read as captions: 0{suffix} and 3 more; copy the captions in such files into .txt "
                              "files",)


def test_settings_of_programs_beside_pictures_are_no_captions(folder):
    found = find_pictures(folder({**PICTURES, **files(".png.pp3", "[Version]\nAppVersion=5.8\nName=")}))
    assert (found.notes, found.warnings) == ((), ())


def test_names_of_folders_that_lose_are_named(folder):
    found = find_pictures(folder({"cat/0.png": None, "cat/0.txt": "x", "dog/1.png": None, "dog/1.txt": "y"}))
    assert found.notes == ("names of folders are not used as captions (for example “cat”); --captions folder would use "
                           "them",)


def test_a_table_of_other_pictures_fills_gaps(folder):
    root = folder({**PICTURES, "0.txt": "red", "1.txt": "red", "more.csv": "image,caption\n3.png,blue\n"})
    found = find_pictures(root)
    assert found.caption_summary == "sidecar .txt and more.csv (3 of 4 files; 1 has none → empty)"
    assert captions_of(found)["3.png"] == ("blue",)


def test_captions_that_would_fill_gaps_are_a_warning(folder):
    table = "image,caption\n1.png,blue\n3.png,blue\n"
    root = folder({**PICTURES, "0.txt": "red", "1.txt": "red", "more.csv": table})
    assert find_pictures(root).warnings == (
        f"more.csv holds captions for 2 pictures and is not used; --captions {root / 'more.csv'} uses it",)


@pytest.mark.parametrize("name", ["captions.csv", "captions.txt"])
def test_a_table_in_the_folder_above_is_named(folder, name):
    root = folder({"images/0.png": None, "images/1.png": None, name: "image,caption\n0.png,red\n1.png,blue\n"})
    found = find_pictures(root / "images")
    assert found.warnings == (f"{root / name} holds captions for 2 of these pictures, which are not used; "
                              f"--captions {root / name} uses them",)
    assert captions_of(find_pictures(root / "images", captions=str(root / name))) == {
        "0.png": ("red",), "1.png": ("blue",)}


def test_a_folder_of_texts_beside_the_folder_is_named_and_used_from_above(folder):
    root = folder({"images/0.png": None, "images/1.png": None, "captions/0.txt": "red", "captions/1.txt": "blue"})
    found = find_pictures(root / "images")
    assert found.warnings == (f"{root / 'captions'} holds texts with the names of these pictures, which are not used; "
                              f"give {root}, in which both folders lie",)
    assert captions_of(find_pictures(root)) == {"images/0.png": ("red",), "images/1.png": ("blue",)}


def packed(part, text):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr(part, text)
    return data.getvalue()


COCO = ('{"images": [{"id": 1, "file_name": "a.png"}], "annotations": [{"image_id": 1, "category_id": 1}], '
        '"categories": [{"id": 1, "name": "dog"}]}')
VOC = "<annotation><filename>a.png</filename><object><name>dog</name></object></annotation>"
NAMES = "<t>a.png</t><t>b.png</t>"
CSV = "not read as captions: {path}; save the table as CSV"
TEXTS = "{folder} holds texts with the names of these pictures, which are not used"


@pytest.mark.parametrize(("name", "content", "told"), [
    ("list.xlsx", packed("xl/sharedStrings.xml", NAMES), CSV),
    ("labels/list.ods", packed("content.xml", NAMES), CSV),
    ("captions.sqlite", b"SQLite format 3\0", CSV),
    ("text.docx", packed("word/document.xml", NAMES),
     "not read as captions: {path}; save the text as .txt, or as a table NAME, CAPTION in .csv"),
    ("cvat.xml", "<image name='a.png'/><image name='b.png'/>",
     "not read as captions: {path}; export them as JSON or CSV"),
    ("Annotations/a.xml", VOC,
     "{folder} holds .xml files with the names of these pictures, which are not read as captions; export them as JSON "
     "or CSV"),
    ("annotations/instances.json", COCO, "{path} lists pictures, without captions but with objects in them; "
     "--captions {path} --caption-column objects takes these"),
    ("annotations/captions.json", '{"a.png": "a dog"}',
     "{path} holds captions for 1 of these pictures, which are not used; --captions {path} uses them"),
    ("a.txt", "a dog", f"{TEXTS}; copy them beside the pictures"),
])
def test_what_lies_around_the_folder_is_named(folder, name, content, told):
    root = folder({"images/a.png": None, "images/b.png": None, name: content})
    path = root / name
    assert find_pictures(root / "images").warnings == (told.format(path=path, folder=path.parent),)


def test_boxes_beside_the_folder_and_unrelated_documents_are_no_captions(folder):
    root = folder({"images/a.png": None, "labels/a.txt": "0 0.5 0.5 0.2 0.2\n", "tax.xlsx": packed("content.xml", "x"),
                   "report.docx": b"PK", "other/annotations.xml": VOC})
    found = find_pictures(root / "images")
    assert found.warnings == ()
    assert found.notes == (f"{root / 'labels'} holds texts with the names of these pictures, but they are boxes of "
                           "objects, and no captions",)


def test_texts_in_a_parallel_folder_two_levels_above_are_named(folder):
    root = folder({"images/train/a.png": None, "captions/train/a.txt": "a dog"})
    found = find_pictures(root / "images" / "train")
    assert found.warnings == (f"{TEXTS.format(folder=root / 'captions' / 'train')}; give {root}, in which both folders "
                              "lie",)
    assert captions_of(find_pictures(root)) == {"images/train/a.png": ("a dog",)}


def test_tables_and_lists_beside_texts_are_not_called_captions_of_no_picture(folder):
    names = {"a b.png": None, "c.png": None}
    root = folder({**names, "a b.txt": "red", "c.txt": "blue", "pictures.txt": "a b.png\nc.png\n",
                   "more.txt": "a b.png\tred\nc.png\tblue\n", "d.txt": "of no picture"})
    found = find_pictures(root)
    assert found.caption_problems == (("d.txt", "caption without a picture"),)
    assert found.notes == (f"more.txt holds captions for 2 pictures and is not used; --captions {root / 'more.txt'} "
                           "uses it", "pictures.txt lists pictures, without captions")


@pytest.mark.parametrize("name", ["captions.numbers", "tags.db", "captions.pkl", "captions.xlsm"])
def test_tables_of_other_programs_are_named_with_a_remedy(folder, name):
    assert find_pictures(folder({**PICTURES, name: b"\0\1"})).warnings == (
        f"not read as captions: {name}; save the table as CSV",)


def test_a_single_file_beside_a_picture_is_named(folder):
    assert find_pictures(folder({**PICTURES, "0.md": "a red car"})).warnings == (
        "0.md lies beside a picture and is not used; --caption-ext .md would read a caption from it",)


def test_the_texts_of_other_pictures_are_not_meant(folder):
    root = folder({"one/0.png": None, "two/0.png": None, "two/0.txt": "red"})
    assert find_pictures(root / "one").warnings == ()


@pytest.mark.parametrize("name", ["labels.txt", "list.txt", "index.tags"])
def test_lists_of_captions_without_names_are_named(folder, name):
    (warning,) = find_pictures(folder({**PICTURES, name: "a red car\na blue bird\na dog\na house"})).warnings
    assert warning.startswith(f"not read as captions: {name}; a text has the name of its picture")


def test_a_table_without_captions_is_named(folder):
    found = find_pictures(folder({**PICTURES, "all.csv": "file,caption\n0.png,None\n1.png,\n2.png,nan\n3.png,[]\n"}))
    assert found.warnings == ("all.csv lists pictures, without captions",)


def test_a_readme_that_describes_the_pictures_is_named(folder):
    table = "# Pictures\n| 0.png | a red car |\n| 1.png | a bird |\n"
    (warning,) = find_pictures(folder({**PICTURES, "README.md": table})).warnings
    assert warning.startswith("not read as captions: README.md, although it names pictures; copy them into a table")
    assert find_pictures(folder({"README.md": "# Pictures"})).warnings == ()


def test_other_texts_are_named_once(folder):
    found = find_pictures(folder({**PICTURES, "notes.txt": "bought in 1999", "prices.json": "{}", "README.txt": "hi"}))
    named = ("prices.json is not used: lists none of the pictures",
             "not read as captions: notes.txt; a text has the name of its picture, as 1.txt beside 1.jpg, and a table "
             "has the name of a picture and its caption in each line, with a comma or tab between")
    assert (found.notes, found.warnings) == ((), named)
    with_captions = find_pictures(folder(files(".caption", "red")))     # then it is no warning
    assert (with_captions.notes, with_captions.warnings) == (named, ())


def test_the_texts_of_pictures_that_cannot_be_used_are_not_named(folder):
    drawings = {"4.svg": "<svg/>", "4.txt": "a house", "5.SVG": "<svg/>", "5.txt": "a cat"}
    found = find_pictures(folder({**PICTURES, **files(".txt", "red"), **drawings}))
    assert (found.notes, found.warnings) == ((), ())


def test_files_of_boxes_are_told_apart_from_captions(folder):
    found = find_pictures(folder({**PICTURES, **{f"{number}.txt": "0 0.5 0.5 0.2 0.1" for number in range(4)}}))
    assert (found.conditional, found.notes) == (
        False, ("4 text files hold only numbers, as boxes for object detection, and no caption",))


SETTINGS = "# about the figure\nimage=red.png\n\n[walk]\nframes=4\nframe=0,0,388,237\nINCLUDE base.txt\n"


def test_settings_of_a_program_are_no_captions(folder):
    found = find_pictures(folder({f"{name}-car{suffix}": text for name in ("red", "blue")
                                  for suffix, text in ((".png", None), (".txt", SETTINGS))}))
    assert captions_of(found) == {"blue-car.png": ("blue car",), "red-car.png": ("red car",)}
    assert found.notes == ()


def test_of_settings_that_name_something_the_name_is_the_caption(folder):
    entry = "[Desktop Entry]\nName[de]=Rotes Auto\nName=Red Car\nName[fr]=Voiture rouge\nIcon=car\n"
    root = folder({**PICTURES, **files(".desktop", entry)})
    assert ".desktop would read captions from them" in find_pictures(root).warnings[0]
    assert set(captions_of(find_pictures(root, caption_ext=".desktop")).values()) == {("Red Car",)}


def test_settings_beside_names_that_say_nothing_are_told(folder):
    found = find_pictures(folder({**PICTURES, **files(".txt", SETTINGS), **files(".cfg", SETTINGS)}))
    assert (found.conditional, found.notes) == (False, (
        f"{len(files('.txt', ''))} text files hold settings of a program, as “width = 640” is one, and no caption",))


@pytest.mark.parametrize(("text", "captions"), [
    ("width=512\nprompt = a red car\nheight=512\n", ("a red car",)),
    ("E = mc² on a blackboard", ("E = mc² on a blackboard",)),
    ("E = mc² on a blackboard\na lecture\na formula", ("E = mc² on a blackboard", "a lecture", "a formula")),
    ("#car #red\n#street", ("#car #red", "#street"))])
def test_what_a_person_writes_is_no_settings(folder, text, captions):
    assert captions_of(find_pictures(folder({"0.png": None, "0.txt": text}))) == {"0.png": captions}


def test_archives_beside_pictures_are_named(folder):
    root = folder({**PICTURES, "more.zip": b"PK", "old.tar": b"", "more.7z": b"7z", "a.tar.gz": b"", "b.cbz": b"PK"})
    assert find_pictures(root).notes == (
        "not read: a.tar.gz and 2 more; unpack what holds pictures or captions",
        f"more.zip and 1 more: not read, because pictures lie beside; give {root / 'more.zip'} to read its pictures, "
        "or unpack it if it holds captions")


def test_an_archive_in_an_archive_is_named_without_a_path_that_is_not_there(folder):
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("1.png", b"picture")
        archive.writestr("more.zip", b"PK")
    assert find_pictures(folder({"all.zip": inner.getvalue()})).notes == (
        "not read: all/more.zip; unpack what holds pictures or captions",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_in_the_folder_above_is_left_alone(folder):
    """Opening one would wait until somebody writes into it."""
    root = folder({"images/0.png": None})
    os.mkfifo(root / "captions.csv")
    assert find_pictures(root / "images").warnings == ()


def test_a_table_with_an_unknown_suffix_is_named_and_one_of_flickr_is_read(folder):
    table = "".join(f"{name}#{number}\ta red car {number}\n" for name in PICTURES for number in range(2))
    found = find_pictures(folder({**PICTURES, "captions.lst": table}))
    assert found.warnings == ("not read as captions: captions.lst; a copy with the suffix .txt would be read as a "
                              "table",)
    found = find_pictures(folder({**PICTURES, "results.token": table}))
    assert captions_of(found)["0.png"] == ("a red car 0", "a red car 1")


def test_documents_and_longer_suffixes_beside_pictures_are_named(folder):
    found = find_pictures(folder({**PICTURES, **files(".docx", "PK")}))
    assert "not read as captions: 0.docx and 3 more; save the text as .txt" in found.warnings[0]
    found = find_pictures(folder({**PICTURES, **files(".site.info", "a red car")}))
    assert found.warnings[0] == ("4 .info files lie beside pictures and are not used; --caption-ext .info would read "
                                 "captions from them")


def test_numbers_of_classes_beside_pictures_are_named(folder):
    found = find_pictures(folder({**PICTURES, **{f"{number}.cls": str(number) for number in range(4)}}))
    assert found.warnings == ("4 .cls files lie beside pictures and are not used; --caption-ext .cls would read "
                              "captions from them",)


def test_many_tables_of_other_pictures_are_one_line(folder):
    others = {f"photos_{chr(97 + number)}.json": '[{"file": "x.png", "text": "a"}]' for number in range(20)}
    assert find_pictures(folder({**PICTURES, **others})).warnings == (
        "photos_a.json and 19 more are not used: they list none of the pictures",)


def test_packed_texts_beside_pictures_are_named(folder):
    found = find_pictures(folder({**PICTURES, **files(".json.xz", "x"), "more.zip": ""}))
    assert found.notes[0] == "not read: 0.json.xz and 3 more; unpack what holds pictures or captions"
    assert found.notes[1].startswith("more.zip: not read, because pictures lie beside")


@pytest.mark.parametrize(("name", "content"), [
    ("captions.yaml", "0.png: a red car\n1.png: two dogs\n"), ("captions.toml", '"0.png" = "a"\n"1.png" = "b"\n'),
    ("captions.md", "# Captions\n![a red car](0.png)\n![two dogs](1.png)\n"),
    ("table.md", "| file | caption |\n|---|---|\n| 0.png | a |\n| 1.png | b |\n"),
    ("captions.py", "{'0.png': 'a', '1.png': 'b'}"), ("run.log", "INFO 0.png: a\nINFO 1.png: b\n"),
    ("index.html", "<html><body><img src='0.png' alt='a car'><img src='1.png' alt='dogs'></body></html>"),
    ("captions.foo", "<0.png> a\n<1.png> b\n")])
def test_texts_of_other_kinds_that_name_pictures_are_a_warning(folder, name, content):
    found = find_pictures(folder({**PICTURES, name: content}))
    assert found.warnings == (f"not read as captions: {name}, although it names pictures; copy them into a table, "
                              "which has the name of a picture and its caption in each line, with a comma or tab "
                              "between",)
    found = find_pictures(folder({**PICTURES, name: "see https://example.org/a.png\nepochs: 3\n"}))
    assert found.warnings == ()


@pytest.mark.parametrize("folders", [True, False])
def test_names_that_fit_several_pictures_are_said_to(folder, folders):
    pictures = {f"{place}/{name}.png": None for place in ("cats", "dogs") for name in "ab"} if folders else {
        f"{place}/{name}.png": None for place in "12" for name in "ab"}
    found = find_pictures(folder({**pictures, "all.csv": "file,text\na.png,A\nb.png,B\n"}))
    assert ("all.csv is not used: has names such as a.png, which are those of several pictures. Write their folders as "
            "well" in found.warnings)


def test_texts_that_are_all_empty_are_a_warning(folder):
    found = find_pictures(folder({**PICTURES, "0.txt": "", "1.txt": " ", "2.txt": "\n", "3.txt": ""}))
    assert found.warnings == ("4 caption files hold no text, for example 0.txt",)


def test_packed_pictures_are_a_warning(folder):
    found = find_pictures(folder({**PICTURES, "4.png.gz": b"\x1f\x8b", "5.jpg.xz": b"x", "6.txt.gz": b"\x1f\x8b"}))
    assert found.warnings == ("not read: 4.png.gz and 1 more; unpack these pictures",)
    assert found.notes == ("not read: 6.txt.gz; unpack what holds pictures or captions",)
