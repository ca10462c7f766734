"""What the tests of reliability share: a seed that can be given again, a directory to fall back on."""

import os
import random

import pytest


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    """Where a model goes that its run's directory cannot take."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def seed():
    """Drawn anew for every test and printed when it fails; DIFFUSE_TEST_SEED repeats one."""
    chosen = int(os.environ.get("DIFFUSE_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"DIFFUSE_TEST_SEED={chosen}")
    return chosen
