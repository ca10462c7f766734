"""Enlarges pictures with an upscaler: small pictures and their prompts → large pictures, of a seed each.

It works on pictures of any size. All are continued beyond their edges and cut again, because edges are drawn better so.
To the right and below, a picture is continued until its enlarged sides are as long as a crop, and can be halved as
often as the network halves them. The results get the colours of the small pictures: what a network that was trained on
crops draws in large pictures is too light.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Sampling
from ..denoiser import network_time
from ..diffusion import upscaling
from ..diffusion.samplers import Step
from ..diffusion.schedule import make_schedule
from ..diffusion.upscaling import NOISE_TIME, START_TIME, LowRes
from ..model_config import ModelConfig
from ..picture_size import Size
from ..pictures.pixels import from_pixels, to_pixels
from ..runtime import randomness
from ..storage.checkpoint import Model
from .generate import Enlarge, encode_prompts, reverse_diffusion
from .request import InitImage, SampleRequest

MARGIN = 1                                      # pixels at least by which small pictures are continued on each side
AT_ONCE = 2**17                                 # pixels that a CPU draws together: with more, memory comes from the
#                                                 system anew for each map, which took a third of the time
STEPS = 12                                      # of the sampler from noise to picture, without guidance


def enlarger(model: Model) -> Enlarge:
    """An upscaler in the form in which `generate` takes it. A picture has the same seed in both."""
    def enlarge_batch(pixels: np.ndarray, batch: Sequence[tuple[SampleRequest, int]]) -> np.ndarray:
        return enlarge(model, pixels, [request.prompt for request, _ in batch],
                       seeds=[request.seed + k for request, k in batch], precision=batch[0][0].sampling.precision)

    return enlarge_batch


def enlarge(model: Model, pixels: np.ndarray, prompts: Sequence[str], *, seeds: Sequence[int], precision: str,
            ) -> np.ndarray:
    """Enlarge pictures (N, h, w, 3) uint8 by the factor of an upscaler → (N, H, W, 3) uint8."""
    network = model.config.network
    assert network.upscaling is not None
    factor = network.upscaling.factor
    unit = math.lcm(factor, network.side_multiple) // factor           # sides of the small picture are multiples of it
    small = from_pixels(pixels, next(model.network.parameters()).device)
    height, width = small.shape[2:]
    right, below = (-(-max(side + 2 * MARGIN, crop // factor) // unit) * unit - side - MARGIN
                    for side, crop in zip((width, height), network.resolution, strict=True))
    padded = F.pad(small, (MARGIN, right, MARGIN, below), mode="replicate")
    enlarged = upscaling.enlarge(padded, factor)
    count = max(1, AT_ONCE // enlarged[0, 0].numel()) if enlarged.device.type == "cpu" else len(enlarged)
    parts = (slice(start, start + count) for start in range(0, len(enlarged), count))
    drawn = np.concatenate([
        draw_enlarged(model, enlarged[part], prompts[part], seeds=seeds[part], precision=precision) for part in parts])
    edge = factor * MARGIN
    large = from_pixels(drawn[:, edge : edge + factor * height, edge : edge + factor * width], small.device)
    return to_pixels(upscaling.consistent(large, small))


def draw_enlarged(model: Model, enlarged: Tensor, prompts: Sequence[str], *, seeds: Sequence[int], precision: str,
                  ) -> np.ndarray:
    """Draw what small pictures show, which `upscaling.enlarge` made (N, C, H, W) → (N, H, W, 3) uint8."""
    *_, last = steps_of(model, enlarged, prompts, seeds=seeds, sampling=sampling_of(model.config, precision=precision))
    return to_pixels(last.noisy)


def sampling_of(config: ModelConfig, *, precision: str = "fp32") -> Sampling:
    """How an upscaler draws: without guidance, in the steps of a student or in STEPS, some of which are left out."""
    if config.student is not None:
        return Sampling.of(config, precision=precision)
    return Sampling(steps=STEPS, guidance=1.0, precision=precision)


def steps_of(model: Model, enlarged: Tensor, prompts: Sequence[str], *, seeds: Sequence[int], sampling: Sampling,
             ) -> Iterator[Step]:
    """The steps in which an upscaler draws what enlarged small pictures (N, C, H, W) show, as `reverse_diffusion`."""
    text, null = encode_prompts(model, prompts)
    height, width = enlarged.shape[2:]
    start = START_TIME if model.config.student is None else model.config.student.start
    return reverse_diffusion(
        model.network, model.config, text=text, negative=null, seeds=seeds, sampling=sampling,
        size=Size(width=width, height=height), low_res=low_res_of(model.config, enlarged, seeds),
        inits=[InitImage(image, start) for image in to_pixels(enlarged)])


def low_res_of(config: ModelConfig, enlarged: Tensor, seeds: Sequence[int]) -> LowRes:
    """Enlarged small pictures (N, C, H, W) with the noise of their seeds, as an upscaler reads them."""
    schedule, t = make_schedule(config.schedule, config.network.schedule_side), NOISE_TIME
    keys = torch.tensor([randomness.key(seed, "small noise") for seed in seeds], device=enlarged.device)
    noise = randomness.normal(keys, tuple(enlarged.shape[1:]))
    time = torch.full((len(enlarged),), network_time(t).item(), device=enlarged.device)
    return upscaling.with_noise(enlarged, noise, torch.tensor(t, dtype=torch.float64), time, schedule)
