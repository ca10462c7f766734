"""What looks like captions in the folders around the pictures is named, wherever the pictures are kept."""

import io
import json

import pyarrow
import pytest
from pyarrow import parquet
from source_files import png, write_arrow, write_folder, write_tar, write_zip

from diffuse_cli.data.captions import find_pictures

PICTURES = {f"p{number}.png": png(number) for number in range(3)}
PAIRS = [(name, f"a red car {name[1]}") for name in PICTURES]
LINES = "\n".join(f"{name}: {text}" for name, text in PAIRS)
FORM = "has the name of a picture and its caption in each line, with a comma or tab between"
COPY = f", although it names pictures; copy them into a table, which {FORM}"


def as_parquet(rows):
    stream = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


TABLES = {
    "all.txt": LINES, "all.json": json.dumps(dict(PAIRS)), "all.csv": "file,text\n" + LINES.replace(": ", ","),
    "all.tsv": "file\ttext\n" + LINES.replace(": ", "\t"),
    "all.jsonl": "\n".join(json.dumps({"file": name, "text": text}) for name, text in PAIRS),
    "all.parquet": as_parquet([{"file": name, "text": text} for name, text in PAIRS])}


def encoded(files):
    return {name: data if isinstance(data, bytes) else data.encode() for name, data in files.items()}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("place", ["", "captions/", "stuff/"])
@pytest.mark.parametrize("pictures", ["images", "a.zip", "a.parquet"])
def test_tables_around_are_named_with_the_option_that_reads_them(tmp_path, name, place, pictures):
    if pictures == "a.parquet":
        write_arrow(tmp_path / pictures, [{"image": {"bytes": data, "path": file}} for file, data in PICTURES.items()])
    else:
        (write_zip if pictures == "a.zip" else write_folder)(tmp_path / pictures, PICTURES)
    write_folder(tmp_path, encoded({place + name: TABLES[name]}))
    table = tmp_path / place / name
    warning = f"{table} holds captions for 3 of these pictures, which are not used; --captions {table} uses them"
    assert warning in find_pictures(tmp_path / pictures).warnings
    assert find_pictures(tmp_path / pictures, captions=str(table)).conditional


@pytest.mark.parametrize("name", ["all.caption", "all.tags", "all.md", "all.html", "all.yaml", "all.toml", "all.srt",
                                  "captions/all.rst", "stuff/all.caption", "stuff/all.tags"])
def test_texts_that_name_pictures_and_are_read_in_no_form_are_named(tmp_path, name):
    write_folder(tmp_path, {**{f"images/{file}": data for file, data in PICTURES.items()}, name: LINES.encode()})
    assert find_pictures(tmp_path / "images").warnings == (f"not read as captions: {tmp_path / name}{COPY}",)


@pytest.mark.parametrize("separator", [": ", "\t", ",", " | "])
def test_a_table_under_the_suffix_of_a_text_is_read_once_it_is_renamed(tmp_path, separator):
    root = tmp_path / "set"
    write_folder(root, encoded({**{f"images/{file}": data for file, data in PICTURES.items()},
                                "stuff/all.caption": LINES.replace(": ", separator)}))
    assert find_pictures(root).warnings == (
        "not read as captions: stuff/all.caption; a copy with the suffix .txt would be read as a table",)
    (root / "stuff/all.caption").rename(root / "stuff/all.txt")
    assert find_pictures(root).conditional


def test_what_says_nothing_of_pictures_or_describes_a_program_is_not_named(tmp_path):
    write_folder(tmp_path, encoded({
        **{f"images/{file}": data for file, data in PICTURES.items()}, "README.md": LINES, "notes.md": "see p0.png",
        "run.log": "done", "stuff/x.csv": "a,b\n1,2\n", "config.yaml": "rate: 1"}))
    found = find_pictures(tmp_path / "images")
    assert (found.notes, found.warnings) == ((), ())


@pytest.mark.parametrize(("suffix", "told"), [
    (".csv", f"texts with the names of these pictures, which are not used; write them into one table, which {FORM}, "
             "and give it as --captions"),
    (".md", ".md files with the names of these pictures, which are not read as captions; copy the captions in them "
            "into .txt files"),
    (".txt", "texts with the names of these pictures, which are not used; copy them beside the pictures")])
def test_a_text_for_each_picture_is_named(tmp_path, suffix, told):
    write_folder(tmp_path, encoded({**{f"images/{file}": data for file, data in PICTURES.items()},
                                    **{f"p{number}{suffix}": f"caption\na red car {number}" for number in range(3)}}))
    assert find_pictures(tmp_path / "images").warnings == (f"{tmp_path} holds {told}",)


def test_texts_beside_an_archive_are_named_with_a_step_that_works(tmp_path):
    write_zip(tmp_path / "a.zip", PICTURES)
    texts = {f"p{number}.txt": b"a red car" for number in range(3)}
    write_folder(tmp_path, texts)
    assert find_pictures(tmp_path / "a.zip").warnings == (
        f"{tmp_path} holds texts with the names of these pictures, which are not used; put them into a folder of their "
        "own, and give it behind the archive",)
    write_folder(tmp_path / "own", texts)
    assert find_pictures(tmp_path / "a.zip", more_folders=[str(tmp_path / "own")]).conditional


def test_texts_beside_a_shard_are_named_with_a_step_that_works(tmp_path):
    shard = write_arrow(tmp_path / "a.parquet", [{"image": {"bytes": data, "path": name}, "number": 1}
                                                 for name, data in PICTURES.items()])
    write_folder(tmp_path, {f"p{number}.txt": b"a red car" for number in range(3)})
    assert find_pictures(shard).warnings[-1] == (
        f"{tmp_path} holds texts with the names of these pictures, which are not used; write them into one table, "
        f"which {FORM}, and give it as --captions")


def test_texts_of_unknown_kinds_beside_the_pictures_of_a_list_are_named(tmp_path):
    write_folder(tmp_path / "set", {**PICTURES, **{f"p{number}.srt": b"a red car" for number in range(3)},
                                    "list.txt": "\n".join(PICTURES).encode()})
    assert find_pictures(tmp_path / "set" / "list.txt").warnings == (
        "3 .srt files lie beside pictures and are not used; --caption-ext .srt would read captions from them",)


def test_web_pages_beside_pictures_are_named(tmp_path):
    write_folder(tmp_path / "set", {**PICTURES, **{f"p{number}.html": b"<html>red</html>" for number in range(3)}})
    assert find_pictures(tmp_path / "set").warnings == (
        "not read as captions: p0.html and 2 more; copy the captions in such files into .txt files",)


def test_many_folders_around_are_counted(tmp_path):
    write_folder(tmp_path, {**{f"images/{file}": data for file, data in PICTURES.items()},
                            **{f"x{number:02}/p0.txt": b"a red car" for number in range(15)}})
    found = find_pictures(tmp_path / "images")
    assert len(found.warnings) == 11
    assert found.warnings[-1] == f"5 more folders and files like these lie around {tmp_path / 'images'}"


@pytest.mark.parametrize("name", ["captions.zip", "cats_labels.zip"])
def test_an_archive_that_is_called_so_is_named_although_nothing_in_it_fits(tmp_path, name):
    write_folder(tmp_path / "img", PICTURES)
    write_zip(tmp_path / name, {"list.bin": b"x"})
    assert find_pictures(tmp_path / "img").warnings == (
        f"{tmp_path / name} is not read; if it holds captions of these pictures, give it behind {tmp_path / 'img'}",)


NOT_USED = "holds captions with the names or numbers of these pictures, which are not used"
TEXTS = {"p0.txt": b"a red car", "p1.txt": b"a blue bus", "p2.txt": b"a dog"}
ARCHIVES = {"by name": TEXTS, "in a folder": {f"x/{name}": text for name, text in TEXTS.items()},
            "table": {"all.csv": TABLES["all.csv"].encode()},
            "by number": {f"caption_{name[1:]}": text for name, text in TEXTS.items()}}


@pytest.mark.parametrize("contents", ARCHIVES.values(), ids=ARCHIVES)
@pytest.mark.parametrize("place", ["data", "data/img", "data/img.zip"])
@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_archives_of_captions_are_named_whatever_they_are_called(tmp_path, contents, place, write):
    root, archive = tmp_path / place, tmp_path / "data/more.zip"
    if write is write_tar:
        archive = archive.with_suffix(".tar")
    (tmp_path / "data").mkdir()
    (write_zip if root.suffix else write_folder)(root if root.suffix else tmp_path / "data/img", PICTURES)
    write(archive, contents)
    found = find_pictures(root)
    assert found.warnings == (f"{archive} {NOT_USED}; give it behind {root}",)
    assert find_pictures(root, more_folders=[str(archive)]).conditional


def test_archives_of_other_things_are_not_named_as_captions(tmp_path):
    write_folder(tmp_path / "img", PICTURES)
    write_zip(tmp_path / "a.zip", {"readme.txt": b"x", "q0.txt": b"y", "p0.txt": b"z"})
    write_zip(tmp_path / "b.zip", {"p0.txt": b"0 0.1 0.2 0.3 0.4", "p1.txt": b"0 0.1 0.2 0.3 0.4"})
    (tmp_path / "c.zip").write_bytes(b"PK\x03\x04 broken")
    assert find_pictures(tmp_path / "img").warnings == ()


def test_an_archive_of_the_pictures_with_captions_is_named_in_place_of_the_folder(tmp_path):
    write_folder(tmp_path / "img", PICTURES)
    write_zip(tmp_path / "all.zip", {**PICTURES, **TEXTS})
    assert find_pictures(tmp_path / "img").warnings == (
        f"{tmp_path / 'all.zip'} {NOT_USED}; give {tmp_path / 'all.zip'} instead, for its pictures with them",)


def test_packed_captions_that_are_not_read_are_named(tmp_path):
    write_folder(tmp_path, {**{f"img/{name}": data for name, data in PICTURES.items()}, "captions.tar.gz": b"\x1f\x8b",
                            "backup.7z": b"7z"})
    assert find_pictures(tmp_path / "img").warnings == (
        f"not read: {tmp_path / 'captions.tar.gz'}; unpack it if it holds captions of these pictures",)
