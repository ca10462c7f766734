"""Is the recipe right? For each question, a network is trained in several ways, each with several seeds.

A judge scores pictures sampled at default settings, because that is how users see a model. The directory `--work` keeps
everything, and an interrupted training resumes. The questions:

    seed      the recipe of Improved DDPM against the default
    variance  ancestral sampling in few steps: the learned variance interpolated in logarithms, or between the bounds
    trunk     the gradient of the variational bound in the whole network, or in the output rows of the variance alone
    levels    the same compute spent at the levels of large maps, or at those of small maps
    few       300 pictures: the smallest network, stopped where it is best, or a larger one
    rate      learning rates for the smallest network
    optimizer Muon for the matrices, or AdamW for everything

    python -m benchmarks.studies.recipe seed trunk --steps 1800 --seeds 0 1 2 --resolution 16
"""

import argparse
import contextlib
import dataclasses
import itertools
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

from benchmarks.judging.judges import Judge, labelled_prompts, make_judge, print_result
from diffuse_cli import __version__, train
from diffuse_cli.config import Sampling
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.diffusion.guidance import within_range
from diffuse_cli.diffusion.samplers import ddpm
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.events import Validated
from diffuse_cli.network import presets
from diffuse_cli.pictures import pixels
from diffuse_cli.pictures.channels import opaque
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.guided import guided_denoiser
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.sampling.steps import sampling_times_of
from diffuse_cli.storage import checkpoint, home_directory, registry

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
STEPS_OF_VARIANCE = (10, 25, 50)                # sampling steps of the question "variance"


def train_variant(name: str, changes: dict[str, Any], options: argparse.Namespace, seed: int) -> Path:
    """Train the model of one variant unless that is done. → its file

    changes: arguments of `diffuse_cli.train` that differ from the default, and "pictures" and "levels".
    """
    arguments = {"preset": "nano", "pictures": options.pictures, **changes}
    count, levels = arguments.pop("pictures"), arguments.pop("levels", {})
    folder = options.work / f"scenes-{count}"
    if not folder.exists():
        list(scenes.write_demo_folder(folder, count=count, resolution=options.resolution, seed=0))
    path = home_directory.models_directory() / f"{name}-{seed}" / registry.MODEL_FILE
    with _level_widths(levels):
        for event in train(folder, name=f"{name}-{seed}", resolution=options.resolution, steps=options.steps,
                           seed=seed, init="none", **arguments):
            if isinstance(event, Validated):
                print(f"  {name}-{seed}: step {event.step}, held-out noise loss {event.noise_mse:.4f}", flush=True)
    return path


@contextlib.contextmanager
def _level_widths(levels: dict[int, tuple[int, ...]]) -> Iterator[None]:
    """Give the smallest network other widths. levels: number of levels → width of each, from large maps to small."""
    row = presets.LEVELS["nano"]
    changed = {count: dataclasses.replace(row[count], widths=widths) for count, widths in levels.items()}
    with mock.patch.dict(row, changed):
        yield


def generate_pictures(model: checkpoint.Model, prompts: list[str]) -> np.ndarray:
    """One picture of each prompt at default settings, picture k with seed k, (N, R, R, 3) uint8."""
    sampling = Sampling.of(model.config, batch_size=32)
    requests = [SampleRequest(prompt=prompt, seed=k, sampling=sampling) for k, prompt in enumerate(prompts)]
    return opaque(np.stack([sample.pixels for sample in generate.generate(model, requests)]))


def generate_by_ddpm(model: checkpoint.Model, prompts: list[str], steps: int, rule: str) -> np.ndarray:
    """The same by ancestral sampling. rule: how `samplers.ddpm` interpolates the learned variance."""
    network, batches = model.config.network, []
    schedule = make_schedule(model.config.schedule, network.schedule_side)
    sampling = Sampling(sampler="ddpm", steps=steps)
    for start in range(0, len(prompts), 32):
        part = prompts[start : start + 32]
        seeds = range(start, start + len(part))

        def noise(step: int, seeds: range = seeds) -> Tensor:
            keys = torch.tensor([randomness.key(seed, "sample", step) for seed in seeds])
            return randomness.normal(keys, network.shape)

        text, null = generate.encode_prompts(model, part)
        denoise = within_range(guided_denoiser(
            model.network, model.config, schedule, text=text, negative=null, sampling=sampling))
        *_, last = ddpm(denoise, noise(-1), sampling_times_of(model.config, sampling), schedule, fresh_noise=noise,
                        variance_rule=rule)
        batches.append(pixels.to_pixels(last.noisy))
    return np.concatenate(batches)


def answer(question: str, judge: Judge, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The scores of every variant and seed of a question."""
    if question == "variance":
        return answer_variance(judge, options)
    results, prompts = [], labelled_prompts("scenes", options.count)
    for variant, changes in QUESTIONS[question].items():
        name = "default" if not changes else f"{question}-{variant}"
        for seed in options.seeds:
            model = checkpoint.load_model(train_variant(name, changes, options, seed), torch.device("cpu"))
            images = generate_pictures(model, prompts.captions)
            results.append(print_result(f"{variant}, seed {seed}", {
                "variant": variant, "seed": seed, "noise_mse": model.training.noise_mse,
                **judge.score(dataclasses.replace(prompts, pixels=images))}))
    return results


def answer_variance(judge: Judge, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The scores of every rule, number of steps and seed, with the models of the default recipe."""
    results, prompts = [], labelled_prompts("scenes", options.count)
    for seed in options.seeds:
        model = checkpoint.load_model(train_variant("default", {}, options, seed), torch.device("cpu"))
        for steps, rule in itertools.product(STEPS_OF_VARIANCE, ("log", "linear")):
            images = generate_by_ddpm(model, prompts.captions, steps, rule)
            results.append(print_result(f"{rule}, {steps} steps, seed {seed}", {
                "variant": f"{rule}, {steps} steps", "seed": seed,
                **judge.score(dataclasses.replace(prompts, pixels=images))}))
    return results


def summary(results: list[dict[str, Any]]) -> str:
    """A Markdown table: mean and range over the seeds of each variant."""
    columns = ("features", "pixels", "object", "colour")
    rows = [f"| variant | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    for variant in dict.fromkeys(one["variant"] for one in results):
        cells = []
        for column in columns:
            values = [one[column] for one in results if one["variant"] == variant]
            cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})")
        rows.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("questions", nargs="+", choices=[*QUESTIONS, "variance"])
    parser.add_argument("--work", type=Path, default=Path("recipe-work"), help="directory that keeps everything")
    parser.add_argument("--steps", type=int, default=1_800, help="steps of each training")
    parser.add_argument("--resolution", type=int, default=32)
    parser.add_argument("--pictures", type=int, default=6_000, help="scenes to train on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of the trainings")
    parser.add_argument("--count", type=int, default=512, help="pictures of each model that the judge scores")
    parser.add_argument("--quick", action="store_true", help="train the judge on fewer scenes")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    options.work = options.work.absolute()
    (options.work / "home").mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ["DIFFUSE_HOME"] = str(options.work / "home")
    judge, floor = make_judge("scenes", options.count, quick=options.quick, resolution=options.resolution,
                              file=options.work / f"classifier-{options.resolution}.safetensors")
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__,
        "machine": platform.machine(), "steps": options.steps, "resolution": options.resolution,
        "pictures": options.pictures, "count": options.count, "real": print_result("real scenes", floor), "answers": {}}
    for question in options.questions:
        report["answers"][question] = answer(question, judge, options)
        print(f"\n{question}\n\n{summary(report['answers'][question])}\n", flush=True)
        if options.json:
            options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
