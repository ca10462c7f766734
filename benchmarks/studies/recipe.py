"""Is the recipe right? Each question trains the same network in several ways, several seeds of each, and judges all.

What is compared is what users get: pictures drawn at default settings, seen by `judges`. Everything is kept in the
directory `--work`, and trainings go on where they were interrupted. The questions:

    seed      the recipe of Improved DDPM against the default
    variance  ancestral sampling in few steps: the learned variance interpolated in logarithms, or between the bounds
    trunk     the bound's gradient in the whole network, or in the variance's own rows
    levels    the same compute spent at the high levels, or at the low ones
    few       300 pictures: the smallest network that stops where it is best, or a larger one
    rate      learning rates for the smallest network
    optimizer Muon for the matrices, or AdamW for everything

    python -m benchmarks.studies.recipe seed trunk --steps 1800 --seeds 0 1 2 --resolution 16
"""

import argparse
import contextlib
import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor

from benchmarks.judging.judges import Judge, judge_of, said, wanted
from diffuse_cli import __version__, train
from diffuse_cli.config import Sampling
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.diffusion.guidance import within_range
from diffuse_cli.diffusion.samplers import ddpm
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.network import presets
from diffuse_cli.pictures import pixels
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.sampling.steps import sampling_times_of
from diffuse_cli.storage import checkpoint, registry

# At 32 px the three shapes of `levels` cost 0.57, 0.55 and 0.57 GFLOP a picture, by presets.flops.
IMPROVED_DDPM = {"schedule": "cosine", "loss_weighting": "simple", "prediction": "epsilon", "variance_grad": "trunk",
                 "times": "discrete", "optimizer": "adam"}
QUESTIONS: dict[str, dict[str, dict[str, Any]]] = {
    "seed": {"default": {}, "improved-ddpm": IMPROVED_DDPM},
    "trunk": {"head": {}, "trunk": {"variance_grad": "trunk"}},
    "levels": {"default": {}, "high": {"levels": {3: (48, 32, 32)}}, "low": {"levels": {3: (16, 48, 96)}}},
    "optimizer": {"muon": {}, "adamw": {"optimizer": "adamw"}},
    "few": {"nano": {"pictures": 300}, "small": {"pictures": 300, "preset": "small"}},
    "rate": {"4e-3": {}, "8e-3": {"lr": 8e-3}, "2e-3": {"lr": 2e-3}, "1e-3": {"lr": 1e-3}},
}
STEPS_OF_VARIANCE = (10, 25, 50)


def trained(name: str, how: dict[str, Any], options: argparse.Namespace, seed: int) -> Path:
    """The model of one variant, trained now or before."""
    how = {"preset": "nano", "pictures": options.pictures, **how}
    count, levels = how.pop("pictures"), how.pop("levels", {})
    folder = options.work / f"scenes-{count}"
    if not folder.exists():
        list(scenes.write_demo(folder, count=count, resolution=options.resolution, seed=0))
    path = registry.models_directory() / f"{name}-{seed}" / registry.MODEL_FILE
    with _shaped(levels):
        for event in train(folder, name=f"{name}-{seed}", resolution=options.resolution, steps=options.steps,
                           seed=seed, **how):
            if type(event).__name__ == "Validated":
                print(f"  {name}-{seed}: step {event.step}, held-out noise loss {event.noise_mse:.4f}", flush=True)
    return path


@contextlib.contextmanager
def _shaped(levels: dict[int, tuple[int, ...]]) -> Iterator[None]:
    """The smallest network with other widths of its levels."""
    row = presets.LEVELS["nano"]
    changed = {count: dataclasses.replace(row[count], widths=widths) for count, widths in levels.items()}
    with mock.patch.dict(row, changed):
        yield


def drawn(model: checkpoint.Model, prompts: list[str]) -> np.ndarray:
    sampling = Sampling(batch_size=32)
    wanted = [SampleRequest(prompt=prompt, seed=k, sampling=sampling) for k, prompt in enumerate(prompts)]
    return np.stack([one.pixels for one in generate.generate(model, wanted)])


def drawn_by_ancestors(model: checkpoint.Model, prompts: list[str], steps: int, rule: str) -> np.ndarray:
    """One picture of each prompt by `ddpm`, with the learned variance interpolated by the rule."""
    network, made = model.config.network, []
    schedule, sampling = make_schedule(model.config.schedule, network.resolution), Sampling(sampler="ddpm", steps=steps)
    for start in range(0, len(prompts), 32):
        part = prompts[start : start + 32]
        keys = range(start, start + len(part))

        def noise(step: int, seeds: range = keys) -> Tensor:
            found = torch.tensor([randomness.key(seed, "sample", step) for seed in seeds])
            return randomness.normal(found, (network.channels, network.resolution, network.resolution))

        text, null = generate.encode_prompts(model, part)
        denoise = within_range(generate.guided_denoiser(
            model.network, model.config, schedule, text=text, null=null, sampling=sampling))
        *_, last = ddpm(denoise, noise(-1), sampling_times_of(model.config, sampling), schedule, fresh_noise=noise,
                        variance_rule=rule)
        made.append(pixels.to_pixels(last.noisy))
    return np.concatenate(made)


def answer(question: str, judge: Judge, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every variant and seed of a question, judged."""
    found, asked = [], wanted("scenes", options.count)
    if question == "variance":
        for seed in options.seeds:
            model = checkpoint.load_model(trained("default", {}, options, seed), torch.device("cpu"))
            found += [said(f"{rule}, {steps} steps, seed {seed}", {
                "variant": f"{rule}, {steps} steps", "seed": seed,
                **judge.ask(dataclasses.replace(
                    asked, pixels=drawn_by_ancestors(model, asked.captions, steps, rule)))})
                for steps in STEPS_OF_VARIANCE for rule in ("log", "linear")]
        return found
    for variant, how in QUESTIONS[question].items():
        name = "default" if not how else f"{question}-{variant}"
        for seed in options.seeds:
            model = checkpoint.load_model(trained(name, how, options, seed), torch.device("cpu"))
            found.append(said(f"{variant}, seed {seed}", {
                "variant": variant, "seed": seed, "noise_mse": model.training["noise_mse"],
                **judge.ask(dataclasses.replace(asked, pixels=drawn(model, asked.captions)))}))
    return found


def summary(found: list[dict[str, Any]]) -> str:
    """A table in Markdown: mean and range over the seeds."""
    columns = ("features", "pixels", "object", "colour")
    rows = [f"| variant | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for variant in dict.fromkeys(one["variant"] for one in found):
        cells = []
        for column in columns:
            values = [one[column] for one in found if one["variant"] == variant]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        rows.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="+", choices=[*QUESTIONS, "variance"])
    parser.add_argument("--work", type=Path, default=Path("recipe-work"))
    parser.add_argument("--steps", type=int, default=1_800)
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=6_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--quick", action="store_true", help="a judge that learnt less")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    options.work = options.work.absolute()
    (options.work / "home").mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["DIFFUSE_HOME"] = str(options.work / "home")
    judge, floor = judge_of("scenes", options.count, quick=options.quick, resolution=options.resolution,
                            kept=options.work / f"classifier-{options.resolution}.safetensors")
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__,
        "machine": platform.machine(), "steps": options.steps, "resolution": options.resolution,
        "pictures": options.pictures, "count": options.count, "real": said("real scenes", floor), "answers": {}}
    for question in options.questions:
        report["answers"][question] = answer(question, judge, options)
        print(f"\n{question}\n\n{summary(report['answers'][question])}\n", flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
