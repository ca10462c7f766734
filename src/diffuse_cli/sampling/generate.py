"""From prompts to pictures: text encoder → guided denoiser → sampler → pixels.

Picture k of a prompt under seed S has seed S + k, and its noise is a function of that seed and the step alone: the
same picture whatever else is drawn with it. Knows no files.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..config import ModelConfig, Sampling
from ..denoiser import denoise
from ..diffusion.editing import inpaint, start_from
from ..diffusion.guidance import classifier_free, within_range
from ..diffusion.samplers import Denoised, Denoiser, Step, run_sampler, sampling_times
from ..diffusion.schedule import Schedule, make_schedule
from ..network.network import Network
from ..network.tokenizer import encode
from ..pictures.pixels import from_pixels, to_pixels
from ..runtime import out_of_memory, randomness
from ..runtime.distributed import World
from ..storage.checkpoint import Model
from .request import Start, Wanted

RESAMPLINGS = 5                                 # of every stretch of steps, with a mask: docs/decisions.md


@dataclass(frozen=True)
class Drawn:
    """One finished picture."""

    wanted: Wanted
    index: int                                  # among the pictures of its prompt
    pixels: np.ndarray                          # (H, W, 3) uint8
    seconds: float                              # its share of the time
    frames: np.ndarray | None = None            # (steps, H, 2·W, 3) uint8: noisy state | estimate, if asked for

    @property
    def prompt(self) -> str:
        return self.wanted.prompt

    @property
    def seed(self) -> int:
        return self.wanted.seed + self.index


def draw(
    model: Model, wanted: Sequence[Wanted], *, frames: bool = False, world: World | None = None,
    advance: Callable[[float], None] = lambda done: None,
) -> Iterator[Drawn]:
    """The wanted pictures in their order, as they are finished. Unconditional models ignore prompts.

    Neighbours that are drawn alike share batches. Every batch has the same size, filled up with pictures that are
    thrown away: kernels may round differently at another batch size, and a picture must not depend on its company. In a
    world, its processes draw a batch each, and the main one yields all pictures, the others none. With `frames`, each
    picture also shows how it came about. After every step `advance` is told how many pictures are done, parts included.
    Raises OutOfMemoryError.
    """
    before = 0
    for _, group in itertools.groupby(wanted, _batched_by):
        alike = list(group)
        yield from _draw_alike(model, alike, frames=frames, world=world or World(), advance=_after(advance, before))
        before += sum(one.count for one in alike)


def _batched_by(wanted: Wanted) -> tuple[Sampling, float | None, bool]:
    """What pictures of one batch have in common; prompts, seeds, start pictures and masks may differ."""
    start = wanted.start
    return (wanted.sampling, None, False) if start is None else (
        wanted.sampling, start.strength, start.mask is not None)


def _after(advance: Callable[[float], None], before: float, times: float = 1) -> Callable[[float], None]:
    """The same, of what comes after `before` pictures and counts `times` as much."""
    return lambda done: advance(before + times * done)


def _draw_alike(
    model: Model, wanted: list[Wanted], *, frames: bool, world: World, advance: Callable[[float], None],
) -> Iterator[Drawn]:
    sampling = wanted[0].sampling
    pictures = [(number, k) for number, one in enumerate(wanted) for k in range(one.count)]
    size = sampling.batch_size
    batches = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    for turn in range(0, len(batches), world.size):
        begun, here = time.monotonic(), batches[turn : turn + world.size]
        before, count = turn * size, sum(map(len, here))
        # Who finds no batch draws the last one too: a process that waits too long would be given up.
        padded = (batches[min(turn + world.place.rank, len(batches) - 1)] * size)[:size]
        with out_of_memory.for_pictures(size):
            made = _draw_batch(model, [(wanted[number], k) for number, k in padded], frames=frames,
                               advance=_after(advance, before, count))
        drawn = world.gathered(torch.from_numpy(made))
        seconds = (time.monotonic() - begun) / count
        for batch, films in zip(here, drawn, strict=False):
            for (number, k), film in zip(batch, films.numpy(), strict=False):
                last = film[-1][:, : film.shape[1]]                                # pictures are square
                yield Drawn(wanted[number], k, last, seconds, film if frames else None)


def _draw_batch(
    model: Model, asked: Sequence[tuple[Wanted, int]], *, frames: bool, advance: Callable[[float], None],
) -> np.ndarray:
    """(N, steps, H, 2·W, 3): state | estimate after every step; without `frames` the pictures, (N, 1, H, W, 3)."""
    count, sampling = len(asked), asked[0][0].sampling
    features, _ = encode_prompts(model, [*(one.prompt for one, _ in asked), *(one.negative for one, _ in asked)])
    text, negative = (None, None) if features is None else (features[:count], features[count:])
    shown: list[np.ndarray] = []
    times, steps = times_of(model.config, sampling), 1
    left = len(times)
    for step in denoise_steps(
            model.network, model.config, text=text, null=negative, sampling=sampling,
            seeds=[one.seed + k for one, k in asked],
            starts=[one.start for one, _ in asked if one.start is not None]):
        if frames:
            shown.append(to_pixels(torch.cat([step.noisy, step.image], dim=3)))
        elif step.t == 0:
            shown = [to_pixels(step.noisy)]
        left = min(left, sum(time < step.t for time in times))         # resampling goes back for a while
        steps = max(steps, left + 1)
        advance(1 - left / steps)
    return np.stack(shown, axis=1)


def guided_steps(config: ModelConfig, sampling: Sampling) -> int:
    """How many of the sampler's steps begin where guidance acts; with few steps it may be none."""
    resolution = config.network.resolution
    schedule, (low, high) = make_schedule(config.schedule, resolution), sampling.interval_at(resolution)
    times = torch.tensor(times_of(config, sampling)[:-1], dtype=torch.float64)
    ratio = torch.exp(-schedule.log_snr(times) / 2)                    # sigma/alpha
    return int(((low < ratio) & (ratio <= high)).sum())


def times_of(config: ModelConfig, sampling: Sampling) -> list[float]:
    """The times that the sampler visits, from 1 to 0."""
    resolution = config.network.resolution
    schedule = make_schedule(config.schedule, resolution)
    return sampling_times(schedule, sampling.number_of_steps, resolution)


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
    sampling: Sampling, starts: Sequence[Start] = (),
) -> Iterator[Step]:
    """Reverse diffusion of one batch: the state after every step, ending with the pictures in `noisy`.

    text: (N, 77, width) and null: (N or 1, 77, width), or None when unconditional; seeds: N. starts: N pictures to
    start from, all of one strength and all with a mask or none, or nothing.
    """
    resolution = config.network.resolution
    schedule = make_schedule(config.schedule, resolution)
    denoise = within_range(guided_denoiser(network, config, schedule, text=text, null=null, sampling=sampling))
    device = next(network.parameters()).device
    shape = (config.network.channels, resolution, resolution)

    def noise(step: int) -> Tensor:
        keys = torch.tensor([randomness.key(seed, "sample", step) for seed in seeds], device=device)
        return randomness.normal(keys, shape)

    times = times_of(config, sampling)
    if not starts:
        yield from run_sampler(sampling.sampler, denoise, noise(-1), times, schedule, fresh_noise=noise)
        return
    image = from_pixels(np.stack([start.image for start in starts]), device)
    noisy, times = start_from(image, noise(-1), times, starts[0].strength, schedule)
    masks = [start.mask for start in starts if start.mask is not None]
    if len(times) == 1:                                                # strength 0: nothing to do
        yield Step(0.0, image, image)
    elif masks:
        yield from inpaint(
            sampling.sampler, denoise, noisy, times, schedule, image=image, resamplings=RESAMPLINGS, fresh_noise=noise,
            mask=torch.from_numpy(np.stack(masks))[:, None].to(device))
    else:
        yield from run_sampler(sampling.sampler, denoise, noisy, times, schedule, fresh_noise=noise)


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
