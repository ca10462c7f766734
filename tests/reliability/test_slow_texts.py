"""Texts of half a megabyte for which a careless reader would take hours: nested, or endless runs of one letter.

Each would be a finding only by its time: with an expression that tries all pairs of places, the test does not end.
"""

import zipfile

import pytest
from source_files import png

from diffuse_cli.cli import prompt_files
from diffuse_cli.data import class_names
from diffuse_cli.data.captions import find_pictures
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
