"""Measuring a model on pictures it was not trained on: a little during training, thoroughly by `evaluate`.

Joins the network with the estimators of `likelihood`, draws pictures, and compares them with real ones. Knows no
terminal, and of files only what it leaves in the directory of a run.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..config import Sampling
from ..diffusion.guidance import within_range
from ..diffusion.samplers import Denoised
from ..diffusion.schedule import Schedule, make_schedule
from ..events import ProgressCallback, finite
from ..files import durable
from ..network.tokenizer import encode
from ..pictures.pixels import from_pixels
from ..runtime import out_of_memory, randomness
from ..sampling.generate import generate
from ..sampling.request import SampleRequest
from ..storage.checkpoint import Model
from ..storage.evaluation_file import EVALUATION_FILE, GALLERY_FILE
from ..version import __version__
from . import likelihood
from .distances import Comparison, compare_with_floor
from .features import Features, open_features
from .held_out import HeldOut
from .likelihood import BatchDenoiser, Estimate, Likelihood
from .memorisation import Memorisation, gallery, judge
from .noise_curve import denoiser_for_captions

SHOWN = 12                                      # pairs in the gallery
SCHEMA = 1                                      # of evaluation.json


# ── During training ─────────────────────────────────────────────────────────────────────────────────────────────────


# ── The whole evaluation ────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Prompts:
    """What captions are worth: the noise loss with each picture's own, with that of another picture, and with none.

    The rises are shares of the loss with the true caption. Shuffled is None where all pictures have one caption.
    """

    true: Estimate
    shuffled: Estimate | None
    empty: Estimate
    shuffled_rise: Estimate | None
    empty_rise: Estimate
    true_at: tuple[Estimate, ...]                 # at the levels of the curve, as the next two
    shuffled_at: tuple[Estimate, ...] | None
    empty_at: tuple[Estimate, ...]


@dataclass(frozen=True)
class Evaluation:
    """All that was found out about a model."""

    model_sha256: str
    step: int | None
    seed: int
    held_out: int                               # pictures it was measured on
    own: bool                                   # whether its run held them out
    train: int | None                           # pictures it learnt from, where they are known
    likelihood: Likelihood
    prompts: Prompts | None                     # None without captions
    features: str | None                        # in which distances are measured
    distances: Comparison | None                # None where too few pictures were drawn or held out
    memorisation: Memorisation | None           # None where nothing was drawn, or what was learnt from is not known
    gallery: bytes | None                       # a PNG of the drawn pictures that are nearest to training pictures

    def to_dict(self) -> dict[str, Any]:
        """As it is written down: ready for JSON, non-finite numbers as None. Never a path."""
        found, prompts = self.likelihood, self.prompts
        distances = None if self.distances is None else {"features": self.features, **self.distances.to_dict()}
        record: dict[str, Any] = finite({
            "schema": SCHEMA, "version": __version__, "model_sha256": self.model_sha256, "step": self.step,
            "seed": self.seed, "pictures": {"held_out": self.held_out, "train": self.train, "own": self.own},
            "levels": [{"log_snr": log_snr, "noise_mse": figure.value, "standard_error": figure.standard_error}
                       for log_snr, figure in zip(found.log_snr, found.noise_mse_at, strict=True)],
            "noise_mse": _plain(found.noise_mse), "noise_mse_ref": _plain(found.noise_mse_ref),
            "bits_per_dim": {"bound": _plain(found.bound), "area": _plain(found.area)},
            "variance_gain_bpd": _plain(found.variance_gain),
            "variance_calibration": _plain(found.variance_calibration),
            "prompts": None if prompts is None else _plain_prompts(prompts, found.log_snr),
            "distances": distances, "memorisation": self.memorisation and self.memorisation.to_dict()})
        return record


def evaluate(
    model: Model, pictures: HeldOut, *, num: int, seed: int, limit: int, batch_size: int, precision: str,
    features: Features | None = None, cache: Path, tell: ProgressCallback = lambda what, done, total: None,
) -> Evaluation:
    """Measure a model on at most `limit` of the pictures, then on `num` pictures that it draws.

    `features` are those in which distances are measured; None: an encoder trained on what the model learnt from, else
    on the pictures themselves, and kept in the directory `cache`. The seed decides on noise, captions and drawings.
    Raises OutOfMemoryError.
    """
    chosen = _some_of(pictures.positions, limit, seed)
    captions = [next(iter(pictures.dataset.captions[position]), "") for position in chosen.tolist()]
    pixels = pictures.dataset.images[chosen]
    learnt = pictures.learnt
    distances, memorisation, closest = None, None, None
    with out_of_memory.for_pictures(batch_size):
        found, prompts = measure(model, pixels, captions, seed=seed, batch_size=batch_size, precision=precision,
                                 tell=tell)
        if num:
            even = math.ceil(num / math.ceil(num / batch_size))        # batches are filled up: no room for nothing
            sampling = Sampling(batch_size=even, precision=precision)
            wanted = [captions[k % len(captions)] for k in range(num)]
            drawn = _draw(model, wanted, seed=seed, sampling=sampling, tell=tell)
            if min(num, len(pixels) // 2) > 1:
                features = features or _learn_features(pictures, model, cache, tell)
                distances = compare_with_floor(features(pixels), features(drawn), seed=seed)
            if learnt is not None:
                training = learnt.dataset.images[learnt.train]
                memorisation = judge(drawn, training, pixels)
                closest = gallery(memorisation.closest(SHOWN), drawn, training)
    return Evaluation(
        model_sha256=model.sha256, step=model.training.step, seed=seed, held_out=len(chosen),
        own=pictures.own, train=None if learnt is None else len(learnt.train), likelihood=found, prompts=prompts,
        features=None if features is None else features.name, distances=distances, memorisation=memorisation,
        gallery=closest)


def keep(directory: Path, evaluation: Evaluation) -> None:
    """Leave an evaluation in the directory of a run, in the place of an earlier one. Raises StorageError."""
    if evaluation.gallery is not None:
        durable.write(directory / GALLERY_FILE, evaluation.gallery)
    elif (directory / GALLERY_FILE).exists():
        durable.remove(directory / GALLERY_FILE)
    text = json.dumps(evaluation.to_dict(), indent=2, allow_nan=False)
    durable.write(directory / EVALUATION_FILE, f"{text}\n".encode())


def measure(
    model: Model, pixels: np.ndarray, captions: Sequence[str], *, seed: int, batch_size: int, precision: str,
    tell: ProgressCallback = lambda what, done, total: None,
) -> tuple[Likelihood, Prompts | None]:
    """Everything that needs no drawing. pixels: (N, H, W, 3) uint8, with a caption each, "" for none."""
    config, device = model.config, next(model.network.parameters()).device
    schedule = make_schedule(config.schedule, config.network.resolution)
    times = schedule.time_of(likelihood.level_log_snrs(schedule))
    variants = _variants(model, captions, seed)
    asked, calls = 0, (1 + len(variants)) * likelihood.LEVELS + likelihood.LEVELS + 1           # for each picture
    curves: dict[str, list[Tensor]] = {name: [] for name in ("true", *variants)}
    bounds = []

    for start in range(0, len(pixels), batch_size):
        rows = slice(start, start + batch_size)
        image = from_pixels(pixels[rows], device)
        index = torch.arange(start, start + len(image))

        def asker(texts: Sequence[str], rows: slice = rows) -> BatchDenoiser:
            tokens = None if model.tokenizer is None else encode(model.tokenizer, texts[rows]).to(device)
            ask = denoiser_for_captions(model.network, tokens, config=config, schedule=schedule, precision=precision)

            def counted(noisy: Tensor, t: Tensor) -> Denoised:
                nonlocal asked
                answer = ask(noisy, t)
                asked += len(noisy)
                tell("measuring pictures", asked // calls, len(pixels))
                return answer

            return counted

        true = asker(captions)
        bounds.append(likelihood.variational_bound(
            within_range(true), image, schedule=schedule, seed=seed, index=index))
        for name, ask in {"true": true, **{name: asker(texts) for name, texts in variants.items()}}.items():
            curves[name].append(likelihood.noise_losses(
                ask, image, schedule=schedule, times=times, seed=seed, purpose="evaluation", index=index))
    whole = {name: torch.cat(parts) for name, parts in curves.items()}
    found = likelihood.summarise(whole["true"], bounds, schedule, learned=config.learned_variance)
    captioned = torch.tensor([bool(caption) for caption in captions])
    prompts = _judge_prompts({name: curve[captioned] for name, curve in whole.items()}, schedule) if variants else None
    return found, prompts


# ── Small parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def shuffled(captions: Sequence[str], seed: int) -> list[str] | None:
    """To every caption a different one, the same wherever it occurs; "" stays. None where there are not two."""
    distinct = sorted({caption for caption in captions if caption})
    if len(distinct) < 2:
        return None
    order = [distinct[k] for k in randomness.permutation(len(distinct), seed, "shuffled captions").tolist()]
    other = {"": "", **dict(zip(order, [*order[1:], order[0]], strict=True))}
    return [other[caption] for caption in captions]


def _variants(model: Model, captions: Sequence[str], seed: int) -> dict[str, Sequence[str]]:
    """What is told to the model in the place of the captions, by name; nothing where no caption can be told."""
    if model.tokenizer is None or not any(captions):
        return {}
    wrong = shuffled(captions, seed)
    return {"empty": [""] * len(captions), **({} if wrong is None else {"shuffled": wrong})}


def _judge_prompts(curves: dict[str, Tensor], schedule: Schedule) -> Prompts:
    """curves: (N, 24) noise losses of the captioned pictures, for each of the variants and "true"."""
    weights = likelihood.schedule_weights(schedule)
    over_times = {name: curve @ weights for name, curve in curves.items()}

    def rise(name: str) -> Estimate:
        return likelihood.ratio_of(over_times[name] - over_times["true"], over_times["true"])

    def at_levels(name: str) -> tuple[Estimate, ...]:
        return tuple(likelihood.mean_of(column) for column in curves[name].T)

    known = "shuffled" in curves
    return Prompts(
        true=likelihood.mean_of(over_times["true"]), empty=likelihood.mean_of(over_times["empty"]),
        shuffled=likelihood.mean_of(over_times["shuffled"]) if known else None,
        shuffled_rise=rise("shuffled") if known else None, empty_rise=rise("empty"),
        true_at=at_levels("true"), shuffled_at=at_levels("shuffled") if known else None, empty_at=at_levels("empty"))


def _some_of(positions: np.ndarray, limit: int, seed: int) -> np.ndarray:
    """At most `limit` of the positions, ascending, drawn at random: names may be sorted by content."""
    order = randomness.permutation(len(positions), seed, "evaluated")
    chosen: np.ndarray = positions[order[:limit].sort().values.numpy()]
    return chosen


def _learn_features(pictures: HeldOut, model: Model, cache: Path, tell: ProgressCallback) -> Features:
    dataset, positions = pictures.dataset, pictures.positions
    if pictures.learnt is not None and len(pictures.learnt.train) > 1:            # one shows no differences
        dataset, positions = pictures.learnt.dataset, pictures.learnt.train
    durable.make_directory(cache)
    steps = open_features(dataset, positions, directory=cache, device=next(model.network.parameters()).device)
    while True:
        try:
            tell("learning features", *next(steps))
        except StopIteration as end:
            features: Features = end.value
            return features


def _draw(model: Model, prompts: Sequence[str], *, seed: int, sampling: Sampling, tell: ProgressCallback) -> np.ndarray:
    """One picture of each prompt, picture k with seed + k. → (N, H, W, 3) uint8"""
    tell("drawing pictures", 0, len(prompts))
    made = []
    wanted = [SampleRequest(prompt=prompt, seed=seed + k, sampling=sampling) for k, prompt in enumerate(prompts)]
    for drawn in generate(model, wanted):
        made.append(drawn.pixels)
        if len(made) % sampling.batch_size == 0 or len(made) == len(prompts):           # a batch comes all at once
            tell("drawing pictures", len(made), len(prompts))
    return np.stack(made)


def _plain(figure: Estimate | None) -> dict[str, Any] | None:
    return None if figure is None else dataclasses.asdict(figure)


def _plain_prompts(prompts: Prompts, log_snr: Sequence[float]) -> dict[str, Any]:
    names = ("true", "shuffled", "empty", "shuffled_rise", "empty_rise")
    levels = [{"log_snr": value, "true": prompts.true_at[k].value, "empty": prompts.empty_at[k].value,
               "shuffled": None if prompts.shuffled_at is None else prompts.shuffled_at[k].value}
              for k, value in enumerate(log_snr)]
    return {**{name: _plain(getattr(prompts, name)) for name in names}, "levels": levels}
