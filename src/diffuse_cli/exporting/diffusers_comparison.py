"""Compares a model with its exported folder as diffusers and transformers themselves open it, where they are installed.

This is the strongest comparison there is: it covers their networks, tokenizer, scheduler and whole pipeline. No other
module of the package imports the two libraries.
"""

import contextlib
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Export
from ..denoiser import network_time, predict
from ..diffusion import upscaling
from ..diffusion.losses import log_fraction
from ..diffusion.samplers import Denoised, Denoiser, ddpm, run_sampler
from ..diffusion.schedule import STEPS, make_schedule
from ..diffusion.upscaling import LowRes
from ..errors import ExportError
from ..network.tokenizer import LENGTH, encode
from ..picture_size import Size
from ..pictures.pixels import to_pixels
from ..runtime import randomness
from ..sampling.generate import encode_prompts
from ..storage.checkpoint import Model
from ..storage.diffusers_config import SCHEDULER_FILE, TOKENIZER_FILE
from .verification import (
    Comparison,
    answers_and_limit,
    compare_tokenizers,
    comparison_captions,
    features_and_limit,
    largest_difference,
    network_inputs,
)

LIBRARIES = {"transformers": "T5EncoderModel", "diffusers": "DiffusionPipeline"}     # library → a class that is needed
NOISE_LEVEL = 250                               # of what an upscaler enlarges: the pipeline's default, of 1000
GUIDANCE, SAMPLING_STEPS = 3.0, 10              # of the pictures that are compared
SAMPLERS = {                                    # scheduler class of diffusers → our sampler
    "DDPMScheduler": "ddpm", "DDIMScheduler": "ddim", "DPMSolverMultistepScheduler": "dpmpp-2m"}


def versions() -> dict[str, str]:
    """Return the versions of the two libraries; an empty dict if one is missing or cannot be imported."""
    try:
        with _quiet():
            for name, class_name in LIBRARIES.items():
                getattr(importlib.import_module(name), class_name)     # this access imports the class, lazily
    except Exception:                           # a foreign import can fail in any way: then there is no comparison
        return {}
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def compare(model: Model, folder: Path, settings: Export) -> list[Comparison]:
    """Compare the model with the folder's tokenizer, its betas and, if the libraries are installed, its pipeline.

    Raises ExportError if the libraries are installed but cannot use the folder.
    """
    comparisons = [] if model.tokenizer is None else [compare_tokenizers(model, folder / TOKENIZER_FILE)]
    betas = json.loads((folder / SCHEDULER_FILE).read_bytes())["trained_betas"]
    difference = make_schedule(model.config.schedule, model.config.network.schedule_side).betas() - torch.tensor(
        betas, dtype=torch.float64)
    comparisons.append(Comparison("betas of the scheduler", difference.abs().max().item(), 0.0))
    return comparisons + _compare_pipeline(model, folder)


def _compare_pipeline(model: Model, folder: Path) -> list[Comparison]:
    """Compare the model with the pipeline that diffusers opens, on the CPU; nothing if the libraries are missing."""
    if not (installed := versions()):
        return []
    try:
        with _quiet():
            pipeline = open_pipeline(folder)
            comparisons = _compare_unet(model, pipeline)
            if model.tokenizer is not None:
                comparisons += _compare_text(model, pipeline)
            sizes = model.config.network.sizes if model.config.conditional else (model.config.network.resolution,)
            return [*comparisons, *(_compare_pictures(model, pipeline, size) for size in sizes)]
    except MemoryError:
        raise
    except Exception as error:                  # it too can fail in any way, but the folder may be the reason
        libraries = " and ".join(f"{name} {version}" for name, version in installed.items())
        raise ExportError(f"{libraries} cannot use the folder ({type(error).__name__}: {str(error)[:200]})") from error


def open_pipeline(folder: Path) -> Any:
    """Open the folder as any program opens it with diffusers, without progress bars."""
    diffusers = importlib.import_module("diffusers")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), local_files_only=True, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# ── Sampling ────────────────────────────────────────────────────────────────────────────────────────────────────────


def sample_with_pipeline(
    pipeline: Any, prompts: Sequence[str], *, steps: int, guidance: float, generator: torch.Generator,
    size: Size | None = None, small: Tensor | None = None,
) -> np.ndarray:
    """Generate one picture for each prompt; unconditional pipelines ignore the prompts. → (N, H, W, C) uint8

    A conditional pipeline has to be told the height and the width of pictures that are no squares. size: one of the
    model's; None is the first. Unconditional pipelines know the first alone. small: what an upscaler enlarges to that
    size (N, 3, h, w).
    """
    if hasattr(pipeline, "tokenizer"):
        height, width = np.broadcast_to(pipeline.unet.config.sample_size, 2).tolist() if size is None else size[::-1]
        options = {} if small is None else {"image": small, "noise_level": NOISE_LEVEL}
        output = pipeline(prompt=list(prompts), num_inference_steps=steps, guidance_scale=guidance, generator=generator,
                          height=height, width=width, clean_caption=False, **options)
    else:
        output = pipeline(batch_size=len(prompts), num_inference_steps=steps, generator=generator)
    return np.stack([np.atleast_3d(image) for image in output.images])


def sample_like_pipeline(
    model: Model, sampler: str, timesteps: Sequence[int], prompts: Sequence[str], *, guidance: float,
    generator: torch.Generator, size: Size | None = None, small: Tensor | None = None,
) -> np.ndarray:
    """Generate the pictures of `sample_with_pipeline` with our `sampler`. → (N, H, W, C) uint8

    They have the time steps and the clipping of the pipeline's scheduler, the noise of an equal generator, and guidance
    at every step. `diffuse sample` guides in an interval and thresholds dynamically, which no stock pipeline can do.
    """
    schedule = make_schedule(model.config.schedule, model.config.network.schedule_side)
    network = model.config.network
    shape = (len(prompts), *network.shape_of(network.checked_size(size)))

    def noise(_: int = 0) -> Tensor:
        return torch.randn(shape, generator=generator)

    times = [(float(index) + 1) / STEPS for index in timesteps] + [0.0]
    start, low_res = noise(), None
    if small is not None:
        t = torch.full((len(small),), (NOISE_LEVEL + 1) / STEPS, dtype=torch.float64)
        enlarged = F.interpolate(small, shape[2:], mode="bilinear", align_corners=True)         # other than ours
        low_res = upscaling.with_noise(enlarged, noise(), t, network_time(t).float(), schedule)
    denoise = _always_guided_denoiser(model, prompts, guidance=guidance, clip=sampler != "ddim", low_res=low_res)
    if sampler == "ddpm":                       # the stock scheduler interpolates the logarithms of the variances
        steps = ddpm(denoise, start, times, schedule, fresh_noise=noise, variance_rule="log")
    else:
        steps = run_sampler(sampler, denoise, start, times, schedule, fresh_noise=noise)
    *_, last = steps
    return to_pixels(last.noisy)


def _always_guided_denoiser(
    model: Model, prompts: Sequence[str], *, guidance: float, clip: bool, low_res: LowRes | None,
) -> Denoiser:
    """Return a denoiser that guides at every noise level without thresholding, as stock pipelines do."""
    schedule = make_schedule(model.config.schedule, model.config.network.schedule_side)
    text, null = encode_prompts(model, prompts)

    def estimate(noisy: Tensor, t: float, features: Tensor | None) -> Denoised:
        time = torch.full((len(noisy),), t, dtype=torch.float64)
        prediction, channels = predict(model.network, noisy, network_time(time).float().to(noisy.device), features,
                                       config=model.config, precision="fp32", low_res=low_res)
        return Denoised(schedule.image_of(model.config.prediction, prediction, noisy, time),
                        None if channels is None else log_fraction(channels))             # stock DDPM does not clamp it

    @torch.no_grad()
    def denoise(noisy: Tensor, t: float) -> Denoised:
        with_prompt = estimate(noisy, t, text)
        image = with_prompt.image
        if null is not None:
            without = estimate(noisy, t, null.expand(len(noisy), -1, -1)).image
            image = without + guidance * (image - without)
        return with_prompt._replace(image=image.clamp(-1, 1) if clip else image)

    return denoise


# ── Comparisons ─────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def _compare_unet(model: Model, pipeline: Any) -> list[Comparison]:
    channels = min(model.config.network.out_channels, pipeline.unet.config.out_channels)
    comparisons = []
    for batch in network_inputs(model.config, list(model.words)):
        text = None
        if model.tokenizer is not None:
            text = model.network.encode(encode(model.tokenizer, batch.captions))
        options, noisy = {} if text is None else {"encoder_hidden_states": text}, batch.noisy
        if batch.low_res is not None:
            options["class_labels"], noisy = batch.low_res.level, torch.cat([noisy, batch.low_res.image], dim=1)
        exported = pipeline.unet(noisy, batch.time, **options).sample
        expected, limit = answers_and_limit(model.network, batch.noisy, batch.time, text, batch.low_res)
        comparisons.append(Comparison(f"diffusers: answers to {len(batch.noisy)} at once",
                                      largest_difference(expected[:, :channels], exported[:, :channels]), limit))
    return comparisons


@torch.no_grad()
def _compare_text(model: Model, pipeline: Any) -> list[Comparison]:
    assert model.tokenizer is not None
    captions = comparison_captions(list(model.words))
    expected = encode(model.tokenizer, captions)
    exported = pipeline.tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True,
                                  return_tensors="pt")
    features = pipeline.text_encoder(exported.input_ids, attention_mask=exported.attention_mask)[0]
    own, limit = features_and_limit(model.network, expected)
    return [Comparison("transformers: token ids that differ", float((exported.input_ids != expected).sum()), 0.0),
            Comparison("transformers: features of captions", largest_difference(own, features), limit)]


def _compare_pictures(model: Model, pipeline: Any, size: Size) -> Comparison:
    prompts = comparison_captions(list(model.words))[1:3]
    student = model.config.student
    steps, guidance = (SAMPLING_STEPS, GUIDANCE) if student is None else (student.evaluations, 1.0)
    small = None
    if (upscaled := model.config.network.upscaling) is not None:       # a part of a picture: whole ones take long
        generator = randomness.generator("export", "small")
        small = torch.rand((len(prompts), 3, size.height // upscaled.factor, size.width // upscaled.factor),
                           generator=generator) * 2 - 1
    exported = sample_with_pipeline(pipeline, prompts, steps=steps, guidance=guidance, size=size, small=small,
                                    generator=randomness.generator("export"))
    sampler, timesteps = SAMPLERS[type(pipeline.scheduler).__name__], pipeline.scheduler.timesteps.tolist()
    expected = sample_like_pipeline(model, sampler, timesteps, prompts, guidance=guidance, size=size,
                                    small=small, generator=randomness.generator("export"))
    difference = abs(exported.astype(int) - expected.astype(int)).max() / 255
    which = f" of {size} px" if model.config.network.buckets else ""
    return Comparison(f"diffusers: pixels of the pipeline's pictures{which}", float(difference), 1 / 255)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars and warnings of the libraries, and send to stderr whatever they print to stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        loggings = [importlib.import_module(f"{name}.utils.logging") for name in LIBRARIES]
        verbosities = [logging.get_verbosity() for logging in loggings]
        try:
            for logging in loggings:
                logging.set_verbosity_error()
                logging.disable_progress_bar()
            yield
        finally:
            for logging, verbosity in zip(loggings, verbosities, strict=True):
                logging.set_verbosity(verbosity)
                logging.enable_progress_bar()
