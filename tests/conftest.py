"""Every test has a home of its own: nothing reaches the user's cache."""

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    directory = tmp_path_factory.mktemp("home")
    directory.chmod(0o700)
    monkeypatch.setenv("DIFFUSE_HOME", str(directory))
    monkeypatch.delenv("DIFFUSE_MODEL", raising=False)
    return directory
