"""Memory does not grow with a data set, and it makes no difference how much of its list is in memory."""

import io
import sys
import tracemalloc

import numpy as np
import pytest
from picture_folders import captions_of
from PIL import Image
from source_files import EXPECTED, FILES, WRITERS, opened, png, write_arrow, write_folder, write_tar

from diffuse_cli.data import cached_pixels, decoded_pictures, spilled
from diffuse_cli.data.caption_words import count_words
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.split import split_dataset
from diffuse_cli.network.tokenizer import train_tokenizer, truncation_warning

ODD = {
    "data/a/0.png": png(0), "data/a/0.txt": b"zero\nnull", "data/a/copy.png": png(0), "data/a/copy.txt": b"again",
    "data/b/1.png": png(1), "data/b/1.png.txt": "caf\u00e9".encode("cp1252"), "data/b/2.png": png(2),
    "data/b/2.JSON": b'{"caption": ["two", "deux"]}', "data/b/bad.png": b"text", "data/b/lost.txt": b"of no picture",
    "data/table.csv": b"file,caption\na/0.png,from a table\n1.png,another\n", "data/b/2.xyz": b"who knows"}
METADATA = {**ODD, "data/metadata.jsonl": b'{"file_name": "a/0.png", "text": "A"}\n{"file_name": "b/2.png"}\n'}
IDS = {**{f"{number % 2}/{number}.png": png(number) for number in range(4)}, "classes.csv": b"0,cat\n1,dog\n",
       "labels.csv": b"file,label\n0.png,0\n1.png,1\n", "0/caption.txt": b"a cat of mine", "2.docx": b"not read"}
NUMBERS = {**{f"{number:04d}.png": png(number) for number in range(3)},
           "table.csv": b"id,text\n0,none\n1,one\n2,two\n"}
MASKS = {**{f"{name}.png": png(number) for number, name in enumerate(["a", "b", "a_mask", "masks/a", "masks/b"])},
         "a.txt": b"red", "more.csv": b"file,text\nb.png,blue\n"}
CLASSES = {f"{kind}/{number}.png": png(number) for number, kind in enumerate(["cat", "dog", "cat", "dog", "cat"])}


def write_shards(path, _):
    for shard in range(3):
        rows = [{"image": {"bytes": png(3 * shard + row)}, "text": f"{shard} {row}"} for row in range(3)]
        write_arrow(path / f"{shard}.parquet", rows)
    return path


def write_named_shards(path, _):
    for shard in range(3):
        rows = [{"image": {"bytes": png(3 * shard + row), "path": f"{9 - row}/{shard}.png"}} for row in range(3)]
        write_arrow(path / f"{shard}.parquet", rows)
    return write_folder(path, {"table.csv": b"file,text\n8/0.png,red\n7/2.png,blue\n8/2.png,green\n"})


def write_list(path, _):
    write_folder(path, ODD)
    names = ["b/2.png", "a/0.png", "b/1.png", "a/copy.png"]
    (path / "data" / "list.txt").write_text("\n".join(names))
    return path / "data" / "list.txt"


SOURCES = {
    **{f"{kind}: {name}": (write, files) for kind, write in (("folder", write_folder), *WRITERS.items())
       for name, files in (("odd", ODD), ("metadata", METADATA), ("classes", CLASSES),
                           ("ids", IDS), ("numbers", NUMBERS), ("masks", MASKS))},
    "shards": (write_shards, None), "named shards": (write_named_shards, None), "list": (write_list, None)}


@pytest.mark.parametrize("source", SOURCES)
def test_what_is_found_does_not_depend_on_where_it_is_kept(tmp_path, monkeypatch, source):
    write, files = SOURCES[source]
    path = write(tmp_path / ("source" + (source.split(":")[0][1:] if source.startswith("a.") else "")), files)
    found, opened_again = [], []
    for in_memory in (spilled.IN_MEMORY, 1):
        monkeypatch.setattr(spilled, "IN_MEMORY", in_memory)
        found.append(find_pictures(path))
        opened_again += [opened(found[-1], tmp_path / "cache"), opened(found[-1], tmp_path / f"cache {in_memory}")]
    one, other = found
    assert captions_of(one) == captions_of(other) != {}
    for field in ("caption_summary", "caption_examples", "notes", "warnings", "unusable", "caption_problems", "litter"):
        assert getattr(one, field) == getattr(other, field)
    for another in opened_again[1:]:
        for field in ("content_id", "names", "captions", "pixel_hashes", "skipped", "warnings"):
            assert getattr(another, field) == getattr(opened_again[0], field)
        assert np.array_equal(another.images, opened_again[0].images)


def test_several_sources_are_merged_from_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(spilled, "IN_MEMORY", 1)
    write_folder(tmp_path / "one", FILES)
    write_tar(tmp_path / "two.tar", FILES)
    found = find_pictures(tmp_path / "one", more_folders=[str(tmp_path / "two.tar")])
    assert captions_of(found) == {f"{prefix}/{name}": captions for prefix in ("one", "two")
                                  for name, captions in EXPECTED.items()}


def dot(number):
    """A picture of one pixel, of its own colour."""
    stream = io.BytesIO()
    Image.new("RGB", (1, 1), (number % 256, number // 256, 7)).save(stream, "BMP")
    return stream.getvalue()


@pytest.mark.slow
@pytest.mark.timeout(600)                        # tracemalloc makes it slow
@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_memory_for_each_picture_is_a_few_bytes(tmp_path, monkeypatch, kind):
    """At a second start: what Python allocates at most for 9,000 pictures, beyond what it does for 3,000.

    `pathlib` interns names. Python's table of them doubles at some number, which has nothing to do with the pictures:
    so it has room for many more beforehand.
    """
    room = [sys.intern(f"name {number}") for number in range(100_000)]
    monkeypatch.setattr(decoded_pictures, "_PIECE", 2**16)
    monkeypatch.setattr(cached_pixels, "_PICTURES", 10)
    peaks = []
    for count in (3000, 9000):
        files = {f"{number:06d}.bmp": dot(number) for number in range(count)}
        files |= {f"{number:06d}.txt": f"picture {number} of the sea at night".encode() for number in range(count)}
        path = (write_tar if kind == "tar" else write_folder)(tmp_path / f"{count}.{kind}", files)
        del files
        opened(find_pictures(path), tmp_path / f"cache {count}")
        tracemalloc.start(1)
        data = opened(find_pictures(path), tmp_path / f"cache {count}")
        split = split_dataset(data.pixel_hashes, names=data.names)
        count_words(caption for position in split.train[:500].tolist() for caption in data.captions[position])
        truncation_warning(train_tokenizer(["sea"]), (one[0] for one in data.captions))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 6000 < 60
    del room
