"""Runs the contenders of a measurement in turn, each in its own process: A B A B …, one works while the others wait.

Every process has one thread, and all share one core. CPU seconds count, because the machine may be shared with other
work; wall seconds and the machine's load before and after are recorded beside them.
"""

import contextlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]                # of the repository
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled"}


@dataclass(frozen=True)
class Settings:
    """How to measure."""

    peers: Path | None                          # the Python of the peers' environment; None: diffuse-cli alone
    core: int | None = 1                        # the one core that all processes run on; None: any core
    repetitions: int = 5
    seconds: float = 5.0                        # approximate CPU seconds of one repetition
    seeds: tuple[int, ...] = (0, 1, 2)          # of the trainings of `quality`
    minutes: float = 5.0                        # CPU minutes of each training of `quality`
    data: tuple[str, ...] = ("scenes", "digits")        # data sets of `quality`
    work: Path | None = None                    # directory that keeps the results of `quality`; None: a temporary one
    quick: bool = False                         # fewer cases


@dataclass(frozen=True)
class Side:
    """One contender of a measurement."""

    function: str                               # "module:function" of benchmarks/contenders, which gets the options
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: bool = False                          # whether it runs in the peers' environment


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes that are started inside run on that core; None: on any."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def worker(side: Side, settings: Settings) -> Iterator["Worker"]:
    """A process whose contender is ready to work; it ends with the context. Raises RuntimeError as `Worker.ask` does.
    """
    python = str(settings.peers) if side.peer else sys.executable
    environment = {**os.environ, **OFFLINE, **dict.fromkeys(ONE_THREAD, "1")}
    process = subprocess.Popen([python, "-m", "benchmarks.harness.worker"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, env=environment, cwd=ROOT, text=True)
    try:
        yield Worker(process, side, settings)
    finally:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):                     # it may have died with a request unread
            process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Worker:
    """This process's end of the line to a worker; `worker.py` is the other end."""

    def __init__(self, process: "subprocess.Popen[str]", side: Side, settings: Settings) -> None:
        self.process = process
        self.ready = self.ask(contender=side.function, options=dict(side.options), core=settings.core)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request. → the worker's answer. Raises RuntimeError if the worker died; stderr then has the reason."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RuntimeError(f"a worker ended with {self.process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def interleave(
    sides: Mapping[str, Side], settings: Settings, *, count: int | None = None,
) -> dict[str, Any]:
    """Measure all sides in turn. → name → facts, repetitions, peak memory

    count: units of work in a repetition; None: as many as take about `settings.seconds` of CPU time. A side that
    cannot be made ready, or that dies at work, is left out.
    """
    results: dict[str, Any] = {}
    workers: dict[str, Worker] = {}

    def leave_out(name: str, error: RuntimeError) -> None:
        print(f"  {name}: left out, {error}", file=sys.stderr, flush=True)
        workers.pop(name, None)
        results.pop(name, None)

    def ask(name: str, **request: Any) -> dict[str, Any] | None:
        try:
            return workers[name].ask(**request)
        except RuntimeError as error:
            leave_out(name, error)
            return None

    with contextlib.ExitStack() as stack:
        # Start a worker for each side.
        for name, side in sides.items():
            if side.peer and settings.peers is None:
                continue
            try:
                workers[name] = stack.enter_context(worker(side, settings))
            except RuntimeError as error:
                leave_out(name, error)
                continue
            results[name] = {"options": dict(side.options), **workers[name].ready, "repetitions": []}

        # Choose how many units a repetition has, from one unit after a warm-up.
        counts = {}
        for name in list(workers):
            if count is not None:
                counts[name] = count
            elif ask(name, count=2) and (unit := ask(name, count=1)):
                counts[name] = max(1, round(settings.seconds / max(unit["cpu"], 1e-6)))

        # Measure in turn.
        for _ in range(settings.repetitions):
            for name in list(workers):
                if repetition := ask(name, count=counts[name]):
                    results[name]["repetitions"].append(repetition)

        # End the workers, and read how much memory they used.
        for name in list(workers):
            if memory := ask(name, end=True):
                results[name] |= memory
                print(f"  {name}: {summary(results[name])}", file=sys.stderr, flush=True)
    return results


def summary(result: Mapping[str, Any]) -> str:
    costs = ", ".join(f"{one['cpu'] / one['count']:.3f}" for one in result["repetitions"])
    return f"CPU s a unit {costs}; peak {result['peak'] / 2**20:.0f} MiB"


def machine() -> dict[str, Any]:
    """The properties of this machine that the figures depend on."""
    cpu, flags = platform.processor(), ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
        flags = next((line for line in lines if line.startswith("flags")), "")
    gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": cpu, "cores": os.cpu_count(), "memory_gib": round(gibibytes, 1), "system": platform.system(),
            "bf16_units": [flag for flag in ("avx512_bf16", "amx_bf16") if flag in flags.split()]}


@contextlib.contextmanager
def record(name: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """A report for a measurement to fill, which says when, where and how it ran, and how busy the machine was."""
    report: dict[str, Any] = {
        "benchmark": name, "date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "quick": settings.quick,
        "repetitions": settings.repetitions, "seeds": list(settings.seeds), "load_before": list(os.getloadavg()),
        "processes": "one thread each, on one core, one after the other"}
    begun = time.monotonic()
    yield report
    report["load_after"], report["wall_seconds"] = list(os.getloadavg()), time.monotonic() - begun
