"""What dead processes left is removed; what living ones hold, what is not ours and what was moved aside is not."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from diffuse_cli.files import durable, temporaries

HOLD = """
import sys, time
from pathlib import Path
from diffuse_cli.files import durable, temporaries
place = Path(sys.argv[1])
with durable.staging(place / "folder") as staging, temporaries.file_beside(place / "file", 0o600) as file:
    (staging / "half").mkdir()
    (staging / "half" / "made").write_text("x")
    print("ready", flush=True)
    time.sleep(600)
"""


@contextlib.contextmanager
def holder(place):
    """Another process that holds a temporary directory and a temporary file in `place`."""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(place)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.kill()


def left(place):
    return sorted(path.name for path in place.iterdir() if path.name.startswith(temporaries.TEMPORARY))


@pytest.mark.parametrize("start", [
    lambda place: durable.write(place / "new", b"data"), lambda place: _stage(place / "new")], ids=["write", "staging"])
def test_only_what_dead_processes_left_is_removed(tmp_path, start):
    with holder(tmp_path) as dead, holder(tmp_path) as living:
        held = left(tmp_path)
        assert len(held) == 4
        dead.send_signal(signal.SIGKILL)
        dead.wait()
        start(tmp_path)
        assert len(left(tmp_path)) == 2
        assert living.poll() is None
        assert set(left(tmp_path)) < set(held)
        temporaries.remove_abandoned(tmp_path)
        assert len(left(tmp_path)) == 2
    temporaries.remove_abandoned(tmp_path)
    assert left(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def _stage(target):
    with durable.staging(target) as staging:
        (staging / target.name).write_text("data")
        durable.publish(staging / target.name, target)


def test_files_of_other_programs_stay(tmp_path):
    names = (".tmp-0123456789abcdef", ".tmp-diffuse-0123", ".tmp-diffuse-0123456789abcdefg", ".tmp-diffuse", ".tmp-")
    for name in names:
        (tmp_path / name).write_text("precious")
    (tmp_path / ".tmp-diffuse-0123456789abcdef").symlink_to(tmp_path / names[0])
    os.mkfifo(tmp_path / ".tmp-diffuse-1123456789abcdef")
    temporaries.remove_abandoned(tmp_path)
    assert len(list(tmp_path.iterdir())) == len(names) + 2
    assert {(tmp_path / name).read_text() for name in names} == {"precious"}


@pytest.mark.parametrize("killed_at", ["the first rename", "the second rename"])
def test_an_old_export_that_was_moved_aside_comes_back_after_a_kill(tmp_path, killed_at):
    """`kill -9` between the two renames that replace a folder."""
    target = tmp_path / "export"
    target.mkdir()
    (target / "old").write_text("old")
    code = f"""
import os, signal
from pathlib import Path
from diffuse_cli.files import durable
real, calls = os.replace, []
def replace(source, target):
    calls.append(source)
    if len(calls) == {1 if killed_at == "the first rename" else 2}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
with durable.staging(Path({str(target)!r})) as staging:
    (staging / "export").mkdir()
    durable.publish(staging / "export", Path({str(target)!r}), replace=True)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert target.exists() == (killed_at == "the first rename")
    temporaries.remove_abandoned(tmp_path)
    assert (target / "old").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["export"]


def test_what_was_moved_aside_stays_in_the_temporary_directory_if_it_cannot_go_back(tmp_path, monkeypatch):
    target = tmp_path / "export"
    target.mkdir()
    (target / "old").write_text("old")

    def fails(source, name):
        if Path(name) == target:
            raise OSError(5, "input/output error")
        os.rename(source, name)

    monkeypatch.setattr(os, "replace", fails)
    with durable.staging(target) as staging:
        (staging / "export").mkdir()
        with pytest.raises(durable.StorageError):
            durable.publish(staging / "export", target, replace=True)
    (kept,) = tmp_path.rglob("old")
    assert kept.read_text() == "old"


def test_a_temporary_that_another_process_takes_before_it_is_locked_is_made_again(tmp_path, monkeypatch):
    real, taken = temporaries._lock_is_ours, []

    def late(descriptor, path):
        if len(taken) < 2:
            taken.append(path)
            temporaries.remove_abandoned(tmp_path)
        return real(descriptor, path)

    monkeypatch.setattr(temporaries, "_lock_is_ours", late)
    durable.write(tmp_path / "file", b"data")
    _stage(tmp_path / "folder")
    assert len(taken) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_messages_name_no_temporary_path():
    assert temporaries.target_of(Path("/out/.tmp-diffuse-00/cars-onnx/unet.onnx")) == Path("/out/cars-onnx/unet.onnx")
    assert temporaries.target_of(Path("/out/cars")) == Path("/out/cars")
