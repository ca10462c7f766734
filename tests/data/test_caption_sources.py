"""Captions of sidecar files, folders and file names: by what `find_pictures` finds in real folders."""

import pytest
from picture_folders import captions_of

from diffuse_cli.data import caption_sources
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError

# ── Sidecar files ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_sidecars_in_their_order_of_precedence(folder):
    found = find_pictures(folder({
        "a.png": None, "a.txt": "from txt", "a.caption": "not this", "a.json": '{"caption": "nor this"}',
        "b.png": None, "b.txt": "  \n", "b.caption": "from caption",
        "c.png": None, "c.json": '{"text": "from json", "prompt": "not this"}',
        "d.png": None,
        "e.jpg": None, "e.png": None, "e.TXT": "shared",
    }))
    assert captions_of(found) == {"a.png": ("from txt",), "b.png": ("from caption",), "c.png": ("from json",),
                                  "d.png": (), "e.jpg": ("shared",), "e.png": ("shared",)}
    assert found.caption_source == "sidecar"
    assert found.caption_summary == "sidecar .txt, .caption, .json (5 of 6 files; 1 has none → empty)"
    assert found.conditional


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
    assert captions_of(found)["a.png"] == expected
    assert found.caption_problems == ((("a.txt", problem),) if problem else ())


def test_a_replacement_character_that_somebody_wrote_is_no_error(folder):
    assert find_pictures(folder({"a.png": None, "a.txt": "what \ufffd is"})).caption_problems == ()


@pytest.mark.parametrize(("content", "expected"), [
    ('{"caption": ["one", "two", "", 3]}', ("one", "two", "3")),
    ('{"caption": "", "prompt": "last"}', ("last",)),
    ('{"caption": null}', ()),
    ('{"caption": "\\ud800x"}', ("?x",)),
])
def test_json_sidecars(folder, content, expected):
    assert captions_of(find_pictures(folder({"a.png": None, "a.json": content})))["a.png"] == expected


def test_json_that_describes_something_else_is_no_sidecar(folder):
    found = find_pictures(folder({"cat/1.png": None, "cat/1.json": '{"boxes": [1]}', "dog/2.png": None}))
    assert found.caption_source == "folder"
    found = find_pictures(folder({"cat/1.json": "[" * 100_000, "dog/2.json": "[" * 60_000}))
    assert (found.caption_source, found.caption_problems) == ("folder", (("dog/2.json", "not JSON"),))


def test_orphans_are_named_unless_they_are_the_readme(folder):
    found = find_pictures(folder({"a.png": None, "a.txt": "x", "b.txt": "y", "README.txt": "z", "c.caption": "w"}))
    assert found.caption_problems == (("b.txt", "caption without a picture"),)
    with pytest.raises(DataError, match=r"b\.txt: caption without a picture, and --strict stops at the first problem"):
        find_pictures(folder({}), strict=True)


def test_the_caption_of_a_picture_that_cannot_be_used_is_no_orphan(folder):
    root = folder({"a.png": None, "a.txt": "A", "b.txt": "B", "c.psd": "", "c.txt": "C"})
    (root / "b.png").symlink_to(root / "nowhere")
    found = find_pictures(root)
    assert found.unusable == (("b.png", "broken link"), ("c.psd", "picture with layers"))
    assert found.caption_problems == ()


def test_caption_ext_narrows(folder):
    root = folder({"a.png": None, "a.txt": "text", "a.tags": "tags"})
    assert captions_of(find_pictures(root, caption_ext="tags")) == {"a.png": ("tags",)}
    assert captions_of(find_pictures(root, caption_ext=".TXT", captions="sidecar")) == {"a.png": ("text",)}
    with pytest.raises(DataError, match="sidecar"):
        find_pictures(root, caption_ext=".cap", captions="sidecar")


# ── Names ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


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
    ["cat/1.png", "dog/2.png", "3.png"],        # not all at one depth
    ["cat/1.png", "dog/deep/2.png"],
    ["train/1.png", "test/2.png"],              # splits, not labels
    ["cat/1.png", "dog/2.png", "dog/2.txt"],    # sidecars somewhere
])
def test_folders_that_are_no_labels(folder, names):
    assert find_pictures(folder(dict.fromkeys(names, ""))).caption_source != "folder"


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
    assert found.caption_source == "filename"
    assert captions_of(found)["red_car_2.png"] == ("red car",)
    assert captions_of(found)["IMG_0001.png"] == ()
    folder({"IMG_0002.png": None})
    found = find_pictures(root)
    assert (found.caption_source, found.conditional) == ("none", False)
    assert found.caption_summary == "none found (unconditional model)"
