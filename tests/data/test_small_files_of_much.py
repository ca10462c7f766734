"""Small files that unpack to far more than their size: one line, before much memory and time are spent."""

import json
import sys

import pyarrow
import pytest
from pyarrow import ipc, parquet
from source_files import png

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError
from diffuse_cli.files import memory_limit

resource = pytest.importorskip("resource")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the memory of a process")
LARGE = b"\0" * (16 * 2**20)


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch):
    """The limit is lower, so that the files are soon made. It ends with what it protects.

    pyarrow's own allocator keeps a gigabyte that counts already; that of the system asks for each large piece.
    """
    before, usual = resource.getrlimit(resource.RLIMIT_DATA), pyarrow.default_memory_pool()
    monkeypatch.setattr(memory_limit, "MAX_GROWTH", 2**26)
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    yield
    pyarrow.set_memory_pool(usual)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def table(pictures, texts):
    return pyarrow.table({"image": pictures, "text": texts})


def one_value(value, count):
    """`count` rows that all have one and the same value."""
    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * count, pyarrow.int32()), pyarrow.array([value]))


def write(path, rows):
    if path.suffix == ".parquet":
        parquet.write_table(rows, path, compression="zstd")
    else:
        with pyarrow.OSFile(str(path), "wb") as file, ipc.new_file(
                file, rows.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(rows)
    assert path.stat().st_size < 200_000
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".arrow"])
@pytest.mark.parametrize(("pictures", "texts"), [
    ([png(0) + LARGE] * 8, ["a"] * 8),
    (one_value(png(0) + LARGE, 200), ["a"] * 200),
    ([png(0)] * 200, one_value("x" * 2**20, 200)),
], ids=["pictures", "one picture", "one text"])
def test_rows_that_unpack_to_more_than_the_limit_are_one_line(tmp_path, suffix, pictures, texts):
    path = write(tmp_path / f"a{suffix}", table(pictures, texts))
    with pytest.raises(DataError, match=rf"a{suffix} (unpacks to more than|holds files of pictures)"):
        find_pictures(path)


def test_a_text_of_more_than_a_megabyte_is_no_caption(tmp_path):
    for name, columns in (("a.parquet", {"image": [png(0)]}), ("metadata.parquet", {"file_name": ["0.png"]})):
        (tmp_path / "0.png").write_bytes(png(0))
        write(tmp_path / name, pyarrow.table({**columns, "text": ["x" * (2**20 + 1)]}))
        with pytest.raises(DataError, match="row 1 is longer than a megabyte"):
            find_pictures(tmp_path / name)


@pytest.mark.parametrize("name", ["a.parquet", "metadata.parquet"])
def test_more_rows_than_a_file_of_this_size_can_hold_are_not_read(tmp_path, name):
    count = 3_000_000
    names = pyarrow.array(["0.png"] + [None] * (count - 1))
    write(tmp_path / name, pyarrow.table({"file_name": names, "text": pyarrow.nulls(count, pyarrow.string())}))
    with pytest.raises(DataError, match=r"has 3,000,000 rows, but only [\d,]+ bytes"):
        find_pictures(tmp_path / name)


def test_values_of_a_json_document_take_limited_memory(tmp_path):
    """20 MB, of which an archive would hold 20 kB, and which are 500 MB as values."""
    (tmp_path / "metadata.json").write_text("[" + "[]," * 7_000_000 + "[]]")
    with pytest.raises(DataError, match=r"the values in metadata\.json take more than"):
        find_pictures(tmp_path / "metadata.json")


def test_what_is_within_the_limits_is_read(tmp_path):
    write(tmp_path / "a.parquet", table([png(0), png(1)], ["red", "x" * 2**20]))
    assert len(find_pictures(tmp_path / "a.parquet").pictures) == 2
    (tmp_path / "0.png").write_bytes(png(0))
    (tmp_path / "metadata.json").write_text(json.dumps([{"file_name": "0.png", "text": "red"}]))
    assert len(find_pictures(tmp_path / "metadata.json").pictures) == 1
