"""Fixtures of the tests of reliability: a seed that can be repeated, and a working directory of its own."""

import os
import random

import pytest


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """A model is written to the working directory if the run's directory cannot take it."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def seed():
    """A new random seed for every test, printed when the test fails. DIFFUSE_TEST_SEED repeats one."""
    chosen = int(os.environ.get("DIFFUSE_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"DIFFUSE_TEST_SEED={chosen}")
    return chosen
