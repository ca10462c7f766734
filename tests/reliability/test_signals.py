"""Signals as people and shells send them: keys in a terminal, a closed terminal, nohup, a loop in bash."""

import fcntl
import os
import pty
import select
import signal
import subprocess
import termios
import time

import pytest
import tiny
from real import command, environment, is_learning, sha256_of, wait_until

STEPS = "60"
FOR_EVER = ("--steps", "100000")
SLOW = ("--preset", "small", "--resolution", "32", "--batch-size", "128")           # a step takes seconds
LOOP = 'for i in 1 2 3; do "$@"; echo "LOOP GOES ON"; done; echo "LOOP ENDS"'
SHOW_CURSOR, HIDE_CURSOR = b"\x1b[?25h", b"\x1b[?25l"
CTRL_C = b"\x03"


class Terminal:
    """A program in a terminal of its own. The test types and reads."""

    def __init__(self, arguments, home):
        self.ours, theirs = pty.openpty()
        self.shown = b""
        self.process = subprocess.Popen(
            arguments, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(home, TERM="xterm", COLUMNS="200"),
            start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        os.close(theirs)

    def until(self, condition, seconds=120.0):
        """Read the terminal until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.shown.decode(errors="replace")
            self._read()

    def ends(self):
        """Wait for the end. → the exit code, −n for signal n"""
        self.until(lambda: self.process.poll() is not None)
        self._read()
        return self.process.returncode

    def shows(self, text):
        return lambda: text.encode() in self.shown

    def type(self, keys):
        os.write(self.ours, keys)

    def _read(self):
        if select.select([self.ours], [], [], 0.05)[0]:
            try:
                self.shown += os.read(self.ours, 65536)
            except OSError:                                            # the program has closed the terminal
                time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        if self.ours is not None:
            os.close(self.ours)

    def close(self):
        """Close the terminal's window."""
        os.close(self.ours)
        self.ours = None


def states(home):
    return sorted(path.name for path in tiny.run_directory(home).glob("step-*"))


@pytest.fixture(scope="module")
def undisturbed(squares, tmp_path_factory):
    """The hash of the model of an undisturbed training."""
    home = tmp_path_factory.mktemp("undisturbed")
    home.chmod(0o700)
    subprocess.run(command(squares, "--steps", STEPS, "-q"), env=environment(home), check=True, timeout=120)
    return sha256_of(home)


def test_ctrl_c_saves_tells_how_to_go_on_and_costs_nothing(squares, home, undisturbed, counted):
    train = command(squares, "--steps", STEPS)
    with Terminal(train, home) as terminal:
        terminal.until(is_learning(home))
        terminal.type(CTRL_C)
        assert terminal.ends() == -signal.SIGINT
        assert b"stopping after this step and saving" in terminal.shown
        assert b"resume with: diffuse train" in terminal.shown
    assert len(states(home)) == 1
    subprocess.run([*train, "-q"], env=environment(home), check=True, timeout=120)
    assert sha256_of(home) == undisturbed
    counted("Ctrl-C loses no step", "a real terminal, then the same command again", 1)


def test_ctrl_c_twice_leaves_at_once(squares, home):
    with Terminal(command(squares, *SLOW, *FOR_EVER), home) as terminal:
        terminal.until(is_learning(home))
        terminal.type(CTRL_C)
        terminal.until(terminal.shows("a second Ctrl-C stops at once"))
        terminal.type(CTRL_C)
        assert terminal.ends() == -signal.SIGINT
        assert b"resume with" not in terminal.shown
        assert terminal.shown.rfind(SHOW_CURSOR) > terminal.shown.rfind(HIDE_CURSOR)
    assert states(home) == []


@pytest.mark.parametrize("processes", [1, 2])
def test_a_terminal_that_is_closed_loses_nothing(squares, home, processes, counted):
    with Terminal(command(squares, *FOR_EVER, "--procs", str(processes)), home) as terminal:
        terminal.until(is_learning(home))
        terminal.close()
        assert terminal.process.wait(60) == -signal.SIGHUP
    assert states(home)
    counted("A closed terminal loses no step", "a real terminal, one process and two", 1)


@pytest.mark.slow
def test_nohup_is_respected(squares, home):
    train = ["nohup", *command(squares, "--steps", STEPS)]
    with subprocess.Popen(train, env=environment(home), stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as training:
        wait_until(is_learning(home))
        training.send_signal(signal.SIGHUP)
        said = training.stdout.read()
    assert training.returncode == 0
    assert "stopping" not in said


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="not on Windows")
@pytest.mark.parametrize("processes", [1, 2])
def test_sigusr1_saves_and_goes_on(squares, home, processes):
    train = [*command(squares, *FOR_EVER, "--save-every", "1h", "--procs", str(processes))]
    with subprocess.Popen(train, env=environment(home), stderr=subprocess.PIPE, text=True) as training:
        wait_until(is_learning(home))
        assert states(home) == []
        training.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(states(home)) == 1)
        training.send_signal(signal.SIGUSR1)
        wait_until(lambda: len(states(home)) == 2)
        training.send_signal(signal.SIGTERM)
        training.stderr.read()
    assert training.returncode == -signal.SIGTERM


@pytest.mark.parametrize("processes", [1, 2])
def test_ctrl_c_ends_a_loop_in_bash(squares, home, processes, counted):
    """Bash continues its loop unless the program was ended by the signal."""
    train = command(squares, *FOR_EVER, "--procs", str(processes))
    with Terminal(["bash", "-c", LOOP, "bash", *train], home) as terminal:
        terminal.until(is_learning(home))
        terminal.type(CTRL_C)
        assert terminal.ends() == -signal.SIGINT
        assert b"resume with" in terminal.shown
        assert b"LOOP" not in terminal.shown
    counted("Ctrl-C ends a loop in bash", "a real terminal, one process and two", 1)
