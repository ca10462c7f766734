"""After any power cut, the newest acknowledged state is on the disk, and so are the plan and the model."""

import random
from pathlib import Path

import pytest
import small_run
from power_cuts import ACKNOWLEDGED, LONGER, STEPS, breaches, record_training
from power_loss import Disk


@pytest.mark.parametrize("count", [1_000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_no_power_cut_loses_what_was_acknowledged(home, tmp_path, seed, counted, count):
    record = record_training(home, small_run.draw_pictures(tmp_path))
    told = [entry[1] for entry in record.log if entry[0] == ACKNOWLEDGED]
    rewound = told[STEPS]
    assert told == [*range(1, STEPS + 1), rewound, rewound, *range(rewound + 1, LONGER + 1)]
    assert rewound < STEPS - 1                  # a cool-down of several states was forgotten
    broken = list(breaches(record, count=count, rng=random.Random(seed), place=tmp_path / "disk"))
    counted("A power cut loses no acknowledged state", "states that a cut may leave on a disk", count)
    assert not broken, "\n".join(broken)


# ── The simulation itself ───────────────────────────────────────────────────────────────────────────────────────────


OLD, NEW, TEMPORARY = Path("/d/old"), Path("/d/new"), Path("/d/temporary")
WRITTEN = [("bytes", 1, b""), ("create", TEMPORARY, 1), ("bytes", 1, b"1234")]
SYNCED, RENAMED, DIRECTORY_SYNCED = ("fsync", 1), ("rename", TEMPORARY, NEW), ("fsync directory", Path("/d"))


def _found(*log):
    """All disks that may be found after a cut at the end of the log, each as {name: contents}."""
    disk = Disk()
    for entry in log:
        disk.apply(entry)
    rng = random.Random(0)
    return [dict(disks) for disks in {tuple(sorted(disk.found(rng).items())) for _ in range(300)}]


def test_what_is_not_synced_may_be_missing_empty_cut_or_zeros():
    found = _found(*WRITTEN)
    assert {} in found
    for contents in (b"", b"12", b"1234", b"\0\0\0\0", b"12\0\0"):
        assert {TEMPORARY: contents} in found


def test_what_is_synced_lasts_and_its_new_name_may_or_may_not():
    assert all(disk in ({}, {TEMPORARY: b"1234"}, {NEW: b"1234"}) for disk in _found(*WRITTEN, SYNCED, RENAMED))
    assert {NEW: b"1234"} in _found(*WRITTEN, SYNCED, RENAMED)
    assert _found(*WRITTEN, SYNCED, RENAMED, DIRECTORY_SYNCED) == [{NEW: b"1234"}]


def test_a_name_without_its_bytes_is_what_a_missing_fsync_leaves():
    assert {NEW: b""} in _found(*WRITTEN, RENAMED, DIRECTORY_SYNCED)


def test_names_last_in_any_combination_until_their_directory_is_synced():
    log = [*WRITTEN, SYNCED, DIRECTORY_SYNCED, ("create", OLD, 1), ("unlink", TEMPORARY, 0)]
    assert {frozenset(disk) for disk in _found(*log)} == {
        frozenset(names) for names in ((), (OLD,), (TEMPORARY,), (OLD, TEMPORARY))}
