"""Counts how often the tests tried to break each promise: printed at the end of a test run, and written into a page.

With DIFFUSE_RELIABILITY_PAGE=docs/reliability.md the counts of the tests that passed go into the table of that page,
each instead of its own row. The other rows stay, so that the tests can be run in parts. Delete by hand the rows of a
method whose name changed.
"""

import datetime
import os
import re
from collections import Counter
from pathlib import Path

PROPERTY = "counted"
ROW = re.compile(r"^\| (?!Promise)(.+) \| (.+) \| ([\d,]+) \|$", re.MULTILINE)
TABLE = re.compile(r"(?<=<!-- counts -->\n).*(?=<!-- end of counts -->)", re.DOTALL)


def tell(reporter) -> None:
    """Print, and write if asked to, the sums of the (promise, method, count) that passed tests recorded as PROPERTY."""
    counts: Counter[tuple[str, str]] = Counter()
    for report in reporter.stats.get("passed", []):
        for name, value in report.user_properties if report.when == "call" else ():
            if name == PROPERTY:
                counts[tuple(value[:2])] += value[2]
    if not counts:
        return
    reporter.write_sep("-", "promises, and how often each was tried to be broken")
    for (promise, method), count in sorted(counts.items()):
        reporter.write_line(f"{count:7,}  {promise}: {method}")
    if page := os.environ.get("DIFFUSE_RELIABILITY_PAGE"):
        failed = sum(len(reporter.stats.get(kind, [])) for kind in ("failed", "error"))
        path = Path(page)
        page = path.read_text(encoding="utf-8")
        path.write_text(TABLE.sub(lambda old: _table(counts, failed, old[0]), page), encoding="utf-8")


def _table(counts: Counter[tuple[str, str]], failed: int, old: str) -> str:
    earlier = {(promise, method): int(count.replace(",", "")) for promise, method, count in ROW.findall(old)}
    known = {**earlier, **counts}
    rows = [f"| {promise} | {method} | {count:,} |" for (promise, method), count in sorted(known.items())]
    date = datetime.datetime.now(datetime.UTC).date().isoformat()
    rest = "; the other rows are from earlier runs" if len(known) > len(counts) else ""
    return "\n".join(["", "| Promise | How it was tried to be broken | Times |", "|---|---|---|", *rows, "",
                      f"{date}: {sum(counts.values()):,} attempts, {failed} tests failed{rest}.", "", ""])
