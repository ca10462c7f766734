"""One of several processes is lost, in every way and at every point: the others end in time, and no state is lost.

The processes are started by the real command line. The faults come from injected/sitecustomize.py.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from real import command, environment, is_learning, processes_of, sha256_of, wait_until

from diffuse_cli.runtime.distributed import PATIENT_TIMEOUTS

INJECTED = Path(__file__).parent / "injected"
POINTS = {"meeting": ("1 join 1", "0 join 1"), "reading of pictures": ("1 open_dataset 1", "0 open_dataset 1"),
          "validation": ("1 World.all_reduce_max 4", "0 measure 1"),
          "preview": ("1 World.all_reduce_max 5", "0 preview 1"),
          "start": ("1 open_session 1", "0 open_session 1"), "step": ("1 Trainer.step 5", "0 Trainer.step 5"),
          "all-reduce": ("1 World.all_reduce_sum 4", "0 World.all_reduce_sum 4"),
          "save": ("1 Trainer.step 4", "0 save_state 1")}
KINDS = ("SIGKILL", "SIGABRT", "raise", "exit", "SIGSTOP")
FAST = {("step", "SIGKILL", 1)}
ALL = [(point, kind, rank) for point in POINTS for kind in KINDS for rank in (0, 1)]
TIMEOUT = 15                                    # seconds until a silent process is given up
CASES = [pytest.param(*case, marks=() if case in FAST else pytest.mark.slow, id="-".join(map(str, case)))
         for case in ALL]


@pytest.fixture(scope="module")
def together(squares, tmp_path_factory):
    """(home, hash of the model) of an undisturbed training in two processes."""
    home = tmp_path_factory.mktemp("together")
    home.chmod(0o700)
    subprocess.run(command(squares, "--procs", "2", "-q"), env=environment(home), check=True, timeout=120)
    return home, sha256_of(home)


@pytest.mark.parametrize(("point", "kind", "rank"), CASES)
def test_a_lost_process_ends_all_and_costs_nothing(point, kind, rank, squares, home, together, counted):
    fault = next(where for where in POINTS[point] if where.startswith(str(rank)))
    train = command(squares, "--procs", "2")
    faulty = {"DIFFUSE_FAULT": f"{fault} {kind}", "PYTHONPATH": str(INJECTED)}
    if kind == "SIGSTOP" or (point, kind) == ("meeting", "exit"):         # the others cannot tell it from a slow one
        faulty["DIFFUSE_TIMEOUT"] = str(TIMEOUT)
    broken = subprocess.run(train, env=environment(home, **faulty), capture_output=True, text=True,
                            timeout=PATIENT_TIMEOUTS * TIMEOUT + 90)           # longer where one process may work alone
    assert broken.returncode == 9, broken.stderr
    assert broken.stdout == ""
    errors = [line for line in broken.stderr.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, broken.stderr
    printed_by_itself = kind == "raise" and rank == 0                     # the main process prints its own error
    assert ("a fault was asked for" if printed_by_itself else f"process {rank} of 2") in errors[0]
    assert "Traceback" not in broken.stderr
    assert ("SIGABRT: Fatal Python error: Aborted" in errors[0]) == (kind == "SIGABRT" and rank == 1)
    wait_until(lambda: not processes_of(home), 10)

    subprocess.run([*train, "-q"], env=environment(home), check=True, timeout=120)
    assert sha256_of(home) == together[1]
    how = {"raise": "an exception", "exit": "exit code 0"}.get(kind, kind)
    counted("A lost process ends all with exit 9, leaves none behind, and costs nothing", f"{how} at {point}", 1)


def test_no_process_outlives_a_launcher_that_was_killed(squares, home):
    with subprocess.Popen(command(squares, "--procs", "2", "--steps", "100000"), env=environment(home),
                          stderr=subprocess.PIPE, text=True) as launcher:
        wait_until(is_learning(home))
        assert len(processes_of(home)) == 3
        launcher.send_signal(signal.SIGKILL)
        wait_until(lambda: not processes_of(home), 10)


@pytest.mark.parametrize("number", [signal.SIGINT, *(pytest.param(other, marks=pytest.mark.slow)
                                                     for other in (signal.SIGTERM, signal.SIGHUP))])
def test_a_signal_stops_all_after_a_save_and_is_passed_on(number, squares, home):
    with subprocess.Popen(command(squares, "--procs", "2", "--steps", "100000"), env=environment(home),
                          stderr=subprocess.PIPE, text=True) as launcher:
        wait_until(is_learning(home))
        launcher.send_signal(number)
        said = launcher.stderr.read()
        assert launcher.wait(30) == -number
    assert "saving" in said
    assert "resume with: diffuse train" in said
    assert list(tiny.run_directory(home).glob("step-*.safetensors"))
    assert not processes_of(home)


def test_a_second_trainer_is_told_before_any_process_is_started(squares, home):
    with subprocess.Popen(command(squares, "--procs", "2", "--steps", "100000"), env=environment(home),
                          stderr=subprocess.PIPE, text=True) as first:
        wait_until(is_learning(home))
        second = subprocess.run(command(squares, "--procs", "2", "--steps", "100000"), env=environment(home),
                                capture_output=True, text=True, timeout=60)
        first.terminate()
    assert second.returncode == 5
    assert "is in use: being trained by process" in second.stderr


@pytest.mark.slow
def test_an_error_of_one_process_is_said_once_with_its_own_exit_code(squares, home):
    few = subprocess.run(command(squares, "--procs", "5"), env=environment(home), capture_output=True, text=True,
                         timeout=120)
    assert few.returncode == 2
    assert few.stderr.count("error:") == 1
    assert "a batch of 4 cannot be shared by 5 processes" in few.stderr


def test_several_processes_draw_the_files_that_one_draws(together, tmp_path):
    home, _ = together
    drawn = {}
    for processes in (1, 2, 3):
        out = tmp_path / str(processes)
        options = f"-n 3 --seed 5 --steps 2 --batch-size 2 --grid -o {out} --procs {processes}"
        done = subprocess.run([sys.executable, "-m", "diffuse_cli", "sample", "a red square", "a blue square",
                               *options.split()], env=environment(home), capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        paths = [Path(line) for line in done.stdout.splitlines()]
        assert paths == sorted(out.iterdir())
        drawn[processes] = [(path.name, path.read_bytes()) for path in paths]
    assert len(drawn[1]) == 7
    assert drawn[1] == drawn[2] == drawn[3]
