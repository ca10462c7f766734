"""Runs the two sides of a measurement in turn, each in its own process: A B A B …, one working while the others wait.

Every process has one thread on one and the same core. CPU seconds are what counts on a machine that is shared; wall
seconds stand beside them, and so does the load, before and after.
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

ROOT = Path(__file__).parents[2]
ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "WANDB_MODE": "disabled"}


@dataclass(frozen=True)
class Settings:
    """How to measure. `seconds`: CPU seconds that a repetition should take, about."""

    peers: Path | None                          # the peers' python; None: measure ours alone
    core: int | None = 1
    repetitions: int = 5
    seconds: float = 5.0
    seeds: tuple[int, ...] = (0, 1, 2)
    minutes: float = 5.0                        # CPU minutes of a training whose quality is measured
    data: tuple[str, ...] = ("scenes", "digits")        # that it learns
    work: Path | None = None                    # where what was found of it is kept
    quick: bool = False
    device: str = "cuda"                        # of `gpu`; everything else is measured on the CPU


@dataclass(frozen=True)
class Side:
    """One contender: `function` is "module:function" of contenders, which gets the options."""

    function: str
    options: Mapping[str, Any] = field(default_factory=dict)
    peer: bool = False


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """What is started inside runs on that core."""
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
    """A process for a side, ready; ended at the end."""
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
    """The near end of a worker's line."""

    def __init__(self, process: "subprocess.Popen[str]", side: Side, settings: Settings) -> None:
        self.process = process
        self.ready = self.ask(contender=side.function, options=dict(side.options), core=settings.core)

    def ask(self, **request: Any) -> dict[str, Any]:
        """Raises RuntimeError when the worker has died: what it said is on stderr."""
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
    sides: Mapping[str, Side], settings: Settings, *, count: int | None = None, clock: str = "cpu"
) -> dict[str, Any]:
    """Measure all sides in turn. `count` units a repetition; None: so many that they take `settings.seconds` of a clock
    ("cpu" or "wall").

    A side that cannot be made ready, or dies, is left out. → name → facts, repetitions, memory
    """
    found: dict[str, Any] = {}
    workers: dict[str, Worker] = {}

    def leave_out(name: str, error: RuntimeError) -> None:
        print(f"  {name}: left out, {error}", file=sys.stderr, flush=True)
        workers.pop(name, None)
        found.pop(name, None)

    def asked(name: str, **request: Any) -> dict[str, Any] | None:
        try:
            return workers[name].ask(**request)
        except RuntimeError as error:
            return leave_out(name, error)

    with contextlib.ExitStack() as stack:
        for name, side in sides.items():
            if side.peer and settings.peers is None:
                continue
            try:
                workers[name] = stack.enter_context(worker(side, settings))
            except RuntimeError as error:
                leave_out(name, error)
                continue
            found[name] = {"options": dict(side.options), **workers[name].ready, "repetitions": []}
        counts = {}
        for name in list(workers):
            if count is not None:
                counts[name] = count
            elif (warm := asked(name, count=2)) and (one := asked(name, count=1)):
                found[name]["warm_up"] = warm["wall"]
                counts[name] = max(1, round(settings.seconds / max(one[clock], 1e-6)))
        for _ in range(settings.repetitions):
            for name in list(workers):
                if one := asked(name, count=counts[name]):
                    found[name]["repetitions"].append(one)
        for name in list(workers):
            if last := asked(name, end=True):
                found[name] |= last
                print(f"  {name}: {summary(found[name])}", file=sys.stderr, flush=True)
    return found


def summary(found: Mapping[str, Any]) -> str:
    costs = ", ".join(f"{one['cpu'] / one['count']:.3f}" for one in found["repetitions"])
    return f"CPU s a unit {costs}; peak {found['peak'] / 2**20:.0f} MiB"


def machine() -> dict[str, Any]:
    """What the figures depend on."""
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
    """A report to fill: when, where, how, and how busy the machine was."""
    report: dict[str, Any] = {
        "benchmark": name, "date": time.strftime("%Y-%m-%d %H:%M"), "machine": machine(), "quick": settings.quick,
        "repetitions": settings.repetitions, "seeds": list(settings.seeds), "load_before": list(os.getloadavg()),
        "processes": "one thread each, on one core, one after the other"}
    begun = time.monotonic()
    yield report
    report["load_after"], report["wall_seconds"] = list(os.getloadavg()), time.monotonic() - begun
