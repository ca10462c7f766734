"""Captions in tables as other programs and hands write them: the right captions, or the line that is wrong."""

import json

import pyarrow
import pytest
from picture_folders import captions_of, rows
from pyarrow import parquet

from diffuse_cli.data.caption_text import tidy
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError

NAMES = [f"{number:06}.png" for number in range(6)]
CAPTIONS = [("a red car", "two dogs", "a boat, at sea")[number % 3] for number in range(6)]
PAIRS = list(zip(NAMES, CAPTIONS, strict=True))
EXPECTED = {name: (caption,) for name, caption in PAIRS}


@pytest.fixture
def pictures(folder):
    return folder(dict.fromkeys(NAMES))


def quoted(caption):
    return f'"{caption}"' if "," in caption else caption


# ── Separated values ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("text", [
    "file_name, text\n" + "".join(f"{name}, {quoted(text)}\n" for name, text in PAIRS),
    "File Name,Text\r\n" + "".join(f"{name},{quoted(text)}\r\n" for name, text in PAIRS),
    "file_name;text\r\n" + "".join(f"{name};{text}\r\n" for name, text in PAIRS),
    "file_name\ttext\n" + "".join(f"{name}\t{text}\n" for name, text in PAIRS),
    "sep=;\r\nfile_name;text\r\n" + "".join(f"{name};{text}\r\n" for name, text in PAIRS),
    "file_name,text\r" + "".join(f"{name},{quoted(text)}\r" for name, text in PAIRS),
    ",file_name,text\n" + "".join(f"{n},{name},{quoted(text)}\n" for n, (name, text) in enumerate(PAIRS)),
    "".join(f"{name},{quoted(text)}\n" for name, text in PAIRS),
    "image|caption_number|caption\n" + "".join(f"{name}| 0| {text}\n" for name, text in PAIRS),
    "text,width,image_path\n" + "".join(f"{quoted(text)},64,/data/x/{name}\n" for name, text in PAIRS),
    "file_name,text\n\n" + "".join(f"{name},{quoted(text)},,\n\n" for name, text in PAIRS),
    "\ufefffile_name,text\n" + "".join(f"{name},{quoted(text)}\n" for name, text in PAIRS),
    "My holidays,\n,\nfile_name,text\n" + "".join(f"{name},{quoted(text)}\n" for name, text in PAIRS),
    '"file_name,text"\r\n' + "".join(f'"{name},""{text}"""\r\n' for name, text in PAIRS),
    '"file_name" ; "text"\n' + "".join(f'"{name}" ; "{text}"\n' for name, text in PAIRS),
    '"file_name" , "text"\n' + "".join(f'"{name}" , "{text}"\n' for name, text in PAIRS),
    '"file_name" \t "text"\n' + "".join(f'"{name}" \t "{text}"\n' for name, text in PAIRS),
    "# made by hand, in May\n# x\nfile_name;text\n" + "".join(f"{name};{text}\n" for name, text in PAIRS),
    "#file_name;text\n" + "".join(f"{name};{text}\n" for name, text in PAIRS),
], ids=["blanks", "capitals", "semicolon", "tab", "sep", "old line ends", "index", "no header", "bars", "other order",
        "blank rows", "mark", "title", "quoted twice", "blanks before ;", "blanks before ,", "blanks before tab",
        "comments", "header as comment"])
@pytest.mark.parametrize("name", ["metadata.csv", "labels.csv", "list.tsv"])
def test_separated_values(pictures, folder, text, name):
    assert captions_of(find_pictures(folder({name: text}))) == EXPECTED


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_quotes_inside_of_values(folder, separator):
    rows = f'"file" {separator} "text"\n"0.png" {separator} "a ""red"" {separator}car"\n'
    assert captions_of(find_pictures(folder({"0.png": None, "a.csv": rows}))) == {"0.png": (tidy(
        f'a "red"{separator}car'),)}
    rows = f'file{separator}text\n0.png{separator}"a \\"red\\"{separator} car"\n'
    assert captions_of(find_pictures(folder({"0.png": None, "a.csv": rows}))) == {"0.png": (tidy(
        f'a "red"{separator} car'),)}


@pytest.mark.parametrize("between", [" ", ": ", " - ", " => "])
def test_lists_name_pictures_without_their_suffixes(pictures, between):
    lines = [f"{name.removesuffix('.png')}{between}{text}" for name, text in PAIRS]
    (pictures / "sceneCategories.txt").write_text("\n".join(lines))
    found = find_pictures(pictures)
    assert captions_of(found) == EXPECTED
    assert (found.notes, found.warnings, found.caption_problems) == ((), (), ())


@pytest.mark.parametrize("text", [
    "3D models of a house\n3D models of a car\n", "000000 words stand here\n", "000000 one\nand more\n000001 two\n",
    "cat is on a mat\ndog is in a house\n"])
def test_sentences_that_begin_like_pictures_are_no_lists(folder, text):
    root = folder({**dict.fromkeys(NAMES), "3D.png": None, "cat.png": None, "dog.png": None, "about.txt": text})
    found = find_pictures(root, captions="auto")
    assert not found.conditional


# ── Tables of more pictures than there are ────────────────────────────────────────────────────────────────────────────

MANY = range(2500)
LATER = {f"a{number:06}.png": None for number in range(2400, 2410)}


@pytest.mark.parametrize(("file", "text"), [
    ("t.csv", "file_name,caption\n" + "".join(f"a{n:06}.png,car {n}\n" for n in MANY)),
    ("t.csv", "x,caption\n" + "".join(f"a{n:06}.png,car {n}\n" for n in MANY)),
    ("t.csv", "".join(f"a{n:06}.png,car {n}\n" for n in MANY)),
    ("t.txt", "".join(f"a{n:06}.png: car {n}\n" for n in MANY)),
    ("t.txt", "".join(f"a{n:06} car {n}\n" for n in MANY)),
    ("t.jsonl", rows(*({"image": f"a{n:06}.png", "text": f"car {n}"} for n in MANY))),
    ("t.json", json.dumps({f"a{n:06}.png": f"car {n}" for n in MANY}))])
def test_pictures_may_be_a_part_of_those_in_a_table(folder, file, text):
    root = folder({**{f"images/{name}": None for name in LATER}, file: text})
    found = find_pictures(root, checking=True)
    assert captions_of(found) == {f"images/{name}": (f"car {int(name[1:7])}",) for name in LATER}
    assert found.notes == (f"{file} lists 2,490 more files, which are not there, for example a000000"
                           f"{'' if 'a000000 ' in text else '.png'}",)
    assert found.caption_problems == ()
    assert (f"{root / file} holds captions for 10 of these pictures, which are not used; --captions {root / file} uses "
            "them") in find_pictures(root / "images").warnings


def test_a_row_that_cannot_be_read_after_many_of_other_pictures_is_told(folder):
    text = "file_name,caption\n" + "".join(f"b{n:06}.png,car\n" for n in MANY) + "x,y,z\n"
    found = find_pictures(folder({**LATER, "t.csv": text}))
    assert found.warnings == ("t.csv is not used: line 2502 has 3 fields where the header has 2: x | y | z. Put double "
                              "quotes around a caption that contains a comma",)


@pytest.mark.parametrize(("file", "given"), [("t.csv", "--captions"), ("metadata.csv", ""), ("metadata.csv", "alone")])
def test_names_of_several_pictures_are_an_error_where_the_table_must_count(folder, file, given):
    root = folder({"a/1.png": None, "b/1.png": None, file: "file_name,text\n1.png,red\n"})
    with pytest.raises(DataError, match=rf"{file} has names such as 1\.png, which are those of several pictures"):
        find_pictures(root / file if given == "alone" else root,
                      captions=str(root / file) if given == "--captions" else "auto")


@pytest.mark.parametrize(("text", "reason"), [
    ("{broken", "line 1 is not JSON"), ('[{"file_name": "1.png", "text": "red"}]', "has names such as 1.png")])
def test_a_damaged_metadata_json_that_decides_nothing_is_named(folder, text, reason):
    found = find_pictures(folder({"a/1.png": None, "b/1.png": None, "metadata.json": text}))
    assert any(line.startswith(f"metadata.json is not used: {reason}") for line in (*found.notes, *found.warnings))


def test_a_long_list_without_captions_is_refused_where_it_is_named(folder):
    root = folder({"a.png": None, "list.txt": "image\n" + "".join(f"b{number}.png\n" for number in MANY)})
    with pytest.raises(DataError, match=r"list\.txt holds no caption"):
        find_pictures(root, captions=str(root / "list.txt"))


@pytest.mark.parametrize("between", [" ", ": ", ":", " - ", " => ", "=", " = ", "   ", " – "])
@pytest.mark.parametrize("title", ["", "My pictures\n\n"])
def test_lists_of_names_and_captions(folder, between, title):
    names = ["a cat.png", "b.2.jpeg", "c.png"]
    lines = "".join(f"{name}{between}{text}\n" for name, text in zip(names, CAPTIONS[:3], strict=True))
    found = find_pictures(folder({**dict.fromkeys(names), "list.txt": title + lines}))
    assert captions_of(found) == {name: (text,) for name, text in zip(names, CAPTIONS[:3], strict=True)}


def test_a_line_of_a_list_without_a_name_is_an_error(folder):
    lines = "".join(f"{number}.png: a car\n" for number in range(60)) + "and a bridge\n"
    with pytest.raises(DataError, match=r"all\.txt line 61 does not begin with the name of a picture, as the others"):
        find_pictures(folder({"0.png": None, **{f"{number}.png": None for number in range(60)}, "all.txt": lines}))


@pytest.mark.parametrize("text", ["a.png 3\nb.png 4\n", "a.png b.png\nb.png a.png\n", "a.png\nb.png\n",
                                  "see a.png for it\nand b.png too\n", "a.png | 0 | a car\nb.png | 1 | a car\n"])
def test_other_texts_with_names_are_no_such_lists(folder, text):
    found = find_pictures(folder({"a.png": None, "b.png": None, "all.txt": text}))
    assert set(captions_of(found).values()) == {("a car",) if "car" in text else ()}
    assert ("all.txt lists pictures, without captions" in found.notes) == (
        text.startswith("a.png") and "car" not in text)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252"])
@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json"])
def test_encodings_of_tables(folder, encoding, suffix):
    pairs = [(f"{number}.png", f"une fenêtre à côté d'un café {number}") for number in range(4)]
    texts = {"csv": "file_name,text\n" + "".join(f"{name},{text}\n" for name, text in pairs),
             "jsonl": "".join(json.dumps({"file_name": name, "text": text}, ensure_ascii=False) + "\n"
                              for name, text in pairs),
             "json": json.dumps(dict(pairs), ensure_ascii=False)}
    root = folder({**{name: None for name, _ in pairs}, f"captions.{suffix}": texts[suffix].encode(encoding)})
    assert captions_of(find_pictures(root)) == {name: (text,) for name, text in pairs}


@pytest.mark.parametrize(("row", "fields"), [
    ("000002.png,a red car, in the street", "3 fields where the header has 2: 000002.png | a red car | in the street"),
    ("000002.png", "1 fields where the header has 2: 000002.png"),
])
def test_a_row_that_is_not_what_its_header_says_is_an_error(pictures, folder, row, fields):
    text = "file_name,text\n000000.png,a\n000001.png,b\n" + row + "\n000003.png,c\n"
    with pytest.raises(DataError) as caught:
        find_pictures(folder({"labels.csv": text}))
    assert str(caught.value).startswith(f"labels.csv line 4 has {fields}")


def test_a_caption_with_line_ends_and_quotes_is_whole(pictures, folder):
    found = find_pictures(folder({"labels.csv": 'file_name,text\n000000.png,"a ""red"" car,\nin two lines"\n'}))
    assert captions_of(found)["000000.png"] == ('a "red" car, in two lines',)


# ── JSON ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "document"), [
    ("meta_cap.json", {f"/data/img/{name}": {"caption": text, "tags": "1girl"} for name, text in PAIRS}),
    ("meta_lat.json", {name[:-4]: {"caption": text, "train_resolution": [512, 512]} for name, text in PAIRS}),
    ("prompts.json", dict(PAIRS)),
    ("captions.json", {"info": {"year": 2017}, "images": [{"id": k, "file_name": name} for k, name in enumerate(NAMES)],
                       "annotations": [{"id": k, "image_id": k, "caption": text} for k, text in enumerate(CAPTIONS)]}),
    ("metadata.json", [{"file_name": name, "text": text} for name, text in PAIRS]),
    ("dataset.json", {"images": [{"filename": name, "sentences": [{"raw": text}]} for name, text in PAIRS]}),
    ("columns.json", {"file_name": NAMES, "text": CAPTIONS}),
    ("frame.json", {"file_name": {str(k): name for k, name in enumerate(NAMES)},
                    "text": {str(k): text for k, text in enumerate(CAPTIONS)}}),
], ids=["kohya", "kohya stems", "map", "coco", "list", "karpathy", "columns", "pandas"])
def test_json_for_all_pictures(pictures, folder, name, document):
    assert captions_of(find_pictures(folder({name: json.dumps(document, indent=1)}))) == EXPECTED


def test_several_captions_of_a_picture_in_the_form_of_coco_are_alternatives(folder):
    document = {"images": [{"id": 7, "file_name": "a.png"}],
                "annotations": [{"image_id": 7, "caption": "one"}, {"image_id": 7, "caption": "two"}]}
    assert captions_of(find_pictures(folder({"a.png": None, "c.json": json.dumps(document)}))) == {
        "a.png": ("one", "two")}


def test_json_lines_of_another_name_and_a_list_in_their_place(pictures, folder):
    entries = [{"image": name, "prompt": text} for name, text in PAIRS]
    root = folder({"train.jsonl": rows(*entries)})
    assert captions_of(find_pictures(root)) == EXPECTED
    (root / "train.jsonl").write_text(json.dumps(entries, indent=2))
    assert captions_of(find_pictures(root)) == EXPECTED


def test_lists_of_tags_become_one_caption(folder):
    root = folder({"a.png": None, "t.jsonl": rows({"file_name": "a.png", "tags": ["1girl", "red hair"]})})
    assert captions_of(find_pictures(root)) == {"a.png": ("1girl, red hair",)}


# ── Parquet ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["metadata.parquet", "train.parquet"])
def test_parquet(pictures, name):
    parquet.write_table(pyarrow.table({"file_name": NAMES, "text": CAPTIONS}), pictures / name)
    assert captions_of(find_pictures(pictures)) == EXPECTED


def test_parquet_without_its_reader_names_the_remedy(pictures, monkeypatch):
    (pictures / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match=r"metadata\.parquet is not a readable parquet file"):
        find_pictures(pictures)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"metadata\.parquet needs pyarrow\. pip install 'diffuse-cli\[parquet\]'"):
        find_pictures(pictures)


# ── Which table and which column ──────────────────────────────────────────────────────────────────────────────────────


def test_tables_of_different_pictures_are_all_used(folder):
    found = find_pictures(folder({
        "a.png": None, "b.png": None, "c.png": None, "train.csv": "image,caption\na.png,A\nb.png,B\n",
        "val.csv": "image,caption\nc.png,C\n"}))
    assert captions_of(found) == {"a.png": ("A",), "b.png": ("B",), "c.png": ("C",)}
    assert (found.notes, found.warnings) == ((), ())


def test_a_table_of_another_name_leaves_no_picture_out(folder):
    found = find_pictures(folder({"a.png": None, "b.png": None, "t.csv": "image,caption\na.png,A\n"}))
    assert captions_of(found) == {"a.png": ("A",), "b.png": ()}
    assert found.caption_summary == "t.csv (1 of 2 files; 1 has none → empty)"


def test_a_named_table_counts_wherever_it_lies(pictures, folder, tmp_path):
    folder({name.replace(".png", ".txt"): "beside" for name in NAMES})
    table = tmp_path / "elsewhere.csv"
    table.write_text("file_name,text\n" + "".join(f"{name},{quoted(text)}\n" for name, text in PAIRS))
    found = find_pictures(pictures, captions=str(table))
    assert (captions_of(found), found.caption_source) == (EXPECTED, "table")
    table.write_text("file_name,text\nother.png,x\n")
    with pytest.raises(DataError, match=r"holds no caption of the pictures.*1 other file, for example 'other\.png'"):
        find_pictures(pictures, captions=str(table))


def test_another_column_is_named_and_chosen_by_its_spelling_or_nearly(folder):
    root = folder({"a.png": None, "t.csv": "image,caption,Tag String\na.png,A,B\n"})
    found = find_pictures(root)
    assert captions_of(found) == {"a.png": ("A",)}
    assert found.notes == ("captions are taken from the column caption of t.csv; --caption-column Tag String would "
                           "take another",)
    assert captions_of(find_pictures(root, caption_column="tag_string")) == {"a.png": ("B",)}


# ── What is no caption ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("column", "value"), [
    ("split", "train"), ("md5", "0cc175b9c0f1b6a831c399e269772661"), ("url", "https://x.com/0"),
    ("taken", "2023-01-01T10:00:00"), ("license", "CC BY 4.0"), ("format", "JPEG")])
def test_columns_of_other_names_are_no_captions_unless_they_are_named(pictures, folder, column, value):
    root = folder({"list.csv": f"file,{column}\n" + "".join(f"{name},{value}\n" for name in NAMES)})
    found = find_pictures(root)
    assert found.caption_source == "none"
    assert found.warnings == (f"list.csv has no column text, caption or prompt (it has: {column}); "
                              "--caption-column names another",)
    assert captions_of(find_pictures(root, caption_column=column))[NAMES[0]] == (value,)


def test_texts_beside_pictures_go_before_a_table_that_covers_a_few_more(pictures, folder):
    folder({name.replace(".png", ".txt"): "beside" for name in NAMES[1:]})
    found = find_pictures(folder({"labels.csv": "file,label\n" + "".join(f"{name},x\n" for name in NAMES)}))
    assert found.caption_source == "sidecar"
    assert "labels.csv holds captions for 6 pictures and is not used" in found.warnings[0]


@pytest.mark.parametrize(("name", "text"), [
    ("log.csv", "time,event\n1,start\n2,load,10 files\n"), ("shopping.csv", 'item,price\n"5"" nail,1\n'),
    ("settings.json", "{not json"), ("IMG.supplemental-metadata.json", '{"title": 1, "people": [{"name": "x"}]}')])
def test_a_file_that_names_no_picture_stops_nothing(pictures, folder, name, text):
    found = find_pictures(folder({"000000.txt": "A", name: text}))
    assert captions_of(found)["000000.png"] == ("A",)
    assert any(note.startswith(f"{name} is not used: ") for note in found.notes)


@pytest.mark.parametrize(("name", "text"), [
    ("captions.json", '[{"file_name": "000000.png", "text": "A"},]'),
    ("captions.json", '{"000000.png": "A", // by hand\n}'),
    ("captions.jsonl", '{"file_name": "000000.png", "text": "A"}\n{"file_name": "0000'),
])
def test_damaged_json_that_names_pictures_is_an_error(pictures, folder, name, text):
    root = folder({name: text})
    with pytest.raises(DataError, match=rf"{name}.* is not JSON.*, or do without it: --captions sidecar, "):
        find_pictures(root)
    assert find_pictures(root, captions="none").caption_source == "none"


def test_a_table_of_other_things_in_which_a_few_pictures_have_a_name_is_not_used(folder):
    countries = "code,name\n" + "".join(f"c{number},The country of the number {number}\n" for number in range(40))
    cars = [f"{colour}-car-{number}.png" for number in range(15) for colour in ("red", "blue")]
    found = find_pictures(root := folder({**dict.fromkeys([*cars, "c7.png"]), "countries.csv": countries}))
    assert (captions_of(found)["red-car-1.png"], captions_of(found)["c7.png"]) == (("red car",), ())
    assert found.notes == (
        "countries.csv is not used: lists 1 of the pictures, without suffixes and perhaps by chance, and 39 other names"
        f"; --captions {root / 'countries.csv'} uses it",)
    forced = find_pictures(root, captions=str(root / "countries.csv"))
    assert captions_of(forced)["c7.png"] == ("The country of the number 7",)
    named = find_pictures(folder({"countries.csv": countries.replace(",", ".png,")}))       # a part of a data set
    assert captions_of(named)["c7.png"] == ("The country of the number 7",)


@pytest.mark.parametrize("column", ["annotation", "json"])
@pytest.mark.parametrize("is_text", [True, False])
def test_a_caption_in_an_object_in_a_column_of_another_name(folder, column, is_text):
    values = [{"caption": "a red car"}, {"caption": "two dogs in the snow"}]
    rows = [{"file": f"{number}.png", column: json.dumps(value) if is_text else value}
            for number, value in enumerate(values)]
    found = find_pictures(folder({"0.png": None, "1.png": None, "all.json": json.dumps(rows)}))
    assert captions_of(found) == {"0.png": ("a red car",), "1.png": ("two dogs in the snow",)}


def test_damaged_json_says_where(folder):
    with pytest.raises(DataError, match=r"captions.json line 2 is not JSON: .* at character \d+"):
        find_pictures(folder({"0.png": None, "captions.json": '{"0.png":\n "a car",}'}))


def test_of_two_columns_with_one_name_the_first_counts(folder):
    root = folder({"a.png": None, "t.csv": "file,text,text\na.png,A,B\n"})
    assert captions_of(find_pictures(root)) == {"a.png": ("A",)}


# ── Numbers without the zeros in front ──────────────────────────────────────────────────────────────────────────────

PADDED = {f"{number:06d}.png": None for number in (2, 42, 100)}


@pytest.mark.parametrize(("file", "content"), [
    ("labels.csv", "id,caption\n2,cat 2\n42,cat 42\n100,cat 100\n"), ("a.csv", "id,caption\n2.0,cat 2\n42.0,cat 42\n"),
    ("metadata.csv", "file_name,text\n2.png,cat 2\n42.png,cat 42\n100.png,cat 100\n"),
    ("anno.jsonl", '{"image_id": 2, "caption": "cat 2"}\n{"image_id": 42, "caption": "cat 42"}\n'),
    ("more.csv", "id,caption\n2,cat 2\n17,cat 17\n42,cat 42\n100,cat 100\n")])
def test_numbers_mean_pictures_with_zeros_in_front(folder, file, content):
    found = find_pictures(folder({**PADDED, file: content}), checking=True)
    assert captions_of(found)["000042.png"] == ("cat 42",)
    assert f"{file} gives pictures by their numbers: 2 is taken for 000002.png" in found.notes


def test_numbers_mean_pictures_with_the_same_words_in_front(folder):
    pictures = {f"COCO_val2014_{number:012d}.jpg": None for number in (9, 10)}
    table = '[{"image_id": 9, "caption": "nine"}, {"image_id": 10, "caption": "ten"}]'
    assert captions_of(find_pictures(folder({**pictures, "c.json": table}))) == {
        "COCO_val2014_000000000009.jpg": ("nine",), "COCO_val2014_000000000010.jpg": ("ten",)}


@pytest.mark.parametrize(("pictures", "rows"), [
    (("000001.png", "000002.png", "000003.png"), "id,caption\n0,a\n1,b\n2,c\n"),              # counts rows from 0
    (("000001.png", "000002.png"), "id,caption\n0,a\n1,b\n2,c\n3,d\n"),                       # the same
    (("000001.png", "000002.png"), "id,photo,caption\n1,cat.jpg,a\n2,dog.jpg,b\n"),           # names other pictures
    (("a/0001.png", "b/001.png"), "id,caption\n1,a\n"), (("0001.png", "x0002.png"), "id,caption\n1,a\n2,b\n"),
    (("a1.png", "a2.png"), "id,caption\n1,a\n2,b\n"), (("0001.png", "0002.png"), "n,caption\n1,a\n2,b\n")])
def test_numbers_that_may_mean_something_else_mean_no_picture(folder, pictures, rows):
    found = find_pictures(folder({**dict.fromkeys(pictures), "labels.csv": rows}), captions="auto")
    assert found.caption_source in ("none", "folder")
    assert "labels.csv is not used: lists none of the pictures" in (*found.notes, *found.warnings)


@pytest.mark.parametrize("nothing", ["nan", "NaN", "NULL", "null", "None", "N/A", "#N/A", "<NA>", "\\N", ""])
def test_words_that_programs_write_where_no_caption_is(folder, nothing):
    found = find_pictures(folder({"0.png": None, "1.png": None, "x.csv": f"file,text\n0.png,{nothing}\n1.png,a car\n"}))
    assert captions_of(found) == {"0.png": (), "1.png": ("a car",)}


def test_a_number_that_is_none_is_no_caption_in_json(folder):
    found = find_pictures(folder({"0.png": None, "1.png": None, "x.json": '{"0.png": NaN, "1.png": "a red car"}'}))
    assert captions_of(found) == {"0.png": (), "1.png": ("a red car",)}
    assert not found.caption_problems


@pytest.mark.parametrize(("row", "problem"), [
    ("0.png,a red car, fast", "table.csv line 2 has 3 fields where the header has 2: 0.png | a red car | fast"),
    ('0.png,"a red car\n1.png,two\n2.png,three', "table.csv line 2 is not CSV: unexpected end of data"),
])
def test_an_error_in_the_first_row_is_one_as_in_any_other(folder, row, problem):
    with pytest.raises(DataError) as caught:
        find_pictures(folder({f"{number}.png": None for number in range(3)} | {"table.csv": f"file,text\n{row}\n"}))
    assert str(caught.value).startswith(problem)


def test_an_open_quote_is_named_by_the_line_where_it_opens(folder):
    rows = "0.png,a\n1.png,\"b\n2.png,c\n"
    with pytest.raises(DataError, match=r"^table\.csv line 3 is not CSV"):
        find_pictures(folder({f"{number}.png": None for number in range(3)} | {"table.csv": f"file,text\n{rows}"}))


@pytest.mark.parametrize(("name", "document"), [
    ("all.json", [[name, text] for name, text in PAIRS]),
    ("all.json", {"images": NAMES, "captions": CAPTIONS}),
    ("all.json", {"train": [{"img": name, "text": text} for name, text in PAIRS[:4]],
                  "val": [{"img": name, "text": text} for name, text in PAIRS[4:]], "info": {}}),
    ("all.txt", None)])
def test_further_forms_of_json(pictures, folder, name, document):
    lines = "".join(json.dumps({"file": name, "text": text}) + "\n" for name, text in PAIRS)
    assert captions_of(find_pictures(folder({name: json.dumps(document) if document else lines}))) == EXPECTED


@pytest.mark.parametrize("columns", ["caption_de,caption_en", "caption_en,caption_de",
                                     "Caption (German),Caption (English)"])
def test_of_captions_in_several_languages_the_english_ones_count(folder, columns):
    texts = ["ein Auto", "a car"] if "de,caption" in columns or "(" in columns else ["a car", "ein Auto"]
    found = find_pictures(folder({"0.png": None, "all.csv": f"file,{columns}\n0.png,{','.join(texts)}\n"}))
    assert captions_of(found) == {"0.png": ("a car",)}


def test_tables_of_json_lines_under_another_suffix(folder):
    rows_of = rows({"image_file": "a.png", "description": "one"}, {"image_file": "b.png", "description": "two"})
    found = find_pictures(folder({"a.png": None, "b.png": None, "descriptions.jsonlines": rows_of}))
    assert captions_of(found) == {"a.png": ("one",), "b.png": ("two",)}


@pytest.mark.parametrize("before", ["", "3\n"])
def test_marks_below_their_names_as_in_celeba(folder, before):
    """The table lists more pictures than were kept."""
    table = f"{before}Smiling  Wavy_Hair\n000001.jpg  1 -1\n000002.jpg -1  1\n000003.jpg  1  1\n"
    found = find_pictures(folder({"img/000001.jpg": None, "img/000002.jpg": None, "list_attr.txt": table}))
    assert captions_of(found) == {"img/000001.jpg": ("Smiling",), "img/000002.jpg": ("Wavy Hair",)}
    assert found.notes == ("captions are the names of the columns of list_attr.txt that hold a 1: Smiling, Wavy_Hair",)


def test_a_row_with_too_few_marks_is_an_error(folder):
    rows_of = "".join(f"{number}.png 1 -1\n" for number in range(2000)) + "2000.png 1\n"
    with pytest.raises(DataError, match=r"attr.txt line 2002 has 2 fields where the header has 3"):
        find_pictures(folder({"0.png": None, "1.png": None, "attr.txt": f"red blue\n{rows_of}"}))


@pytest.mark.parametrize("name", ["train.json", "metadata.json"])
def test_json_lines_may_be_called_json(pictures, name):
    (pictures / name).write_text("\n" + rows(*({"file_name": name, "text": text} for name, text in PAIRS)))
    assert captions_of(find_pictures(pictures)) == EXPECTED


@pytest.mark.parametrize(("name", "text"), [
    ("t.jsonl", "\n".join(json.dumps(pair) for pair in PAIRS)),
    ("t.jsonl", "\n".join(json.dumps({name: text}) for name, text in PAIRS)),
    ("t.txt", "| file | caption |\n|:---|----|\n" + "".join(f"| {name} | {text} |\n" for name, text in PAIRS))])
def test_lines_of_lists_of_maps_and_of_markdown(pictures, name, text):
    (pictures / name).write_text(text)
    found = find_pictures(pictures)
    assert captions_of(found) == EXPECTED
    assert found.caption_problems == ()


@pytest.mark.parametrize("name", ["captions.csv", "metadata.csv", "000000.txt"])
@pytest.mark.parametrize("data", [b"PK\3\4\x14\0\6\0\x08\0\0\0!\0" + b"\x9c" * 100, b"\x1f\x8b\x08\0" + b"\x9c" * 100])
def test_packed_files_under_the_name_of_a_text_are_refused_by_what_they_are(pictures, name, data):
    (pictures / name).write_bytes(data)
    if name == "metadata.csv":
        with pytest.raises(DataError, match=r"metadata\.csv is no table \(packed file\).*save the spreadsheet"):
            find_pictures(pictures)
        return
    found = find_pictures(pictures)
    assert not found.conditional
    assert any("packed file" in str(line) for line in (*found.warnings, *found.caption_problems))


def test_an_address_as_captions_is_told(pictures):
    with pytest.raises(DataError, match="is an address, from which nothing is downloaded"):
        find_pictures(pictures, captions="https://example.org/captions.csv")


# ── Lists of lists ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("header", [["file", "caption"], ["bild", "beschreibung"], ["photo", "width", "text"]])
@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
def test_the_first_of_several_lists_is_a_header_if_it_names_no_picture(folder, header, suffix):
    rows = [header, *([f"{number}.png", *[7] * (len(header) - 2), f"a red car {number}"] for number in range(3))]
    text = json.dumps(rows) if suffix == ".json" else "\n".join(map(json.dumps, rows))
    found = find_pictures(folder({**{f"{number}.png": None for number in range(3)}, f"all{suffix}": text}))
    assert captions_of(found) == {f"{number}.png": (f"a red car {number}",) for number in range(3)}
    assert found.caption_problems == ()


# ── Numbers of classes behind names, as ImageNet has them ───────────────────────────────────────────────────────────

CLASSES = "".join(f"val_{number}.jpg {number % 2}\n" for number in range(6))


@pytest.mark.parametrize(("name", "content"), [("val.txt", CLASSES), ("val.csv", CLASSES.replace(" ", ","))])
def test_numbers_of_classes_in_a_list_without_a_header_get_their_names(folder, name, content):
    pictures = {f"val_{number}.jpg": None for number in range(6)}
    found = find_pictures(folder({**pictures, name: content, "classes.txt": "cat\ndog\n"}))
    assert captions_of(found)["val_3.jpg"] == ("dog",)
    assert "only numbers" in find_pictures(folder({"classes.txt": ""})).warnings[0]


def test_other_numbers_behind_names_are_no_captions(folder):
    sizes = "".join(f"val_{number}.jpg {640 + number}\n" for number in range(6))
    found = find_pictures(folder({**{f"val_{number}.jpg": None for number in range(6)}, "sizes.txt": sizes}))
    assert not found.conditional
    assert "sizes.txt lists pictures, without captions" in found.notes
