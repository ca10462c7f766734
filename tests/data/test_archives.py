"""Archives: the same pictures and captions as in the folder that unpacking them would make. Nothing is unpacked."""

import io
import os
import re
import stat
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
from picture_folders import captions_of
from source_files import EXPECTED, FILES, WRITERS, opened, png, write_folder, write_tar, write_zip

from diffuse_cli.data import containers, file_hashes
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.file_types import remedies
from diffuse_cli.errors import DataError


@pytest.mark.parametrize("name", WRITERS)
def test_an_archive_is_what_its_folder_would_be(tmp_path, name):
    archive = find_pictures(WRITERS[name](tmp_path / name, FILES))
    folder = find_pictures(write_folder(tmp_path / "folder", FILES))
    assert captions_of(archive) == captions_of(folder) == EXPECTED
    before = sorted(os.listdir(tmp_path))
    one, other = opened(archive, tmp_path / "cache"), opened(folder, tmp_path / "cache")
    assert (one.content_id, one.names) == (other.content_id, other.names)
    assert np.array_equal(one.images, other.images)
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "cache"])       # nothing else was written


@pytest.mark.parametrize("name", WRITERS)
def test_metadata_classes_and_litter_in_an_archive(tmp_path, name):
    files = {"data/metadata.csv": b"file_name,text\na.png,A\nsub/b.png,B\n", "data/a.png": png(1),
             "data/sub/b.png": png(2), "__MACOSX/data/._a.png": b"x", "data/.DS_Store": b"x"}
    found = find_pictures(WRITERS[name](tmp_path / name, files))
    assert captions_of(found) == {"data/a.png": ("A",), "data/sub/b.png": ("B",)}
    assert sum(count for _, count in found.litter) == 2
    classes = WRITERS[name](tmp_path / f"classes-{name}", {"cat/1.png": png(1), "dog/2.png": png(2)})
    assert captions_of(find_pictures(classes)) == {"cat/1.png": ("cat",), "dog/2.png": ("dog",)}


@pytest.mark.parametrize("name", WRITERS)
def test_members_that_unpacking_would_put_elsewhere_are_named(tmp_path, name):
    found = find_pictures(WRITERS[name](tmp_path / name, {
        "a.png": png(1), "../b.png": png(2), "c/../../d.png": png(3), "/e/f.png": png(4), "../g.txt": b"g",
        "h" * 256 + ".png": png(5)}))
    assert sorted(captions_of(found)) == ["a.png", "e/f.png"]          # as unpacking programs do
    assert found.unusable == (("../b.png", "leads out of the archive"), ("../d.png", "leads out of the archive"),
                              ("h" * 256 + ".png", "a name that no file can have"))
    assert found.notes == ("1 other member of archives is not read (leads out of the archive), for example ../g.txt",)


def test_a_folder_of_shards_is_one_data_set(tmp_path):
    for shard in range(3):
        write_tar(tmp_path / f"{shard:05d}.tar", {
            "000.png": png(shard), "000.txt": b"shard %d" % shard, "001.png": png(shard + 5),
            "001.json": b'{"caption": "x"}'})
    found = find_pictures(tmp_path)
    assert captions_of(found) == {f"{shard:05d}/00{k}.png": (f"shard {shard}" if k == 0 else "x",)
                                  for shard in range(3) for k in (0, 1)}


@pytest.mark.parametrize("name", WRITERS)
def test_an_archive_is_not_read_again_unless_it_changes(tmp_path, name, monkeypatch):
    path = WRITERS[name](tmp_path / name, FILES)
    first = opened(find_pictures(path), tmp_path / "cache")
    with monkeypatch.context() as patched:
        patched.setattr(file_hashes, "open_regular", lambda _: pytest.fail("a file was read again"))
        assert opened(find_pictures(path), tmp_path / "cache").content_id == first.content_id
    WRITERS[name](path, {**FILES, "0.png": png(9), "0.txt": b"other"})
    os.utime(path, ns=(1, 1))
    changed = opened(find_pictures(path), tmp_path / "cache")
    assert changed.content_id != first.content_id
    assert changed.captions[0] == ("other", "picture 9")               # the same pixels share their captions


def test_names_that_lead_out_of_an_archive_are_left_out(tmp_path):
    files = {"../../out.png": png(1), "/root.png": png(2), "a/../in.png": png(3), "win\\dows.png": png(4)}
    found = find_pictures(write_zip(tmp_path / "a.zip", files))
    assert sorted(captions_of(found)) == ["in.png", "root.png", "win/dows.png"]


@pytest.mark.parametrize(("name", "content"), [
    ("a.zip", b"PK\x03\x04 no archive"), ("a.tar", b"no archive" * 100), ("a.zip", b""), ("a.tar", b"")])
def test_a_damaged_archive_is_one_line(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=r"is not a readable archive|holds no picture"):
        find_pictures(tmp_path / name)


def test_an_archive_that_is_cut_short_loses_only_what_is_gone(tmp_path):
    path = write_tar(tmp_path / "a.tar", {**FILES, "last.png": b"\x89PNG" + b"x" * 50_000})
    os.truncate(path, path.stat().st_size - 40_000)
    with pytest.raises(DataError, match="is not a readable archive"):
        find_pictures(path)


def test_a_member_with_too_many_bytes_is_refused_before_it_is_read(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"ok.png": png(1), "bomb.png": b"\0" * (256 * 2**20 + 1)})
    assert path.stat().st_size < 2**20
    dataset = opened(find_pictures(path), tmp_path / "cache")
    assert (dataset.names, dataset.skipped) == (("ok.png",), (("bomb.png", "unreadable in its archive"),))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_members_that_would_be_unpacked_without_a_limit_are_not_read(tmp_path, method):
    """The library's own limit holds for deflate alone: 90 KB of others became gigabytes."""
    path = write_zip(tmp_path / "a.zip", {"bomb.png": png(1)}, method)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("ok.png", png(1))
    dataset = opened(find_pictures(path), tmp_path / "cache")
    assert (dataset.names, dataset.skipped) == (("ok.png",), (("bomb.png", "unreadable in its archive"),))
    (remedy,) = remedies(reason for _, reason in dataset.skipped)
    assert remedy.startswith("unreadable in its archive: unpack it")


def tar_header(name, size, kind=b"0"):
    """A header in GNU's form with a size of any sign, whatever follows."""
    info = tarfile.TarInfo(name)
    info.type = kind
    header = bytearray(info.tobuf(format=tarfile.GNU_FORMAT)[:512])
    header[124:136] = (b"\x80" if size >= 0 else b"\xff") + size.to_bytes(11, "big", signed=True)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("content", [
    tar_header("a.png", 0) + tar_header("b.png", -1024),                        # the same member again and again
    tar_header("a.png", 0) + tar_header("b", -512, b"5"),
    tar_header("x", 2**62, b"L"), tar_header("x", -512, b"L"),                  # names
    tar_header("x", 2**40, b"x"), tar_header("x", 2**30, b"g"),                 # extended headers
    (tar_header("x", 2, b"L") + b"a".ljust(512, b"\0")) * 900,                   # each name is that of the next header
])
def test_headers_of_a_tar_cost_no_time_and_no_memory(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content + bytes(1024))
    os.truncate(path, 2**32)                            # a sparse file: what a header says of its length may be true
    with pytest.raises(DataError, match="is not a readable archive"):
        find_pictures(path)


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_a_compressed_tar_says_what_to_do(tmp_path, suffix):
    path = write_tar(tmp_path / f"a.{suffix}", FILES, {"gz": "w:gz", "2": "w:bz2", "z": "w:xz"}[
        "gz" if suffix in ("tar.gz", "tgz") else suffix[-1]])
    with pytest.raises(DataError, match=r"is a compressed tar.*Unpack it first: tar xf"):
        find_pictures(path)


# ── What unpacking would leave ────────────────────────────────────────────────────────────────────────────────────────


def add_to_zip(path, name, data):
    with zipfile.ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")         # a second member of one name
        archive.writestr(name, data)


def add_to_tar(path, name, data):
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


ADD = {"a.zip": add_to_zip, "a.tar": add_to_tar}


@pytest.mark.parametrize("name", WRITERS)
def test_the_last_of_several_members_of_one_name_counts(tmp_path, name):
    path = WRITERS[name](tmp_path / name, {"0.png": png(0), "0.txt": b"old", "1.png": png(1), "1.txt": b"one"})
    ADD[name](path, "0.png", png(2))
    ADD[name](path, "./0.txt", b"new")
    for _ in range(2):                          # at the second start, hashes of the first are known
        found = find_pictures(path)
        assert captions_of(found) == {"0.png": ("new",), "1.png": ("one",)}
        assert len(found.pictures) == 2
        assert found.notes == ("2 members of archives replaced by a later one of the same name, for example 0.png",)
        images = opened(found, tmp_path / "cache").images
        assert [int(image[0, 0, 0]) for image in images] == [40, 20]


def test_a_member_of_another_shard_replaces_nothing(tmp_path):
    for shard in range(2):
        write_tar(tmp_path / f"{shard}.tar", {"0.png": png(shard), "0.txt": b"old"})
        add_to_tar(tmp_path / f"{shard}.tar", "0.txt", b"shard %d" % shard)
    write_zip(tmp_path / "1.zip", {"0.png": png(5), "0.txt": b"in a zip"})
    found = find_pictures(tmp_path)
    assert captions_of(found) == {"0/0.png": ("shard 0",), "1.tar/0.png": ("shard 1",), "1.zip/0.png": ("in a zip",)}
    assert found.notes[0] == "2 members of archives replaced by a later one of the same name, for example 0/0.txt"
    assert len(opened(found, tmp_path / "cache").images) == 3


@pytest.mark.skipif(not hasattr(os, "link"), reason="this system has no hard links")
def test_links_in_an_archive_are_the_files_that_they_lead_to(tmp_path):
    folder = write_folder(tmp_path / "folder", {"all/0.png": png(0), "all/0.txt": b"red", "good/1.png": png(1)})
    os.link(folder / "all" / "0.png", folder / "good" / "hard.png")
    os.symlink("../all/0.png", folder / "good" / "soft.png")
    os.symlink("soft.png", folder / "good" / "twice.png")
    os.symlink("../all/0.txt", folder / "good" / "soft.txt")
    os.symlink("gone.png", folder / "good" / "broken.png")
    os.symlink("loop.png", folder / "good" / "loop.png")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(folder, ".")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for file in sorted(folder.rglob("*.*")):
            name = file.relative_to(folder).as_posix()
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK if file.is_symlink() else stat.S_IFREG) << 16
            archive.writestr(info, os.readlink(file) if file.is_symlink() else file.read_bytes())
    expected = find_pictures(folder)
    for name in WRITERS:
        found = find_pictures(tmp_path / name)
        assert captions_of(found) == captions_of(expected)
        assert found.unusable == expected.unusable == (
            ("good/broken.png", "broken link"), ("good/loop.png", "broken link"))
        assert np.array_equal(opened(found, tmp_path / "cache").images, opened(expected, tmp_path / "cache").images)


# ── Hostile ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_texts_that_unpack_to_much_are_unpacked_only_as_far_as_they_are_read(tmp_path, monkeypatch):
    unpacked = []
    read = containers._ZipFiles.read
    monkeypatch.setattr(containers._ZipFiles, "read", lambda path, inner, size: unpacked.append(size) or read(
        path, inner, size))
    path = write_zip(tmp_path / "a.zip", {"0.png": png(0), "0.txt": b" " * 2**24, "nosuffix": b"\0" * 2**24})
    found = find_pictures(path)
    assert found.caption_problems == (("0.txt", "longer than 64 KB, ignored"),)
    assert max(unpacked) <= 2**16 + 1


def zip_with_names(path, names):
    """A zip file with pictures under these names, which are bytes and without a mark of their encoding."""
    write_zip(path, {f"{number:03d}".ljust(len(name), "_"): png(number) for number, name in enumerate(names)})
    data = path.read_bytes()
    for number, name in enumerate(names):
        data = data.replace(f"{number:03d}".ljust(len(name), "_").encode(), name)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(("encoding", "words"), [
    ("cp866", ("кошки", "собаки")), ("cp932", ("写真番号", "鉄道車両")), ("gb18030", ("红色汽车", "新建文件夹")),
    ("cp949", ("빨간자동차", "고양이")), ("cp737", ("εικόνα", "γάτα")), ("cp850", ("château", "forêt")),
    ("cp852", ("łódź", "książka")), ("utf-8", ("château", "łódź"))])
def test_names_in_a_zip_are_read_in_the_code_page_of_the_computer_that_wrote_them(tmp_path, encoding, words):
    names = [f"{word}/{number:04d}.png".encode(encoding) for word in words for number in range(3)]
    found = find_pictures(zip_with_names(tmp_path / "a.zip", names))
    assert set(captions_of(found).values()) == {(word,) for word in words}
    assert bool(found.notes) == (encoding != "utf-8")
    assert len(opened(found, tmp_path / "cache").names) == len(names)


def test_a_zip_with_a_password_says_so(tmp_path):
    path = write_zip(tmp_path / "a.zip", {"0.png": png(0), "0.txt": b"x"})
    data = bytearray(path.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        start = -1
        while (start := data.find(mark, start + 1)) >= 0:
            data[start + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"no picture that can be read \(encrypted 1\)") as caught:
        find_pictures(path)
    assert "password" in caught.value.hint


@pytest.mark.parametrize(("names", "message"), [
    (("a.zip", "a.z01"), "last part of a split archive.*zip -s 0"),
    (("a.zip.001", "a.zip.002"), "Unpack a.zip.001 first")])
def test_the_parts_of_a_split_archive_are_named_with_a_remedy(tmp_path, names, message):
    data = write_zip(tmp_path / "whole", {"0.png": png(0)}).read_bytes()
    for name, part in zip(names, (data[:50], data[50:]), strict=True):
        (tmp_path / name).write_bytes(part)
    (tmp_path / "whole").unlink()
    with pytest.raises(DataError) as caught:
        find_pictures(tmp_path)
    assert re.search(message, f"{caught.value}. {caught.value.hint}")


def test_names_of_archives_are_classes_without_their_suffix(tmp_path):
    for number, name in enumerate(["cats.tar", "cats.zip", "dogs.zip"]):
        (write_tar if name.endswith(".tar") else write_zip)(tmp_path / name, {"1.png": png(number)})
    assert captions_of(find_pictures(tmp_path)) == {
        "cats.tar/1.png": ("cats",), "cats.zip/1.png": ("cats",), "dogs/1.png": ("dogs",)}
    (tmp_path / "dogs.zip").unlink()
    assert not find_pictures(tmp_path).conditional          # there is one class


@pytest.mark.parametrize("name", ["shard-{:03}.tar", "wds_shard_{}.tar", "chunk{}.zip"])
def test_names_of_shards_say_nothing(tmp_path, name):
    for number in range(2):
        (write_tar if name.endswith(".tar") else write_zip)(tmp_path / name.format(number), {
            "cat/1.png": png(4 * number), "dog/1.png": png(4 * number + 1)})
    assert sorted(map(str, captions_of(find_pictures(tmp_path)).values())) == ["('cat',)"] * 2 + ["('dog',)"] * 2
