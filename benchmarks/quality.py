"""What a training of so many CPU seconds is worth: how far drawn pictures are from real ones, and whether prompts are
obeyed, as a classifier sees it that was trained on other pictures of the same kind.

Fréchet distances in the classifier's features and in the pixels' principal components, beside those of real pictures
from real ones. Tuned for whom: ours runs its defaults. diffusers runs its text-to-image example from scratch on the
same network: at its default learning rate in float32, and at 1e-3 in bf16, which is to its benefit; both draw with 50
DDIM steps and our guidance of 3. denoising-diffusion-pytorch has a network as large, its defaults, no prompts, and 50
DDIM steps. Every budget is a run of its own.
"""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from figures import shown, shown_spread
from harness import Settings, Side, interleave
from tables import table

TRAIN_SEED = 0                                  # of the scenes; the judge knows others
SHARES = (0.25, 0.5, 1.0)                       # of the budget
PICTURES = 4_000


def sides(data: str, work: Path, *, seconds: float, prompts: list[str], resolution: int, seed: int) -> dict[str, Side]:
    from contenders.ours import shape

    from diffuse_cli.engine.config import NetworkConfig, from_dict
    from diffuse_cli.engine.network.presets import parameter_count

    network = shape("nano", resolution, conditional=True)
    common = {"data": str(work / f"{data}.npz"), "seconds": seconds, "prompts": prompts, "seed": seed}
    example = {**common, "shape": network, "guidance": 3.0}
    theirs = "peer_learners:quality_diffusers"
    return {
        "diffuse-cli": Side("learners:quality", {**common, "preset": "nano", "output": str(work / "0.npy")}),
        "diffusers example": Side(theirs, {
            **example, "lr": 1e-4, "mixed_precision": "no", "output": str(work / "1.npy")}, peer=True),
        "diffusers example, 1e-3, bf16": Side(theirs, {
            **example, "lr": 1e-3, "mixed_precision": "bf16", "output": str(work / "2.npy")}, peer=True),
        "denoising-diffusion-pytorch": Side("peer_learners:quality_lucidrains", {
            **common, "lr": 1e-4, "parameters": parameter_count(from_dict(NetworkConfig, network)),
            "output": str(work / "3.npy")}, peer=True)}


def measure(settings: Settings, report: dict[str, Any]) -> None:
    import judges

    once = dataclasses.replace(settings, repetitions=1)
    count = 96 if settings.quick else 512
    report["repetitions"], report["cases"], report["drawn"] = 1, [], count
    report["minutes"] = settings.minutes
    for data in ("scenes",) if settings.quick else ("scenes", "digits"):
        judge, floor = judges.judge_of(data, count, quick=settings.quick)
        print(f"{data}: real pictures {floor}", flush=True)
        known = judges.digits_of(1) if data == "digits" else judges.scenes_of(TRAIN_SEED, PICTURES)
        asked = judges.wanted(data, count)
        with tempfile.TemporaryDirectory() as place:
            work = Path(place)
            np.savez(work / f"{data}.npz", pixels=known.pixels, captions=np.array(known.captions))
            for share in SHARES[-1:] if settings.quick else SHARES:
                seconds = 60 * settings.minutes * share
                for seed in settings.seeds:
                    found = interleave(sides(data, work, seconds=seconds, prompts=asked.captions, seed=seed,
                                             resolution=int(known.pixels.shape[1])), once, count=1)
                    for side in found.values():
                        del side["options"]["prompts"]
                        drawn = dataclasses.replace(asked, pixels=np.load(side["options"]["output"]))
                        side["judged"] = judge.ask(drawn)
                        print(f"  {seconds:.0f} s: {side['judged']}", flush=True)
                    report["cases"].append({"title": data, "seconds": seconds, "seed": seed, "floor": floor,
                                            "sides": found})


def render(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['drawn']} pictures drawn by each."]
    for data in dict.fromkeys(case["title"] for case in report["cases"]):
        cases = [case for case in report["cases"] if case["title"] == data]
        floor = cases[0]["floor"]
        rows = [["–", "real pictures", *_judged([floor], prompts=True)]]
        for seconds in dict.fromkeys(case["seconds"] for case in cases):
            now = [case["sides"] for case in cases if case["seconds"] == seconds]
            for name in now[0]:
                rows.append([f"{seconds:,.0f}", name, *_judged(
                    [sides[name]["judged"] for sides in now if name in sides],
                    prompts=not name.startswith("denoising"))])
        lines += ["", f"**{data}**", "", *table(
            ["CPU s", "", "Fréchet, features", "Fréchet, pixels", "colour", "object", "confidence"], rows)]
    return lines


def _judged(judged: list[dict[str, float]], *, prompts: bool) -> list[str]:
    distances = [shown_spread([one[key] for one in judged]) for key in ("features", "pixels")]
    shares = ["–"] * 3 if not prompts else [
        f"{shown(100 * sum(one[key] for one in judged) / len(judged))} %" for key in ("colour", "object", "confidence")]
    return [*distances, *shares]
