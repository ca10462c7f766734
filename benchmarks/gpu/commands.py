"""`sample`, `evaluate` and `export` of the model that comes with the program, on the device and on the CPU.

A rehearsal takes the one that it trained before, because that is smaller.
"""

import json
from typing import Any

from benchmarks.gpu import Settings, Units
from benchmarks.gpu.diffuse import run


def units(settings: Settings) -> Units:
    sides = dict.fromkeys((settings.device, "cpu"))
    model = "scenes" if settings.tiny else "demo"
    return [*((f"evaluate --quick, {device}", lambda device=device: evaluate(model, device)) for device in sides),
            (f"sample, {settings.device}", lambda: ended(
                "sample", "a red car", "-n", 2 if settings.tiny else 8, "-m", model, "-o", settings.out / "cars",
                "--device", settings.device)),
            ("export", lambda: ended(
                "export", model, "--to", "safetensors", "-o", settings.out / "exported.safetensors"))]


def evaluate(model: str, device: str) -> dict[str, Any]:
    facts, output = run("evaluate", model, "--quick", "--device", device, "--json")
    found = json.loads(output.splitlines()[-1]) if output else {}
    return {"passed": facts["exit code"] == 0, **facts, "noise_mse": found.get("noise_mse"),
            "bits_per_dim": found.get("bits_per_dim")}


def ended(*arguments: object) -> dict[str, Any]:
    facts, _ = run(*arguments)
    return {"passed": facts["exit code"] == 0, **facts}
