"""Faults of the operating system itself: disks that are really full, and system calls that really fail.

The other tests simulate faults in Python, which a library could bypass. Here a small file system fills up, and `strace`
makes the N-th call of a kind fail, or kills the process there.
"""

import re
import shutil
import subprocess

import pytest
import small_run
import tiny
from real import command, environment, sha256_of

SIZES = (40, 200, 400, 600, 800, 1000, 1300, 1700)                  # KB: from no room at all to nearly enough
FAULTS = {"fsync": ("EIO", "SIGKILL"), "rename": ("ENOSPC", "SIGKILL"), "mkdir": ("ENOSPC", "SIGKILL"),
          "unlink": ("EIO", "SIGKILL")}
SHARES = (0.0, 0.1, 0.25, 0.4, 0.55, 0.7, 0.85, 1.0)                # which call of a training fails, of all of its kind
FAST = {("rename", "SIGKILL", 0.4)}
CASES = [pytest.param(*case, marks=() if case in FAST else pytest.mark.slow, id="-".join(map(str, case)))
         for case in ((call, fault, share) for call, kinds in FAULTS.items() for fault in kinds for share in SHARES)]
UNSHARE = ("unshare", "--user", "--map-root-user", "--mount")
FILL = """
set -u
mount -t tmpfs -o size={size}k,mode=700 small "$DIFFUSE_HOME" || exit 99
{train}; echo "first $?"
mount -o remount,size=100m "$DIFFUSE_HOME" || exit 99
{train}; echo "second $?"
sha256sum "$DIFFUSE_HOME/models/tiny/model.safetensors"
find "$DIFFUSE_HOME/models" -name '.tmp-*'
"""


def _can(*words):
    try:
        return subprocess.run(words, capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


@pytest.fixture(scope="module")
def undisturbed(squares, tmp_path_factory):
    """(home, hash of the model) of an undisturbed training."""
    home = tmp_path_factory.mktemp("undisturbed")
    home.chmod(0o700)
    subprocess.run(command(squares, "-q"), env=environment(home), check=True, timeout=120)
    return home, sha256_of(home)


@pytest.mark.parametrize("size", [pytest.param(size, marks=() if size == 600 else pytest.mark.slow) for size in SIZES])
def test_a_disk_that_is_really_full_costs_nothing_that_was_saved(squares, home, undisturbed, tmp_path, size, counted):
    if not _can(*UNSHARE, "mount", "-t", "tmpfs", "none", "/mnt"):
        pytest.skip("this system lets nobody mount a file system of his own")
    train = " ".join(command(squares))
    script = FILL.format(size=size, train=train)
    ran = subprocess.run([*UNSHARE, "sh", "-c", script], env=environment(home), cwd=tmp_path, text=True,
                         capture_output=True, timeout=240)
    first, second = (int(code) for code in re.findall(r"^(?:first|second) (\d+)$", ran.stdout, re.MULTILINE))
    assert (first, second) == (6, 0), ran.stderr
    (error,) = [line for line in ran.stderr.splitlines() if line.startswith("error: ")]
    assert re.search(r"no space|MB free", error), error
    model = tiny.run_directory(undisturbed[0]) / "model.safetensors"
    expected = subprocess.run(["sha256sum", model], capture_output=True, text=True, check=True).stdout.split()[0]
    assert re.findall(r"^([0-9a-f]{64}) ", ran.stdout, re.MULTILINE) == [expected]
    assert ".tmp-" not in ran.stdout
    counted("A failing disk loses no saved step", "a file system that is really full", 1)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.parametrize(("call", "fault", "share"), CASES)
def test_a_system_call_that_really_fails_costs_nothing_that_was_saved(
        squares, home, undisturbed, tmp_path, call, fault, share, counted):
    number = 1 + round(share * (_calls(undisturbed[0], squares, call, tmp_path) - 1))
    what = f"signal={fault}" if fault.startswith("SIG") else f"error={fault}"
    log = tmp_path / "injected"
    strace = ["strace", "-f", "-qq", "-o", str(log), "-e", f"trace={call}", "-e",
              f"inject={call}:{what}:when={number}"]
    shutil.copytree(undisturbed[0] / "images", home / "images")
    broken = subprocess.run([*strace, *command(squares)], env=environment(home), text=True, capture_output=True,
                            timeout=240)
    assert broken.returncode in ((-9, 137) if fault == "SIGKILL" else (0, 6)), broken.stderr
    assert "Traceback" not in broken.stderr
    assert ("killed by SIGKILL" if fault == "SIGKILL" else "(INJECTED)") in log.read_text(errors="replace")
    again = subprocess.run(command(squares, "-q"), env=environment(home), text=True, capture_output=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert sha256_of(home) == undisturbed[1]
    assert not small_run.temporaries(home)
    counted("A failing disk loses no saved step", f"{fault} of a real {call}, injected by strace", 1)


_counts: dict[str, int] = {}


def _calls(home, squares, call, directory):
    """The number of calls of a kind in an undisturbed training whose pictures were decoded before."""
    if not _counts:
        place = directory / "counting"
        place.mkdir(mode=0o700)
        shutil.copytree(home / "images", place / "images")
        log = directory / "calls"
        subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", f"trace={','.join(FAULTS)}",
                        *command(squares, "-q")], env=environment(place), check=True, capture_output=True, timeout=240)
        for name in FAULTS:
            _counts[name] = len(re.findall(rf"^\d+ +{name}\(", log.read_text(errors="replace"), re.MULTILINE))
    assert _counts[call] > 0, _counts
    return _counts[call]
