"""How the cost of a training step, and of a generated picture, grows with each size: exponents p of cost ∝ sizeᵖ.

The exponents are fitted to the medians by least squares of the logarithms. With p = 0 a larger size costs nothing;
with p = 1 the cost is in proportion. At small sizes p is below 1, because some of the work does not depend on the size.
Also, a preset has a different network at each resolution, with as little work as possible on large maps. The row of
processes is from short trainings through the command line, with one thread for each process. It alone is in wall
seconds, and so depends on other work on the machine.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from benchmarks.harness.figures import exponent, format_number, spread
from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import table
from benchmarks.studies import scaling

matplotlib.use("Agg")
# The options of a step and of a sampling; each case changes one of them.
STEP = {"preset": "nano", "resolution": 32, "batch": 16, "conditional": True}
SAMPLE = {"preset": "nano", "resolution": 32, "pictures": 8, "conditional": True, "steps": 5}
PIECE = 100_000                                 # number of pictures written at a time


def axes(work: Path, *, quick: bool) -> dict[str, dict[float, Side]]:
    """Title of a case → size, as on its x axis → the contender of that size."""
    resolutions = (16, 32, 64) if quick else (16, 32, 64, 128, 256)
    presets = ("nano", "micro", "small")
    pictures = (1_000, 10_000, 100_000, 1_000_000)
    return {
        "step, pixels": {size**2: _step(resolution=size) for size in resolutions},
        "step, parameters": {_parameters(preset): _step(preset=preset) for preset in presets},
        "step, batch": {size: _step(batch=size) for size in (4, 16, 64)},
        "step, pictures in the data set": {
            count: _step(resolution=16, pictures=count, memory_map=_memory_map(work, count, 16))
            for count in pictures},
        "picture, pixels": {size**2: Side("ours:sampling", {**SAMPLE, "resolution": size}) for size in resolutions},
        "picture, parameters": {_parameters(preset): Side("ours:sampling", {**SAMPLE, "preset": preset})
                                for preset in presets},
        "picture, steps": {steps: Side("ours:sampling", {**SAMPLE, "steps": steps}) for steps in (5, 10, 20)}}


def _step(**changes: Any) -> Side:
    return Side("ours:training", {**STEP, **changes})


def _parameters(preset: str) -> int:
    from benchmarks.contenders.ours import shape  # imports torch: only to measure
    from diffuse_cli.checks import from_dict
    from diffuse_cli.model_config import NetworkConfig
    from diffuse_cli.network.network import parameter_count

    return parameter_count(from_dict(NetworkConfig, shape(preset, 32, conditional=True)))


def _memory_map(work: Path, count: int, resolution: int) -> str:
    """Write a file of `count` pictures as the cache does, with random bytes; the largest has 768 MB. → its path"""
    path = work / f"{count}.u8"
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, count, PIECE):
            file.write(random.bytes(min(PIECE, count - start) * resolution**2 * 3))
    return str(path)


def measure(settings: Settings, report: dict[str, Any]) -> None:
    report["cases"] = []
    with tempfile.TemporaryDirectory() as work:
        for title, sizes in axes(Path(work), quick=settings.quick).items():
            print(title, flush=True)
            results = interleave({str(size): side for size, side in sizes.items()}, settings,
                                 count=1 if title.startswith("picture") else 3 if settings.quick else None)
            report["cases"].append({"title": title, "sides": results})
        report["processes_apart"] = processes(Path(work), seconds=15 if settings.quick else 60)


def processes(work: Path, *, seconds: int) -> dict[str, float]:
    """Pictures per wall second of short trainings with 1 process, with 2, and with as many as there are cores."""
    home, folder = work / "home", work / "scenes"
    home.mkdir(mode=0o700)
    scaling.diffuse(["data", "demo", str(folder), "-n", "300", "--resolution", "32"], home)
    return {str(count): scaling.measure(folder, home, preset="nano", procs=count, resolution=32, batch_size=32,
                                        seconds=seconds, gpu=False, threads=1)["images_per_second"]
            for count in sorted({1, 2, os.cpu_count() or 1})}


def costs(case: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """→ the sizes of a case, and the median CPU seconds of a step, or of a picture, at each"""
    sizes, seconds = [], []
    for size, side in case["sides"].items():
        pictures = 1 if case["title"].startswith("step") else side["facts"]["pictures"]
        sizes.append(float(size))
        seconds.append(spread([one["cpu"] / one["count"] / pictures for one in side["repetitions"]]).median)
    return sizes, seconds


def render(report: dict[str, Any]) -> list[str]:
    rows = []
    for case in report["cases"]:
        sizes, seconds = costs(case)
        power, residual = exponent(sizes, seconds)
        rows.append([case["title"], " · ".join(f"{size:,.0f}" for size in sizes),
                     " · ".join(format_number(one) for one in seconds), f"**{power:.2f}**", f"{residual:.2f}"])
    rates = {int(count): rate for count, rate in report["processes_apart"].items()}
    if len(rates) > 1:
        power, residual = exponent(list(rates), list(rates.values()))
        rows.append(["pictures a wall second, processes", " · ".join(map(str, rates)),
                     " · ".join(format_number(rate) for rate in rates.values()), f"**{power:.2f}**", f"{residual:.2f}"])
    return table(["cost of, against", "sizes", "CPU s", "exponent", "residual"], rows)


def plot(report: dict[str, Any], path: Path) -> None:
    """Relative cost against relative size, both logarithmic; on the dotted line the cost is in proportion."""
    from matplotlib import pyplot as plt

    figure, subplots = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, kind in zip(subplots, ("step", "picture"), strict=True):
        for case in report["cases"]:
            if case["title"].startswith(kind):
                sizes, seconds = costs(case)
                axis.loglog([size / sizes[0] for size in sizes], [one / seconds[0] for one in seconds], "o-",
                            label=case["title"].partition(", ")[2])
        axis.loglog([1, 64], [1, 64], ":", color="grey")
        axis.set(title=f"Cost of a {kind}", xlabel="size, times the smallest", ylabel="CPU seconds, times the smallest")
        axis.legend()
    figure.savefig(path, dpi=80)
    plt.close(figure)
