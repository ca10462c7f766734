"""What the tests of reliability share: a seed that can be given again, and a count of what was done.

With DIFFUSE_RELIABILITY_PAGE=docs/reliability.md the counts of the tests that passed become the table of that page.
"""

import datetime
import os
import random
import re
from collections import Counter
from pathlib import Path

import pytest

TABLE = re.compile(r"(?<=<!-- counts -->\n).*(?=<!-- end of counts -->)", re.DOTALL)
COUNTED = "counted"


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


@pytest.fixture
def counted(record_property):
    """Called with a promise, the method that tried to break it, and how often it did: goes into the report."""
    def add(promise: str, method: str, count: int) -> None:
        record_property(COUNTED, (promise, method, count))

    return add


def pytest_terminal_summary(terminalreporter):
    page = os.environ.get("DIFFUSE_RELIABILITY_PAGE")
    if page is None:
        return
    counts: Counter[tuple[str, str]] = Counter()
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties if report.when == "call" else ():
            if name == COUNTED:
                counts[tuple(value[:2])] += value[2]
    failed = len(terminalreporter.stats.get("failed", [])) + len(terminalreporter.stats.get("error", []))
    path = Path(page)
    path.write_text(TABLE.sub(lambda _: _table(counts, failed), path.read_text(encoding="utf-8")), encoding="utf-8")


def _table(counts, failed):
    rows = [f"| {promise} | {method} | {count:,} |" for (promise, method), count in sorted(counts.items())]
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    return "\n".join(["", "| Promise | How it was tried to be broken | Times |", "|---|---|---|", *rows, "",
                      f"{date}: {sum(counts.values()):,} attempts, {failed} tests failed.", "", ""])
