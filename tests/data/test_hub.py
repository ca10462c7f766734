"""Data sets of the Hugging Face hub, in a cache as its library lays it out; nothing is downloaded."""

import os
import subprocess
import sys

import pytest

from diffuse_cli.data import hub
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.errors import DataError

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(("text", "expected"), [
    ("hf://me/pictures", True), ("hf:/me/pictures", True), ("hf://me/pictures@main", True), ("hf://me/pictures/", True),
    ("hf://me", False), ("./hf/me", False), ("https://hf.co/me/pictures", False), ("hf://me/../x/y", False)])
def test_what_is_an_address(text, expected):
    assert hub.is_address(text) is expected


@pytest.fixture
def cache(tmp_path):
    """A cache with one data set: its files are links to blobs, and "main" names its revision."""
    home = tmp_path / "hub" / "datasets--me--pictures"
    blobs, snapshot = home / "blobs", home / "snapshots" / REVISION
    for folder in (blobs, snapshot / "data", home / "refs"):
        folder.mkdir(parents=True)
    (home / "refs" / "main").write_text(REVISION)
    from PIL import Image
    for number in range(3):
        Image.new("RGB", (16, 16), (number * 80, 0, 0)).save(blobs / f"{number}.png")
        (blobs / f"{number}.txt").write_text(f"picture {number}")
        for suffix in ("png", "txt"):
            (snapshot / "data" / f"{number}.{suffix}").symlink_to(blobs / f"{number}.{suffix}")
    return tmp_path


def check(cache, address):
    """`diffuse data check` in a process of its own, since the library reads where its cache is at its import."""
    environment = {**os.environ, "HF_HOME": str(cache), "HF_HUB_OFFLINE": "1", "DIFFUSE_HOME": str(cache / "home")}
    command = [sys.executable, "-m", "diffuse_cli", "data", "check", address]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_data_set_in_the_cache_is_used_without_a_connection(cache):
    done = check(cache, "hf://me/pictures")
    assert done.returncode == 0, done.stderr
    assert "captions: sidecar .txt (3 of 3 files)" in done.stderr


def test_one_that_cannot_be_had_is_one_line(cache):
    done = check(cache, "hf://me/other")
    assert done.returncode == 3
    assert done.stderr.startswith("error: cannot get hf://me/other: ")
    assert len(done.stderr.splitlines()) == 1


def test_without_the_library_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(DataError, match=r"hf://me/pictures needs huggingface_hub. pip install 'diffuse-cli\[hub\]'"):
        find_pictures("hf://me/pictures")
