"""Texts of half a megabyte for which a careless reader would take hours: nested, or endless runs of one letter.

Each would be a finding only by its time: with an expression that tries all pairs of places, the test does not end.
"""

import io
import zipfile

import pytest
import text_doors
from source_files import png

from diffuse_cli.cli import prompt_files
from diffuse_cli.data import class_names, picture_descriptions
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.generated_prompts import prompt_of_graph
from diffuse_cli.errors import DataError
from diffuse_cli.files.strict_toml import TomlError, loads_toml
from diffuse_cli.sampling import other_tools, png_metadata

pytestmark = pytest.mark.timeout(120)
MANY = 2**19
RUNS = {"letters": "a" * MANY, "spaces": "a" + " " * MANY + "b", "lines": "a" + "\n" * MANY + "b", "digits": "1" * MANY,
        "colons": "a: " * (MANY // 3), "quotes": '"' * MANY, "brackets": "(" * MANY, "adapters": "<lora:" * (MANY // 6),
        "options": "--a " * (MANY // 4), "ends": "\nSteps:" * (MANY // 7), "lists": "names: [\n" * (MANY // 9),
        "names": "names:\n" * (MANY // 7), "dashes": "-\n" * (MANY // 16), "weights": "(a:1" * (MANY // 4)}


@pytest.mark.parametrize("run", RUNS)
def test_endless_runs_cost_no_more_than_their_length(tmp_path, run):
    text = RUNS[run]
    for settings in ("\nSteps: 1, ", "\nNegative prompt: "):
        other_tools.parse_png_text("parameters", f"a{settings}{text}")
    other_tools.parse_png_text("parameters", f"{text}\nSteps: 1, Seed: 2")
    assert png_metadata._plain(text).split() == text.split()
    class_names._pairs_of_yaml(f"names:{text}", {"a"})
    (tmp_path / "prompts.txt").write_text(f"a {text}")
    assert list(prompt_files._rows(f"a {text}", ".txt", "prompts.txt", []))


def test_a_line_that_would_end_the_prompt_is_joined_to_it():
    assert png_metadata._plain("a\n\n  Steps: 1\nb\nNegative prompt: c") == "a Steps: 1\nb Negative prompt: c"
    assert png_metadata._plain("a Steps: 1\n") == "a Steps: 1\n"


@pytest.mark.parametrize("text", [
    ".".join(["a"] * 200_000) + " = 1", "[" + ".".join(["a"] * 200_000) + "]", "a = " + "[" * 200_000,
    "a = " + "{b=" * 200_000, "a = " + "9" * 200_000, "a = 0000-00-00", "a = 1\na = 2", "a ="],
    ids=["name", "table", "lists", "tables", "digits", "date", "twice", "half"])
def test_toml_that_would_take_minutes_or_crash_is_refused(text, tmp_path):
    with pytest.raises(TomlError):
        loads_toml(text)
    with pytest.raises(DataError, match="is not TOML"):
        list(prompt_files._rows(text, ".toml", "prompts.toml", []))


@pytest.mark.parametrize(("text", "reason"), [
    (",".join(map(str, range(200_000))) + "\n" + "a\n" * 200_000, "more than 100 columns"),
    ("prompt\n" + "a" * 200_000, "is not CSV"), ('prompt\n"' + "a\n" * 200_000, "is not CSV")])
def test_tables_of_prompts_are_bounded(text, reason):
    with pytest.raises(DataError, match=reason):
        list(prompt_files._rows(text, ".csv", "prompts.csv", []))


def test_names_that_no_file_can_have_are_no_pictures_and_no_references(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("0.png", "1" * 60_000 + ".png", "a" * 256 + "/1.png", "-" * 60_000 + "caption.txt"):
            archive.writestr(name, png(0))
    assert [file.name for file in find_pictures(tmp_path / "a.zip").pictures] == ["0.png"]
    (tmp_path / "0.png").write_bytes(png(0))
    (tmp_path / "metadata.csv").write_text("file_name,text\n0.png,red\n" + "upload/" * 18_000 + ",blue\n")
    with pytest.raises(DataError, match="lists 2 files, of which 1 is not there"):
        find_pictures(tmp_path)


NOT_UTF8 = b"un \xe9l\xe9phant \xe0 la mer"


@pytest.mark.parametrize("picture", [
    text_doors.webp_with((b"EXIF", text_doors.exif_of([(0x010E, 2, NOT_UTF8)] * 900))),
    text_doors.jpeg_with(*[(0xE1, b"Exif\0\0" + text_doors.exif_of([(0x010E, 2, NOT_UTF8)]))] * 900),
    text_doors.jpeg_with((0xED, b"Photoshop 3.0\0" + text_doors.iptc_of([(120, b"\xe4")] * 900))),
    text_doors.jpeg_with((0xED, b"Photoshop 3.0\0" + text_doors.iptc_of([(25, b"\xe4t\xe9")] * 900))),
], ids=["one directory", "many directories", "captions", "keywords"])
def test_a_picture_of_a_thousand_descriptions_has_the_encoding_of_few_of_them_guessed(monkeypatch, picture):
    """A guess takes a tenth of a second for a long text: of all of them, a picture of a megabyte took 90 seconds."""
    guessed = []
    monkeypatch.setattr(picture_descriptions, "guess_code_page", lambda data: guessed.append(data) or "cp1252")
    picture_descriptions.description_in(io.BytesIO(picture))
    assert 1 <= len(guessed) <= 2


def test_a_link_of_a_graph_is_a_number_or_a_name_and_not_a_list_to_be_written_out():
    """A list of a megabyte, to which ten thousand nodes lead, would be written out for each of them."""
    sampler = {"class_type": "KSampler", "inputs": {"positive": [[1, 2], 0]}}
    text = {"class_type": "CLIPTextEncode", "inputs": {"text": "a red car"}}
    assert prompt_of_graph({"3": sampler, "[1, 2]": text}) is None
    assert prompt_of_graph({"3": {**sampler, "inputs": {"positive": [6, 0]}}, "6": text}) == "a red car"
