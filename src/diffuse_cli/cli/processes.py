"""One command becomes several processes that work together: started, watched, signalled, and never left behind.

Every process runs the same command line; torch elastic starts them, as subprocesses. The first keeps the terminal, the
others write logs. Knows nothing of what they do.
"""

import contextlib
import faulthandler
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

from ..config import Machine
from ..errors import DivergedError, UsageError, WorkerError
from ..runtime import launch_environment
from .terminal import view

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing import PContext

GRACE = 5.0                                     # seconds for the others to notice that one is lost
POLL = 0.05                                     # seconds
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1")
CRASH = 70                                      # an error that nobody foresaw
OWN_ERRORS = range(UsageError.exit_code, DivergedError.exit_code + 1)          # a process's own one-line error


def processes_to_start(machine: Machine) -> int:
    """How many processes are asked for; 1 where this one will do, or is itself one of several. Raises UsageError."""
    if launch_environment.place().size > 1 or (machine.gpus in (None, "0", "1") and not machine.procs):
        return 1
    from ..runtime.devices import count_processes

    return count_processes(machine)


@contextlib.contextmanager
def taking_part() -> Iterator[launch_environment.ProcessRank]:
    """What a process owes to those it works with, and to the one that started it. → its place among them."""
    place = launch_environment.place()
    if place.size > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")          # or torch remarks on how gradients are shared
    if launch_environment.is_launched():
        launch_environment.leave_with_parent()
        if sys.stderr is not None:
            faulthandler.enable()               # what is killed by its own doing says where, in its log
    try:
        yield place
    except WorkerError:
        if not launch_environment.is_launched():
            raise
        raise typer.Exit(WorkerError.exit_code) from None              # the one who launched us knows who was lost


def launch(count: int) -> int:
    """Run this command line in `count` processes; → its exit code, 128 + n when signal n ended it.

    Raises WorkerError, saying which process was lost and how.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std, start_processes

    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)          # we say it in one line
    with tempfile.TemporaryDirectory(prefix="diffuse-") as directory:
        common = {launch_environment.PARENT: str(os.getpid()),
                  launch_environment.RENDEZVOUS: f"{directory}/meeting", "WORLD_SIZE": str(count),
                  "LOCAL_WORLD_SIZE": str(count),
                  "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count))),
                  "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo"}
        context = start_processes(
            "diffuse", sys.executable, dict.fromkeys(range(count), ("-m", "diffuse_cli", *sys.argv[1:])),
            {rank: {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)},
            DefaultLogsSpecs(log_dir=directory, redirects=dict.fromkeys(range(1, count), Std.ALL)))
        try:
            with _forwarding(context) as forwarded:
                exits = _wait(context)
        finally:
            context.close(signal.SIGKILL, timeout=5)
        if not any(exits.values()):
            return 0
        if forwarded and exits[0] == -forwarded[0]:
            return 128 + forwarded[0]
        return _explain(exits, Path(directory))


def _wait(context: "PContext") -> dict[int, int | None]:
    """The exit codes of all processes in the order in which they ended: −n for signal n, None for one that did not end.

    After one failed, the others have a moment to end by themselves; then they are killed.
    """
    exits: dict[int, int | None] = {}
    patience = float("inf")
    pids = context.pids()
    while len(exits) < len(pids):
        for rank, pid in pids.items():
            # Without reaping, which is torch's: it would wait half a minute for processes that are stopped.
            ended = None if rank in exits else os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is not None:
                exits[rank] = ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        if any(exits.values()):
            patience = min(patience, time.monotonic() + GRACE)
        if time.monotonic() > patience:
            for rank in pids.keys() - exits.keys():
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(pids[rank], signal.SIGKILL)
                exits[rank] = None
        time.sleep(POLL)
    return exits


@contextlib.contextmanager
def _forwarding(context: "PContext") -> Iterator[list[int]]:
    """Pass signals on to the processes, which have sessions of their own. → those that came and should end this."""
    came: list[int] = []

    def handler(number: int, _: object) -> None:
        if signal.Signals(number).name != "SIGUSR1":
            came.append(number)
        for pid in context.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    with answered(SIGNALS, handler):
        yield came


def _explain(exits: dict[int, int | None], directory: Path) -> int:
    """The exit code of the process that failed first, once its error was shown. Raises WorkerError if it had none."""
    lost = WorkerError.exit_code                # of those that only noticed
    if exits.get(0) in OWN_ERRORS:
        return int(exits[0] or 0)               # it has the terminal, and said what is wrong
    rank, code = next(((rank, code) for rank, code in exits.items() if code != lost), next(iter(exits.items())))
    if code is None:
        raise WorkerError(f"process {rank} of {len(exits)} does not answer")
    if code in OWN_ERRORS:
        view.error(f"process {rank} of {len(exits)}: {_last_error(directory, rank) or f'exit code {code}'}")
        return code
    if rank == 0 and code == CRASH:
        return lost                             # it has the terminal, and said what happened
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    said = _last_error(directory, rank)
    raise WorkerError(f"process {rank} of {len(exits)} {how}{': ' + said if said else ''}")


def _last_error(directory: Path, rank: int) -> str:
    """The one line in which a process said what was wrong, or in which C++ or Python did when it was aborted."""
    for log in sorted(directory.glob(f"**/{rank}/stderr.log")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        for said in ("error: ", "  what():  ", "terminate called ", "Fatal Python error: "):
            if found := next((line for line in reversed(lines) if line.startswith(said)), ""):
                return view.clean(found.removeprefix("error: ").strip(), limit=500)
    return ""


@contextlib.contextmanager
def answered(names: Sequence[str], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` for the signals of these names, as far as the system has them.

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
def tidied() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the block as Ctrl-C does, so that it removes what it began, and end by them."""
    came: list[int] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        came.append(number)
        raise KeyboardInterrupt                 # no Exception: libraries let it pass

    with answered(("SIGTERM", "SIGHUP"), interrupt):
        try:
            yield
        except KeyboardInterrupt:
            if came:
                raise typer.Exit(128 + came[0]) from None
            raise
