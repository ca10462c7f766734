"""Training and sampling on a GPU: pictures per second, utilisation of the device, memory, and the gain of compiling.

Times are wall seconds until the device has finished. Utilisation is relative to the rate of a large matrix product in
bfloat16, measured in the same turns. Both sides have the same network, all in bf16. The time of the first two steps
shows the cost of compiling. In sampling each side has its defaults: 20 steps, of which the middle ones are guided,
against 50 guided steps.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.figures import format_number, format_spread, spread
from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import rates, ratio, table

BASELINE = "diffusers example"
MATRIX = "matrix product"
CASES = (("micro", 32, 512), ("small", 64, 256), ("base", 64, 128))     # preset, resolution in pixels, batch size
SAMPLES = (8, 64)                                                       # numbers of pictures to generate


def training_sides(preset: str, resolution: int, batch: int, device: str) -> dict[str, Side]:
    from benchmarks.contenders.ours import shape  # imports torch: only to measure

    common = {"device": device, "batch": batch}
    ours = {**common, "preset": preset, "resolution": resolution, "conditional": True, "precision": "bf16"}
    theirs = {**common, "shape": shape(preset, resolution, conditional=True), "mixed_precision": "bf16"}
    function = "diffusers_example:training"
    return {
        "diffuse-cli": Side("ours:training", ours),
        "diffuse-cli, AdamW": Side("ours:training", {**ours, "optimizer": "adamw"}),
        "diffuse-cli, compiled": Side("ours:training", {**ours, "compiled": True}),
        BASELINE: Side(function, theirs, peer=True),
        f"{BASELINE}, compiled": Side(function, {**theirs, "compiled": True}, peer=True),
        MATRIX: Side("matrix:product", {"device": device, "size": 8192 if device == "cuda" else 1024})}


def sampling_sides(preset: str, resolution: int, pictures: int, device: str) -> dict[str, Side]:
    from benchmarks.contenders.ours import shape  # imports torch: only to measure

    common = {"device": device, "pictures": pictures, "precision": "bf16"}
    ours = {**common, "preset": preset, "resolution": resolution, "conditional": True, "batch_size": pictures}
    theirs = {**common, "shape": shape(preset, resolution, conditional=True)}
    return {
        "diffuse-cli": Side("ours:sampling", ours),
        "diffuse-cli, DDIM 50 guided throughout": Side("ours:sampling", {
            **ours, "sampler": "ddim", "steps": 50, "everywhere": True}),
        BASELINE: Side("diffusers_example:sampling", theirs, peer=True)}


def measure(settings: Settings, report: dict[str, Any]) -> None:
    """Raises SystemExit where there is no GPU, unless `settings.device` is the CPU."""
    import torch

    device = settings.device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu: no GPU is visible to torch; `--device cpu` tries the script without one")
    unpinned = dataclasses.replace(settings, core=None)                # the compiler uses every core
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    report["processes"] = "one process each, one after the other"
    report["device"], report["cases"], report["drawn"] = name, [], []
    for preset, resolution, batch in (("nano", 16, 16),) if settings.quick else CASES:
        title = f"{resolution} px, batches of {batch}, `{preset}`"
        print(title, flush=True)
        report["cases"].append({"title": title, "sides": interleave(
            training_sides(preset, resolution, batch, device), unpinned, clock="wall")})
        for pictures in SAMPLES[:1] if settings.quick else SAMPLES:
            report["drawn"].append({
                "title": f"{pictures} pictures of {resolution} px, `{preset}`",
                "sides": interleave(sampling_sides(preset, resolution, pictures, device), unpinned, clock="wall")})


def render(report: dict[str, Any]) -> list[str]:
    lines = [f"On {report['device']}."]
    for case in report["cases"]:
        best = spread([one["count"] / one["wall"] for one in case["sides"][MATRIX]["repetitions"]]).median
        best *= case["sides"][MATRIX]["facts"]["flop"]
        trained = {name: side for name, side in case["sides"].items() if name != MATRIX}
        base, tflops = trained.get(BASELINE), format_number(best / 1e12)
        lines += ["", f"**{case['title']}**; the matrix product ran at {tflops} TFLOP/s", "", *table(
            ["", "pictures a second", "times the baseline", "utilisation", "first two steps, s", "memory, MiB"],
            [[name, format_spread(rates(side, "wall")), ratio(side, base, "wall"), _utilisation(side, best),
              format_number(side["warm_up"]), _memory(side)] for name, side in trained.items()])]
    for case in report["drawn"]:
        base = case["sides"].get(BASELINE)
        lines += ["", f"**{case['title']}**", "", *table(
            ["", "s", "times the baseline", "memory, MiB"],
            [[name, _latency(side), ratio(side, base, "wall"), _memory(side)] for name, side in case["sides"].items()])]
    return lines


def _latency(side: Mapping[str, Any]) -> str:
    return format_spread([one["wall"] / one["count"] for one in side["repetitions"]])


def _utilisation(side: Mapping[str, Any], best: float) -> str:
    """best: FLOP/s of the matrix product."""
    used = side["facts"]["gflop"] * 1e9 * spread(rates(side, "wall")).median
    return f"{100 * used / best:.0f} %"


def _memory(side: Mapping[str, Any]) -> str:
    return f"{(side['device_peak'] or side['peak']) / 2**20:,.0f}"
