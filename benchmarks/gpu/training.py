"""A training as a user begins it: `small` on demo scenes for most of two minutes, beside what a CPU has reached.

The CPU's figures are those of the model that comes with the program: `nano` on the same kind of scenes.
"""

import json
from importlib.resources import files
from typing import Any

from benchmarks.gpu import Settings, Units
from benchmarks.gpu.diffuse import events, run
from benchmarks.gpu.scenes import folder

SECONDS = 80                                    # of the training itself
PICTURES = 3000
CPU_BATCH = 16                                  # of the model that comes with the program


def units(settings: Settings) -> Units:
    return [("scenes", lambda: {"folder": folder(settings, **size(settings)).name}),
            ("diffuse train", lambda: train(settings)),
            ("the CPU's figures", lambda: {"noise_mse by pictures seen": cpu_figures()})]


def size(settings: Settings) -> dict[str, int]:
    return {"resolution": 16, "count": 64} if settings.tiny else {"resolution": 64, "count": PICTURES}


def train(settings: Settings) -> dict[str, Any]:
    pictures = folder(settings, **size(settings))
    budget = ("--steps", 4, "--batch-size", 4, "--preset", "nano") if settings.tiny else (
        "--time", f"{SECONDS}s", "--preset", "small")
    facts, output = run("train", pictures, "--name", "scenes", "--init", "none", "--json", "--preview-every", "50%",
                        "--resolution", size(settings)["resolution"], "--device", settings.device, *budget)
    found = events(output)
    started = next(event for event in found if event["event"] == "started")
    reports = [event for event in found if event["event"] == "stepped"]
    validated = {event["step"] * started["batch_size"]: event["noise_mse"]
                 for event in found if event["event"] == "validated"}
    return {"passed": facts["exit code"] == 0, **facts, "facts": started["facts"], "steps": started["steps"],
            "pictures/s": [round(event["images_per_second"]) for event in reports[-5:]],
            "skipped": reports[-1]["skipped"], "memory": reports[-1]["memory"],
            "noise_mse by pictures seen": validated,
            "noticed": [event["message"] for event in found if event["event"] == "noticed"]}


def cpu_figures() -> dict[int, float]:
    """The validations of the training of `demo`: pictures seen → noise loss."""
    log = files("diffuse_cli") / "models" / "demo.training.jsonl"
    found = [json.loads(line) for line in log.read_text().splitlines()]
    return {event["step"] * CPU_BATCH: event["noise_mse"] for event in found if event["event"] == "validated"}
