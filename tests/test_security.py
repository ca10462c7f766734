"""SECURITY.md says what is so: its limits are those of the code, and none is missing."""

import importlib
import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "SECURITY.md").read_text(encoding="utf-8")
UNITS = {"": 1, " KiB": 2**10, " MiB": 2**20, " GiB": 2**30}
ROWS = re.findall(r"^\| .* \| ([\d,]+)( [KMG]iB)? \| `([\w.]+)` \|$", PAGE, re.MULTILINE)
DOORS = ("storage.safetensors_header", "files.strict_json", "data.images", "data.text_files", "data.png_texts",
         "evaluation.features_file", "network.tokenizer")


@pytest.mark.parametrize(("number", "unit", "name"), ROWS)
def test_the_limits_are_those_of_the_code(number, unit, name):
    module, _, constant = name.rpartition(".")
    value = getattr(importlib.import_module(f"diffuse_cli.{module}"), constant)
    assert value == int(number.replace(",", "")) * UNITS[unit]


def test_every_limit_of_a_door_is_in_the_table():
    listed = {name for *_, name in ROWS}
    for door in DOORS:
        limits = {name for name in vars(importlib.import_module(f"diffuse_cli.{door}")) if name.startswith("MAX_")}
        imported = {"MAX_VOCABULARY", "MAX_JSON_BYTES"} if door != "files.strict_json" else set()
        assert {f"{door}.{name}" for name in limits - imported} <= listed


def test_the_page_says_how_to_report_and_what_each_file_can_do():
    assert "Report a vulnerability" in PAGE
    for kind in ("model file", "data set", "prompt", "configuration", "features file"):
        assert re.search(rf"^\| [^|]*{kind}[^|]*\| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE), kind
