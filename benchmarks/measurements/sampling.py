"""Drawing 8 and 64 pictures: seconds until they are there, at equal steps and as each side comes.

The same network with random weights on both sides: what is drawn is of no use, and costs as much. A pipeline's usual
50 guided steps are the baseline. At equal steps ours is guided at every step as well; by default it takes 20, guided in
the middle only. In features ten steps are nearer to real pictures than those 50: see "How many steps" in results.md,
where a trained model is judged.
"""

import dataclasses
from typing import Any

from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import comparison

BASELINE = "diffusers, DDIM 50"
CASES = (("nano", 32, 8, 5), ("nano", 32, 64, 2), ("micro", 64, 8, 3))    # preset, resolution, pictures, rounds at most


def sides(preset: str, resolution: int, pictures: int) -> dict[str, Side]:
    from benchmarks.contenders.ours import shape

    ours = {"preset": preset, "resolution": resolution, "pictures": pictures, "conditional": True}
    equal = {**ours, "sampler": "ddim", "steps": 50, "everywhere": True}
    theirs = {"shape": shape(preset, resolution, conditional=True), "pictures": pictures}
    return {
        "diffuse-cli": Side("ours:sampling", ours),
        "diffuse-cli, 10 steps": Side("ours:sampling", {**ours, "steps": 10}),
        "diffuse-cli, bf16": Side("ours:sampling", {**ours, "precision": "bf16"}),
        "diffuse-cli, DDIM 50 guided throughout": Side("ours:sampling", equal),
        "the same, bf16": Side("ours:sampling", {**equal, "precision": "bf16"}),
        BASELINE: Side("diffusers_example:sampling", theirs, peer=True),
        f"{BASELINE}, bf16": Side("diffusers_example:sampling", {**theirs, "precision": "bf16"}, peer=True)}


def measure(settings: Settings, report: dict[str, Any]) -> None:
    report["unit"], report["baseline"], report["cases"] = "pictures", BASELINE, []
    for preset, resolution, pictures, most in CASES:
        title = f"{pictures} pictures of {resolution} px, `{preset}`"
        print(title, flush=True)
        how = dataclasses.replace(settings, repetitions=min(most, settings.repetitions))
        found = interleave(sides(preset, resolution, pictures), how, count=1)
        report["cases"].append({"title": title, "sides": found})


def render(report: dict[str, Any]) -> list[str]:
    return comparison(report, rate="pictures per CPU second", latency=True)
