"""Generates pictures from prompts: text encoder → guided denoiser → sampler → pixels.

Picture k of a request with seed S has seed S + k. Its noise is a function of that seed and of the step alone, so the
picture does not depend on the others that are generated with it.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from ..config import Sampling
from ..diffusion.editing import inpaint, start_from
from ..diffusion.guidance import within_range
from ..diffusion.samplers import Denoiser, Step, run_sampler
from ..diffusion.schedule import make_schedule
from ..diffusion.tiling import tiled
from ..diffusion.upscaling import LowRes
from ..model_config import ModelConfig
from ..network.network import Network
from ..network.tokenizer import encode
from ..picture_size import Size
from ..pictures.channels import to_channels
from ..pictures.pixels import from_pixels, to_pixels
from ..runtime import devices, out_of_memory, randomness
from ..runtime.distributed import World
from ..storage.checkpoint import Model
from .guided import guided_denoiser
from .request import InitImage, Sample, SampleRequest
from .steps import sampling_times_of

RESAMPLINGS = 5                                 # inpainting repeats every stretch of steps so often: docs/decisions.md
Progress = Callable[[float], None]              # called with the number of finished pictures; parts of pictures count
# Pictures (N, h, w, 3) uint8, and the request and the number of each → what an upscaler makes of them (N, H, W, 3)
Enlarge = Callable[[np.ndarray, Sequence[tuple[SampleRequest, int]]], np.ndarray]
Watch = Callable[[Tensor], None]                # called with the estimates of a batch, (N, C, H, W) in [-1, 1]


# ── Batches ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def generate(
    model: Model, requests: Sequence[SampleRequest], *, enlarge: Enlarge | None = None, frames: bool = False,
    world: World | None = None, progress: Progress = lambda done: None, watch: Watch = lambda estimates: None,
) -> Iterator[Sample]:
    """Yield the pictures of all requests, in the order of the requests, as soon as each batch is finished.

    Unconditional models ignore prompts. enlarge: what an upscaler makes of the pictures of a batch; then there are no
    frames. Neighbouring requests with the same settings share batches. Every batch has the same size and is filled up
    with pictures that are thrown away: kernels may round differently at another batch size, and a picture must not
    depend on the others. frames: each sample also holds the picture after every step. world: each process generates its
    own batch; the main process yields all samples, the others yield none. watch: called after every step with the
    estimates of the pictures that are being generated. Raises UsageError for a size or settings that the model has not
    learnt, OutOfMemoryError.
    """
    model.config.check_draws_alone()
    for request in requests:
        request.sampling.check_fits(model.config)
        model.config.network.checked_size(request.size)
    finished = 0
    for _, group in itertools.groupby(requests, _batch_key):
        batched = list(group)
        yield from _generate_batched(model, batched, enlarge=enlarge, frames=frames, world=world or World(),
                                     progress=_shifted(progress, finished), watch=watch)
        finished += sum(request.count for request in batched)


def _batch_key(request: SampleRequest) -> tuple[Sampling, Size | None, float | None, bool]:
    """Return what requests must have in common to share a batch; prompts, seeds, first pictures and masks may differ.
    """
    init = request.init
    return (request.sampling, request.size, None, False) if init is None else (
        request.sampling, request.size, init.strength, init.mask is not None)


def _shifted(progress: Progress, finished: float, scale: float = 1) -> Progress:
    """The progress callback for a part of the work: its count is multiplied by `scale` and added to `finished`."""
    return lambda done: progress(finished + scale * done)


def _without_padding(watch: Watch, count: int) -> Watch:
    return lambda estimates: watch(estimates[:count])


def _generate_batched(
    model: Model, requests: list[SampleRequest], *, enlarge: Enlarge | None, frames: bool, world: World,
    progress: Progress, watch: Watch,
) -> Iterator[Sample]:
    """Yield the pictures of requests that can share batches; the world's processes generate one batch each per turn."""
    pictures = [(number, k) for number, request in enumerate(requests) for k in range(request.count)]
    size = requests[0].sampling.batch_size
    batches = [pictures[start : start + size] for start in range(0, len(pictures), size)]
    for turn in range(0, len(batches), world.size):
        started, turn_batches = time.monotonic(), batches[turn : turn + world.size]
        finished, count = turn * size, sum(map(len, turn_batches))
        # A process without a batch of its own repeats the last one: a process that waits too long would count as lost.
        own = batches[min(turn + world.process.rank, len(batches) - 1)]
        padded = (own * size)[:size]
        with out_of_memory.for_pictures(size), devices.arithmetic(next(model.network.parameters()).device):
            batch = [(requests[number], k) for number, k in padded]
            films = _generate_batch(model, batch, frames=frames, watch=_without_padding(watch, len(own)),
                                    progress=_shifted(progress, finished, count if enlarge is None else count / 2))
            if enlarge is not None:
                films = enlarge(films[:, -1], batch)[:, None]
        gathered = world.gather(torch.from_numpy(films))
        seconds = (time.monotonic() - started) / count
        for numbers, batch_films in zip(turn_batches, gathered, strict=False):
            for (number, k), film in zip(numbers, batch_films.numpy(), strict=False):
                last = film[-1][:, : film.shape[2] // 2] if frames else film[-1]      # left of the estimate
                yield Sample(requests[number], k, last, seconds, film if frames else None)


def _generate_batch(
    model: Model, batch: Sequence[tuple[SampleRequest, int]], *, frames: bool, progress: Progress, watch: Watch,
) -> np.ndarray:
    """Generate picture k of request r for each (r, k) of the batch. → (N, 1, H, W, C) uint8

    With `frames` → (N, steps, H, 2·W, C): after every step the noisy picture and, right of it, the estimate.
    """
    count, sampling = len(batch), batch[0][0].sampling
    features, _ = encode_prompts(
        model, [*(request.prompt for request, _ in batch), *(request.negative for request, _ in batch)])
    text, negative = (None, None) if features is None else (features[:count], features[count:])
    film: list[np.ndarray] = []
    times, steps = sampling_times_of(model.config, sampling), 1
    remaining = len(times)
    for step in reverse_diffusion(
            model.network, model.config, text=text, negative=negative, sampling=sampling,
            size=batch[0][0].size, seeds=[request.seed + k for request, k in batch],
            inits=[request.init for request, _ in batch if request.init is not None]):
        if frames:
            film.append(to_pixels(torch.cat([step.noisy, step.image], dim=3)))
        elif step.t == 0:
            film = [to_pixels(step.noisy)]
        remaining = min(remaining, sum(t < step.t for t in times))     # resampling returns to earlier times
        steps = max(steps, remaining + 1)
        watch(step.image)
        progress(1 - remaining / steps)
    return np.stack(film, axis=1)


# ── One batch: text, times, reverse diffusion ───────────────────────────────────────────────────────────────────────


@torch.no_grad()
def encode_prompts(model: Model, prompts: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
    """→ text features of the prompts (M, 77, width) and of the empty caption (1, 77, width); None if unconditional."""
    if model.tokenizer is None:
        return None, None
    device = next(model.network.parameters()).device
    features = model.network.encode(encode(model.tokenizer, [*prompts, ""]).to(device))
    return features[:-1], features[-1:]


def reverse_diffusion(
    network: Network, config: ModelConfig, *, text: Tensor | None, negative: Tensor | None, seeds: Sequence[int],
    sampling: Sampling, size: Size | None = None, inits: Sequence[InitImage] = (), low_res: LowRes | None = None,
) -> Iterator[Step]:
    """Turn noise into a batch of pictures: yield its state after every step. The last step's `noisy` is the result.

    text: features of the prompts (N, 77, width). negative: features that guidance leads away from, of the
    negative prompts or of the empty caption (N or 1, 77, width). Both
    are None for unconditional models. seeds: N of them. size: of the pictures; None is the model's first. inits: the
    pictures to start from, none or N of them, all with the same strength and either all with a mask or none. low_res:
    the N small pictures that an upscaler enlarges to that size; if it is large, in tiles.
    """
    schedule = make_schedule(config.schedule, config.network.schedule_side)       # one for all sizes
    shape = config.network.shape_of(config.network.checked_size(size))

    def denoiser_of(rows: slice, columns: slice) -> Denoiser:
        return guided_denoiser(network, config, schedule, text=text, negative=negative, sampling=sampling,
                               low_res=low_res and low_res.part(rows, columns))

    # All pixels of a model attend to each other; those of an upscaler do not, so its pictures can be drawn in tiles
    denoise = denoiser_of(slice(None), slice(None)) if low_res is None else tiled(
        denoiser_of, *shape[1:], multiple=config.network.side_multiple)
    if config.student is None:                  # the steps of a distilled model are those of stock programs
        denoise = within_range(denoise)
    device = next(network.parameters()).device

    times = sampling_times_of(config, sampling)
    masks = [init.mask for init in inits if init.mask is not None]
    draws = 1 + len(times) * (2 * RESAMPLINGS if masks else 1)         # at most; all keys move in one copy
    purpose = "sample" if low_res is None else "upscale"
    keys = torch.tensor([[randomness.key(seed, purpose, step) for seed in seeds] for step in range(-1, draws - 1)],
                        device=device)                                 # (draws, N)

    def noise(step: int) -> Tensor:
        """The noise of each picture at a step, a function of its seed; step -1 is the noise at the start. (N, C, H, W)
        """
        return randomness.normal(keys[step + 1], shape)

    # Start from noise alone
    if not inits:
        yield from run_sampler(sampling.sampler, denoise, noise(-1), times, schedule, fresh_noise=noise)
        return

    # Start from pictures: add the noise of a time between 0 and 1, and remove it again
    image = from_pixels(to_channels(np.stack([init.image for init in inits]), config.network.channels), device)
    noisy, times = start_from(image, noise(-1), times, inits[0].strength, schedule)
    if len(times) == 1:                                                # strength 0: nothing to do
        yield Step(0.0, image, image)
    elif masks:
        yield from inpaint(
            sampling.sampler, denoise, noisy, times, schedule, image=image, resamplings=RESAMPLINGS, fresh_noise=noise,
            mask=torch.from_numpy(np.stack(masks))[:, None].to(device))
    else:
        yield from run_sampler(sampling.sampler, denoise, noisy, times, schedule, fresh_noise=noise)
