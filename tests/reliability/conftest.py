"""Fixtures of the tests of reliability: a working directory of its own."""

import pytest


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """A model is written to the working directory if the run's directory cannot take it."""
    monkeypatch.chdir(tmp_path)
