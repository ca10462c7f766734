"""Captions of sidecar files: by what `find_pictures` finds in real folders."""

import pytest
from picture_folders import captions_of

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError


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
    (b"caf\xe9", ("café",), None),
    ("a red car\r\nund ein Möwe".encode("utf-16"), ("a red car", "und ein Möwe"), None),
    ("一辆红色的汽车在桥上".encode("gbk"), ("一辆红色的汽车在桥上",), None),
    (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", (), "not text"),
    ("0 0.5 0.5 0.25 1e-2\n3 0.1 0.2 0.3 0.4\n", (), "only numbers, no caption"),
    ("x" * 65_537, (), "longer than 64 KB, ignored"),
], ids=["line", "bom", "crlf", "empty", "blank", "control", "emoji", "markup", "latin-1", "utf-16", "gbk",
        "binary", "boxes", "too long"])
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
    assert (found.unusable, found.caption_problems) == ((("b.png", "broken link"), ("c.psd", "unsupported type")), ())


def test_caption_ext_narrows(folder):
    root = folder({"a.png": None, "a.txt": "text", "a.tags": "tags"})
    assert captions_of(find_pictures(root, caption_ext="tags")) == {"a.png": ("tags",)}
    assert captions_of(find_pictures(root, caption_ext=".TXT", captions="sidecar")) == {"a.png": ("text",)}
    with pytest.raises(DataError, match="sidecar"):
        find_pictures(root, caption_ext=".cap", captions="sidecar")
