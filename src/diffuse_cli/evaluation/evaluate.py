"""Evaluates a model on pictures that it was not trained on, and compares pictures that it generates with real ones.

Joins the network with the estimators of `likelihood`, with `distances` and with `memorisation`.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..config import Sampling
from ..diffusion.guidance import within_range
from ..diffusion.samplers import Denoised
from ..diffusion.schedule import Schedule, make_schedule
from ..diffusion.upscaling import LowRes
from ..events import ProgressCallback
from ..files import durable
from ..network.tokenizer import encode
from ..picture_size import Size
from ..pictures.pixels import from_pixels
from ..runtime import devices, out_of_memory, randomness
from ..sampling.generate import generate
from ..sampling.request import SampleRequest
from ..sampling.upscale import low_res_of
from ..storage.checkpoint import Model
from . import likelihood
from .crops import crops_of
from .distances import compare_with_floor
from .features import Features
from .held_out import HeldOutPictures
from .likelihood import BatchDenoiser, Estimate, Likelihood
from .memorisation import detect_memorisation, gallery
from .noise_curve import denoiser_for_captions
from .result import CaptionEffect, Evaluation
from .trained_features import open_features, training_seconds

GALLERY_PAIRS = 12                              # largest number of pairs in the gallery


# ── The whole evaluation ────────────────────────────────────────────────────────────────────────────────────────────


def evaluate(
    model: Model, pictures: HeldOutPictures, *, num: int, seed: int, limit: int, batch_size: int, precision: str,
    features: Features | None = None, cache: Path, progress: ProgressCallback = lambda what, done, total: None,
    announce: Callable[[float], None] = lambda seconds: None,
) -> Evaluation:
    """Measure a model on at most `limit` of the pictures, and generate `num` pictures to compare with real ones.

    All pictures have one size, which the generated ones get as well. Of an upscaler, a crop of each is measured, given
    its small picture as in drawing; it generates none (`num` is 0).
    Distances are measured in `features`. If None, an encoder is trained on the model's training pictures, or if they
    are unknown on the given ones, and is kept in the directory `cache`. A distilled model has no likelihood: it knows
    only the noise levels of its own steps. The seed decides the noise, the captions and
    the generated pictures. `progress` is called with the progress, `announce` with about the seconds that
    training an encoder will take, before it begins. Raises OutOfMemoryError.
    """
    chosen = _random_subset(pictures.positions, limit, seed)
    captions = [next(iter(pictures.dataset.captions[position]), "") for position in chosen.tolist()]
    if model.config.is_upscaler:
        pixels, enlarged = crops_of(model.config.network, pictures.dataset, chosen, seed=seed)
        low_res = low_res_of(model.config, enlarged, range(len(pixels)))
    else:
        pixels, low_res = pictures.dataset.pixels(chosen), None
    training = pictures.training
    distances, memorisation, nearest_pairs = None, None, None
    with out_of_memory.for_pictures(batch_size), devices.arithmetic(next(model.network.parameters()).device):
        measured, prompts = (None, None) if model.config.student is not None else measure(
            model, pixels, captions, seed=seed, batch_size=batch_size, precision=precision, low_res=low_res,
            progress=progress)
        if num:
            even_batch = math.ceil(num / math.ceil(num / batch_size))  # a small last batch would be filled up in vain
            generated = _generate(
                model, [captions[k % len(captions)] for k in range(num)], seed=seed,
                sampling=Sampling.of(model.config, batch_size=even_batch, precision=precision),
                size=Size(width=pixels.shape[2], height=pixels.shape[1]), progress=progress)
            if min(num, len(pixels) // 2) > 1:
                features = features or _train_features(pictures, model, cache, progress, announce)
                distances = compare_with_floor(features(pixels), features(generated), seed=seed)
            if training is not None and len(training.train):
                training_pixels = training.dataset.pixels(training.train)
                memorisation = detect_memorisation(generated, training_pixels, pixels)
                nearest_pairs = gallery(memorisation.closest(GALLERY_PAIRS), generated, training_pixels)
    return Evaluation(
        model_sha256=model.sha256, step=model.training.step, seed=seed, held_out=len(chosen),
        held_out_by_run=pictures.held_out_by_run, train=None if training is None else len(training.train),
        likelihood=measured,
        prompts=prompts, features=_described(features, model), distances=distances,
        memorisation=memorisation, gallery=nearest_pairs)


def _described(features: Features | None, model: Model) -> str | None:
    """What distances were measured in, for people."""
    if features is None:
        return None
    return f"{features.name}, on a grey ground" if model.config.network.has_alpha else features.name


def _random_subset(positions: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """At most `limit` of the positions, ascending. They are random, as file names may be sorted by content."""
    order = randomness.permutation(len(positions), seed, "evaluated")
    chosen: np.ndarray = positions[order[:limit].sort().values.numpy()]
    return chosen


def _train_features(
    pictures: HeldOutPictures, model: Model, cache: Path, progress: ProgressCallback, announce: Callable[[float], None],
) -> Features:
    """The features of an encoder trained on the model's training pictures if there are two or more of them."""
    dataset, positions = pictures.dataset, pictures.positions
    if pictures.training is not None and len(pictures.training.train) > 1:        # one picture shows no differences
        dataset, positions = pictures.training.dataset, pictures.training.train
    durable.make_directory(cache)
    device = next(model.network.parameters()).device
    seconds = training_seconds(dataset, positions, directory=cache, device=device)
    if seconds is not None:
        announce(seconds)
    steps = open_features(dataset, positions, directory=cache, device=device)
    while True:
        try:
            progress("training an encoder", *next(steps))
        except StopIteration as end:
            features: Features = end.value
            return features


def _generate(
    model: Model, prompts: Sequence[str], *, seed: int, sampling: Sampling, size: Size, progress: ProgressCallback,
) -> np.ndarray:
    """One picture for each prompt, picture k with seed + k. → (N, H, W, C) uint8"""
    progress("generating pictures", 0, len(prompts))
    pixels = []
    requests = [SampleRequest(prompt=prompt, seed=seed + k, sampling=sampling, size=size)
                for k, prompt in enumerate(prompts)]
    for sample in generate(model, requests):
        pixels.append(sample.pixels)
        if len(pixels) % sampling.batch_size == 0 or len(pixels) == len(prompts):       # the end of a batch
            progress("generating pictures", len(pixels), len(prompts))
    return np.stack(pixels)


# ── Likelihood and captions ─────────────────────────────────────────────────────────────────────────────────────────


def measure(
    model: Model, pixels: np.ndarray, captions: Sequence[str], *, seed: int, batch_size: int, precision: str,
    low_res: LowRes | None = None, progress: ProgressCallback = lambda what, done, total: None,
) -> tuple[Likelihood, CaptionEffect | None]:
    """The figures that need no generated pictures: how well the model explains the given ones, and uses captions.

    pixels: (N, H, W, C) uint8; captions: one for each picture, "" for none; low_res: the small pictures of an upscaler.
    """
    config, device = model.config, next(model.network.parameters()).device
    schedule = make_schedule(config.schedule, config.network.schedule_side)
    times = schedule.time_of(likelihood.level_log_snrs(schedule))
    variants = {"true": captions, **_other_captions(model, captions, seed)}
    curves: dict[str, list[Tensor]] = {name: [] for name in variants}
    bounds = []
    passes = (len(variants) + 1) * likelihood.LEVELS + 1               # of the network for each picture: curves, bound
    advance = _progress_of_passes(progress, passes, len(pixels))

    for start in range(0, len(pixels), batch_size):
        rows = slice(start, start + batch_size)
        image = from_pixels(pixels[rows], device)
        index = torch.arange(start, start + len(image))
        denoisers = {}
        for name, texts in variants.items():
            tokens = None if model.tokenizer is None else encode(model.tokenizer, texts[rows]).to(device)
            denoisers[name] = _counted(advance, denoiser_for_captions(
                model.network, tokens, config=config, schedule=schedule, precision=precision,
                low_res=low_res and low_res.of(rows).on(device)))
        bounds.append(likelihood.variational_bound(
            within_range(denoisers["true"]), image, schedule=schedule, seed=seed, index=index))
        for name, denoiser in denoisers.items():
            curves[name].append(likelihood.noise_losses(
                denoiser, image, schedule=schedule, times=times, seed=seed, purpose="evaluation", index=index))
    losses = {name: torch.cat(parts) for name, parts in curves.items()}            # (N, 24) each
    summary = likelihood.summarise(losses["true"], bounds, schedule, learned=config.learned_variance)
    if len(variants) == 1:
        return summary, None
    captioned = torch.tensor([bool(caption) for caption in captions])
    return summary, _compare_captions({name: curve[captioned] for name, curve in losses.items()}, schedule)


def _progress_of_passes(progress: ProgressCallback, passes: int, pictures: int) -> Callable[[int], None]:
    """A function that counts pictures passed through the network, and reports how many have had all their `passes`."""
    count = 0

    def advance(batch: int) -> None:
        nonlocal count
        count += batch
        progress("measuring pictures", count // passes, pictures)

    return advance


def _counted(advance: Callable[[int], None], denoiser: BatchDenoiser) -> BatchDenoiser:
    """The same denoiser, which also calls `advance` with the size of each batch."""
    def denoise(noisy: Tensor, t: Tensor) -> Denoised:
        denoised = denoiser(noisy, t)
        advance(len(noisy))
        return denoised

    return denoise


def _other_captions(model: Model, captions: Sequence[str], seed: int) -> dict[str, Sequence[str]]:
    """Captions to compare with the true ones, by name. Empty for an unconditional model, or if no picture has one."""
    if model.tokenizer is None or not any(captions):
        return {}
    wrong = shuffle_captions(captions, seed)
    return {"empty": [""] * len(captions), **({} if wrong is None else {"shuffled": wrong})}


def shuffle_captions(captions: Sequence[str], seed: int) -> list[str] | None:
    """Every caption replaced by another one, always the same for the same caption. "" stays "".

    None if there are fewer than two distinct captions.
    """
    distinct = sorted({caption for caption in captions if caption})
    if len(distinct) < 2:
        return None
    order = [distinct[k] for k in randomness.permutation(len(distinct), seed, "shuffled captions").tolist()]
    other = {"": "", **dict(zip(order, [*order[1:], order[0]], strict=True))}
    return [other[caption] for caption in captions]


def _compare_captions(curves: dict[str, Tensor], schedule: Schedule) -> CaptionEffect:
    """curves: (N, 24) noise losses of the captioned pictures with "true", "empty" and perhaps "shuffled" captions."""
    weights = likelihood.schedule_weights(schedule)
    over_times = {name: curve @ weights for name, curve in curves.items()}

    def rise(name: str) -> Estimate:
        return likelihood.ratio_of(over_times[name] - over_times["true"], over_times["true"])

    def at_levels(name: str) -> tuple[Estimate, ...]:
        return tuple(likelihood.mean_of(column) for column in curves[name].T)

    has_shuffled = "shuffled" in curves
    return CaptionEffect(
        true=likelihood.mean_of(over_times["true"]), empty=likelihood.mean_of(over_times["empty"]),
        shuffled=likelihood.mean_of(over_times["shuffled"]) if has_shuffled else None,
        shuffled_rise=rise("shuffled") if has_shuffled else None, empty_rise=rise("empty"),
        true_at=at_levels("true"), shuffled_at=at_levels("shuffled") if has_shuffled else None,
        empty_at=at_levels("empty"))
