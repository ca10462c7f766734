"""Every layout, who wins over whom, and what is refused: by what `find_pictures` says about real folders."""

import json
import math
import os
import socket
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffuse_cli.data import caption_sources, caption_text, folders
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError, UsageError


@pytest.fixture
def folder(tmp_path):
    """A function that fills a folder: names → text, bytes, or None for something that looks like a picture."""
    root = tmp_path / "pictures"
    root.mkdir()

    def make(files):
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content, encoding="utf-8")
            else:
                path.write_bytes(content or b"picture")
        return root

    return make


def said(found):
    return {picture.name: picture.captions for picture in found.pictures}


def rows(*entries):
    return "\n".join(json.dumps(entry) for entry in entries)


# ── Discovery ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_pictures_are_found_at_any_depth_in_any_case_and_sorted_by_bytes(folder):
    root = folder({"b.PNG": None, "Z.jpg": None, "a/é.JpEg": None, "a/b/c.webp": None, "ä.tif": None,
                   ".hidden.png": None, "._a.jpg": None, "__MACOSX/x.png": None, ".git/y.png": None, "Thumbs.db": None,
                   "note.md": ""})
    found = find_pictures(root)
    names = [picture.name for picture in found.pictures]
    assert names == sorted(["Z.jpg", "a/b/c.webp", "a/é.JpEg", "b.PNG", "ä.tif"], key=str.encode)
    assert all(picture.path.is_file() for picture in found.pictures)
    assert (found.unusable, found.problems) == ((), ())


def test_names_are_nfc_whatever_the_file_system_holds(folder):
    decomposed = unicodedata.normalize("NFD", "café.png")
    root = folder({decomposed: None, "metadata.jsonl": rows({"file_name": "café.png", "text": "coffee"})})
    assert said(find_pictures(root)) == {"café.png": ("coffee",)}


def test_bytes_that_are_not_utf8_are_usable_names(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe red.png"
    with open(name, "wb") as file:
        file.write(b"x")
    (picture,) = find_pictures(tmp_path).pictures
    assert picture.path.read_bytes() == b"x"
    assert folders.sort_key(picture.name) == b"\xff\xfe red.png"


def test_unsupported_pictures_are_named_and_other_files_are_not(folder):
    found = find_pictures(folder({"a.png": None, "b.svg": "", "c.PSD": "", "d.pdf": "", "e.heic": None}))
    assert found.unusable == (("b.svg", "unsupported type"), ("c.PSD", "unsupported type"),
                              ("e.heic", "unsupported type"))


def test_a_plugin_makes_its_suffix_a_picture(folder, monkeypatch):
    monkeypatch.setattr(folders, "PLUGINS", (("json.decoder", "HEIF", (".heic",)),))    # a module that is there
    assert len(find_pictures(folder({"a.png": None, "e.HEIC": None})).pictures) == 2


def test_links_are_followed_once_and_loops_end(folder, tmp_path):
    root = folder({"real/a.png": None})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b.png").write_bytes(b"x")
    (root / "again").symlink_to(root / "real")
    (root / "up").symlink_to(root)
    (root / "everything").symlink_to("/")
    (root / "other").symlink_to(outside)
    (root / "other too").symlink_to(outside)
    (root / "real" / "loop").symlink_to(root / "real" / "loop")
    (root / "gone.png").symlink_to(tmp_path / "nowhere")
    (root / "linked.png").symlink_to(outside / "b.png")
    found = find_pictures(root)
    assert [picture.name for picture in found.pictures] == ["linked.png", "other/b.png", "real/a.png"]
    assert found.unusable == (("gone.png", "broken link"),)


def test_what_is_no_regular_file_is_never_opened(folder):
    root = folder({"a.png": None})
    os.mkfifo(root / "pipe.png")
    os.mkfifo(root / "a.txt")
    os.mkfifo(root / "metadata.jsonl")
    (root / "zero.jpg").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "s.png"))
        found = find_pictures(root)
    assert [picture.name for picture in found.pictures] == ["a.png"]
    assert found.unusable == tuple((name, "not a regular file") for name in ("pipe.png", "s.png", "zero.jpg"))
    assert found.problems == tuple((name, "not a regular file") for name in ("metadata.jsonl", "a.txt"))


@pytest.mark.parametrize("lost", ["metadata.jsonl", "dog/metadata.csv", "cat/1.txt", "cat/1.caption", "cat/1.json"])
@pytest.mark.parametrize(("beside", "source"), [({}, "folder"), ({"dog/2.txt": "a dog"}, "sidecar"),
                         ({"cat/metadata.csv": "file_name,text\n1.png,a cat\n"}, "metadata")])
def test_captions_that_are_links_to_nowhere_are_problems(folder, lost, beside, source):
    root = folder({"cat/1.png": None, "dog/2.png": None, **beside})
    (root / lost).symlink_to(root / "nowhere")
    (root / "notes.txt").symlink_to(root / "nowhere")               # beside no picture
    found = find_pictures(root)
    assert (found.source, found.problems) == (source, ((lost, "broken link"),))


def test_a_forced_source_whose_file_is_a_link_to_nowhere(folder):
    root = folder({"a.png": None})
    (root / "metadata.csv").symlink_to(root / "nowhere")
    with pytest.raises(DataError, match=r"no such captions.*; metadata\.csv: broken link"):
        find_pictures(root, captions="metadata")


def test_a_folder_that_cannot_be_read_is_a_problem_unless_it_is_the_only_one(folder, monkeypatch):
    root = folder({"a.png": None, "closed/b.png": None})
    look = os.scandir

    def denied(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied")
        return look(path)
    monkeypatch.setattr(os, "scandir", denied)
    assert find_pictures(root).unusable == (("closed", "unreadable folder"),)
    with pytest.raises(DataError, match="permission denied"):
        find_pictures(root / "closed")


@pytest.mark.parametrize("make", [
    lambda root: root / "missing",
    lambda root: root,
    lambda root: (root / "a.png").write_bytes(b"x") and root / "a.png",
    lambda root: (root / "note.txt").write_text("x") and root,
    lambda root: (root / "list.csv").write_text("file_name,text\n") and root / "list.csv",
], ids=["missing", "empty", "a file", "no pictures", "empty manifest"])
def test_nothing_to_train_on_is_a_data_error(tmp_path, make):
    with pytest.raises(DataError) as caught:
        find_pictures(make(tmp_path))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


# ── Sidecars ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sidecars_in_their_order_of_precedence(folder):
    found = find_pictures(folder({
        "a.png": None, "a.txt": "from txt", "a.caption": "not this", "a.json": '{"caption": "nor this"}',
        "b.png": None, "b.txt": "  \n", "b.caption": "from caption",
        "c.png": None, "c.json": '{"text": "from json", "prompt": "not this"}',
        "d.png": None,
        "e.jpg": None, "e.png": None, "e.TXT": "shared",
    }))
    assert said(found) == {"a.png": ("from txt",), "b.png": ("from caption",), "c.png": ("from json",), "d.png": (),
                           "e.jpg": ("shared",), "e.png": ("shared",)}
    assert found.source == "sidecar"
    assert found.summary == "sidecar .txt, .caption, .json (5 of 6 files; 1 has none → empty)"
    assert found.conditional


def test_the_summary_counts_and_three_examples_are_given(folder):
    files = {f"{index}.png": None for index in range(10)} | {f"{index}.txt": f"caption {index}" for index in range(8)}
    found = find_pictures(folder(files))
    assert found.summary == "sidecar .txt (8 of 10 files; 2 have none → empty)"
    assert found.examples == ("caption 0", "caption 4", "caption 7")


@pytest.mark.parametrize(("content", "expected", "problem"), [
    ("a red car\n", ("a red car",), None),
    ("\ufeffa red car", ("a red car",), None),
    ("one\r\n\r\n two  words \r\none\r\n", ("one", "two words"), None),
    ("", (), None),
    ("\n \t\n", (), None),
    ("nul\0 and \x1b[31mescape\x9b", ("nul and [31mescape",), None),
    ("🚗🚗", ("🚗🚗",), None),
    ("[bold]markup[/] <b>", ("[bold]markup[/] <b>",), None),
    (b"caf\xe9", ("caf\ufffd",), "invalid UTF-8"),
    ("x" * 65_537, (), "longer than 64 KB, ignored"),
], ids=["line", "bom", "crlf", "empty", "blank", "control", "emoji", "markup", "latin-1", "too long"])
def test_text_of_a_sidecar(folder, content, expected, problem):
    found = find_pictures(folder({"a.png": None, "a.txt": content, "b.png": None, "b.txt": "b"}))
    assert said(found)["a.png"] == expected
    assert found.problems == ((("a.txt", problem),) if problem else ())


def test_a_replacement_character_that_somebody_wrote_is_no_error(folder):
    assert find_pictures(folder({"a.png": None, "a.txt": "what \ufffd is"})).problems == ()


@pytest.mark.parametrize(("content", "expected"), [
    ('{"caption": ["one", "two", "", 3]}', ("one", "two", "3")),
    ('{"caption": "", "prompt": "last"}', ("last",)),
    ('{"caption": null}', ()),
    ('{"caption": "\\ud800x"}', ("?x",)),
])
def test_json_sidecars(folder, content, expected):
    assert said(find_pictures(folder({"a.png": None, "a.json": content})))["a.png"] == expected


NOT_TEXT = [(5, ("5",), False), (0, ("0",), False), (0.5, ("0.5",), False), (["x", 2], ("x", "2"), False),
            (None, ("else",), False), ("", ("else",), False), ([], ("else",), False),
            ({"a": 1}, ("else",), True), (True, ("else",), True), (False, ("else",), True), (math.nan, ("else",), True),
            ([1, None, "x"], ("1", "x"), True), ([["x"]], ("else",), True)]


@pytest.mark.parametrize(("value", "expected", "wrong"), NOT_TEXT)
@pytest.mark.parametrize(("name", "place"), [("a.json", "a.json"), ("metadata.jsonl", "metadata.jsonl line 1")])
def test_a_number_is_text_and_anything_else_is_a_problem(folder, name, place, value, expected, wrong):
    first, second = ("caption", "text") if name == "a.json" else ("text", "caption")
    root = folder({"a.png": None, name: rows({"file_name": "a.png", first: value, second: "else"})})
    found = find_pictures(root)
    assert said(found) == {"a.png": expected}
    assert found.problems == (((place, "caption is not text"),) if wrong else ())


def test_a_column_that_is_named_is_judged_alike(folder):
    root = folder({"a.png": None, "metadata.jsonl": rows({"file_name": "a.png", "text": "A", "note": {"en": "N"}})})
    assert find_pictures(root).problems == ()
    found = find_pictures(root, caption_column="note")
    assert (said(found), found.problems) == ({"a.png": ()}, (("metadata.jsonl line 1", "caption is not text"),))


def test_json_that_describes_something_else_is_no_sidecar(folder):
    found = find_pictures(folder({"cat/1.png": None, "cat/1.json": '{"boxes": [1]}', "dog/2.png": None}))
    assert found.source == "folder"
    found = find_pictures(folder({"cat/1.json": "[" * 100_000, "dog/2.json": "[" * 60_000}))
    assert (found.source, found.problems) == ("folder", (("dog/2.json", "not JSON"),))


def test_orphans_are_named_unless_they_are_the_readme(folder):
    found = find_pictures(folder({"a.png": None, "a.txt": "x", "b.txt": "y", "README.txt": "z", "c.caption": "w"}))
    assert found.problems == (("b.txt", "caption without a picture"),)
    with pytest.raises(DataError, match=r"b\.txt: caption without a picture, and --strict stops at the first problem"):
        find_pictures(folder({}), strict=True)


def test_the_caption_of_a_picture_that_cannot_be_used_is_no_orphan(folder):
    root = folder({"a.png": None, "a.txt": "A", "b.txt": "B", "c.psd": "", "c.txt": "C"})
    (root / "b.png").symlink_to(root / "nowhere")
    found = find_pictures(root)
    assert (found.unusable, found.problems) == ((("b.png", "broken link"), ("c.psd", "unsupported type")), ())


def test_caption_ext_narrows(folder):
    root = folder({"a.png": None, "a.txt": "text", "a.tags": "tags"})
    assert said(find_pictures(root, caption_ext="tags")) == {"a.png": ("tags",)}
    assert said(find_pictures(root, caption_ext=".TXT", captions="sidecar")) == {"a.png": ("text",)}
    with pytest.raises(DataError, match="sidecar"):
        find_pictures(root, caption_ext=".cap", captions="sidecar")


# ── Metadata ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_metadata_lists_what_counts_and_sidecars_fill_in(folder):
    found = find_pictures(folder({
        "a.png": None, "b.png": None, "b.txt": "from the sidecar", "unlisted.png": None, "unlisted.txt": "x",
        "sub/c.png": None,
        "metadata.jsonl": rows({"file_name": "a.png", "text": "A"}, {"file_name": "b.png", "text": ""},
                               {"file_name": "./sub/c.png", "text": ["C", "see"]}),
    }))
    assert said(found) == {"a.png": ("A",), "b.png": ("from the sidecar",), "sub/c.png": ("C", "see")}
    assert found.source == "metadata"
    assert "1 more not listed" in found.summary


def test_what_metadata_does_not_list_is_left_out_whether_it_can_be_used_or_not(folder):
    root = folder({"a.png": None, "b.png": None, "c.psd": "", "metadata.jsonl": rows(
        {"file_name": "a.png", "text": "A"}, {"file_name": "gone.png", "text": "B"})})
    for name in ("gone.png", "unlisted.png"):
        (root / name).symlink_to(root / "nowhere")
    found = find_pictures(root)
    assert said(found) == {"a.png": ("A",)}
    assert (found.unusable, found.problems) == ((("gone.png", "broken link"),), ())
    assert "3 more not listed" in found.summary
    assert len(find_pictures(root, captions="none").unusable) == 3


def test_the_nearest_metadata_speaks(folder):
    found = find_pictures(folder({
        "a.png": None, "sub/b.png": None, "sub/deep/c.png": None,
        "metadata.csv": "file_name,caption\na.png,top\nsub/b.png,not this\n",
        "sub/metadata.jsonl": rows({"file_name": "b.png", "prompt": "B"}, {"file_name": "deep/c.png", "prompt": "C"}),
    }))
    assert said(found) == {"a.png": ("top",), "sub/b.png": ("B",), "sub/deep/c.png": ("C",)}


def test_pictures_above_the_metadata_are_not_excluded(folder):
    found = find_pictures(folder({"a.png": None, "a.txt": "A", "sub/b.png": None,
                                  "sub/metadata.jsonl": rows({"file_name": "b.png", "text": "B"})}))
    assert said(found) == {"a.png": ("A",), "sub/b.png": ("B",)}


def test_columns_by_precedence_by_name_and_missing(folder):
    root = folder({"a.png": None,
                   "metadata.csv": '\ufefffile_name,prompt,text,note\r\na.png,P,"T, quoted\r\nline",N\r\n'})
    assert said(find_pictures(root)) == {"a.png": ("T, quoted line",)}
    assert said(find_pictures(root, caption_column="note")) == {"a.png": ("N",)}
    with pytest.raises(DataError, match=r"no column 'nope'.*note, prompt, text"):
        find_pictures(root, caption_column="nope")


def test_metadata_without_captions_says_so(folder):
    root = folder({"a.png": None, "metadata.jsonl": rows({"file_name": "a.png", "label": 3})})
    found = find_pictures(root)
    assert (found.source, found.conditional) == ("none", False)
    assert "label" in found.warnings[0]
    with pytest.raises(DataError, match="--captions metadata"):
        find_pictures(root, captions="metadata")


def test_several_rows_for_a_picture_are_alternatives(folder):
    found = find_pictures(folder({"a.png": None, "metadata.csv": "file_name,text\na.png,one\na.png,two\na.png,one\n"}))
    assert said(found) == {"a.png": ("one", "two")}


def test_disagreement_is_flagged(folder):
    found = find_pictures(folder({"a.png": None, "a.txt": "sidecar", "b.png": None, "b.txt": "B",
                                  "metadata.jsonl": rows({"file_name": "a.png", "text": "metadata"},
                                                         {"file_name": "b.png", "text": "B"})}))
    assert said(found)["a.png"] == ("metadata",)
    assert "disagree about 1 picture" in found.warnings[0]


@pytest.mark.parametrize("name", ["/etc/passwd.png", "../a.png", "x/../../a.png", "https://host/a.png", "C:\\a.png",
                                  "..\\a.png", "\\\\host\\a.png", "a\0.png", "", 7, None])
def test_paths_that_leave_the_folder_are_refused_by_line(folder, name):
    root = folder({"a.png": None, "metadata.jsonl": rows({"file_name": "a.png"}, {"file_name": name})})
    with pytest.raises(DataError, match="line 2"):
        find_pictures(root)


@pytest.mark.parametrize(("name", "content", "line"), [
    ("metadata.jsonl", '{"file_name": "a.png"}\n\n{"file_name": \n', 3),
    ("metadata.jsonl", '["a.png"]', 1),
    ("metadata.jsonl", "[" * 100_000, 1),
    ("metadata.jsonl", '{"file_name": "a.png", "text": "' + "x" * 1_100_000, 1),
    ("metadata.csv", 'file_name,text\na.png,"x" y\n', 2),
    ("metadata.csv", "file_name,text\n,x\n", 2),
    ("metadata.csv", 'file_name,text\na.png,"never closed\n', 2),
])
def test_a_bad_line_is_named(folder, name, content, line):
    with pytest.raises(DataError, match=f"line {line}"):
        find_pictures(folder({"a.png": None, name: content}))


@pytest.mark.parametrize(("header", "columns"), [("name,text", "name, text"), ("file_name;text", "file_name;text")])
def test_a_csv_that_names_no_files_says_what_its_columns_are(folder, header, columns):
    with pytest.raises(DataError, match=f"header of metadata.csv has no column file_name.*are: {columns}$"):
        find_pictures(folder({"a.png": None, "metadata.csv": f"{header}\na.png,x\n"}))


def test_two_formats_side_by_side_are_refused(folder):
    with pytest.raises(DataError, match=r"metadata\.csv and metadata\.jsonl"):
        find_pictures(folder({"a.png": None, "metadata.csv": "", "metadata.jsonl": ""}))


def test_rows_without_their_file_up_to_one_per_cent(folder):
    files = {f"{index:03}.png": None for index in range(99)}
    listed = [{"file_name": name, "text": "x"} for name in files]
    found = find_pictures(folder(files | {"metadata.jsonl": rows(*listed, {"file_name": "gone.png"})}))
    assert found.problems == (("gone.png", "listed but not there"),)
    with pytest.raises(DataError, match="2 of them are not there"):
        find_pictures(folder({"metadata.jsonl": rows(*listed, {"file_name": "gone.png"}, {"file_name": "too.png"})}))


def test_one_missing_file_is_too_many_among_few(folder):
    with pytest.raises(DataError, match="lists 2 files and 1 of them"):
        find_pictures(folder({"a.png": None, "metadata.csv": "file_name,text\na.png,x\ngone.png,y\n"}))


def test_metadata_that_is_not_utf8_is_read_and_named(folder):
    found = find_pictures(folder({"a.png": None, "metadata.csv": b"file_name,text\na.png,caf\xe9\n"}))
    assert said(found) == {"a.png": ("caf\ufffd",)}
    assert found.problems == (("metadata.csv", "invalid UTF-8"),)
    with pytest.raises(DataError, match="invalid UTF-8"):
        find_pictures(folder({}), strict=True)


def test_metadata_that_lists_none_of_the_pictures(folder):
    with pytest.raises(DataError, match="none of its 1 pictures is listed"):
        find_pictures(folder({"a.png": None, "metadata.csv": "file_name,text\n"}))


@pytest.mark.parametrize(("name", "content"), [
    ("list.jsonl", rows({"file_name": "sub/b.png", "text": "B"}, {"file_name": "a.png", "text": ""})),
    ("list.CSV", "file_name,text\nsub/b.png,B\na.png,\n"),
])
def test_a_manifest_is_the_data_set(folder, name, content):
    root = folder({"a.png": None, "a.txt": "A", "sub/b.png": None, "c.png": None, "d.svg": "", name: content})
    found = find_pictures(root / name)
    assert said(found) == {"a.png": ("A",), "sub/b.png": ("B",)}
    assert (found.folder, found.named, found.source) == (root, root / name, "metadata")
    assert (found.unusable, found.problems) == ((), ())
    assert said(find_pictures(root / name, captions="none")) == {"a.png": (), "sub/b.png": ()}


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_class_folders(folder):
    root = folder({"red_car/1.png": None, "red_car/2.png": None, "big-dog/3.png": None})
    assert said(find_pictures(root)) == {"big-dog/3.png": ("big dog",), "red_car/1.png": ("red car",),
                                         "red_car/2.png": ("red car",)}
    assert said(find_pictures(root, caption_template="a {label} {0.__class__}"))["big-dog/3.png"] == (
        "a big dog {0.__class__}",)


def test_kohya_folders_lose_their_repeats_with_a_notice(folder):
    found = find_pictures(folder({"10_sks dog/1.png": None, "5_cat/2.png": None}))
    assert set(said(found).values()) == {("sks dog",), ("cat",)}
    assert "10_sks dog" in found.warnings[0]


@pytest.mark.parametrize("names", [
    ["cat/1.png"],                              # one name only
    ["cat/1.png", "dog/2.png", "3.png"],        # not all at one depth
    ["cat/1.png", "dog/deep/2.png"],
    ["train/1.png", "test/2.png"],              # splits, not labels
    ["cat/1.png", "dog/2.png", "dog/2.txt"],    # sidecars somewhere
])
def test_folders_that_are_no_labels(folder, names):
    assert find_pictures(folder(dict.fromkeys(names, ""))).source != "folder"


@pytest.mark.parametrize(("stem", "words"), [
    ("red_car-0012", "red car"), ("IMG_2041", ""), ("DSC01234", ""), ("PXL_20230101_120000123", ""), ("image 7", ""),
    ("20240131_beach", "beach"), ("3f2b8c9d-1234-4abc-9def-0123456789ab", ""), ("d41d8cd98f00b204e9800998ecf8427e", ""),
    ("a cat (3)", "a cat"), ("photo of a dog", "photo of a dog"), ("WhatsApp Image 2020-01-01 at 10.00.00", "at"),
    ("rotes_auto12", "rotes auto"), ("facade", "facade"), ("00001", ""), ("frame0001", ""), ("帽子和花", "帽子和花"),
])
def test_words_of_a_file_name(stem, words):
    assert caption_sources.words_of_stem(stem) == words


def test_file_names_count_when_four_in_five_say_something(folder):
    root = folder({f"red_car_{index}.png": None for index in range(4)} | {"IMG_0001.png": None})
    found = find_pictures(root)
    assert found.source == "filename"
    assert said(found)["red_car_2.png"] == ("red car",)
    assert said(found)["IMG_0001.png"] == ()
    folder({"IMG_0002.png": None})
    found = find_pictures(root)
    assert (found.source, found.conditional, found.summary) == ("none", False, "none found (unconditional model)")


# ── Precedence ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def everything(folder):
    """Two class folders with words in the file names, sidecars and metadata, all saying different things."""
    return folder({"cat/tabby.png": None, "cat/tabby.txt": "sidecar", "dog/poodle.png": None, "metadata.jsonl": rows(
        {"file_name": "cat/tabby.png", "text": "metadata"}, {"file_name": "dog/poodle.png", "text": "metadata"})})


@pytest.mark.parametrize(("options", "source", "tabby", "poodle"), [
    ({}, "metadata", ("metadata",), ("metadata",)),
    ({"captions": "metadata"}, "metadata", ("metadata",), ("metadata",)),
    ({"captions": "sidecar"}, "sidecar", ("sidecar",), ()),
    ({"captions": "folder"}, "folder", ("cat",), ("dog",)),
    ({"captions": "filename"}, "filename", ("tabby",), ("poodle",)),
    ({"captions": "none"}, "none", (), ()),
    ({"caption": "same  for all"}, "constant", ("same for all",), ("same for all",)),
    ({"caption": "wins", "captions": "metadata"}, "constant", ("wins",), ("wins",)),
])
def test_each_source_can_be_forced(everything, options, source, tabby, poodle):
    found = find_pictures(everything, **options)
    assert found.source == source
    assert said(found) == {"cat/tabby.png": tabby, "dog/poodle.png": poodle}


def test_the_next_source_counts_when_the_one_before_is_away(everything):
    for remove, source in ((None, "metadata"), ("metadata.jsonl", "sidecar"), ("cat/tabby.txt", "folder")):
        if remove:
            (everything / remove).unlink()
        assert find_pictures(everything).source == source
    (everything / "dog/poodle.png").rename(everything / "poodle.png")
    assert find_pictures(everything).source == "filename"
    (everything / "poodle.png").rename(everything / "1.png")
    assert find_pictures(everything).source == "none"


@pytest.mark.parametrize("source", ["metadata", "sidecar", "folder", "filename"])
def test_a_forced_source_that_is_not_there(folder, source):
    with pytest.raises(DataError, match=f"--captions {source}"):
        find_pictures(folder({"1.png": None}), captions=source)


def test_an_unknown_source_is_a_usage_error(folder):
    with pytest.raises(UsageError, match="Did you mean 'sidecar'"):
        find_pictures(folder({"1.png": None}), captions="sidecars")


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(st.characters(categories=["Cc", "Cs", "Zs", "Lu"])))
def test_a_tidy_caption_is_one_clean_line(text):
    tidied = caption_text.tidy(text)
    assert tidied == caption_text.tidy(tidied)
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in tidied)
    assert tidied.encode() is not None
    assert tidied == tidied.strip()
