"""Seconds to generate 8 and 64 pictures, with equal steps and with the defaults of each contender.

Both sides have the same network with random weights: the pictures show nothing, but cost as much. The baseline is the
usual way of a pipeline, 50 guided steps. With equal steps, diffuse-cli is guided at every step as well; its default is
20 steps, of which only the middle ones are guided. In a classifier's features, pictures of ten such steps are nearer to
real ones than those of the 50: see "How many steps" in results.md, where a trained model is judged. A student draws in
four or two evaluations; what its pictures are worth is in results.md, too. In onnxruntime it draws as the script of an
ONNX folder does, without PyTorch.
"""

import dataclasses
from typing import Any

from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import comparison

BASELINE = "diffusers, DDIM 50"
CASES = (                                       # preset, resolution in pixels, pictures, repetitions at most
    ("nano", 32, 8, 5), ("nano", 32, 64, 2), ("nano", 64, 8, 3), ("micro", 64, 8, 3))


def sides(preset: str, resolution: int, pictures: int) -> dict[str, Side]:
    from benchmarks.contenders.ours import shape  # imports torch: only to measure

    ours = {"preset": preset, "resolution": resolution, "pictures": pictures, "conditional": True}
    equal = {**ours, "sampler": "ddim", "steps": 50, "everywhere": True}
    exported = {"preset": preset, "resolution": resolution, "pictures": pictures, "evaluations": 4}
    theirs = {"shape": shape(preset, resolution, conditional=True), "pictures": pictures}
    return {
        "diffuse-cli": Side("ours:sampling", ours),
        "diffuse-cli, 10 steps": Side("ours:sampling", {**ours, "steps": 10}),
        "diffuse-cli, bf16": Side("ours:sampling", {**ours, "precision": "bf16"}),
        "diffuse-cli, a student of four": Side("ours:sampling", {**ours, "evaluations": 4}),
        "the same, bf16": Side("ours:sampling", {**ours, "evaluations": 4, "precision": "bf16"}),
        "a student of four in onnxruntime": Side("exported:sampling", exported),
        "a student of two": Side("ours:sampling", {**ours, "evaluations": 2}),
        "diffuse-cli, DDIM 50 guided throughout": Side("ours:sampling", equal),
        "DDIM 50 guided throughout, bf16": Side("ours:sampling", {**equal, "precision": "bf16"}),
        BASELINE: Side("diffusers_example:sampling", theirs, peer=True),
        f"{BASELINE}, bf16": Side("diffusers_example:sampling", {**theirs, "precision": "bf16"}, peer=True)}


def measure(settings: Settings, report: dict[str, Any]) -> None:
    report["unit"], report["baseline"], report["cases"] = "pictures", BASELINE, []
    for preset, resolution, pictures, repetitions in CASES:
        title = f"{pictures} pictures of {resolution} px, `{preset}`"
        print(title, flush=True)
        fewer = dataclasses.replace(settings, repetitions=min(repetitions, settings.repetitions))
        results = interleave(sides(preset, resolution, pictures), fewer, count=1)
        report["cases"].append({"title": title, "sides": results})


def render(report: dict[str, Any]) -> list[str]:
    return comparison(report, rate="pictures per CPU second", latency=True)
