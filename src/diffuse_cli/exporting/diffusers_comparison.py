"""An exported folder opened by diffusers and transformers themselves, where they are installed, and asked the same.

The strongest comparison there is: their networks, their tokenizer, their pipeline with its scheduler. Nothing else in
the engine imports them.
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
from torch import Tensor

from ..config import Export
from ..denoiser import predict
from ..diffusion.losses import log_fraction
from ..diffusion.samplers import Denoised, Denoiser, ddpm, run_sampler
from ..diffusion.schedule import STEPS, make_schedule
from ..errors import ExportError
from ..network.tokenizer import LENGTH, encode
from ..pictures.pixels import to_pixels
from ..runtime import randomness
from ..sampling.generate import encode_prompts
from ..storage.checkpoint import Model
from ..storage.diffusers_folder import SCHEDULER_FILE, TOKENIZER_FILE
from .verification import LIMIT, Comparison, captions_for, compare_tokenizers, largest, questions

LIBRARIES = {"transformers": "T5EncoderModel", "diffusers": "DiffusionPipeline"}     # with what is needed of them
GUIDANCE, DRAWING_STEPS = 3.0, 10
SCHEDULERS = {"DDPMScheduler": "ddpm", "DDIMScheduler": "ddim", "DPMSolverMultistepScheduler": "dpmpp-2m"}


def versions() -> dict[str, str]:
    """The versions of the two libraries; nothing where one is missing or cannot be imported."""
    try:
        with _quiet():
            for name, needed in LIBRARIES.items():
                getattr(importlib.import_module(name), needed)         # only then is anything but its name imported
    except Exception:                           # a stranger's import can fail in any way: then there is no such oracle
        return {}
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def compare(model: Model, folder: Path, how: Export) -> list[Comparison]:
    """The model against the tokenizer, the betas and, if the libraries are installed, the pipeline in the folder.

    Raises ExportError if the libraries are there, but cannot use the folder.
    """
    comparisons = [] if model.tokenizer is None else [compare_tokenizers(model, folder / TOKENIZER_FILE)]
    betas = json.loads((folder / SCHEDULER_FILE).read_bytes())["trained_betas"]
    difference = make_schedule(model.config.schedule, model.config.network.resolution).betas() - torch.tensor(
        betas, dtype=torch.float64)
    comparisons.append(Comparison("betas of the scheduler", difference.abs().max().item(), 0.0))
    return comparisons + _compare_pipeline(model, folder)


def _compare_pipeline(model: Model, folder: Path) -> list[Comparison]:
    """The model against the pipeline that diffusers opens, on the CPU; nothing if the libraries are missing."""
    if not (found := versions()):
        return []
    try:
        with _quiet():
            return _compare(model, open_pipeline(folder))
    except MemoryError:
        raise
    except Exception as error:                  # as foreign as that of the import, but the folder may be the reason
        by = " and ".join(f"{name} {version}" for name, version in found.items())
        raise ExportError(f"{by} cannot use the folder ({type(error).__name__}: {str(error)[:200]})") from error


def _compare(model: Model, pipeline: Any) -> list[Comparison]:
    comparisons = _compare_unet(model, pipeline)
    if model.tokenizer is not None:
        comparisons += _compare_text(model, pipeline)
    prompts = captions_for(list(model.words))[1:3]
    theirs = drawn_by_pipeline(pipeline, prompts, steps=DRAWING_STEPS, guidance=GUIDANCE,
                               generator=randomness.generator("export"))
    ours = drawn_alike(model, SCHEDULERS[type(pipeline.scheduler).__name__], pipeline.scheduler.timesteps.tolist(),
                       prompts, guidance=GUIDANCE, generator=randomness.generator("export"))
    difference = abs(theirs.astype(int) - ours.astype(int)).max() / 255
    return [*comparisons, Comparison("diffusers: pixels of the pipeline's pictures", float(difference), 1 / 255)]


def open_pipeline(folder: Path) -> Any:
    """The folder as any program of diffusers opens it, without its progress bars."""
    diffusers = importlib.import_module("diffusers")
    pipeline = diffusers.DiffusionPipeline.from_pretrained(str(folder), local_files_only=True, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


# ── Pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


def drawn_by_pipeline(
    pipeline: Any, prompts: Sequence[str], *, steps: int, guidance: float, generator: torch.Generator,
) -> np.ndarray:
    """(N, R, R, 3) uint8: a picture of each prompt; of an unconditional pipeline as many, without."""
    if hasattr(pipeline, "tokenizer"):
        made = pipeline(prompt=list(prompts), num_inference_steps=steps, guidance_scale=guidance, generator=generator,
                        clean_caption=False)
    else:
        made = pipeline(batch_size=len(prompts), num_inference_steps=steps, generator=generator)
    return np.stack([np.asarray(image) for image in made.images])


def drawn_alike(
    model: Model, name: str, timesteps: Sequence[int], prompts: Sequence[str], *, guidance: float,
    generator: torch.Generator,
) -> np.ndarray:
    """The same by our sampler `name`: on the scheduler's time steps, with plain guidance, its clip, and the same noise.

    Not how `diffuse sample` draws, which guides in an interval and thresholds dynamically: no stock pipeline can.
    """
    schedule = make_schedule(model.config.schedule, model.config.network.resolution)
    network = model.config.network
    shape = (len(prompts), network.channels, network.resolution, network.resolution)

    def noise(_: int = 0) -> Tensor:
        return torch.randn(shape, generator=generator)

    times = [(float(index) + 1) / STEPS for index in timesteps] + [0.0]
    guided, start = _plainly_guided(model, prompts, guidance=guidance, clip=name != "ddim"), noise()
    if name == "ddpm":                          # the stock scheduler interpolates the logarithms of the variances
        steps = ddpm(guided, start, times, schedule, fresh_noise=noise, variance_rule="log")
    else:
        steps = run_sampler(name, guided, start, times, schedule, fresh_noise=noise)
    return to_pixels(list(steps)[-1].noisy)


def _plainly_guided(model: Model, prompts: Sequence[str], *, guidance: float, clip: bool) -> Denoiser:
    schedule = make_schedule(model.config.schedule, model.config.network.resolution)
    text, null = encode_prompts(model, prompts)

    def estimate(noisy: Tensor, t: float, features: Tensor | None) -> Denoised:
        time = torch.full((len(noisy),), t, dtype=torch.float64)
        prediction, channels = predict(model.network, noisy, time, features, config=model.config, precision="fp32")
        return Denoised(schedule.image_of(model.config.prediction, prediction, noisy, time),
                        None if channels is None else log_fraction(channels))              # stock: not clamped

    @torch.no_grad()
    def guided(noisy: Tensor, t: float) -> Denoised:
        now = estimate(noisy, t, text)
        image = now.image
        if null is not None:
            without = estimate(noisy, t, null.expand(len(noisy), -1, -1)).image
            image = without + guidance * (image - without)
        return now._replace(image=image.clamp(-1, 1) if clip else image)

    return guided


# ── Parts ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def _compare_unet(model: Model, pipeline: Any) -> list[Comparison]:
    channels = min(model.config.network.out_channels, pipeline.unet.config.out_channels)
    comparisons = []
    for question in questions(model.config, list(model.words)):
        text = None
        if model.tokenizer is not None:
            text = model.network.encode(encode(model.tokenizer, question.captions))
        given = {} if text is None else {"encoder_hidden_states": text}
        theirs = pipeline.unet(question.noisy, question.time, **given).sample
        ours = model.network(question.noisy, question.time, text)
        comparisons.append(Comparison(f"diffusers: answers to {len(question.noisy)} at once",
                                      largest(ours[:, :channels], theirs[:, :channels]), LIMIT))
    return comparisons


@torch.no_grad()
def _compare_text(model: Model, pipeline: Any) -> list[Comparison]:
    assert model.tokenizer is not None
    captions = captions_for(list(model.words))
    ours = encode(model.tokenizer, captions)
    given = pipeline.tokenizer(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt")
    features = pipeline.text_encoder(given.input_ids, attention_mask=given.attention_mask)[0]
    return [Comparison("transformers: token ids that differ", float((given.input_ids != ours).sum()), 0.0),
            Comparison("transformers: features of captions", largest(model.network.encode(ours), features), LIMIT)]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The libraries without their bars and warnings; what they print all the same does not reach stdout."""
    with contextlib.redirect_stdout(sys.stderr):
        loggings = [importlib.import_module(f"{name}.utils.logging") for name in LIBRARIES]
        before = [logging.get_verbosity() for logging in loggings]
        try:
            for logging in loggings:
                logging.set_verbosity_error()
                logging.disable_progress_bar()
            yield
        finally:
            for logging, verbosity in zip(loggings, before, strict=True):
                logging.set_verbosity(verbosity)
                logging.enable_progress_bar()
