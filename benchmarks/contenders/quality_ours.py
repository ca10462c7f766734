"""diffuse-cli: trained for some CPU seconds on given pictures, as by `diffuse train --time`, and then sampled."""

import dataclasses
import time

import numpy as np
import torch

from diffuse_cli.config import Recipe, Sampling
from diffuse_cli.picture_size import Size
from diffuse_cli.pictures.channels import opaque
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint

from . import Contender
from .ours import dataset_of, make_trainer

MIN_TRIAL_STEPS, MAX_TRIAL_STEPS = 5, 20        # number of steps that measure the speed
WARM_UP_STEPS = 2                               # the first of them, whose time does not count
TRIAL_SHARE = 0.05                              # share of the budget after which steps beyond the minimum stop


def quality(*, data: str, seconds: float, prompts: list[str], output: str, preset: str, seed: int) -> Contender:
    """The only unit: train, then write a picture of each prompt to the .npy file `output`, (N, R, R, 3) uint8.

    data: .npz file of the pixels and captions to train on. seconds: CPU seconds of the training.
    """
    loaded = np.load(data)
    pixels, captions = loaded["pixels"], tuple((str(one),) for one in loaded["captions"])
    dataset = dataset_of(pixels, conditional=True, captions=captions)
    recipe = Recipe(resolution=Size.of(int(pixels.shape[1])), preset=preset, seed=seed, images=50_000)

    def work(_: int) -> dict[str, float]:
        # Measure the CPU seconds of a picture, and choose the budget that fits.
        begun = time.process_time()
        trial = make_trainer(dataset, recipe)
        steps = 0
        while steps < MIN_TRIAL_STEPS or (
                steps < MAX_TRIAL_STEPS and time.process_time() - begun < TRIAL_SHARE * seconds):
            trial.step()
            steps += 1
            if steps == WARM_UP_STEPS:
                warm = time.process_time()
        cost = (time.process_time() - warm) / (steps - WARM_UP_STEPS) / trial.plan.batch_size
        images = max(trial.plan.batch_size, int((seconds - (time.process_time() - begun)) / cost))

        # Train.
        trainer = make_trainer(dataset, dataclasses.replace(recipe, images=images))
        while trainer.global_step < trainer.plan.steps:
            trainer.step()
        spent = time.process_time() - begun

        # Sample.
        begun = time.process_time()
        model = checkpoint.Model(trainer.plan.model, trainer.averaged, trainer.batches.tokenizer)
        requests = [SampleRequest(prompt=prompt, count=1, seed=1_000_000 + k, sampling=Sampling(batch_size=16))
                    for k, prompt in enumerate(prompts)]
        np.save(output, opaque(np.stack([sample.pixels for sample in generate.generate(model, requests)])))
        return {"training": spent, "drawing": time.process_time() - begun, "steps": trainer.global_step,
                "batch": trainer.plan.batch_size, "lr": trainer.plan.lr}

    torch.set_num_threads(1)
    return Contender(work, {"preset": preset})
