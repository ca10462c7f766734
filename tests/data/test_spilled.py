"""Lists and dictionaries that are mostly on the disk: they do what Python's own do, and leave nothing behind."""

import os
import subprocess
import sys
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffuse_cli.data import spilled
from diffuse_cli.data.containers import File
from diffuse_cli.data.file_tree import FileList
from diffuse_cli.data.spilled import SpilledDict, SpilledList, SpilledLists
from diffuse_cli.errors import StorageError

# Names may hold bytes that are no UTF-8, which Python shows as lone surrogates.
NAMES = st.text(st.sampled_from("ab/é\udcff'\"\0𝄞"), max_size=4)
ENOUGH = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True, scope="module")
def few_in_memory():
    """Three entries are in memory, and the others in a file."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(spilled, "IN_MEMORY", 3)
        patched.setattr(spilled, "_CHUNK", 2)
        yield


@given(st.lists(st.tuples(NAMES, st.none() | NAMES.filter(str.isascii))), NAMES)
@ENOUGH
def test_a_dictionary_is_one(entries, key):
    ours, theirs = SpilledDict(entries), dict(entries)
    assert list(ours.items()) == list(theirs.items())                  # in the same order
    assert (list(ours), len(ours), bool(ours)) == (list(theirs), len(theirs), bool(theirs))
    for name in (key, *theirs):
        assert (name in ours, ours.get(name, "none")) == (name in theirs, theirs.get(name, "none"))
    with pytest.raises(KeyError):
        ours["missing"]


@given(st.lists(st.tuples(st.binary(max_size=2), st.integers(-2**63, 2**63 - 1), st.none() | st.just("é"))),
       st.slices(12))
@ENOUGH
def test_a_list_is_one_and_its_sorting_is_stable(rows, some):
    ours = SpilledList(rows)
    assert (list(ours), len(ours), ours[some]) == (rows, len(rows), rows[some])
    assert [ours[index] for index in range(-len(rows), len(rows))] == rows + rows
    numbers = ours.column(1, str)
    assert numbers == [str(number) for _, number, _ in rows]
    assert numbers != [*numbers, ""]
    assert numbers[some] == tuple(numbers)[some]
    ours.sort(1)
    assert list(ours) == sorted(rows, key=lambda row: row[0])
    with pytest.raises(IndexError):
        ours[len(rows)]


def test_a_list_can_be_added_to_after_it_was_sorted_and_read():
    rows = SpilledList((b"%d" % (7 * number % 10),) for number in range(10))
    rows.sort(1)
    for number in range(10):
        assert len(list(rows)) == 10 + number
        rows.append((b"%d" % number,))
    assert list(rows) == [(b"%d" % (number % 10),) for number in range(20)]


@given(st.lists(st.tuples(NAMES, NAMES)), st.lists(st.tuples(NAMES, NAMES)))
@ENOUGH
def test_lists_by_key(pairs, more):
    ours = SpilledLists(pairs)
    for key, _ in pairs:
        assert ours.get(key) == [value for name, value in pairs if name == key]
    for key, value in more:                                            # also after the first question
        ours.add(key, value)
    for key, _ in chain(pairs, more, [("missing", "")]):
        assert ours.get(key) == [value for name, value in chain(pairs, more) if name == key]
        assert (key in ours) == bool(ours.get(key))


def test_files_are_sorted_by_name_then_by_path(tmp_path):
    names = ["b", "a", "a", "c\udcff", "é", "a"]
    files = [File(name, tmp_path / f"{9 - number}") for number, name in enumerate(names)]
    ours = FileList(files)
    assert list(ours) == files
    ours.sort()
    assert [(file.name, file.path.name) for file in ours] == [
        ("a", "4"), ("a", "7"), ("a", "8"), ("b", "9"), ("c\udcff", "6"), ("é", "5")]
    assert list(ours.names()) == [file.name for file in ours]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_has_no_name_and_ends_with_the_process(tmp_path):
    code = """
import os, signal
from diffuse_cli.data.spilled import SpilledList
rows = SpilledList((b"x" * 1000,) for _ in range(10_000))
links = [os.readlink(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")[:-1]]
(file,) = [link for link in links if link.startswith(os.environ["TMPDIR"])]
assert file.endswith("(deleted)"), file
os.kill(os.getpid(), signal.SIGKILL)
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == -9
    assert list(tmp_path.iterdir()) == []


def fill(rows):
    for _ in range(1000):
        rows.append((b"x" * 1000,))


def test_a_full_disk_is_one_line_that_names_the_folder():
    rows = SpilledList((b"x",) for _ in range(5))
    rows._table.run("PRAGMA max_page_count = 1")
    with pytest.raises(StorageError, match="folder for temporary files: database or disk is full") as caught:
        fill(rows)
    assert "TMPDIR" in caught.value.hint
