"""Several processes that work on one command, and the signals that a command handles.

Every process runs the same command line. Torch elastic starts them as subprocesses; the first keeps the terminal, and
the others write logs. None of them outlives the command.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from .. import python_process
from ..config import Machine
from ..errors import DivergedError, UsageError, WorkerError
from ..files import durable
from ..runtime import launch_environment
from ..runtime.launch_environment import ProcessRank
from .terminal import view
from .terminal.plain_text import clean

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import PContext

GRACE_SECONDS = 5.0                             # for the other processes to end by themselves, once one has failed
WAITING_SECONDS = 8.0                           # until a process that has not found the others says so
POLL_SECONDS = 0.05                             # between two looks at which processes have ended
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
CRASH = 70                                      # exit code of an unforeseen error
REPORTED_ERRORS = range(UsageError.exit_code, DivergedError.exit_code + 1)     # exit codes after a one-line message
ERROR_PREFIXES = ("error: ", "  what():  ", "terminate called ", "Fatal Python error: ")       # ours, C++'s, Python's


# ── One of several processes ────────────────────────────────────────────────────────────────────────────────────────


def processes_to_start(machine: Machine) -> int:
    """Return how many processes the command must start. 1 means none: this process does the work itself.

    The result is 1 as well if this process is already one of several. Raises UsageError if --gpus asks for GPUs that
    torch does not see.
    """
    if launch_environment.process_rank().world_size > 1 or (machine.gpus in (None, "0", "1") and not machine.procs):
        return 1
    from ..runtime.devices import count_processes

    return count_processes(machine)


@contextlib.contextmanager
def process_duties(*, waits: bool = True) -> Iterator[ProcessRank]:
    """Make this process end and fail as the others and its launcher expect, if there are any. Yields its rank.

    waits: whether it will connect to the others.
    """
    rank = launch_environment.process_rank()
    if rank.world_size > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")          # or torch comments on how gradients are shared
    if launch_environment.is_launched():
        launch_environment.exit_with_parent()
        if sys.stderr is not None:
            faulthandler.enable()               # a process that crashes writes to its log where it did
    timer = threading.Timer(WAITING_SECONDS, _say_that_it_waits, [rank])
    timer.daemon = True
    if waits and rank.world_size > 1 and not launch_environment.is_launched():
        timer.start()
    try:
        yield rank
    except WorkerError:
        if not launch_environment.is_launched():
            raise
        raise typer.Exit(WorkerError.exit_code) from None              # the launcher reports which process was lost
    finally:
        timer.cancel()


def _say_that_it_waits(rank: ProcessRank) -> None:
    """Say so unless this process has found the others. Perhaps nobody started them: a program left its variables."""
    torch_distributed = sys.modules.get("torch.distributed")
    if torch_distributed is None or not torch_distributed.is_initialized():
        view.say(f"not connected yet: the environment (RANK and WORLD_SIZE, or SLURM_PROCID) says that this is process "
                 f"{rank.rank + 1} of {rank.world_size}. If nothing has started the others, unset it")


# ── Starting several processes ──────────────────────────────────────────────────────────────────────────────────────


def launch(count: int) -> int:
    """Run this command line in `count` processes. → its exit code; 128 + n if signal n ended it.

    Raises WorkerError, saying which process was lost and how, and UsageError where the system has no such processes, or
    where they could not reach each other.
    """
    if not hasattr(os, "waitid"):               # on Windows, and on macOS before Python 3.13
        raise UsageError("this system cannot start several processes for one command",
                         hint="Leave --gpus and --procs out")
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std, start_processes

    _check_loopback()
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)          # we report errors in one line
    executable, *arguments = python_process.command("from diffuse_cli.__main__ import main; main()", *sys.argv[1:])
    with durable.staging(durable.scratch_directory() / "processes", mode=0o700) as directory:
        common = {launch_environment.PARENT: str(os.getpid()),
                  launch_environment.RENDEZVOUS: f"{directory}/meeting", "WORLD_SIZE": str(count),
                  "LOCAL_WORLD_SIZE": str(count),
                  "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))),
                  "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
        context = start_processes(
            "diffuse", executable, dict.fromkeys(range(count), tuple(arguments)),
            {rank: {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)},
            DefaultLogsSpecs(log_dir=str(directory), redirects=dict.fromkeys(range(1, count), Std.ALL)))
        try:
            with _forward_signals(context) as ending_signals:
                exit_codes = _wait(context)
        finally:
            context.close(signal.SIGKILL, timeout=5)
        if not any(exit_codes.values()):
            return 0
        for ending in (*ending_signals[:1], signal.SIGPIPE):           # the reader of its output has left: `| head -1`
            if exit_codes[0] == -ending:
                return 128 + ending
        return _explain(exit_codes, directory)


def _check_loopback() -> None:
    """Raise UsageError if processes of this machine cannot reach each other. Sends nothing."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", 9))
    except OSError as error:
        raise UsageError("several processes need the loopback network (127.0.0.1), which is down here",
                         hint="Use one process") from error


def _wait(context: "PContext") -> dict[int, int | None]:
    """Rank → exit code, in the order in which the processes ended: −n for signal n, None for one that did not end.

    Once one has failed, the others have GRACE_SECONDS to end by themselves. Then they are killed.
    """
    exit_codes: dict[int, int | None] = {}
    deadline = float("inf")
    pids = context.pids()
    while len(exit_codes) < len(pids):
        for rank, pid in pids.items():
            # WNOWAIT leaves the reaping to torch, whose own wait takes half a minute where processes are stopped.
            ended = None if rank in exit_codes else os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                exit_codes[rank] = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        if any(exit_codes.values()):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        if time.monotonic() > deadline:
            for rank in pids.keys() - exit_codes.keys():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pids[rank], signal.SIGKILL)
                exit_codes[rank] = None
        time.sleep(POLL_SECONDS)
    return exit_codes


@contextlib.contextmanager
def _forward_signals(context: "PContext") -> Iterator[list[int]]:
    """Forward signals to the processes, which have sessions of their own and get none from the terminal.

    Yields the list of received signals that end a command, which grows while they arrive.
    """
    ending_signals: list[int] = []

    def handler(number: int, _: object) -> None:
        if signal.Signals(number).name != "SIGUSR1":
            ending_signals.append(number)
        for pid in context.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    with handle_signals(SIGNALS, handler):
        yield ending_signals


def _explain(exit_codes: dict[int, int | None], log_directory: Path) -> int:
    """Report the process that failed first. → its exit code. Raises WorkerError if it reported no error itself."""
    lost = WorkerError.exit_code                # of processes that only noticed the loss of another
    if exit_codes.get(0) in REPORTED_ERRORS:
        return int(exit_codes[0] or 0)          # process 0 has the terminal, and has reported its error there
    in_order = list(exit_codes.items())
    rank, code = next((item for item in in_order if item[1] != lost), in_order[0])
    process = f"process {rank} of {len(exit_codes)}"
    if code is None:
        raise WorkerError(f"{process} does not answer")
    if code in REPORTED_ERRORS:
        view.error(f"{process}: {_last_error(log_directory, rank) or f'exit code {code}'}")
        return code
    if rank == 0 and code == CRASH:
        return lost                             # process 0 has the terminal, and has reported the crash there
    ending = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    message = _last_error(log_directory, rank)
    raise WorkerError(f"{process} {ending}{': ' + message if message else ''}")


def _last_error(log_directory: Path, rank: int) -> str:
    """The line of a process's log that says why it failed: its own error, or that of C++ or Python when it aborted."""
    for log in sorted(log_directory.glob(f"**/{rank}/stderr.log")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        for prefix in ERROR_PREFIXES:
            if line := next((line for line in reversed(lines) if line.startswith(prefix)), ""):
                return clean(line.removeprefix("error: ").strip(), limit=500)
    return ""


# ── Signals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def handle_signals(names: Sequence[str], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` for the signals of these names that the system has, until the block ends.

    A signal that was ignored when the program started (nohup, a background job) stays ignored.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    for number in numbers:
        if before[number] is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextlib.contextmanager
def unwinding_on_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block as Ctrl-C does, so that it removes unfinished files, and then end it."""
    received: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        received.append(number)
        raise KeyboardInterrupt                 # not an Exception, so libraries do not catch it

    with handle_signals(("SIGTERM", "SIGHUP"), interrupt):
        try:
            yield
        except KeyboardInterrupt:
            if received:
                raise typer.Exit(128 + received[0]) from None
            raise
