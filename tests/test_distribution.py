"""What is published: a wheel and a source archive, equal whenever they are built, with these files and no others."""

import hashlib
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from diffuse_cli.exporting.web_page import WORKER

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "diffuse_cli"
NOT_PYTHON = {f"diffuse_cli/{name}" for name in (
    "py.typed", "exporting/standalone/README.md", "reporting/page.html", "reporting/page.js",
    *(f"exporting/web/{name}" for name in ("page.html", "page.css", "page.js", *WORKER)),
    *(f"ui/{name}" for name in ("page.html", "page.css", "page.js", "form.js", "gallery.js", "start_picture.js",
                                "training.js")),
    *(f"models/{name}.{ending}" for name in ("demo", "demo-fast")
      for ending in ("safetensors", "md", "accuracy.json", "evaluation.json", "training.jsonl")),
    *(f"models/{name}.{ending}" for name in (
        "foundation-micro-32", "foundation-nano-32", "foundation-nano-64", "upscaler-x4")
      for ending in ("safetensors", "md", "training.jsonl")))}
METADATA = {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}
OF_THE_SOURCE = {"CHANGELOG.md", "LICENSE", "README.md", "PKG-INFO", "pyproject.toml", ".gitignore"}
OPTIONAL = {"SECURITY.md"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(wheel, source archive) of two builds, an hour apart for the files that a build makes."""
    pairs = []
    for number in range(2):
        place = tmp_path_factory.mktemp("built")
        subprocess.run([sys.executable, "-m", "hatchling", "build", "-d", str(place)], cwd=ROOT, check=True,
                       capture_output=True, timeout=120, umask=0o022 if number else 0o077,
                       env={**os.environ, "SOURCE_DATE_EPOCH": "1767225600", "TZ": ("UTC", "Asia/Tokyo")[number],
                            "PYTHONHASHSEED": str(number)})
        pairs.append((next(place.glob("*.whl")), next(place.glob("*.tar.gz"))))
    return pairs


def test_two_builds_are_equal_byte_for_byte(built, counted):
    for one, two in zip(*built, strict=True):
        assert one.name == two.name
        assert hashlib.sha256(one.read_bytes()).digest() == hashlib.sha256(two.read_bytes()).digest(), one.name
    counted("What is published can be built again, byte for byte", "wheel and source archive, twice", 2)


def test_the_wheel_holds_the_package_and_nothing_else(built):
    python = {f"diffuse_cli/{path.relative_to(PACKAGE).as_posix()}" for path in PACKAGE.rglob("*.py")}
    names = set(zipfile.ZipFile(built[0][0]).namelist())
    metadata = {name for name in names if ".dist-info/" in name}
    page = {name for name in names if name.endswith(".data/data/share/man/man1/diffuse.1")}
    assert len(page) == 1
    assert names - metadata - page == python | NOT_PYTHON
    assert {name.split(".dist-info/")[1] for name in metadata} == METADATA


def test_the_source_archive_holds_what_is_needed_to_build_and_test(built):
    with tarfile.open(built[0][1]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {name for name in names if "/" not in name} - OPTIONAL == OF_THE_SOURCE
    assert {name.split("/")[0] for name in names if "/" in name} == {"src", "tests", "docs", "benchmarks", "examples"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
