"""The peers, trained for so many CPU seconds on given pictures, and made to draw."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import Contender

BATCH = 16                                      # the default of both


def quality_diffusers(*, data: str, seconds: float, prompts: list[str], output: str, shape: dict[str, Any], lr: float,
                      mixed_precision: str, guidance: float, seed: int) -> Contender:
    """Text-to-image from scratch.

    The example's text encoder comes with knowledge of its own, from other data. Here each word has a fixed random
    vector instead, which tells words apart perfectly. A tenth of the captions is dropped, which the example leaves
    out, since without it there is no guidance.
    """
    import diffusers

    from .diffusers_example import LENGTH, Trainer, draw

    loaded = np.load(data)
    images = as_tensor(loaded["pixels"]) * 2 - 1
    captions = [str(one) for one in loaded["captions"]]
    width, vectors = shape["text"]["width"], {}
    generator = torch.Generator().manual_seed(0)
    for word in ["", *sorted({word for caption in captions + prompts for word in caption.split()})]:
        vectors[word] = torch.randn(width, generator=generator)
    places = torch.randn(LENGTH, width, generator=generator) / 2

    def read(texts: list[str]) -> Tensor:
        rows = [(text.split() + [""] * LENGTH)[:LENGTH] for text in texts]
        return torch.stack([torch.stack([vectors[word] for word in row]) + places for row in rows])

    trainer = Trainer(shape, mixed_precision=mixed_precision, lr=lr, steps=100_000, seed=seed)

    def step(chosen: Tensor) -> None:
        kept = torch.rand(len(chosen)) >= 0.1
        texts = [captions[k] if keep else "" for k, keep in zip(chosen.tolist(), kept.tolist(), strict=True)]
        trainer.step(images[chosen], read(texts))

    def drawn() -> Tensor:
        trainer.ema.copy_to(trainer.network.parameters())
        trainer.network.eval()
        torch.manual_seed(1_000_000)
        solver = diffusers.DDIMScheduler.from_config(trainer.noise_scheduler.config)
        size = images.shape[2]
        return torch.cat([
            draw(trainer.network, solver, torch.randn(len(part), 3, size, size), read([""] * len(part) + part), 50,
                 guidance) for part in split(prompts)])

    return Contender(lambda _: run(step, drawn, len(images), seconds, output, seed), {"lr": lr, "batch": BATCH})


def quality_lucidrains(*, data: str, seconds: float, prompts: list[str], output: str, parameters: int, lr: float,
                       seed: int) -> Contender:
    """Takes no prompts."""
    from .lucidrains import Trainer

    images = as_tensor(np.load(data)["pixels"])
    trainer = Trainer(parameters=parameters, resolution=images.shape[2], lr=lr, sampling_steps=50, seed=seed)
    return Contender(lambda _: run(lambda chosen: trainer.step(images[chosen]),
                                   lambda: torch.cat([trainer.draw(len(part)) for part in split(prompts)]),
                                   len(images), seconds, output, seed),
                     {"lr": lr, "batch": BATCH, "parameters": trainer.parameters})


def run(step: Callable[[Tensor], Any], drawn: Callable[[], Tensor], count: int, seconds: float, output: str,
        seed: int) -> dict[str, float]:
    """Step through shuffled epochs until the time is over, draw, save."""
    generator, begun, steps = torch.Generator().manual_seed(seed), time.process_time(), 0
    while True:
        for chosen in torch.randperm(count, generator=generator).split(BATCH):
            if time.process_time() - begun >= seconds:
                spent, begun = time.process_time() - begun, time.process_time()
                np.save(output, drawn().numpy())
                return {"training": spent, "drawing": time.process_time() - begun, "steps": steps}
            step(chosen)
            steps += 1


def as_tensor(pixels: np.ndarray) -> Tensor:
    """(N, R, R, 3) uint8 → (N, 3, R, R) in [0, 1]."""
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def split(prompts: list[str]) -> list[list[str]]:
    return [prompts[start : start + 32] for start in range(0, len(prompts), 32)]
