"""Which files of a folder are pictures, in which order, and which are never opened."""

import os
import socket
import sys
import unicodedata

import pytest
from picture_folders import captions_of, rows

from diffuse_cli.data import file_types, folders
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError


def test_pictures_are_found_at_any_depth_in_any_case_and_sorted_by_bytes(folder):
    root = folder({"b.PNG": None, "Z.jpg": None, "a/é.JpEg": None, "a/b/c.webp": None, "ä.tif": None,
                   ".hidden.png": None, "._a.jpg": None, "__MACOSX/x.png": None, ".git/y.png": None, "Thumbs.db": None,
                   "note.md": ""})
    found = find_pictures(root)
    names = [picture.name for picture in found.pictures]
    assert names == sorted(["Z.jpg", "a/b/c.webp", "a/é.JpEg", "b.PNG", "ä.tif"], key=str.encode)
    assert all(picture.path.is_file() for picture in found.pictures)
    assert (found.unusable, found.caption_problems) == ((), ())


def test_names_are_nfc_whatever_the_file_system_holds(folder):
    decomposed = unicodedata.normalize("NFD", "café.png")
    root = folder({decomposed: None, "metadata.jsonl": rows({"file_name": "café.png", "text": "coffee"})})
    assert captions_of(find_pictures(root)) == {"café.png": ("coffee",)}


def test_bytes_that_are_not_utf8_are_usable_names(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xfe red.png"
    with open(name, "wb") as file:
        file.write(b"x")
    (picture,) = find_pictures(tmp_path).pictures
    assert picture.path.read_bytes() == b"x"
    assert folders.sort_key(picture.name) == b"\xff\xfe red.png"


def test_unsupported_pictures_are_named_and_other_files_are_not(folder):
    found = find_pictures(folder({"a.png": None, "b.svg": "", "c.PSD": "", "d.pdf": "", "e.heic": None}))
    assert found.unusable == (("b.svg", "drawing"), ("c.PSD", "picture with layers"), ("e.heic", "HEIC"))


def test_a_plugin_makes_its_suffix_a_picture(folder, monkeypatch):
    monkeypatch.setattr(file_types, "PLUGINS", (("json.decoder", "HEIF", (".heic",)),))    # a module that is there
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
    assert found.caption_problems == tuple((name, "not a regular file") for name in ("metadata.jsonl", "a.txt"))


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


@pytest.mark.skipif(sys.platform == "darwin", reason="this system knows one composition of a name")
def test_one_name_in_two_compositions_is_said(tmp_path):
    for name in ("e\u0301.png", "\u00e9.png", "o\u0308.png"):
        (tmp_path / name).write_bytes(b"")
    (note,) = folders.list_tree(tmp_path).notes
    assert note.startswith("1 name is there twice, with composed and with decomposed accents, for example \u00e9.png")


@pytest.mark.parametrize(("name", "step"), [
    ("train.tfrecord-00000-of-00002", "save its pictures as PNG files"),
    ("data.npz", "save its pictures as PNG files"), ("train-images-idx3-ubyte", "save its pictures as PNG files"),
    ("a.mp4", "save single frames as pictures"), ("a.pdf", "export its pages as PNG")])
def test_what_holds_pictures_in_another_form_is_named(folder, name, step):
    with pytest.raises(DataError) as error:
        find_pictures(folder({name: b"\0\1\2"}))
    assert error.value.hint == f"{name} is not read: {step}"
