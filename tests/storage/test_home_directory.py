"""Everything is kept below one root, and no link or environment variable leads into a directory of others."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diffuse_cli.errors import StorageError
from diffuse_cli.storage import home_directory, registry


def test_everything_is_under_one_root(home):
    assert home_directory.root() == home
    places = home_directory.models_directory(), home_directory.cache_directory(), home_directory.crash_directory()
    assert {place.parent for place in places} == {home}


def test_asking_where_things_are_creates_nothing(home, monkeypatch):
    monkeypatch.setenv("DIFFUSE_HOME", str(home / "new"))
    assert registry.model_names() == []
    assert home_directory.root() == home / "new"
    assert not (home / "new").exists()


def test_the_root_is_made_private(home, monkeypatch):
    monkeypatch.setenv("DIFFUSE_HOME", str(home / "new"))
    before = os.umask(0)
    try:
        registry.set_last("cars")
    finally:
        os.umask(before)
    assert home_directory.root().stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("relative", ["cache", "~/cache", "./x"])
def test_a_relative_home_is_refused(monkeypatch, relative):
    monkeypatch.setenv("DIFFUSE_HOME", relative)
    with pytest.raises(StorageError, match="not an absolute path") as caught:
        home_directory.root()
    assert "Set DIFFUSE_HOME" in caught.value.hint


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_root_that_others_may_write_is_refused(home, mode):
    home.chmod(mode)
    with pytest.raises(StorageError, match="other users may write") as caught:
        home_directory.root()
    assert "chmod go-w" in caught.value.hint


def test_a_root_of_another_user_is_refused(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(StorageError, match="belongs to another user"):
        home_directory.root()


def test_a_link_of_another_user_is_refused(home, monkeypatch):
    """The directory is ours, but another user could change the link."""
    link = home / "link"
    link.symlink_to(home)
    real = Path.lstat

    def foreign(path: Path) -> os.stat_result:
        fields = list(real(path))
        fields[4] = 12_345                                          # st_uid
        return os.stat_result(fields)

    monkeypatch.setenv("DIFFUSE_HOME", str(link))
    assert home_directory.root() == link
    monkeypatch.setattr(Path, "lstat", foreign)
    with pytest.raises(StorageError, match="belongs to another user"):
        home_directory.root()


def test_a_file_as_root_is_refused(home, monkeypatch):
    (home / "file").write_bytes(b"")
    monkeypatch.setenv("DIFFUSE_HOME", str(home / "file"))
    with pytest.raises(StorageError, match="not a directory"):
        home_directory.root()


@pytest.mark.skipif(sys.platform != "linux", reason="XDG")
@pytest.mark.parametrize(("environment", "expected"), [
    ({"HOME": "/h", "XDG_CACHE_HOME": "/xdg"}, "/xdg/diffuse-cli"),
    ({"HOME": "/h"}, "/h/.cache/diffuse-cli"),
    ({"HOME": "/h", "XDG_CACHE_HOME": "relative"}, "/h/.cache/diffuse-cli"),
])
def test_the_default_root(environment, expected):
    code = "from diffuse_cli.storage import home_directory; print(home_directory.root())"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_no_home_at_all_is_one_clear_error(monkeypatch):
    for name in ("DIFFUSE_HOME", "HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_: int) -> None:
        raise KeyError("uid not found")

    import pwd

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(StorageError, match="home directory") as caught:
        home_directory.root()
    assert "DIFFUSE_HOME" in caught.value.hint
