"""Which source of captions counts, by what `find_pictures` finds in real folders."""

import io
import os

import pytest
from picture_folders import captions_of, rows
from PIL import Image, PngImagePlugin
from source_files import png, write_folder, write_zip

from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError, UsageError

# ── Precedence ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def everything(folder):
    """Two class folders with words in the file names, sidecars and metadata, all saying different things."""
    return folder({"cat/tabby.png": None, "cat/tabby.txt": "sidecar", "dog/poodle.png": None, "metadata.jsonl": rows(
        {"file_name": "cat/tabby.png", "text": "metadata"}, {"file_name": "dog/poodle.png", "text": "metadata"})})


@pytest.mark.parametrize(("options", "source", "tabby", "poodle"), [
    ({}, "metadata", ("metadata",), ("metadata",)),
    ({"captions": "metadata"}, "metadata", ("metadata",), ("metadata",)),
    ({"captions": "sidecar"}, "sidecar", ("sidecar",), ()),
    ({"captions": "folder"}, "folder", ("cat",), ("dog",)),
    ({"captions": "filename"}, "filename", ("tabby",), ("poodle",)),
    ({"captions": "none"}, "none", (), ()),
    ({"caption": "same  for all"}, "constant", ("same for all",), ("same for all",)),
    ({"caption": "wins", "captions": "metadata"}, "constant", ("wins",), ("wins",)),
])
def test_each_source_can_be_forced(everything, options, source, tabby, poodle):
    found = find_pictures(everything, **options)
    assert found.caption_source == source
    assert captions_of(found) == {"cat/tabby.png": tabby, "dog/poodle.png": poodle}


def test_the_next_source_counts_when_the_one_before_is_away(everything):
    for remove, source in ((None, "metadata"), ("metadata.jsonl", "sidecar"), ("cat/tabby.txt", "folder")):
        if remove:
            (everything / remove).unlink()
        assert find_pictures(everything).caption_source == source
    (everything / "dog/poodle.png").rename(everything / "poodle.png")
    assert find_pictures(everything).caption_source == "filename"
    (everything / "poodle.png").rename(everything / "1.png")
    assert find_pictures(everything).caption_source == "none"


def test_disagreement_is_flagged(folder):
    found = find_pictures(folder({"a.png": None, "a.txt": "sidecar", "b.png": None, "b.txt": "B",
                                  "metadata.jsonl": rows({"file_name": "a.png", "text": "metadata"},
                                                         {"file_name": "b.png", "text": "B"})}))
    assert captions_of(found)["a.png"] == ("metadata",)
    assert "disagree about 1 picture" in found.warnings[0]


@pytest.mark.parametrize("source", ["metadata", "sidecar", "folder", "filename"])
def test_a_forced_source_that_is_not_there(folder, source):
    with pytest.raises(DataError, match=f"--captions {source}"):
        find_pictures(folder({"1.png": None}), captions=source)


def test_an_unknown_source_is_a_usage_error(folder):
    with pytest.raises(UsageError, match="Did you mean 'sidecar'"):
        find_pictures(folder({"1.png": None}), captions="sidecars")


# ── Problems and the summary ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("make", [
    lambda root: root / "missing",
    lambda root: root,
    lambda root: (root / "a.png").write_bytes(b"x") and root / "a.png",
    lambda root: (root / "note.txt").write_text("x") and root,
    lambda root: (root / "list.csv").write_text("file_name,text\n") and root / "list.csv",
], ids=["missing", "empty", "a file", "no pictures", "empty manifest"])
def test_nothing_to_train_on_is_a_data_error(tmp_path, make):
    with pytest.raises(DataError) as caught:
        find_pictures(make(tmp_path))
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lost", ["metadata.jsonl", "dog/metadata.csv", "cat/1.txt", "cat/1.caption", "cat/1.json"])
@pytest.mark.parametrize(("beside", "source"), [({}, "folder"), ({"dog/2.txt": "a dog"}, "sidecar"),
                         ({"cat/metadata.csv": "file_name,text\n1.png,a cat\n"}, "metadata")])
def test_captions_that_are_links_to_nowhere_are_problems(folder, lost, beside, source):
    root = folder({"cat/1.png": None, "dog/2.png": None, **beside})
    (root / lost).symlink_to(root / "nowhere")
    (root / "notes.txt").symlink_to(root / "nowhere")               # beside no picture
    found = find_pictures(root)
    assert (found.caption_source, found.caption_problems) == (source, ((lost, "broken link"),))


def test_a_forced_source_whose_file_is_a_link_to_nowhere(folder):
    root = folder({"a.png": None})
    (root / "metadata.csv").symlink_to(root / "nowhere")
    with pytest.raises(DataError, match=r"no such captions.*; metadata\.csv: broken link"):
        find_pictures(root, captions="metadata")


def test_the_summary_counts_and_three_examples_are_given(folder):
    files = {f"{index}.png": None for index in range(10)} | {f"{index}.txt": f"caption {index}" for index in range(8)}
    found = find_pictures(folder(files))
    assert found.caption_summary == "sidecar .txt (8 of 10 files; 2 have none → empty)"
    assert found.caption_examples == ("caption 0", "caption 4", "caption 7")


def generated(prompt):
    """A picture as programs write it that draw what a prompt says."""
    data, texts = io.BytesIO(), PngImagePlugin.PngInfo()
    texts.add_text("parameters", f"{prompt}\nSteps: 20, Sampler: Euler a, Seed: 1")
    Image.new("RGB", (8, 8)).save(data, "PNG", pnginfo=texts)
    return data.getvalue()


FEW = {f"{colour}-{kind}-{number}.png": None for colour in ("red", "blue") for kind in ("car", "bus")
       for number in range(6)}


@pytest.mark.parametrize(("texts", "source"), [
    ({"red-car-0.txt": "a fast car"}, "file name and sidecar .txt"),
    ({"list.csv": "file,caption\nred-car-0.png,a fast car\n"}, "file name and list.csv")])
def test_a_few_texts_go_before_names_and_leave_the_other_pictures_theirs(folder, texts, source):
    root = folder({**FEW, **texts})
    found = find_pictures(root)
    assert (found.caption_summary, found.warnings) == (f"{source} (24 of 24 files)", ())
    assert [captions_of(found)[name] for name in ("red-car-0.png", "red-car-1.png")] == [("a fast car",), ("red car",)]
    forced = find_pictures(root, captions="sidecar" if "csv" not in source else str(root / "list.csv"))
    assert f"{source.removeprefix('file name and ')} (1 of 24 files" in forced.caption_summary
    assert captions_of(find_pictures(root, caption_ext=".txt") if "csv" not in source else
                       find_pictures(root, caption_column="caption"))["red-car-1.png"] == ()


def test_a_column_that_is_not_there_hides_no_names(folder):
    assert find_pictures(folder(FEW), caption_column="text").caption_source == "filename"


def test_a_few_texts_go_before_the_prompts_in_generated_pictures(folder):
    pictures = {f"{number:05}.png": generated(f"car number {number}") for number in range(12)}
    found = find_pictures(folder({**pictures, "00000.txt": "a fast car"}))
    assert found.caption_summary == "texts in the pictures and sidecar .txt (12 of 12 files)"
    assert [captions_of(found)[name] for name in ("00000.png", "00001.png")] == [("a fast car",), ("car number 1",)]


def test_more_than_a_few_texts_are_the_captions_alone(folder):
    found = find_pictures(folder({**FEW, **{f"red-car-{number}.txt": "a fast car" for number in range(3)}}))
    assert found.caption_summary.startswith("sidecar .txt (3 of 24 files")


@pytest.mark.parametrize(("option", "value", "said"), [
    ("caption_column", "long", "--caption-column long is not used, because the captions come from no table"),
    ("caption_template", "a {label}",
     "--caption-template is not used, because the captions come from no names of folders or files")])
def test_an_option_of_a_source_that_does_not_count_is_told(folder, option, value, said):
    assert find_pictures(folder({"a.png": None, "a.txt": "a red car"}), **{option: value}).warnings == (said,)


@pytest.mark.parametrize("source", [
    {"captions": "none"}, {"captions": "filename"}, {"captions": "folder"}, {"caption": "a sprite"},
    {"captions": "metadata"}])
@pytest.mark.parametrize(("option", "value", "said"), [
    ("caption_ext", ".txt", "--caption-ext .txt is not used, because the captions come from no texts beside pictures"),
    ("join_lines", True, "--join-lines is not used, because the captions come from no text files")])
def test_options_of_texts_are_told_where_the_captions_are_from_elsewhere(folder, source, option, value, said):
    root = folder({"cat/red car.png": None, "dog/blue bus.png": None, "cat/red car.txt": "a\nb",
                   "metadata.csv": "file_name,text\ncat/red car.png,x\ndog/blue bus.png,y\n"})
    assert said in find_pictures(root, **source, **{option: value}).warnings
    assert said not in find_pictures(root, **source).warnings


@pytest.mark.parametrize(("files", "options"), [
    ({"metadata.csv": "file_name,text\na.png,\nb.png,x\n"}, {"caption_ext": ".txt", "join_lines": True}),
    ({"b.csv": "file,text\nb.png,x\n"}, {"caption_ext": ".txt", "join_lines": True, "caption_column": "text"}),
    ({"caption.txt": "a\nb"}, {"captions": "folder", "join_lines": True})])
def test_options_of_a_source_that_fills_gaps_are_used(folder, files, options):
    found = find_pictures(folder({"a.png": None, "b.png": None, "a.txt": "a\nb", **files}), **options)
    assert captions_of(found)["a.png"] == ("a, b",)
    assert found.warnings == ()


TAGS = ["red, big, car", "1girl, looking at viewer, solo"]
SENTENCES = ["a red car", "a blue bus on a bridge"]
CLAUSES = ["A red car, parked on a quiet street, under old trees.", "A blue bus, seen from the bridge above it."]


@pytest.mark.parametrize(("captions", "said"), [
    (TAGS, None), ([*TAGS, "a red car"], None),
    (SENTENCES, "2 of 2 captions have no tags between commas, so --shuffle-tags does not change them"),
    (["red", "big", *TAGS, "car"],
     "3 of 5 captions have no tags between commas, so --shuffle-tags does not change them"),
    (CLAUSES, "2 of 2 captions are sentences with commas, for example “A red car, parked on a quiet street, under old "
              "trees.”, and --shuffle-tags takes what is between these for tags")])
def test_options_of_tags_are_told_what_they_do_to_captions_that_are_none(folder, captions, said):
    files = {f"{number}.png": None for number in range(len(captions))}
    root = folder({**files, **{f"{number}.txt": caption for number, caption in enumerate(captions)}})
    assert find_pictures(root, tag_options="--shuffle-tags").warnings == ((said,) if said else ())
    assert find_pictures(root).warnings == ()


RUSSIAN = "рыжая кошка спит на диване"
TOLD = "1 caption file is not UTF-8 and was read as cp1251"


@pytest.mark.parametrize("files", [
    {"a.txt": RUSSIAN},
    {"table.csv": "file,text\na.png,red\nb.png,blue\nc.png,green\n", "d.txt": RUSSIAN},
    {"metadata.csv": "file_name,text\na.png,red\nb.png,\n", "b.txt": RUSSIAN},
    {"more/e.png": None, "more/caption.txt": RUSSIAN}])
def test_a_guessed_encoding_is_told_whichever_sources_count_together(folder, files):
    encoded = {name: text and text.encode("cp1251") for name, text in files.items()}
    found = find_pictures(folder({**{f"{name}.png": None for name in "abcd"}, **encoded}))
    assert (RUSSIAN,) in captions_of(found).values()
    assert TOLD in found.notes


def test_a_guessed_encoding_of_a_list_is_told(tmp_path):
    names = [os.fsdecode(f"{word}.png".encode("cp1251")) for word in ("кошка", "собака")]
    try:
        write_folder(tmp_path, {name: png(number) for number, name in enumerate(names)})
    except OSError:                             # this file system has names in UTF-8 alone
        pytest.skip("names are UTF-8 here")
    write_zip(tmp_path / "птица.zip", {"a.png": png(1)})
    for text, count in (("кошка.png\nсобака.png\n", 2), ("птица.zip\n", 1)):
        (tmp_path / "list.txt").write_bytes(text.encode("cp1251"))
        found = find_pictures(tmp_path / "list.txt")
        assert len(found.pictures) == count
        assert found.notes[0] == "list.txt is not UTF-8 and was read as cp1251"


def test_what_is_wrong_with_a_table_that_captions_the_rest_is_told(folder):
    table = "file,caption\nblue-car-0.png,a slow car\nblue-car-1.png,a slow car\nblue-car-99.png,a lost car\n"
    found = find_pictures(folder({**FEW, **{f"red-car-{number}.txt": "a fast car" for number in range(6)},
                                  "list.csv": table}))
    assert found.caption_summary.startswith("sidecar .txt and list.csv (8 of 24 files")
    assert [name for name, _ in found.caption_problems] == ["list.csv: blue-car-99.png"]
