"""Captions of metadata files and manifests, and every line of them that is refused."""

import json
import os
import zipfile

import pytest
from picture_folders import captions_of, rows

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError


def test_metadata_lists_what_counts_and_sidecars_fill_in(folder):
    found = find_pictures(folder({
        "a.png": None, "b.png": None, "b.txt": "from the sidecar", "unlisted.png": None, "unlisted.txt": "x",
        "sub/c.png": None,
        "metadata.jsonl": rows({"file_name": "a.png", "text": "A"}, {"file_name": "b.png", "text": ""},
                               {"file_name": "./sub/c.png", "text": ["C", "see"]}),
    }))
    assert captions_of(found) == {"a.png": ("A",), "b.png": ("from the sidecar",), "sub/c.png": ("C", "see")}
    assert found.caption_source == "metadata"
    assert "1 more not listed" in found.caption_summary


def test_what_metadata_does_not_list_is_left_out_whether_it_can_be_used_or_not(folder):
    root = folder({"a.png": None, "b.png": None, "c.psd": "", "metadata.jsonl": rows(
        {"file_name": "a.png", "text": "A"}, {"file_name": "gone.png", "text": "B"})})
    for name in ("gone.png", "unlisted.png"):
        (root / name).symlink_to(root / "nowhere")
    found = find_pictures(root)
    assert captions_of(found) == {"a.png": ("A",)}
    assert (found.unusable, found.caption_problems) == ((("gone.png", "broken link"),), ())
    assert "3 more not listed" in found.caption_summary
    assert len(find_pictures(root, captions="none").unusable) == 3


def test_the_nearest_metadata_speaks(folder):
    found = find_pictures(folder({
        "a.png": None, "sub/b.png": None, "sub/deep/c.png": None,
        "metadata.csv": "file_name,caption\na.png,top\nsub/b.png,not this\n",
        "sub/metadata.jsonl": rows({"file_name": "b.png", "prompt": "B"}, {"file_name": "deep/c.png", "prompt": "C"}),
    }))
    assert captions_of(found) == {"a.png": ("top",), "sub/b.png": ("B",), "sub/deep/c.png": ("C",)}


def test_pictures_above_the_metadata_are_not_excluded(folder):
    found = find_pictures(folder({"a.png": None, "a.txt": "A", "sub/b.png": None,
                                  "sub/metadata.jsonl": rows({"file_name": "b.png", "text": "B"})}))
    assert captions_of(found) == {"a.png": ("A",), "sub/b.png": ("B",)}


def test_columns_by_precedence_by_name_and_missing(folder):
    root = folder({"a.png": None,
                   "metadata.csv": '\ufefffile_name,prompt,text,note\r\na.png,P,"T, quoted\r\nline",N\r\n'})
    assert captions_of(find_pictures(root)) == {"a.png": ("T, quoted line",)}
    assert captions_of(find_pictures(root, caption_column="note")) == {"a.png": ("N",)}
    with pytest.raises(DataError, match=r"no column 'nope'.*prompt, text, note"):
        find_pictures(root, caption_column="nope")


def test_a_column_that_is_named_is_judged_alike(folder):
    root = folder({"a.png": None, "metadata.jsonl": rows({"file_name": "a.png", "text": "A", "note": {"x": "N"}})})
    assert find_pictures(root).caption_problems == ()
    found = find_pictures(root, caption_column="note")
    assert captions_of(found) == {"a.png": ()}
    assert found.caption_problems == (("metadata.jsonl line 1", "caption is not text"),)


def test_metadata_without_captions_says_so(folder):
    root = folder({"a.png": None, "metadata.jsonl": rows({"file_name": "a.png", "artist": "x", "place": "y"})})
    found = find_pictures(root)
    assert (found.caption_source, found.conditional) == ("none", False)
    assert "artist, place" in found.warnings[0]
    with pytest.raises(DataError, match="--captions metadata"):
        find_pictures(root, captions="metadata")


def test_several_rows_for_a_picture_are_alternatives(folder):
    found = find_pictures(folder({"a.png": None, "metadata.csv": "file_name,text\na.png,one\na.png,two\na.png,one\n"}))
    assert captions_of(found) == {"a.png": ("one", "two")}


@pytest.mark.parametrize("name", ["/etc/passwd.png", "../a.png", "x/../../a.png", "..\\a.png", "a\0.png", "", 7, None])
def test_names_of_no_picture_are_refused_by_line(folder, name):
    root = folder({"a.png": None, "metadata.jsonl": rows({"file_name": "a.png"}, {"file_name": name})})
    with pytest.raises(DataError, match="line 2"):
        find_pictures(root)


@pytest.mark.parametrize(("name", "content", "line"), [
    ("metadata.jsonl", '{"file_name": "a.png"}\n\n{"file_name": \n', 3),
    ("metadata.jsonl", '["a.png"]', 1),
    ("metadata.jsonl", "[" * 100_000, 1),
    ("metadata.jsonl", '{"file_name": "a.png", "text": "' + "x" * 1_100_000, 1),
    ("metadata.csv", 'file_name,text\na.png,"x" y\n', 2),
    ("metadata.csv", "file_name,text\n,x\n", 2),
    ("metadata.csv", 'file_name,text\na.png,"never closed\n', 2),
])
def test_a_bad_line_is_named(folder, name, content, line):
    with pytest.raises(DataError, match=f"line {line}"):
        find_pictures(folder({"a.png": None, name: content}))


def test_a_csv_that_names_no_files_says_what_its_columns_are(folder):
    with pytest.raises(DataError, match=r"metadata.csv has no column file_name.*are: size, text$"):
        find_pictures(folder({"a.png": None, "metadata.csv": "size,text\n7,x\n"}))


@pytest.mark.parametrize("name", ["https://host/a.png?size=2", "C:\\pictures\\a.png", "\\\\host\\a.png",
                                  "/data/img/a.png", "A.PNG", "a", "file:///home/me/a.png", "./a.png", "a.png#3",
                                  " a.png "])
def test_names_as_other_machines_and_tools_write_them(folder, name):
    found = find_pictures(folder({"a.png": None, "b.png": None,
                                  "metadata.jsonl": rows({"file_name": name, "text": "A"})}))
    assert captions_of(found) == {"a.png": ("A",)}


@pytest.mark.parametrize("name", ["other/a.png", "a.png", "sub/b.png", "b.jpg.png"])
def test_a_name_that_may_mean_another_picture_is_not_matched(folder, name):
    root = folder({"one/a.png": None, "two/a.png": None, "one/b.png": None,
                   "labels.csv": f"file_name,text\n{name},X\n"})
    assert set(captions_of(find_pictures(root)).values()) <= {(), ("one",), ("two",)}


def test_two_formats_side_by_side_are_refused(folder):
    with pytest.raises(DataError, match=r"metadata\.csv and metadata\.jsonl"):
        find_pictures(folder({"a.png": None, "metadata.csv": "", "metadata.jsonl": ""}))


def test_rows_without_their_file_up_to_one_per_cent(folder):
    files = {f"{index:03}.png": None for index in range(99)}
    listed = [{"file_name": name, "text": "x"} for name in files]
    found = find_pictures(folder(files | {"metadata.jsonl": rows(*listed, {"file_name": "gone.png"})}))
    assert found.caption_problems == (("gone.png", "listed but not there"),)
    with pytest.raises(DataError, match="of which 2 are not there"):
        find_pictures(folder({"metadata.jsonl": rows(*listed, {"file_name": "gone.png"}, {"file_name": "too.png"})}))


def test_one_missing_file_is_too_many_among_few(folder):
    with pytest.raises(DataError, match="lists 2 files, of which 1 is not there"):
        find_pictures(folder({"a.png": None, "metadata.csv": "file_name,text\na.png,x\ngone.png,y\n"}))


def test_metadata_that_is_not_utf8_is_read_and_named(folder):
    found = find_pictures(folder({"a.png": None, "metadata.csv": b"file_name,text\na.png,caf\xe9\n"}))
    assert captions_of(found) == {"a.png": ("café",)}
    assert found.notes == ("metadata.csv is not UTF-8 and was read as cp1252",)


def test_metadata_that_lists_none_of_the_pictures(folder):
    with pytest.raises(DataError, match="none of its 1 pictures is listed"):
        find_pictures(folder({"a.png": None, "metadata.csv": "file_name,text\n"}))


@pytest.mark.parametrize(("name", "content"), [
    ("list.jsonl", rows({"file_name": "sub/b.png", "text": "B"}, {"file_name": "a.png", "text": ""})),
    ("list.CSV", "file_name,text\nsub/b.png,B\na.png,\n"),
])
def test_a_manifest_is_the_data_set(folder, name, content):
    root = folder({"a.png": None, "a.txt": "A", "sub/b.png": None, "c.png": None, "d.svg": "", name: content})
    found = find_pictures(root / name)
    assert captions_of(found) == {"a.png": ("A",), "sub/b.png": ("B",)}
    assert (found.folder, found.requested_paths, found.caption_source) == (root, (root / name,), "metadata")
    assert (found.unusable, found.caption_problems) == ((), ())
    assert captions_of(find_pictures(root / name, captions="none")) == {"a.png": (), "sub/b.png": ()}


def test_texts_beside_files_that_are_no_pictures_are_no_tables(folder):
    """As in Tux Paint's stamps: drawings with translations of a sentence that begins with the name of another one."""
    prose = "Bread, sliced, and shared.\nach.utf8=Mugati, Gingolo, weng,\naf.utf8=Brood, gesny.\n"
    found = find_pictures(folder({
        "a.png": None, "a.txt": "An apple.", "bread.svg": "<svg/>", "bread.txt": "Bread.",
        "loaf.svg": "<svg/>", "loaf.txt": prose, "about.txt": prose.replace("Bread", "a")}))
    assert captions_of(found) == {"a.png": ("An apple.",)}


def test_a_named_table_that_is_no_regular_file_is_not_called_missing(folder, tmp_path):
    pipe, directory = tmp_path / "pipe.csv", tmp_path / "directory.csv"
    os.mkfifo(pipe)
    directory.mkdir()
    root = folder({"a.png": None})
    for path in (pipe, directory):
        with pytest.raises(DataError, match=f"{path.name} is not a regular file"):
            find_pictures(root, captions=str(path))
    with pytest.raises(DataError, match=r"there is no file .*none\.csv"):
        find_pictures(root, captions=str(tmp_path / "none.csv"))


def test_of_tables_in_several_languages_the_english_one_counts(folder):
    files = {f"captions_{language}.csv": f"file,text\n1.png,{language} car\n" for language in ("de", "en", "fr")}
    found = find_pictures(folder({"1.png": None, **files}))
    assert captions_of(found) == {"1.png": ("en car",)}
    assert [note.split()[0] for note in found.notes] == ["captions_de.csv", "captions_fr.csv"]


def test_the_form_of_a_contest_holds_no_captions(folder):
    found = find_pictures(folder({"1.png": None, "2.png": None, "train.csv": "id,label\n1,cat\n",
                                  "sample_submission.csv": "id,label\n2,0\n"}))
    assert captions_of(found) == {"1.png": ("cat",), "2.png": ()}
    assert "not read as captions: sample_submission.csv" in "".join(found.notes + found.warnings)


def test_names_may_say_in_which_archive_a_picture_is(tmp_path, folder):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("1.png", b"\x89PNG")
    (tmp_path / "captions.csv").write_text("file,text\na.zip/1.png,red\n")
    assert captions_of(find_pictures(tmp_path)) == {"a/1.png": ("red",)}


@pytest.mark.parametrize("line", ["\"{}\"", "'{}'", "{}"])
def test_a_list_of_pictures_beside_texts_is_no_caption_without_a_picture(folder, line):
    root = folder({"1.png": None, "1.txt": "red", "list.txt": line.format("1.png")})
    found = find_pictures(root)
    assert (found.caption_problems, found.notes) == ((), ("list.txt lists pictures, without captions",))


def test_a_table_that_is_named_but_lies_in_the_data_set_is_pointed_to(folder, tmp_path):
    root = folder({"1.png": None, "c.csv": "file,text\n1.png,red\n"})
    with pytest.raises(DataError, match=f"--captions {root}/c.csv takes the one in the data set"):
        find_pictures(root, captions=str(tmp_path / "c.csv"))


@pytest.mark.parametrize("name", ["list.jsonl", "list.csv", "list.txt", "list.json"])
@pytest.mark.parametrize("written", ["absolute", "relative", "file"])
def test_a_manifest_may_list_pictures_anywhere(tmp_path, folder, name, written):
    root = folder({"a/1.png": None, "a/2.png": None, "b/1.png": None, "b/1.txt": "beside", "lists/1.png": None,
                   "lists/3.png": None})
    place = {"absolute": f"{root}/", "relative": "../", "file": f"file://{root}/"}[written]
    pairs = {f"{place}a/1.png": "red", f"{place}b/1.png": "", "3.png": "blue"}
    text = {"list.jsonl": rows(*({"image": path, "text": text} for path, text in pairs.items())),
            "list.csv": "file,text\n" + "".join(f"{path},{text}\n" for path, text in pairs.items()),
            "list.txt": "file\ttext\n" + "".join(f"{path}\t{text}\n" for path, text in pairs.items()),
            "list.json": json.dumps(pairs)}[name]
    (root / "lists" / name).write_text(text)
    found = find_pictures(root / "lists" / name)
    assert {picture.path: picture.captions for picture in found.pictures} == {
        root / "a" / "1.png": ("red",), root / "b" / "1.png": ("beside",), root / "lists" / "3.png": ("blue",)}
    assert (found.warnings, found.caption_problems) == ((), ())


def test_files_that_a_manifest_lists_elsewhere_and_that_are_no_pictures_are_named(folder):
    root = folder({"a/1.png": None, "a/2.svg": "<svg/>"})
    (root / "lists").mkdir()
    (root / "lists" / "list.csv").write_text("file,text\n../a/1.png,red\n../a/2.svg,blue\n../a/3.png,green\n")
    found = find_pictures(root / "lists" / "list.csv", checking=True)
    assert list(captions_of(found).values()) == [("red",)]
    assert [reason for _, reason in (*found.unusable, *found.caption_problems)] == ["drawing", "listed but not there"]


@pytest.mark.parametrize("name", ["metadata.csv", "list.csv"])
@pytest.mark.parametrize(("others", "captions"), [
    ({}, ("cat",)), ({"captions.csv": "file,text\ncat/1.png,a tabby\ndog/1.png,a poodle\n"}, ("a tabby",)),
    ({"cat/caption.txt": "a tabby"}, ("a tabby",)), ({"cat/1.txt": "a tabby"}, ("a tabby",))])
def test_a_list_without_captions_decides_on_the_pictures_alone(folder, name, others, captions):
    root = folder({"cat/1.png": None, "dog/1.png": None, "dog/2.png": None, **others,
                   name: "file_name,width\ncat/1.png,7\ndog/1.png,7\n"})
    found = find_pictures(root if name == "metadata.csv" else root / name)
    assert set(captions_of(found)) == {"cat/1.png", "dog/1.png"}
    assert captions_of(found)["cat/1.png"] == captions
