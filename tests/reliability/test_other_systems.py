"""What works where the calls of POSIX, or of Linux alone, are absent: Windows and macOS, as far as that shows them."""

import contextlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import pytest
import tiny

from diffuse_cli.config import Machine
from diffuse_cli.errors import InUseError
from diffuse_cli.files import locks, temporaries
from diffuse_cli.training import sizes

HELPER = Path(__file__).parents[1] / "helpers/other_system.py"
TRAIN = ["train", "pictures", "--resolution", "8", "--batch-size", "4", "--init", "none", "--device", "cpu", "-q"]
LINES = [
    ["--help"], ["data", "check", "pictures"], [*TRAIN, "--name", "tiny", "--steps", "2"],
    [*TRAIN, "--name", "tiny", "--steps", "3"], [*TRAIN, "--name", "tiny", "--steps", "2", "--fresh"],
    ["sample", "a red square", "-m", "tiny", "-n", "2", "--steps", "2", "--grid"],
    ["sample", "a red square", "-m", "tiny", "--steps", "2", "-o", "one.png"],
    ["sample", "a red square", "-m", "tiny", "--steps", "2", "-o", "one.png", "--force"],
    ["export", "tiny", "--to", "safetensors"], ["models", "ls"], ["models", "show", "tiny"], ["doctor"],
    ["data", "clear"], ["models", "rm", "tiny", "--yes"]]


@pytest.mark.skipif(sys.platform != "linux", reason="the other systems are simulated on Linux")
@pytest.mark.parametrize("system", ["windows", pytest.param("macos", marks=pytest.mark.slow)])
def test_one_process_does_all_without_the_calls_that_are_absent(system, tmp_path):
    tiny.draw_squares(tmp_path / "pictures")
    several = [*TRAIN, "--steps", "2", "--name", "many", "--procs", "2"]
    done = subprocess.run([sys.executable, "-P", HELPER, system, json.dumps([*LINES, several])], cwd=tmp_path,
                          env={**os.environ, "DIFFUSE_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, check=False)
    codes = [line for line in done.stdout.splitlines() if line.startswith("exit ")]
    assert (codes, "Traceback" in done.stderr) == (["exit 0"] * len(LINES) + ["exit 2"], False), done.stderr
    assert done.stderr.splitlines()[-1] == (
        "error: this system cannot start several processes for one command. Leave --gpus and --procs out")
    assert not list((tmp_path / "home/models").glob("tiny")), "removed"
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(temporaries.TEMPORARY)]


@pytest.fixture
def windows(monkeypatch):
    """Only `files` believes to be there: its locks are those of the module that Windows has."""
    locked = set()

    def locking(descriptor, mode, count):
        start, key = os.lseek(descriptor, 0, os.SEEK_CUR), os.fstat(descriptor).st_ino
        if (key, start) in locked:
            raise PermissionError(13, "Permission denied")
        locked.add((key, start))

    def read(descriptor, count, read=os.read):
        start = os.lseek(descriptor, 0, os.SEEK_CUR)
        if any(key == os.fstat(descriptor).st_ino and start <= byte < start + count for key, byte in locked):
            raise PermissionError(13, "Permission denied")
        return read(descriptor, count)

    monkeypatch.setattr(temporaries, "msvcrt", types.SimpleNamespace(LK_NBLCK=2, locking=locking), raising=False)
    monkeypatch.setattr(os, "read", read)
    monkeypatch.setattr(sys, "platform", "win32")


def test_what_a_lock_says_of_its_holder_can_be_read_where_locked_bytes_cannot(windows, tmp_path):
    with locks.lock(tmp_path / "model/lock", doing="being trained"), \
            pytest.raises(InUseError, match=f"being trained by process {os.getpid()}"), \
            locks.lock(tmp_path / "model/lock", doing="being removed"):
        pass


@pytest.mark.parametrize("refusals", [3, 1000])
def test_replacing_waits_for_a_program_that_looks_at_the_file(windows, tmp_path, monkeypatch, refusals):
    calls, replace = [], os.replace

    def refusing(source, target):
        calls.append(source)
        if len(calls) <= refusals:
            raise PermissionError(13, "in use")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    monkeypatch.setattr(temporaries.time, "sleep", lambda seconds: None)
    (tmp_path / "new").write_text("new")
    (tmp_path / "old").write_text("old")
    with pytest.raises(PermissionError) if refusals > 10 else contextlib.nullcontext():
        temporaries.replace(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old").read_text() == ("old" if refusals > 10 else "new")
    assert len(calls) < 10


def test_nothing_is_tried_again_elsewhere(tmp_path, monkeypatch):
    calls = []

    def refusing(source, target):
        calls.append(source)
        raise PermissionError(13, "not yours")

    monkeypatch.setattr(os, "replace", refusing)
    with pytest.raises(PermissionError):
        temporaries.replace(tmp_path / "new", tmp_path / "old")
    assert len(calls) == 1


@pytest.mark.parametrize(("there", "expected"), [
    ([], False), (["/dev/nvidia0"], True), (["/dev/kfd"], True), (["/dev/dxg"], True)])
def test_a_gpu_is_expected_where_the_system_shows_one_also_in_wsl(monkeypatch, there, expected):
    monkeypatch.setattr(Path, "exists", lambda self: str(self) in there)
    assert sizes._has_accelerator(Machine()) is expected


@pytest.mark.parametrize("tool", [None, r"C:\Windows\System32\nvidia-smi.exe"])
def test_a_gpu_is_expected_on_windows_where_its_driver_is_installed(windows, monkeypatch, tool):
    monkeypatch.setattr(sizes.shutil, "which", lambda name: tool)
    assert sizes._has_accelerator(Machine()) is (tool is not None)
