"""The peers: trained for some CPU seconds on given pictures, and then sampled.

`data` is an .npz file of the pixels and captions to train on, `output` the .npy file for the pictures.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import Contender

BATCH = 16                                      # pictures: the default of both


def quality_diffusers(*, data: str, seconds: float, prompts: list[str], output: str, shape: dict[str, Any], lr: float,
                      mixed_precision: str, guidance: float, seed: int) -> Contender:
    """The only unit: train diffusers' text-to-image example from scratch, then write a picture of each prompt.

    The text encoder of the example was trained on other data. Here each word has a fixed random vector instead, which
    tells words apart perfectly. A tenth of the captions is dropped, which the example does not do, because guidance
    does not work without it.
    """
    import diffusers

    from .diffusers_example import LENGTH, Trainer, generate

    loaded = np.load(data)
    images = as_tensor(loaded["pixels"]) * 2 - 1
    captions = [str(one) for one in loaded["captions"]]
    width, vectors = shape["text"]["width"], {}                        # word → its vector
    generator = torch.Generator().manual_seed(0)
    for word in ["", *sorted({word for caption in captions + prompts for word in caption.split()})]:
        vectors[word] = torch.randn(width, generator=generator)
    positions = torch.randn(LENGTH, width, generator=generator) / 2

    def encode(texts: list[str]) -> Tensor:
        """(N, 77, width): the vectors of the words plus those of their positions."""
        rows = [(text.split() + [""] * LENGTH)[:LENGTH] for text in texts]
        return torch.stack([torch.stack([vectors[word] for word in row]) + positions for row in rows])

    trainer = Trainer(shape, mixed_precision=mixed_precision, lr=lr, steps=100_000, seed=seed)

    def step(chosen: Tensor) -> None:
        kept = torch.rand(len(chosen)) >= 0.1
        texts = [captions[k] if keep else "" for k, keep in zip(chosen.tolist(), kept.tolist(), strict=True)]
        trainer.step(images[chosen], encode(texts))

    def sample() -> Tensor:
        trainer.ema.copy_to(trainer.network.parameters())
        trainer.network.eval()
        torch.manual_seed(1_000_000)
        solver = diffusers.DDIMScheduler.from_config(trainer.noise_scheduler.config)
        size = images.shape[2]
        return torch.cat([
            generate(trainer.network, solver, torch.randn(len(part), 3, size, size),
                     encode([""] * len(part) + part), 50, guidance) for part in split(prompts)])

    return Contender(lambda _: run(step, sample, len(images), seconds, output, seed), {"lr": lr, "batch": BATCH})


def quality_lucidrains(*, data: str, seconds: float, prompts: list[str], output: str, parameters: int, lr: float,
                       seed: int) -> Contender:
    """The only unit: train denoising-diffusion-pytorch, then write as many pictures as prompts, which it ignores."""
    from .lucidrains import Trainer

    images = as_tensor(np.load(data)["pixels"])
    trainer = Trainer(parameters=parameters, resolution=images.shape[2], lr=lr, sampling_steps=50, seed=seed)
    return Contender(lambda _: run(lambda chosen: trainer.step(images[chosen]),
                                   lambda: torch.cat([trainer.generate(len(part)) for part in split(prompts)]),
                                   len(images), seconds, output, seed),
                     {"lr": lr, "batch": BATCH, "parameters": trainer.parameters})


def run(step: Callable[[Tensor], Any], sample: Callable[[], Tensor], count: int, seconds: float, output: str,
        seed: int) -> dict[str, float]:
    """Train on `count` pictures in shuffled epochs until the CPU seconds are over, then sample, and save the pictures.

    step: gets the indices of a batch.
    """
    generator, begun, steps = torch.Generator().manual_seed(seed), time.process_time(), 0
    while True:
        for chosen in torch.randperm(count, generator=generator).split(BATCH):
            if time.process_time() - begun >= seconds:
                spent, begun = time.process_time() - begun, time.process_time()
                np.save(output, sample().numpy())
                return {"training": spent, "drawing": time.process_time() - begun, "steps": steps}
            step(chosen)
            steps += 1


def as_tensor(pixels: np.ndarray) -> Tensor:
    """(N, R, R, 3) uint8 → (N, 3, R, R) in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def split(prompts: list[str]) -> list[list[str]]:
    """Batches of up to 32 prompts."""
    return [prompts[start : start + 32] for start in range(0, len(prompts), 32)]
