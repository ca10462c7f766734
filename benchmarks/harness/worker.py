"""One side of a measurement, in a process and an environment of its own: it waits, does what it is told, says the cost.

A line of JSON comes in, a line of JSON goes out. The first names a function of `contenders` and its options, which
makes a `Contender` ready. Every further {"count": n} makes it work and reports wall seconds and CPU seconds of this
process; {"end": true} reports the most memory that it ever had. Knows only the standard library: the peers'
environment has no diffuse-cli, ours need not have the peers.
"""

import importlib
import importlib.metadata
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any, TextIO

PACKAGES = ("diffuse-cli", "torch", "numpy", "diffusers", "accelerate", "datasets", "denoising-diffusion-pytorch",
            "k-diffusion", "pillow")


def memory(entry: str) -> int:
    """Bytes of this process: VmRSS now, VmHWM at most (unlike ru_maxrss, not inherited from the parent)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) * 1024
    return 0


def device_memory() -> int:
    """Bytes of a GPU's memory that this process had allocated at most; 0 without one."""
    torch = sys.modules.get("torch")
    return int(torch.cuda.max_memory_allocated()) if torch is not None and torch.cuda.is_available() else 0


def seconds() -> float:
    """CPU seconds of this process and of those that it started and has seen end."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def versions() -> dict[str, str]:
    """What is installed here of what is compared."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer until the end."""
    def answer(**message: Any) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    first = json.loads(requests.readline())
    if first["core"] is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {first["core"]})
    module, _, function = first["contender"].partition(":")
    begun, cpu = time.perf_counter(), seconds()
    contender = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), function)(**first["options"])
    answer(facts=contender.facts, versions=versions(), resting=memory("VmRSS"),
           wall=time.perf_counter() - begun, cpu=seconds() - cpu)
    for line in requests:
        request = json.loads(line)
        if request.get("end"):
            answer(peak=memory("VmHWM"), device_peak=device_memory())
            return
        begun, cpu = time.perf_counter(), seconds()
        result = contender.work(request["count"])
        answer(wall=time.perf_counter() - begun, cpu=seconds() - cpu, count=request["count"], result=result)


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w")                 # what libraries print must not be taken for an answer
    os.dup2(2, 1)
    serve(sys.stdin, channel)
