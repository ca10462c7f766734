"""From prompts to pictures: text encoder → guided denoiser → sampler → pixels.

Picture k of a prompt under seed S has seed S + k, and its noise is a function of that seed and the step alone: the
same picture whatever else is drawn with it. Knows no files.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import randomness
from .checkpoint import Model
from .config import ModelConfig, Sampling
from .diffusion.guidance import classifier_free
from .diffusion.samplers import Denoised, Denoiser, Step, run_sampler, sampling_times
from .diffusion.schedule import Schedule, make_schedule
from .distributed import World
from .errors import OutOfMemoryError
from .network.model import Network
from .network.text import encode
from .objective import denoise
from .pictures import to_pixels


@dataclass(frozen=True)
class Drawn:
    """One finished picture."""

    prompt: str
    index: int                                  # among the pictures of its prompt
    seed: int
    pixels: np.ndarray                          # (H, W, 3) uint8
    seconds: float                              # its share of the time


def draw(
    model: Model, prompts: Sequence[str], *, count: int, seed: int, sampling: Sampling, world: World | None = None,
) -> Iterator[Drawn]:
    """`count` pictures of each prompt, prompt by prompt, as they are finished. Unconditional models ignore prompts.

    The prompts are encoded once. Every batch has the same size, filled up with pictures that are thrown away: kernels
    may round differently at another batch size, and a picture must not depend on its company. In a world, its
    processes draw a batch each, and the main one yields all pictures, the others none. Raises OutOfMemoryError.
    """
    world = world or World()
    text, null = encode_prompts(model, prompts)
    wanted = [(number, k) for number in range(len(prompts)) for k in range(count)]
    size = sampling.batch_size
    batches = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    for turn in range(0, len(batches), world.size):
        begun = time.monotonic()
        # Who finds no batch draws the last one too: a process that waits too long would be given up.
        padded = (batches[min(turn + world.place.rank, len(batches) - 1)] * size)[:size]
        chosen = None if text is None else text[[number for number, _ in padded]]
        seeds = [seed + k for _, k in padded]
        try:
            for step in denoise_steps(
                    model.network, model.config, text=chosen, null=null, seeds=seeds, sampling=sampling):
                image = step.noisy
        except torch.OutOfMemoryError as error:
            raise OutOfMemoryError(f"{size} pictures at once do not fit into the device's memory",
                                   hint="Choose a smaller --batch-size") from error
        drawn = world.gathered(torch.from_numpy(to_pixels(image)))
        here = batches[turn : turn + world.size]
        seconds = (time.monotonic() - begun) / sum(map(len, here))
        for batch, pixels in zip(here, drawn, strict=False):
            for (number, k), picture in zip(batch, pixels.numpy(), strict=False):
                yield Drawn(prompts[number], k, seed + k, picture, seconds)


@torch.no_grad()
def encode_prompts(model: Model, prompts: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
    """(features of each prompt (M, 77, width), features of the empty caption (1, 77, width)); None if unconditional."""
    if model.tokenizer is None:
        return None, None
    device = next(model.network.parameters()).device
    features = model.network.encode(encode(model.tokenizer, [*prompts, ""]).to(device))
    return features[:-1], features[-1:]


def denoise_steps(
    network: Network, config: ModelConfig, *, text: Tensor | None, null: Tensor | None, seeds: Sequence[int],
    sampling: Sampling,
) -> Iterator[Step]:
    """Reverse diffusion of one batch: the state after every step, ending with the pictures in `noisy`.

    text: (N, 77, width) and null: (1, 77, width), or None when unconditional; seeds: N.
    """
    resolution = config.network.resolution
    schedule = make_schedule(config.schedule, resolution)
    denoise = guided_denoiser(network, config, schedule, text=text, null=null, sampling=sampling)
    device = next(network.parameters()).device
    shape = (config.network.channels, resolution, resolution)

    def noise(step: int) -> Tensor:
        keys = torch.tensor([randomness.key(seed, "sample", step) for seed in seeds], device=device)
        return randomness.normal(keys, shape)

    times = sampling_times(schedule, sampling.number_of_steps, resolution)
    yield from run_sampler(sampling.sampler, denoise, noise(-1), times, schedule, fresh_noise=noise)


def guided_denoiser(
    network: Network, config: ModelConfig, schedule: Schedule, *, text: Tensor | None, null: Tensor | None,
    sampling: Sampling,
) -> Denoiser:
    """The network as `denoise(noisy, t)`; with text, guided against the empty caption, both halves in one pass."""

    def answer(noisy: Tensor, t: float, features: Tensor | None) -> Denoised:
        return denoise(network, noisy, torch.full((len(noisy),), t, dtype=torch.float64), features, config=config,
                       schedule=schedule, precision=sampling.precision)

    if text is None or null is None:
        return lambda noisy, t: answer(noisy, t, None)
    doubled = torch.cat([text, null.expand_as(text)])

    def both(noisy: Tensor, t: float) -> tuple[Denoised, Denoised]:
        images, fractions, _ = answer(torch.cat([noisy, noisy]), t, doubled)
        count = len(noisy)
        fraction, null_fraction = (None, None) if fractions is None else (fractions[:count], fractions[count:])
        return Denoised(images[:count], fraction), Denoised(images[count:], null_fraction)

    return classifier_free(
        lambda noisy, t: answer(noisy, t, text), both, schedule=schedule, scale=sampling.guidance,
        interval=sampling.interval_at(config.network.resolution))
