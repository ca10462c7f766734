"""Tables of captions for the rows of parquet and Arrow files, which have no names of files."""

import json

import numpy as np
import pytest
from picture_folders import captions_of
from source_files import opened, png, write_arrow, write_folder

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError

PATHS = [f"cats/{9 - number}.png" for number in range(6)]              # rows are not in the order of their paths


def rows(*, paths=PATHS, **columns):
    return [{"image": {"bytes": png(row), "path": path}, **{name: values[row] for name, values in columns.items()}}
            for row, path in enumerate(paths)]


@pytest.fixture
def table(tmp_path):
    write_folder(tmp_path, {"tables/t.csv": b"file,text\n7.png,red\n./cats/4.png,blue\n"})
    return str(tmp_path / "tables" / "t.csv")


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize("column", ["image", "file_name", "__key__", "image_id"])
def test_tables_name_rows_as_a_column_of_the_shards_does(tmp_path, suffix, column):
    names = {"image": "7.png", "file_name": "b/7.jpg", "__key__": "7", "image_id": 17}
    columns = {"file_name": [f"b/{9 - row}.jpg" for row in range(6)], "__key__": [str(9 - row) for row in range(6)],
               "image_id": [19 - row for row in range(6)]}
    made = rows() if column == "image" else rows(paths=[None] * 6, **{column: columns[column]})
    write_arrow(tmp_path / "shards" / f"a{suffix}", made)
    (tmp_path / "t.jsonl").write_text(json.dumps({column: names[column], "text": "red"}))
    for source in (tmp_path / "shards", tmp_path / "shards" / f"a{suffix}"):
        found = find_pictures(source, captions=str(tmp_path / "t.jsonl"))
        assert [captions for captions in captions_of(found).values() if captions] == [("red",)]
        assert captions_of(found)[found.pictures[2].name] == ("red",)
        assert f"a table may call the rows of shards as the column {column} does" in found.notes[0]


def test_rows_stay_in_their_order(tmp_path, table):
    plain = write_arrow(tmp_path / "plain.parquet", rows(paths=[None] * 6))
    named = write_arrow(tmp_path / "named.parquet", rows())
    dataset = opened(find_pictures(named, captions=table), tmp_path / "cache")
    assert np.array_equal(dataset.images, opened(find_pictures(plain), tmp_path / "cache").images)
    assert list(dataset.names) == [f"{row:08d}" for row in range(6)]
    assert list(dataset.captions) == [(), (), ("red",), (), (), ("blue",)]


@pytest.mark.parametrize("paths", [["x.png"] * 6, [None] * 6, ["a.png", None, "b.png", "c.png", "d.png", "e.png"]])
def test_rows_without_names_of_their_own_are_called_by_their_numbers(tmp_path, table, paths):
    shard = write_arrow(tmp_path / "a.parquet", rows(paths=paths))
    said = "no column of the shards has a name for every row, so a table calls them 00000000 and so on"
    with pytest.raises(DataError) as error:
        find_pictures(shard, captions=table)
    assert error.value.hint == f"It lists 2 other files, for example '7.png'; {said}"
    (tmp_path / "tables" / "t.csv").write_text("file,text\n00000002,red\n")
    found = find_pictures(shard, captions=table)
    assert captions_of(found)["00000002"] == ("red",)
    assert found.notes == (said,)


def test_names_that_are_unique_in_each_shard_alone_do_not_count(tmp_path, table):
    for shard in ("a", "b"):
        write_arrow(tmp_path / "shards" / f"{shard}.parquet", rows())
    with pytest.raises(DataError, match=r"holds no caption of the pictures.*a table calls them a/00000000"):
        find_pictures(tmp_path / "shards", captions=table)


def test_shards_and_folders_together(tmp_path):
    write_arrow(tmp_path / "a.parquet", rows())
    write_folder(tmp_path, {"more/7.jpeg": png(1), "more/x.png": png(2), "t.csv": b"file,text\n7.png,red\nx,blue\n"})
    found = find_pictures(tmp_path / "a.parquet", more_folders=[str(tmp_path / "more")],
                          captions=str(tmp_path / "t.csv"))
    assert {name: captions for name, captions in captions_of(found).items() if captions} == {
        "a/00000002": ("red",), "more/x.png": ("blue",)}


def test_tables_beside_shards_are_read_or_named(tmp_path):
    write_arrow(tmp_path / "b.parquet", rows())
    write_arrow(tmp_path / "a.parquet", [{"file": "cats/7.png", "text": "red"}])
    write_folder(tmp_path, {"dataset_info.json": b"{}", "README.md": b"about"})
    found = find_pictures(tmp_path)
    assert captions_of(found)["b/00000002"] == ("red",)
    assert found.caption_summary == "a.parquet (1 of 6 files; 5 have none \u2192 empty)"
    write_arrow(tmp_path / "b.parquet", rows(text=["own"] * 6))
    found = find_pictures(tmp_path)
    assert captions_of(found)["b/00000002"] == ("own",)
    assert found.notes == (f"a.parquet holds captions for 1 picture and is not used; --captions {tmp_path}/a.parquet "
                           "uses it",)


def test_tables_around_a_shard_are_named(tmp_path, table):
    shard = write_arrow(tmp_path / "tables" / "a.parquet", rows())
    assert find_pictures(shard).warnings == (
        "a.parquet has no column text, caption or prompt (it has: none)",
        f"{table} holds captions for 2 of these pictures, which are not used; --captions {table} uses them")


def test_other_arrow_files_beside_shards_are_named(tmp_path):
    write_arrow(tmp_path / "a.arrow", [{"vector": 1}])
    write_arrow(tmp_path / "b.arrow", rows(text=["own"] * 6))
    assert find_pictures(tmp_path).notes == ("a.arrow is not used: no column of it holds pictures",)


def test_the_first_rows_may_lack_a_picture(tmp_path):
    made = rows(text=["own"] * 6)
    made[0]["image"], made[1]["image"] = None, {"bytes": None, "path": "x.png"}
    found = find_pictures(write_arrow(tmp_path / "a.parquet", made, groups=6))
    dataset = opened(found, tmp_path / "cache")
    assert [name for name, _ in dataset.skipped] == ["00000000", "00000001"]
    assert len(dataset.names) == 4


def test_a_map_from_classes_to_names_beside_shards_is_no_table_of_rows(tmp_path):
    write_arrow(tmp_path / "a.parquet", rows(paths=[None] * 6, label=[0, 1] * 3))
    write_folder(tmp_path, {"labels.json": b'{"0": "cat", "1": "dog"}'})
    found = find_pictures(tmp_path)
    assert list(captions_of(found).values()) == [("cat",), ("dog",)] * 3
    assert (found.notes, found.warnings) == ((), ())


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
def test_names_in_shards_without_captions_are_captions(tmp_path, suffix):
    write_arrow(tmp_path / f"a{suffix}", rows(paths=["cat/1.png", "dog/1.png", "dog/2.png"]))
    expected = {"00000000": ("cat",), "00000001": ("dog",), "00000002": ("dog",)}
    assert captions_of(find_pictures(tmp_path / f"a{suffix}")) == expected
    assert captions_of(find_pictures(tmp_path / f"a{suffix}", captions="folder")) == expected
    write_arrow(tmp_path / f"b{suffix}", rows(paths=["red-car-1.png", "bus.png", "1.png"]))
    assert not find_pictures(tmp_path / f"b{suffix}").conditional
    write_arrow(tmp_path / f"b{suffix}", rows(paths=["red-car-1.png", "bus.png"]))
    assert captions_of(find_pictures(tmp_path / f"b{suffix}"))["00000000"] == ("red car",)


def test_captions_in_shards_go_before_their_names(tmp_path):
    write_arrow(tmp_path / "a.parquet", rows(paths=["cat/1.png", "dog/1.png"], text=["a tabby", "a poodle"]))
    assert captions_of(find_pictures(tmp_path / "a.parquet"))["00000000"] == ("a tabby",)
    assert captions_of(find_pictures(tmp_path / "a.parquet", captions="folder"))["00000000"] == ("cat",)


def test_a_column_of_lists_of_pictures_and_answers_in_turns_is_read(tmp_path):
    write_arrow(tmp_path / "a.parquet", [
        {"images": [{"bytes": png(row), "path": None}, {"bytes": png(row + 9), "path": None}][:1 + row % 2],
         "texts": [{"user": "Describe it.", "assistant": f"a red car {row}", "source": "x"}]} for row in range(4)])
    found = find_pictures(tmp_path)
    assert list(captions_of(found).values()) == [(f"a red car {row}",) for row in range(4)]
    assert "of each list in the column images of a.parquet, the first picture counts" in found.notes
    assert [picture.path.read_bytes() for picture in found.pictures] == [png(row) for row in range(4)]
