"""One of several processes is lost, in every way and at every point: the others end in time, and nothing is lost.

Real processes through the real command line. The fault comes from injected/sitecustomize.py.
"""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny
import torch

from diffuse_cli.engine import checkpoint

INJECTED = Path(__file__).parent / "injected"
POINTS = {"start": ("1 open_session 1", "0 open_session 1"), "step": ("1 advance 5", "0 advance 5"),
          "all-reduce": ("1 add 4", "0 add 4"), "save": ("1 advance 4", "0 save_state 1")}
KINDS = ("SIGKILL", "raise", "exit", "SIGSTOP")
FAST = {("start", "raise", 1), ("step", "SIGKILL", 1), ("all-reduce", "SIGSTOP", 1), ("save", "SIGKILL", 0),
        ("step", "exit", 0)}
ALL = [(point, kind, rank) for point in POINTS for kind in KINDS for rank in (0, 1)]
TIMEOUT = 15                                    # seconds after which a silent process is given up, where one is
CASES = [pytest.param(*case, marks=() if case in FAST else pytest.mark.slow, id="-".join(map(str, case)))
         for case in ALL]


def command(folder, *more):
    options = "--name tiny --resolution 8 --preset nano --steps 8 --batch-size 4 --save-every 3 --preview-every 100%"
    return [sys.executable, "-m", "diffuse_cli", "train", str(folder), *options.split(), *more]


def environment(home, **more):
    plain = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return plain | {"DIFFUSE_HOME": str(home), "OMP_NUM_THREADS": "1"} | more


def processes_of(home):
    """The processes whose cache is `home`."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"DIFFUSE_HOME={home}\0".encode() in path.read_bytes() + b"\0":
                found.append(int(path.parent.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid() and _is_alive(pid)]


def _is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def sha256_of(home):
    return checkpoint.load_model(tiny.run_directory(home) / "model.safetensors", torch.device("cpu")).sha256


@pytest.fixture(scope="module")
def together(squares, tmp_path_factory):
    """(home, hash of the model) of a training in two processes that nothing happened to."""
    home = tmp_path_factory.mktemp("together")
    home.chmod(0o700)
    subprocess.run(command(squares, "--procs", "2", "-q"), env=environment(home), check=True, timeout=120)
    return home, sha256_of(home)


@pytest.mark.parametrize(("point", "kind", "rank"), CASES)
def test_a_lost_process_ends_all_and_costs_nothing(point, kind, rank, squares, home, together):
    fault = next(where for where in POINTS[point] if where.startswith(str(rank)))
    train = command(squares, "--procs", "2")
    faulty = {"DIFFUSE_FAULT": f"{fault} {kind}", "PYTHONPATH": str(INJECTED)}
    if kind == "SIGSTOP":
        faulty["DIFFUSE_TIMEOUT"] = str(TIMEOUT)
    broken = subprocess.run(train, env=environment(home, **faulty), capture_output=True, text=True,
                            timeout=TIMEOUT + 90)
    assert broken.returncode == 9, broken.stderr
    assert broken.stdout == ""
    errors = [line for line in broken.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, broken.stderr
    said_by_itself = kind == "raise" and rank == 0                     # it keeps the terminal
    assert ("a fault was asked for" if said_by_itself else f"process {rank} of 2") in errors[0]
    assert "Traceback" not in broken.stderr
    wait_until(lambda: not processes_of(home), 10)

    subprocess.run([*train, "-q"], env=environment(home), check=True, timeout=120)
    assert sha256_of(home) == together[1]


def test_no_process_outlives_a_launcher_that_was_killed(squares, home):
    with subprocess.Popen(command(squares, "--procs", "2", "--steps", "100000"), env=environment(home),
                          stderr=subprocess.PIPE, text=True) as launcher:
        wait_until(lambda: "step" in launcher.stderr.readline())
        assert len(processes_of(home)) == 3
        launcher.send_signal(signal.SIGKILL)
        wait_until(lambda: not processes_of(home), 10)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_all_after_a_save_and_is_passed_on(number, squares, home):
    with subprocess.Popen(command(squares, "--procs", "2", "--steps", "100000"), env=environment(home),
                          stderr=subprocess.PIPE, text=True) as launcher:
        wait_until(lambda: "step" in launcher.stderr.readline())
        launcher.send_signal(number)
        said = launcher.stderr.read()
        assert launcher.wait(30) == -number
    assert "saving" in said
    assert "to go on: diffuse train" in said
    assert list(tiny.run_directory(home).glob("step-*.safetensors"))
    assert not processes_of(home)


def test_a_second_trainer_is_told_before_any_process_is_started(squares, home):
    with subprocess.Popen(command(squares, "--procs", "2", "--steps", "100000"), env=environment(home),
                          stderr=subprocess.PIPE, text=True) as first:
        wait_until(lambda: "step" in first.stderr.readline())
        second = subprocess.run(command(squares, "--procs", "2", "--steps", "100000"), env=environment(home),
                                capture_output=True, text=True, timeout=60)
        first.terminate()
    assert second.returncode == 5
    assert "is in use: being trained by process" in second.stderr


def test_an_error_of_one_process_is_said_once_with_its_own_exit_code(squares, home):
    few = subprocess.run(command(squares, "--procs", "5"), env=environment(home), capture_output=True, text=True,
                         timeout=120)
    assert few.returncode == 2
    assert few.stderr.count("error:") == 1
    assert "a batch of 4 cannot be shared by 5 processes" in few.stderr
