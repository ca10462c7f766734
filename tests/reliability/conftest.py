"""What the tests of reliability share: a seed that can be given again, and a count of what was done.

With DIFFUSE_RELIABILITY_REPORT=file.json the counts are written there when the tests end, for docs/reliability.md.
"""

import datetime
import json
import os
import random
from pathlib import Path

import pytest


@pytest.fixture
def seed():
    """Drawn anew for every test and printed when it fails; DIFFUSE_TEST_SEED repeats one."""
    chosen = int(os.environ.get("DIFFUSE_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"DIFFUSE_TEST_SEED={chosen}")
    return chosen


@pytest.fixture(scope="session")
def _counts():
    counts = []
    yield counts
    if path := os.environ.get("DIFFUSE_RELIABILITY_REPORT"):
        Path(path).write_text(json.dumps(counts, indent=2) + "\n")


@pytest.fixture
def counted(_counts):
    """Called with a promise, the method that tried to break it, and how often it did: goes into the report."""
    def add(promise: str, method: str, count: int, *, seed: int | None = None) -> None:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        _counts.append({"promise": promise, "method": method, "count": count, "seed": seed, "date": date})

    return add
