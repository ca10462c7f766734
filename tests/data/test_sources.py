"""Archives, shards and lists: the same pictures and captions as in a folder, and nothing is unpacked."""

import base64
import json
import os

import numpy as np
import pyarrow
import pytest
from picture_folders import captions_of
from pyarrow import ipc, parquet
from source_files import FILES, opened, png, write_arrow, write_folder, write_zip

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError

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


def test_a_list_may_have_quotes_around_paths(tmp_path):
    write_folder(tmp_path, FILES)
    (tmp_path / "list.txt").write_text('"1.png"\n\'2.png\'\n')
    assert list(captions_of(find_pictures(tmp_path / "list.txt")).values()) == [("picture 1",), ("picture 2",)]


@pytest.mark.parametrize("line", ["pictures\\{}.png", "file://{folder}/pictures/{}.png", "./pictures/{}.png"])
def test_a_list_may_have_paths_as_other_programs_write_them(tmp_path, line):
    folder = tmp_path / "a folder"
    folder.mkdir()
    write_folder(folder / "pictures", FILES)
    address = str(folder).replace(" ", "%20")
    (folder / "list.txt").write_text("".join(line.format(number, folder=address) + "\n" for number in (1, 2)))
    assert list(captions_of(find_pictures(folder / "list.txt")).values()) == [("picture 1",), ("picture 2",)]


def test_a_list_of_shards_is_the_data_set(tmp_path):
    for number in range(3):
        write_arrow(tmp_path / f"{number}.parquet", [{"image": png(number), "text": f"picture {number}"}])
    write_zip(tmp_path / "more.zip", FILES)
    (tmp_path / "list.txt").write_text("2.parquet\nmore.zip\n")
    found = captions_of(find_pictures(tmp_path / "list.txt"))
    assert found["2/00000000"] == ("picture 2",)
    assert found["more/1.png"] == ("picture 1",)
    assert len(found) == 1 + sum(name.endswith(".png") for name in FILES)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.mark.parametrize(("files", "message"), [
    ({"0.parquet": POINTER}, "0.parquet is not a readable parquet file.*run `git lfs pull`"),
    ({"0.tar": POINTER}, "0.tar is not a readable archive.*run `git lfs pull`"),
    ({"0.zip": POINTER}, "0.zip is not a readable archive.*run `git lfs pull`"),
    ({"0.png": png(0), "metadata.csv": POINTER}, "metadata.csv is no table.*run `git lfs pull`"),
    ({"0.png": png(0), "metadata.jsonl": b"<html></html>"}, "metadata.jsonl is no table.*the download failed"),
    ({"0.7z": b"7z"}, "Unpack 0.7z first"), ({"data/0.cbz": b"PK"}, "Unpack data/0.cbz first"),
    ({"doc/changes.gz": b"\x1f\x8b", "game/pak0.pk3": b"PK\x03\x04" + bytes(999)}, "Unpack game/pak0.pk3 first")])
def test_what_is_elsewhere_or_packed_is_told_how_to_get_it(tmp_path, files, message):
    with pytest.raises(DataError, match=message):
        find_pictures(write_folder(tmp_path, files))


def test_what_is_no_data_set_is_told_what_would_be_one(tmp_path):
    (tmp_path / "a.doc").write_text("x")
    with pytest.raises(DataError, match="is neither a folder, an archive nor a table"):
        find_pictures(tmp_path / "a.doc")
    with pytest.raises(DataError, match="is an address, from which nothing is downloaded"):
        find_pictures("https://example.com/pictures")
    for pattern in ("shard-{000..002}.tar", "*.tar"):
        with pytest.raises(DataError, match=r"does not exist\. Without quotes, the shell finds the files"):
            find_pictures(tmp_path / pattern)


@pytest.mark.parametrize("rows", [[{"url": "https://example.com/0.png", "text": "red"}],
                                  [{"image": "00ff00ff", "text": "red"}], [{"text": "red"}]])
def test_a_table_without_pictures_says_so(tmp_path, rows):
    with pytest.raises(DataError, match=r"holds no pictures and lists none that are there|has no column file_name"):
        find_pictures(write_arrow(tmp_path / "0.parquet", rows), checking=True)
    (tmp_path / "empty.txt").write_text("")
    with pytest.raises(DataError, match=r"empty\.txt holds no pictures and lists none that are there"):
        find_pictures(tmp_path / "empty.txt")


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


def test_a_folder_of_addresses_alone_says_so(tmp_path):
    write_arrow(tmp_path / "laion.parquet", [{"URL": "https://example.org/1.png", "TEXT": "a cat"}])
    with pytest.raises(DataError) as error:
        find_pictures(tmp_path)
    assert error.value.hint == ("laion.parquet is not read: no column of it holds files of pictures; save pixels as PNG"
                                " files, and download pictures that are at addresses")
    table = write_arrow(tmp_path / "laion.arrow", [{"URL": "https://example.org/1.png", "TEXT": "a cat"}])
    with pytest.raises(DataError, match=r"no column of .*laion\.arrow holds files of pictures"):
        find_pictures(table)


AS_TEXT = [base64.b64encode(png(number)).decode() for number in range(3)]


@pytest.mark.parametrize("before", ["", "data:image/png;base64,"])
@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.txt", "a.parquet"])
def test_pictures_that_are_written_as_text_are_refused_by_what_they_are(tmp_path, before, name):
    rows = [{"image": before + text, "text": "a car"} for text in AS_TEXT]
    table = tmp_path / "set" / name
    if name == "a.parquet":
        write_arrow(table, rows)
    else:
        text = {"a.csv": "image,text\n" + "".join(f'"{row["image"]}",a car\n' for row in rows),
                "a.jsonl": "\n".join(map(json.dumps, rows)), "a.json": json.dumps(rows),
                "a.txt": "\n".join(row["image"] for row in rows)}[name]
        write_folder(table.parent, {name: text.encode()})
    with pytest.raises(DataError, match=rf"{name} holds pictures that are written as text \(base64\)"):
        find_pictures(table)
    with pytest.raises(DataError, match=rf"holds no picture.*{name} is not read: it holds pictures that are"):
        find_pictures(table.parent)


def test_a_picture_as_text_is_no_caption_and_does_no_harm_beside_one(tmp_path):
    root = write_folder(tmp_path / "set", {
        "a.png": png(1), "a.txt": AS_TEXT[0].encode(), "b.png": png(2), "b.txt": b"a red car",
        "c.png": png(3), "t.csv": f"file,image,text\nc.png,{AS_TEXT[0]},a bus\n".encode()})
    found = find_pictures(root)
    assert captions_of(found) == {"a.png": (), "b.png": ("a red car",), "c.png": ("a bus",)}
    assert found.caption_problems == (("a.txt", "picture as text"),)


def test_a_second_column_of_pictures_is_named(tmp_path):
    rows = [{"before": png(1), "after": png(2), "caption": "a cat"}]
    found = find_pictures(write_arrow(tmp_path / "a.parquet", rows))
    assert found.notes == ("pictures are taken from the column before of a.parquet, and not from after",)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["list.txt", "a.csv", "a.zip", "a.parquet"])
def test_a_pipe_is_no_data_set(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="is not a regular file"):
        find_pictures(tmp_path / name)


@pytest.mark.parametrize("line", ["a" * 300, "a/" * 3000, "a\0b", "\x1b[2J", "..", "/dev/zero", "~"])
def test_a_list_of_what_are_no_names_is_a_text_like_any_other(tmp_path, line):
    (tmp_path / "list.txt").write_text(f"{line}\n{line}\n")
    with pytest.raises(DataError):
        find_pictures(tmp_path / "list.txt")
    (tmp_path / "0.png").write_bytes(png(1))
    (tmp_path / "list.txt").write_text(f"0.png\n{line}\n")
    assert list(captions_of(find_pictures(tmp_path / "list.txt"))) == ["0.png"]


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


def test_texts_in_a_place_of_their_own_are_captions_of_the_others(tmp_path):
    write_folder(tmp_path, {"images/a.png": png(1), "captions/a.txt": b"red", "empty/x.bin": b"x"})
    write_zip(tmp_path / "captions.zip", {"captions/a.txt": b"blue"})
    for captions, expected in (("captions", "red"), ("captions.zip", "blue")):
        found = find_pictures(tmp_path / "images", more_folders=[str(tmp_path / captions)])
        assert captions_of(found) == {"images/a.png": (expected,)}
    with pytest.raises(DataError, match="empty holds no picture"):
        find_pictures(tmp_path / "images", more_folders=[str(tmp_path / "empty")])


@pytest.mark.parametrize(("other", "hint"), [
    ("table.csv", "--captions .*table.csv takes the captions"), ("images/sub", "Give each folder once"),
    ("images", "Give each folder once")])
def test_a_picture_that_two_places_hold_is_not_taken_twice(tmp_path, other, hint):
    write_folder(tmp_path, {"images/sub/a.png": png(1), "table.csv": b"file,text\na.png,red\n"})
    with pytest.raises(DataError, match=f"a.png is in .* and in .*{other}.*{hint}"):
        find_pictures(tmp_path / "images", more_folders=[str(tmp_path / other)])


@pytest.mark.parametrize("pictures", ["images", "images.zip"])
@pytest.mark.parametrize("first", [True, False])
def test_a_table_behind_the_pictures_holds_their_captions(tmp_path, pictures, first):
    files = {"1.png": png(1), "2.png": png(2)}
    (write_zip if pictures.endswith(".zip") else write_folder)(tmp_path / pictures, files)
    write_folder(tmp_path, {"tables/labels.csv": b"file,text\n1.png,red\n2.png,blue\n"})
    places = [tmp_path / pictures, tmp_path / "tables" / "labels.csv"]
    found = find_pictures(places[not first], more_folders=[str(places[first])])
    assert captions_of(found) == {"images/1.png": ("red",), "images/2.png": ("blue",)}


@pytest.mark.parametrize(("name", "text"), [
    ("list.txt", "../images/a.png"), ("table.csv", "file,text\n../images/a.png,x")])
def test_a_list_elsewhere_of_pictures_in_a_given_folder_is_not_taken_twice(tmp_path, name, text):
    write_folder(tmp_path, {"images/a.png": png(1), f"lists/{name}": text.encode()})
    with pytest.raises(DataError, match=rf"a\.png is in .*images and in .*{name}"):
        find_pictures(tmp_path / "images", more_folders=[str(tmp_path / "lists" / name)])


@pytest.mark.parametrize(("name", "line"), [
    ("list.txt", "{path}\n"), ("list.jsonl", '{{"image": "{path}", "text": "x"}}\n'), ("list.parquet", "")])
def test_a_folder_with_a_list_of_pictures_elsewhere_names_the_list(tmp_path, name, line):
    images = write_folder(tmp_path / "images", {f"{number}.png": png(number) for number in range(2)})
    pictures = [images / f"{number}.png" for number in range(2)]
    (tmp_path / "set").mkdir()
    if name == "list.parquet":
        write_arrow(tmp_path / "set" / name, [{"image": {"bytes": None, "path": str(path)}} for path in pictures])
    else:
        (tmp_path / "set" / name).write_text("".join(line.format(path=path) for path in pictures))
    with pytest.raises(DataError, match=rf"set holds no picture, but .*{name} lists 2 that lie .*Give .*{name}"):
        find_pictures(tmp_path / "set")
    assert len(find_pictures(tmp_path / "set" / name).pictures) == 2


@pytest.mark.parametrize("text", ["label,pixel0,pixel1\n3,0,255\n", ",".join(["7", *["0"] * 784]) + "\n"])
def test_pixels_as_numbers_are_refused_by_what_they_are(tmp_path, text):
    write_folder(tmp_path / "set", {"train.csv": text.encode()})
    with pytest.raises(DataError, match=r"train\.csv holds pixels as numbers. Save each picture as a file"):
        find_pictures(tmp_path / "set" / "train.csv")
    with pytest.raises(DataError, match=r"train\.csv is not read: it holds pixels as numbers: save each picture"):
        find_pictures(tmp_path / "set")


def test_a_list_names_each_file_once(tmp_path):
    write_folder(tmp_path / "set", {"1.png": png(1), "2.png": png(2), "list.txt": b"1.png\n2.png\n1.png\n./2.png\n"})
    found = find_pictures(tmp_path / "set" / "list.txt")
    assert len(found.pictures) == 2
    assert found.notes == ("list.txt: 2 lines of it name files that an earlier one names, for example 1.png; each "
                           "counts once",)


def test_a_list_may_name_folders(tmp_path):
    write_folder(tmp_path, {"cats/1.png": png(1), "dogs/2.png": png(2), "list.txt": b"cats\ndogs\nmore.zip\n"})
    write_zip(tmp_path / "more.zip", {"3.png": png(3)})
    assert list(captions_of(find_pictures(tmp_path / "list.txt"))) == ["cats/1.png", "dogs/2.png", "more/3.png"]


def test_a_shard_beside_pictures_or_archives_is_named(tmp_path):
    shard = write_arrow(tmp_path / "set" / "a.parquet", [{"image": {"bytes": png(1)}, "text": "a red car"}])
    write_zip(tmp_path / "set" / "b.zip", {"3.png": png(3)})
    told = f"a.parquet is not used: it holds pictures, and others lie beside; give {shard} to read them"
    assert find_pictures(tmp_path / "set").warnings == (told,)
    write_folder(tmp_path / "set", {"thumb.png": png(2)})
    assert told in find_pictures(tmp_path / "set").warnings


def test_many_tables_that_lose_are_counted(tmp_path):
    rows = "".join(f"{number}.png,red\n" for number in range(8))
    write_folder(tmp_path, {**{f"{number}.{suffix}": data for number in range(8)
                               for suffix, data in (("png", png(number)), ("txt", b"a red car"))},
                            **{f"t{number}.csv": f"file,text\n{rows}".encode() for number in range(6)}})
    notes = find_pictures(tmp_path).notes
    assert [note.split()[0] for note in notes] == ["t0.csv", "t1.csv", "t2.csv", "t3.csv"]
    assert notes[-1] == "t3.csv and 2 more: tables with captions that are not used"
