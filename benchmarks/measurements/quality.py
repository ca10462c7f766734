"""What a training of so many CPU seconds is worth: how far drawn pictures are from real ones, and whether prompts are
obeyed, as a classifier sees it that was trained on other pictures of the same kind.

Fréchet distances in the classifier's features and in the pixels' principal components, beside those of real pictures
from real ones, and their ratio to those of the tuned diffusers example at the full budget, with the same seed. Tuned
for whom: ours runs its defaults. diffusers runs its text-to-image example from scratch on the same network: at its
default learning rate in float32, and at 1e-3 in bf16, which is to its benefit; both draw with 50 DDIM steps and our
guidance of 3. denoising-diffusion-pytorch has a network as large, its defaults, no prompts, and 50 DDIM steps. Every
budget is a run of its own. Where no range is shown there was one seed.
"""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.figures import ratios, shown, shown_spread
from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import table

TRAIN_SEED = 0                                  # of the scenes; the judge knows others
PICTURES = 4_000
OURS, BASELINE = "diffuse-cli", "diffusers example, 1e-3, bf16"
EXAMPLE, LUCIDRAINS = "diffusers example", "denoising-diffusion-pytorch"
FULL = 1.0
TRAININGS = (                                   # share of the budget, of whom, with every seed or the first
    (0.2, OURS, True), (FULL, OURS, True), (FULL, BASELINE, True),
    (FULL, EXAMPLE, False), (FULL, LUCIDRAINS, False), (3.0, BASELINE, False))


def sides(data: str, work: Path, *, seconds: float, prompts: list[str], resolution: int, seed: int) -> dict[str, Side]:
    from benchmarks.contenders.ours import shape
    from diffuse_cli.checks import from_dict
    from diffuse_cli.config import NetworkConfig
    from diffuse_cli.network.network import parameter_count

    network = shape("nano", resolution, conditional=True)
    common = {"data": str(work / f"{data}.npz"), "seconds": seconds, "prompts": prompts, "seed": seed}
    example = {**common, "shape": network, "guidance": 3.0}
    theirs = "peer_learners:quality_diffusers"
    return {
        OURS: Side("learners:quality", {**common, "preset": "nano", "output": str(work / "0.npy")}),
        EXAMPLE: Side(theirs, {
            **example, "lr": 1e-4, "mixed_precision": "no", "output": str(work / "1.npy")}, peer=True),
        BASELINE: Side(theirs, {
            **example, "lr": 1e-3, "mixed_precision": "bf16", "output": str(work / "2.npy")}, peer=True),
        LUCIDRAINS: Side("peer_learners:quality_lucidrains", {
            **common, "lr": 1e-4, "parameters": parameter_count(from_dict(NetworkConfig, network)),
            "output": str(work / "3.npy")}, peer=True)}


def measure(settings: Settings, report: dict[str, Any]) -> None:
    from benchmarks.judging import judges

    count = 96 if settings.quick else 512
    report.update(repetitions=1, cases=[], drawn=count, minutes=settings.minutes)
    for data in settings.data[:1] if settings.quick else settings.data:
        with _place(settings.work) as work:
            judge, floor = judges.judge_of(data, count, quick=settings.quick,
                                           kept=work / f"{data}-judge.safetensors")
            print(f"{data}: real pictures {floor}", flush=True)
            known = judges.digits_of(1) if data == "digits" else judges.scenes_of(TRAIN_SEED, PICTURES)
            np.savez(work / f"{data}.npz", pixels=known.pixels, captions=np.array(known.captions))
            asked = judges.wanted(data, count)
            for share, name, seed in _trainings(settings):
                seconds = 60 * settings.minutes * share
                written = work / f"{data}-{seconds:.0f}-{seed}-{name.replace(' ', '_')}.json"
                if not written.exists():
                    side = sides(data, work, seconds=seconds, prompts=asked.captions, seed=seed,
                                 resolution=int(known.pixels.shape[1]))[name]
                    found = interleave({name: side}, dataclasses.replace(settings, repetitions=1), count=1)
                    for one in found.values():
                        del one["options"]["prompts"]
                        drawn = dataclasses.replace(asked, pixels=np.load(one["options"].pop("output")))
                        one["judged"] = judge.ask(drawn)
                    written.write_text(json.dumps(found))
                found = json.loads(written.read_text())
                for one in found.values():
                    print(f"  {seconds:.0f} s, seed {seed}, {name}: {one['judged']}", flush=True)
                report["cases"].append({"title": data, "seconds": seconds, "seed": seed, "floor": floor,
                                        "sides": found})


@contextlib.contextmanager
def _place(work: Path | None) -> Iterator[Path]:
    """Where pictures go, and what was found: what is there already is not measured again."""
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with tempfile.TemporaryDirectory() as place:
        yield Path(place)


def _trainings(settings: Settings) -> list[tuple[float, str, int]]:
    """Share of the budget, side, seed; what is repeated comes first."""
    chosen = [one for one in TRAININGS if one[0] == FULL or not settings.quick]
    return [(share, name, seed) for seed in settings.seeds for share, name, every in chosen if every] + [
        (share, name, settings.seeds[0]) for share, name, every in chosen if not every]


def render(report: dict[str, Any]) -> list[str]:
    lines = [f"{report['drawn']} pictures drawn by each."]
    for data in dict.fromkeys(case["title"] for case in report["cases"]):
        cases = [case for case in report["cases"] if case["title"] == data]
        found: dict[tuple[float, str], dict[int, dict[str, float]]] = {}
        for case in cases:
            for name, side in case["sides"].items():
                found.setdefault((case["seconds"], name), {})[case["seed"]] = side["judged"]
        base = found.get((60 * report["minutes"] * FULL, BASELINE), {})
        rows = [["–", "real pictures", *_judged({0: cases[0]["floor"]}, {}, prompts=True)]]
        rows += [[f"{seconds:,.0f}", name, *_judged(judged, base, prompts=name != LUCIDRAINS)]
                 for (seconds, name), judged in sorted(found.items(), key=lambda one: one[0][0])]
        lines += ["", f"**{data}**", "", *table(
            ["CPU s", "", "Fréchet, features", "of the baseline", "Fréchet, pixels", "of the baseline", "colour",
             "object", "confidence"], rows)]
    return lines


def _judged(judged: dict[int, dict[str, float]], base: dict[int, dict[str, float]], *, prompts: bool) -> list[str]:
    """Cells of a row, from what was judged with each seed."""
    cells = []
    for key in ("features", "pixels"):
        cells.append(shown_spread([one[key] for one in judged.values()]))
        both = judged.keys() & base.keys()
        of_base = ratios([judged[seed][key] for seed in both], [base[seed][key] for seed in both]) if both else None
        cells.append("–" if of_base is None or judged == base else f"**{shown(of_base.median)}**")
    shares = ["–"] * 3 if not prompts else [
        f"{shown(100 * sum(one[key] for one in judged.values()) / len(judged))} %"
        for key in ("colour", "object", "confidence")]
    return [*cells, *shares]
