"""Time that `--help` and `diffuse models ls` take: wall seconds, and CPU seconds of all processes of a command.

For comparison: a Typer program of two empty commands, `import torch`, and the help of the peers' commands.
"""

import os
import resource
import subprocess
import sys
import time
from typing import Any

from benchmarks.harness.figures import format_spread
from benchmarks.harness.harness import Settings, pinned
from benchmarks.harness.tables import table
from benchmarks.harness.worker import versions

EMPTY = """
import typer
app = typer.Typer(rich_markup_mode="rich")
@app.command()
def train(steps: int = typer.Option(1, help="Steps.")): pass
@app.command()
def sample(steps: int = typer.Option(1, help="Steps.")): pass
app()
"""
COMMANDS = (["--help"], ["train", "--help"], ["sample", "--help"], ["models", "--help"], ["data", "--help"],
            ["noise-demo", "--help"], ["models", "ls"])
PEERS = {"accelerate --help": ["accelerate", "--help"], "diffusers-cli --help": ["diffusers-cli", "--help"]}


def programs(settings: Settings) -> dict[str, list[str]]:
    """Name → command line."""
    commands = {f"diffuse {' '.join(arguments)}": [sys.executable, "-m", "diffuse_cli", *arguments]
                for arguments in (COMMANDS[:3] if settings.quick else COMMANDS)}
    commands["an empty Typer program, --help"] = [sys.executable, "-c", EMPTY, "--help"]
    commands["an empty Typer program, train --help"] = [sys.executable, "-c", EMPTY, "train", "--help"]
    commands["import torch"] = [sys.executable, "-c", "import torch"]
    if settings.peers is not None:
        for name, (program, *arguments) in PEERS.items():
            if (settings.peers.parent / program).exists():
                commands[name] = [str(settings.peers.parent / program), *arguments]
    return commands


def cost(command: list[str]) -> dict[str, float]:
    """Wall and CPU seconds of a command, with all processes that it starts."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": time.perf_counter() - begun, "count": 1,
            "cpu": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def measure(settings: Settings, report: dict[str, Any]) -> None:
    commands = programs(settings)
    sides: dict[str, Any] = {name: {"repetitions": [], "versions": versions()} for name in commands}
    with pinned(settings.core):
        for repetition in range(-1, settings.repetitions):             # the first warms the file cache
            for name, command in commands.items():
                result = cost(command)
                if repetition >= 0:
                    sides[name]["repetitions"].append(result)
    report["seeds"], report["cases"] = [], [{"title": "help", "sides": sides}]


def render(report: dict[str, Any]) -> list[str]:
    (case,) = report["cases"]
    return table(["", "CPU s", "wall s"], [
        [f"`{name}`", *(format_spread([one[clock] for one in side["repetitions"]]) for clock in ("cpu", "wall"))]
        for name, side in case["sides"].items()])
