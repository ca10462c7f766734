"""Ours, trained for so many CPU seconds on given pictures, then made to draw: as `diffuse train --time` does it."""

import dataclasses
import time

import numpy as np
import torch

from diffuse_cli.config import Recipe, Sampling
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint

from . import Contender
from .ours import dataset_of, make_trainer

SPEED = 0.15                                    # share of the budget in which the speed is found out, at most


def quality(*, data: str, seconds: float, prompts: list[str], output: str, preset: str, seed: int) -> Contender:
    """Its only unit: train, then draw one picture of each prompt into `output`. `data`: .npz of pixels and captions."""
    loaded = np.load(data)
    pixels, captions = loaded["pixels"], tuple((str(one),) for one in loaded["captions"])
    dataset = dataset_of(pixels, conditional=True, captions=captions)
    recipe = Recipe(resolution=int(pixels.shape[1]), preset=preset, seed=seed, images=50_000)

    def work(_: int) -> dict[str, float]:
        begun = time.process_time()
        trial = make_trainer(dataset, recipe)
        steps = 0
        while steps < 5 or (steps < 20 and time.process_time() - begun < SPEED / 3 * seconds):
            trial.step()
            steps += 1
            if steps == 2:
                warm = time.process_time()
        cost = (time.process_time() - warm) / (steps - 2) / trial.plan.batch_size
        images = max(trial.plan.batch_size, int((seconds - (time.process_time() - begun)) / cost))
        trainer = make_trainer(dataset, dataclasses.replace(recipe, images=images))
        while trainer.global_step < trainer.plan.steps:
            trainer.step()
        spent = time.process_time() - begun
        begun = time.process_time()
        model = checkpoint.Model(trainer.plan.model, trainer.averaged, trainer.batches.tokenizer, {}, {}, "")
        asked = [SampleRequest(prompt=prompt, count=1, seed=1_000_000 + k, sampling=Sampling(batch_size=16))
                 for k, prompt in enumerate(prompts)]
        np.save(output, np.stack([one.pixels for one in generate.generate(model, asked)]))
        return {"training": spent, "drawing": time.process_time() - begun, "steps": trainer.global_step,
                "batch": trainer.plan.batch_size, "lr": trainer.plan.lr}

    torch.set_num_threads(1)
    return Contender(work, {"preset": preset})
