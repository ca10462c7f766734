"""The quality that a training reaches in a given number of CPU seconds: how far its pictures are from real ones, and
whether they show what the prompts ask for. The judge is a classifier trained on other pictures of the same kind.

The tables have Fréchet distances in the classifier's features and in the principal components of the pixels, the same
distances between two sets of real pictures, and ratios to the baseline with the same seed. The baseline is the tuned
diffusers example at the full budget. Only diffusers is tuned; diffuse-cli runs with its defaults. diffusers runs its
text-to-image example from scratch on the same network: at its default learning rate in float32, and, tuned, at 1e-3 in
bf16, which is better for it. Both sample with 50 DDIM steps and diffuse-cli's guidance of 3.
denoising-diffusion-pytorch has a network as large, its defaults, no prompts, and 50 DDIM steps. Every budget is a run
of its own. A row without ranges is from one seed.
"""

import contextlib
import dataclasses
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.figures import format_number, format_spread, ratios
from benchmarks.harness.harness import Settings, Side, interleave
from benchmarks.harness.tables import table

TRAIN_SEED = 0                                  # of the scenes to train on; the judge's scenes have other seeds
PICTURES = 4_000                                # scenes to train on
OURS, BASELINE = "diffuse-cli", "diffusers example, 1e-3, bf16"
EXAMPLE, LUCIDRAINS = "diffusers example", "denoising-diffusion-pytorch"
FULL = 1.0
TRAININGS = (                                   # share of the budget, contender, with every seed or only the first
    (0.2, OURS, True), (FULL, OURS, True), (FULL, BASELINE, True),
    (FULL, EXAMPLE, False), (FULL, LUCIDRAINS, False), (3.0, BASELINE, False))


def sides(data: str, work: Path, *, seconds: float, prompts: list[str], resolution: int, seed: int) -> dict[str, Side]:
    """The contenders; each writes its pictures to a file in `work`, where {data}.npz has the pictures to train on."""
    from benchmarks.contenders.ours import shape  # imports torch: only to measure
    from diffuse_cli.checks import from_dict
    from diffuse_cli.model_config import NetworkConfig
    from diffuse_cli.network.network import parameter_count

    network = shape("nano", resolution, conditional=True)
    common = {"data": str(work / f"{data}.npz"), "seconds": seconds, "prompts": prompts, "seed": seed}
    example = {**common, "shape": network, "guidance": 3.0}
    theirs = "quality_peers:quality_diffusers"
    return {
        OURS: Side("quality_ours:quality", {**common, "preset": "nano", "output": str(work / "0.npy")}),
        EXAMPLE: Side(theirs, {
            **example, "lr": 1e-4, "mixed_precision": "no", "output": str(work / "1.npy")}, peer=True),
        BASELINE: Side(theirs, {
            **example, "lr": 1e-3, "mixed_precision": "bf16", "output": str(work / "2.npy")}, peer=True),
        LUCIDRAINS: Side("quality_peers:quality_lucidrains", {
            **common, "lr": 1e-4, "parameters": parameter_count(from_dict(NetworkConfig, network)),
            "output": str(work / "3.npy")}, peer=True)}


def measure(settings: Settings, report: dict[str, Any]) -> None:
    from benchmarks.judging import judges  # imports torch: only to measure

    count = 96 if settings.quick else 512
    report.update(repetitions=1, cases=[], drawn=count, minutes=settings.minutes)
    for data in settings.data[:1] if settings.quick else settings.data:
        with _directory(settings.work) as work:
            # The judge, the pictures to train on, and the prompts.
            judge, floor = judges.make_judge(data, count, quick=settings.quick,
                                             file=work / f"{data}-judge.safetensors")
            print(f"{data}: real pictures {floor}", flush=True)
            known = judges.labelled_digits(1) if data == "digits" else judges.labelled_scenes(TRAIN_SEED, PICTURES)
            np.savez(work / f"{data}.npz", pixels=known.pixels, captions=np.array(known.captions))
            prompts = judges.labelled_prompts(data, count)

            # Train each contender and score its pictures, unless a file already has the result.
            for share, name, seed in _trainings(settings):
                seconds = 60 * settings.minutes * share
                file = work / f"{data}-{seconds:.0f}-{seed}-{name.replace(' ', '_')}.json"
                if not file.exists():
                    side = sides(data, work, seconds=seconds, prompts=prompts.captions, seed=seed,
                                 resolution=int(known.pixels.shape[1]))[name]
                    results = interleave({name: side}, dataclasses.replace(settings, repetitions=1), count=1)
                    for result in results.values():
                        del result["options"]["prompts"]
                        images = np.load(result["options"].pop("output"))
                        result["judged"] = judge.score(dataclasses.replace(prompts, pixels=images))
                    file.write_text(json.dumps(results))
                results = json.loads(file.read_text())
                for result in results.values():
                    print(f"  {seconds:.0f} s, seed {seed}, {name}: {result['judged']}", flush=True)
                report["cases"].append({"title": data, "seconds": seconds, "seed": seed, "floor": floor,
                                        "sides": results})


@contextlib.contextmanager
def _directory(work: Path | None) -> Iterator[Path]:
    """The directory for pictures and results; None: a temporary one."""
    if work is not None:
        work.mkdir(parents=True, exist_ok=True)
        yield work
        return
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory)


def _trainings(settings: Settings) -> list[tuple[float, str, int]]:
    """(share of the budget, contender, seed) in the order of training: first those that have every seed."""
    chosen = [one for one in TRAININGS if one[0] == FULL or not settings.quick]
    return [(share, name, seed) for seed in settings.seeds for share, name, every in chosen if every] + [
        (share, name, settings.seeds[0]) for share, name, every in chosen if not every]


def render(report: dict[str, Any]) -> list[str]:
    lines = [f"Each contender generated {report['drawn']} pictures."]
    for data in dict.fromkeys(case["title"] for case in report["cases"]):
        cases = [case for case in report["cases"] if case["title"] == data]
        scores: dict[tuple[float, str], dict[int, dict[str, float]]] = {}        # (seconds, contender) → seed → score
        for case in cases:
            for name, side in case["sides"].items():
                scores.setdefault((case["seconds"], name), {})[case["seed"]] = side["judged"]
        base = scores.get((60 * report["minutes"] * FULL, BASELINE), {})
        rows = [["–", "real pictures", *_cells({0: cases[0]["floor"]}, {}, prompts=True)]]
        rows += [[f"{seconds:,.0f}", name, *_cells(by_seed, base, prompts=name != LUCIDRAINS)]
                 for (seconds, name), by_seed in sorted(scores.items(), key=lambda item: item[0][0])]
        lines += ["", f"**{data}**", "", *table(
            ["CPU s", "", "Fréchet, features", "of the baseline", "Fréchet, pixels", "of the baseline", "colour",
             "object", "confidence"], rows)]
    return lines


def _cells(scores: dict[int, dict[str, float]], base: dict[int, dict[str, float]], *, prompts: bool) -> list[str]:
    """The figures of a row. scores: seed → score; base: those of the baseline; prompts: whether it was given any."""
    cells = []
    for key in ("features", "pixels"):
        cells.append(format_spread([score[key] for score in scores.values()]))
        seeds = scores.keys() & base.keys()
        ratio = ratios([scores[seed][key] for seed in seeds], [base[seed][key] for seed in seeds]) if seeds else None
        cells.append("–" if ratio is None or scores == base else f"**{format_number(ratio.median)}**")
    shares = ["–"] * 3 if not prompts else [
        f"{format_number(100 * sum(score[key] for score in scores.values()) / len(scores))} %"
        for key in ("colour", "object", "confidence")]
    return [*cells, *shares]
