"""Archives, shards and lists: the same pictures and captions as in a folder, and nothing is unpacked."""

import os
import tarfile
import zipfile

import numpy as np
import pyarrow
import pytest
from picture_folders import captions_of
from pyarrow import ipc, parquet
from source_files import EXPECTED, FILES, WRITERS, opened, png, write_arrow, write_folder, write_tar, write_zip

from diffuse_cli.data import containers, file_hashes
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError

# ── Archives ──────────────────────────────────────────────────────────────────────────────────────────────────────────


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


@pytest.mark.parametrize("line", ["a" * 300, "a/" * 3000, "a\0b", "\x1b[2J", "..", "/dev/zero", "~"])
def test_a_list_of_what_are_no_names_is_a_text_like_any_other(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"{line}\n{line}\n")
    with pytest.raises(DataError):
        find_pictures(tmp_path / "list.txt")
    (tmp_path / "0.png").write_bytes(png(1))
    (tmp_path / "list.txt").write_text(f"0.png\n{line}\n")
    assert list(captions_of(find_pictures(tmp_path / "list.txt"))) == ["0.png"]


@pytest.mark.parametrize("suffix", ["tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_a_compressed_tar_says_what_to_do(tmp_path, suffix):
    path = write_tar(tmp_path / f"a.{suffix}", FILES, {"gz": "w:gz", "2": "w:bz2", "z": "w:xz"}[
        "gz" if suffix in ("tar.gz", "tgz") else suffix[-1]])
    with pytest.raises(DataError, match=r"is a compressed tar.*Unpack it first: tar xf"):
        find_pictures(path)


# ── Parquet and Arrow ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_rows_hold_pictures_and_captions(tmp_path, suffix):
    rows = [{"image": {"bytes": png(number), "path": f"{number}.png"}, "text": f"picture {number}"}
            for number in range(10)]
    path = write_arrow(tmp_path / f"train-00000{suffix}", rows)
    folder = opened(find_pictures(write_folder(tmp_path / "folder", FILES)), tmp_path / "cache")
    for source in (path, path.parent / path.name):
        dataset = opened(find_pictures(source), tmp_path / "cache")
        assert np.array_equal(dataset.images, folder.images)
        assert dataset.captions == folder.captions


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_numbers_of_classes_become_their_names(tmp_path, suffix):
    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    rows = [{"img": png(number), "label": number % 2} for number in range(4)]
    write_arrow(tmp_path / "data" / "train" / f"data-00000-of-00001{suffix}", rows, features=features)
    found = find_pictures(tmp_path / "data")
    assert list(captions_of(found).values()) == [("cat",), ("dog",), ("cat",), ("dog",)]


def test_several_shards_are_read_in_their_order(tmp_path):
    for shard in range(3):
        write_arrow(tmp_path / f"{shard}.parquet", [{"image": {"bytes": png(shard * 3 + row)}, "text": f"{shard} {row}"}
                                                    for row in range(3)], groups=2)
    dataset = opened(find_pictures(tmp_path), tmp_path / "cache")
    assert dataset.captions == tuple((f"{shard} {row}",) for shard in range(3) for row in range(3))
    assert [int(image[0, 0, 0]) for image in dataset.images] == [20 * number for number in range(9)]


def test_a_row_without_a_picture_is_a_skipped_picture(tmp_path):
    rows = [{"image": {"bytes": png(1)}, "text": "a"}, {"image": None, "text": "b"},
            {"image": {"bytes": png(2)}, "text": "c"}]
    dataset = opened(find_pictures(write_arrow(tmp_path / "a.parquet", rows)), tmp_path / "cache")
    assert dataset.captions == (("a",), ("c",))
    assert dataset.skipped == (("00000001", "unreadable in its archive"),)


# ── Lists ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_list_of_files_is_the_data_set(tmp_path):
    write_folder(tmp_path / "pictures", FILES)
    lines = ["# chosen by hand", "pictures/3.png", str(tmp_path / "pictures" / "1.png"), "", "pictures/gone.png"]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    found = find_pictures(tmp_path / "list.txt")
    assert list(captions_of(found).values()) == [("picture 3",), ("picture 1",)]
    assert found.unusable == (("pictures/gone.png", "not there"),)


def test_what_is_no_data_set_is_told_what_would_be_one(tmp_path):
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(DataError, match="is neither a folder, an archive nor a table"):
        find_pictures(tmp_path / "a.doc")
    with pytest.raises(DataError, match="is an address, from which nothing is downloaded"):
        find_pictures("https://example.com/pictures")


# ── Several places ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_several_folders_are_one_data_set(tmp_path):
    write_folder(tmp_path / "cats", {"1.png": png(1)})
    write_folder(tmp_path / "other" / "cats", {"1.png": png(2), "1.txt": b"not a cat"})
    write_zip(tmp_path / "dogs.zip", {"1.png": png(3)})
    more = [str(tmp_path / "other" / "cats"), str(tmp_path / "dogs.zip")]
    found = find_pictures(tmp_path / "cats", more_folders=more)
    assert captions_of(found) == {"cats-2/1.png": ("not a cat",), "cats/1.png": (), "dogs/1.png": ()}
    by_name = find_pictures(tmp_path / "cats", more_folders=more, captions="folder")
    assert captions_of(by_name) == {"cats-2/1.png": ("cats",), "cats/1.png": ("cats",), "dogs/1.png": ("dogs",)}


def test_shards_with_captions_of_their_own_are_merged(tmp_path):
    first = write_arrow(tmp_path / "a.parquet", [{"image": {"bytes": png(1)}, "text": "A"}])
    second = write_arrow(tmp_path / "b.parquet", [{"image": {"bytes": png(2)}, "text": "B"}])
    assert captions_of(find_pictures(first, more_folders=[str(second)])) == {
        "a/00000000": ("A",), "b/00000000": ("B",)}


# ── Hostile ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["list.txt", "a.csv", "a.zip", "a.parquet"])
def test_a_pipe_is_no_data_set(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is not a regular file"):
        find_pictures(tmp_path / name)


def test_texts_that_unpack_to_much_are_unpacked_only_as_far_as_they_are_read(tmp_path, monkeypatch):
    unpacked = []
    read = containers._ZipFiles.read
    monkeypatch.setattr(containers._ZipFiles, "read", lambda path, inner, size: unpacked.append(size) or read(
        path, inner, size))
    path = write_zip(tmp_path / "a.zip", {"0.png": png(0), "0.txt": b" " * 2**24, "nosuffix": b"\0" * 2**24})
    found = find_pictures(path)
    assert found.caption_problems == (("0.txt", "longer than 64 KB, ignored"),)
    assert max(unpacked) <= 2**16 + 1


@pytest.mark.parametrize("column", [
    pyarrow.array([b"\xff\xfe"]).view(pyarrow.string()), pyarrow.array([2**62]).view(pyarrow.timestamp("us")),
    pyarrow.array([2**30], pyarrow.int32()).view(pyarrow.date32())], ids=["no UTF-8", "no time", "no date"])
@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "metadata.parquet"])
def test_values_that_python_cannot_hold_are_one_line(tmp_path, column, name):
    table = pyarrow.table({"image": [png(1)], "file_name": ["0.png"], "text": column})
    (tmp_path / "0.png").write_bytes(png(1))
    if name == "a.arrow":
        with pyarrow.OSFile(str(tmp_path / name), "wb") as file, ipc.new_stream(file, table.schema) as writer:
            writer.write_table(table)
    else:
        parquet.write_table(table.drop_columns(["image"]) if name == "metadata.parquet" else table, tmp_path / name)
    with pytest.raises(DataError, match=r"is not a readable (parquet|arrow) file"):
        find_pictures(tmp_path if name == "metadata.parquet" else tmp_path / name)


def test_classes_that_are_nested_without_end_are_no_classes(tmp_path):
    table = pyarrow.table({"image": [png(1)], "label": [0]}).replace_schema_metadata(
        {"huggingface": b'{"info":' + b"[" * 100_000})
    parquet.write_table(table, tmp_path / "a.parquet")
    assert len(find_pictures(tmp_path / "a.parquet").pictures) == 1
