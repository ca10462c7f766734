"""One contender of a measurement, in a process of its own: it works when it is asked to, and answers with the cost.

Requests and answers are lines of JSON. The first request names a function of `benchmarks.contenders` and its options;
the function makes a `Contender` ready. Each further {"count": n} makes the contender do n units of work, and the
answer has the wall seconds and the CPU seconds of this process. {"end": true} asks for its peak memory.

This module imports only the standard library: the environment of the peers has no diffuse-cli, and that of diffuse-cli
need not have the peers.
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
            "k-diffusion", "pillow")            # whose versions a report has


def memory(entry: str) -> int:
    """Resident bytes of this process. entry: VmRSS (now) or VmHWM (peak; unlike ru_maxrss, not the parent's as well).
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) * 1024
    return 0


def seconds() -> float:
    """CPU seconds of this process and of its children that have ended."""
    spent = os.times()
    return time.process_time() + spent.children_user + spent.children_system


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages among PACKAGES."""
    installed = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until one asks to end."""
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
            answer(peak=memory("VmHWM"))
            return
        begun, cpu = time.perf_counter(), seconds()
        result = contender.work(request["count"])
        answer(wall=time.perf_counter() - begun, cpu=seconds() - cpu, count=request["count"], result=result)


if __name__ == "__main__":
    channel = os.fdopen(os.dup(1), "w")         # answers only: what libraries print goes to stderr
    os.dup2(2, 1)
    serve(sys.stdin, channel)
