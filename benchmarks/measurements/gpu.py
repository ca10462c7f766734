"""Training and drawing on a GPU: pictures a second, how much of the device is used, memory, and what compiling gains.

Wall seconds, until the device has finished. The rate that utilisation is measured against is that of a large product of
matrices in bfloat16, in the same turns. The same network on both sides, all in bf16; how long the first two steps took
says what compiling costs. When drawing, each side comes as it does: 20 steps, guided in the middle, against 50.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.figures import shown, shown_spread, spread
from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import rates, ratio, table

BASELINE = "diffusers example"
MATRIX = "matrix product"
CASES = (("micro", 32, 512), ("small", 64, 256), ("base", 64, 128))     # preset, resolution, batch
DRAWN = (8, 64)                                                         # pictures


def sides(preset: str, resolution: int, batch: int, device: str) -> dict[str, Side]:
    from benchmarks.contenders.ours import shape

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


def drawing(preset: str, resolution: int, pictures: int, device: str) -> dict[str, Side]:
    from benchmarks.contenders.ours import shape

    common = {"device": device, "pictures": pictures, "precision": "bf16"}
    ours = {**common, "preset": preset, "resolution": resolution, "conditional": True, "batch_size": pictures}
    theirs = {**common, "shape": shape(preset, resolution, conditional=True)}
    return {
        "diffuse-cli": Side("ours:sampling", ours),
        "diffuse-cli, DDIM 50 guided throughout": Side("ours:sampling", {
            **ours, "sampler": "ddim", "steps": 50, "everywhere": True}),
        BASELINE: Side("diffusers_example:sampling", theirs, peer=True)}


def measure(settings: Settings, report: dict[str, Any]) -> None:
    """Raises SystemExit where there is no GPU, unless told to try the script on the CPU."""
    import torch

    device = settings.device
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("gpu: no GPU is visible to torch; `--device cpu` tries the script without one")
    anywhere = dataclasses.replace(settings, core=None)                # the compiler wants every core
    name = torch.cuda.get_device_name() if device == "cuda" else "the CPU"
    report["processes"] = "one process each, one after the other"
    report["device"], report["cases"], report["drawn"] = name, [], []
    for preset, resolution, batch in (("nano", 16, 16),) if settings.quick else CASES:
        title = f"{resolution} px, batches of {batch}, `{preset}`"
        print(title, flush=True)
        report["cases"].append({"title": title, "sides": interleave(
            sides(preset, resolution, batch, device), anywhere, clock="wall")})
        for pictures in DRAWN[:1] if settings.quick else DRAWN:
            report["drawn"].append({
                "title": f"{pictures} pictures of {resolution} px, `{preset}`",
                "sides": interleave(drawing(preset, resolution, pictures, device), anywhere, clock="wall")})


def render(report: dict[str, Any]) -> list[str]:
    lines = [f"On {report['device']}."]
    for case in report["cases"]:
        best = spread([one["count"] / one["wall"] for one in case["sides"][MATRIX]["repetitions"]]).median
        best *= case["sides"][MATRIX]["facts"]["flop"]
        trained = {name: side for name, side in case["sides"].items() if name != MATRIX}
        base = trained.get(BASELINE)
        lines += ["", f"**{case['title']}**; the matrix product ran at {shown(best / 1e12)} TFLOP/s", "", *table(
            ["", "pictures a second", "times the baseline", "utilisation", "first two steps, s", "memory, MiB"],
            [[name, shown_spread(rates(side, "wall")), ratio(side, base, "wall"), _utilisation(side, best),
              shown(side["warm_up"]), _memory(side)] for name, side in trained.items()])]
    for case in report["drawn"]:
        base = case["sides"].get(BASELINE)
        lines += ["", f"**{case['title']}**", "", *table(
            ["", "s", "times the baseline", "memory, MiB"],
            [[name, _latency(side), ratio(side, base, "wall"), _memory(side)] for name, side in case["sides"].items()])]
    return lines


def _latency(side: Mapping[str, Any]) -> str:
    return shown_spread([one["wall"] / one["count"] for one in side["repetitions"]])


def _utilisation(side: Mapping[str, Any], best: float) -> str:
    used = side["facts"]["gflop"] * 1e9 * spread(rates(side, "wall")).median
    return f"{100 * used / best:.0f} %"


def _memory(side: Mapping[str, Any]) -> str:
    return f"{(side['device_peak'] or side['peak']) / 2**20:,.0f}"
