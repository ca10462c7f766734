"""Compares a model with its exported ONNX folder: tokenizer, both networks, noise, and whole pictures."""

import gc
import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..config import Export, Sampling
from ..network.tokenizer import encode
from ..runtime import randomness
from ..sampling.generate import encode_prompts, reverse_diffusion
from ..storage.checkpoint import Model
from .onnx_graphs import CONSTANTS_FILE, SAMPLER_FILE, TOKENIZER_FILE, check_extra
from .verification import (
    Comparison,
    answers_and_limit,
    compare_tokenizers,
    comparison_captions,
    features_and_limit,
    largest_difference,
)

if TYPE_CHECKING:
    from .standalone.sample import Sampler

BATCH_SIZES = (1, 2, 5, 8)                      # graphs are traced with 2, and must work for others
TIMES = (999.0, 0.0, 500.5, 3.0, 250.0, 750.0, 998.0, 40.0)     # stock indices; a batch of N takes the first N
PIXEL_LIMIT = 1 / 255                           # for pictures in [0, 1]
NOISE_LIMIT = 1e-6                              # the same random bits, but another library's logarithm and cosine
FEW_STEPS = Sampling(sampler="ddim", steps=5)   # a number of steps for which the folder holds no table


@dataclass(frozen=True)
class _Reference:
    """Pictures that the model itself generated; picture k has seed k."""

    prompts: list[str]
    sampling: Sampling
    noise: Tensor                               # (N, C, H, W), from which sampling started
    pictures: Tensor                            # (N, C, H, W) in [0, 1]


def compare(model: Model, folder: Path, settings: Export) -> list[Comparison]:
    """Compare the model with its folder, opened by onnxruntime. Raises UsageError if a library of the extra is missing.
    """
    check_extra()
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)                          # errors only: the terminal shows no warnings
    gc.collect()                                                        # frees memory that writing the folder left
    captions = comparison_captions(list(model.words))
    usual = Sampling.of(model.config)
    references = [_reference(model, captions[2:3], usual),
                  _reference(model, captions[:3], FEW_STEPS if model.config.student is None else usual)]
    comparisons = _compare_networks_and_script(model, folder, references)
    gc.collect()                                                        # frees two sessions before the next is opened
    return [*comparisons, *_compare_sampler_graph(model, folder, references)]


def versions() -> dict[str, str]:
    """Return the version of the library that opens the graphs."""
    return {"onnxruntime": importlib.metadata.version("onnxruntime")}


def _compare_networks_and_script(model: Model, folder: Path, references: Sequence[_Reference]) -> list[Comparison]:
    """Open the two networks once, for all comparisons that need them."""
    from .standalone.sample import Sampler

    sampler = Sampler(folder)
    return [*_compare_networks(model, folder, sampler), *_compare_script(sampler, model, references)]


def _compare_networks(model: Model, folder: Path, sampler: "Sampler") -> Iterator[Comparison]:
    """Compare tokenizer, text encoder and U-Net, each on the same inputs as the model's own."""
    captions = comparison_captions(list(model.words))
    if model.tokenizer is not None:
        yield compare_tokenizers(model, folder / TOKENIZER_FILE)
        for size in BATCH_SIZES:
            prompts = (captions * 2)[-size:]
            features, limit = features_and_limit(model.network, encode(model.tokenizer, prompts))
            difference = largest_difference(features, torch.from_numpy(sampler.encode(prompts)))
            yield Comparison(f"text encoder: features of {size} at once", difference, limit)
    for size in BATCH_SIZES:
        difference, limit = _unet_difference(model, sampler, (captions * 2)[-size:])
        yield Comparison(f"U-Net: answers to {size} at once", difference, limit)


def _compare_script(sampler: "Sampler", model: Model, references: Sequence[_Reference]) -> Iterator[Comparison]:
    """Compare the noise and the pictures of the script, which samples with the two networks."""
    from .standalone.sample import noise_of, step_table

    for reference in references:
        count, sampling = len(reference.prompts), reference.sampling
        text, negative = None, None
        if model.tokenizer is not None:
            text, negative = sampler.encode(reference.prompts), sampler.encode([""] * count)
        noise = np.stack([noise_of(seed, sampler.shape) for seed in range(count)])
        table = step_table(sampler.constants, sampling.number_of_steps, sampler=sampling.sampler)
        pictures = sampler.generate(noise, table, text=text, negative=negative, guidance=sampling.guidance)
        yield Comparison("sample.py: noise", largest_difference(reference.noise, torch.from_numpy(noise)), NOISE_LIMIT)
        yield Comparison(f"sample.py: {_label(reference)}",
                         largest_difference(reference.pictures, torch.from_numpy(pictures)), PIXEL_LIMIT)


def _compare_sampler_graph(model: Model, folder: Path, references: Sequence[_Reference]) -> Iterator[Comparison]:
    """Compare the pictures of the whole sampler in one graph."""
    import onnxruntime

    from .standalone.sample import PROVIDERS, step_table

    constants = json.loads((folder / CONSTANTS_FILE).read_bytes())
    session = onnxruntime.InferenceSession(folder / SAMPLER_FILE, providers=PROVIDERS)
    for reference in references:
        sampling = reference.sampling
        inputs: dict[str, Any] = {
            "noise": reference.noise.numpy(),
            "steps": step_table(constants, sampling.number_of_steps, sampler=sampling.sampler)}
        if model.tokenizer is not None:
            inputs |= {"tokens": encode(model.tokenizer, reference.prompts).numpy(),
                       "negative_tokens": encode(model.tokenizer, [""]).numpy(),
                       "guidance": np.array(sampling.guidance, np.float32)}
        pictures = torch.from_numpy(session.run(None, inputs)[0])
        yield Comparison(f"{SAMPLER_FILE}: {_label(reference)}", largest_difference(reference.pictures, pictures),
                         PIXEL_LIMIT)


def _label(reference: _Reference) -> str:
    sampling = reference.sampling
    return f"pictures by {sampling.number_of_steps} steps of {sampling.sampler}, {len(reference.prompts)} at once,"


# ── The model's own outputs ─────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def _unet_difference(model: Model, sampler: "Sampler", captions: list[str]) -> tuple[float, float]:
    """The largest difference between the answers of model and graph, and how large it may be."""
    noisy, time = _noise(model, len(captions)), torch.tensor(TIMES[: len(captions)])
    text = None if model.tokenizer is None else _text_features(model, captions)
    inputs = {"noisy": noisy.numpy(), "time": time.numpy()}
    exported = sampler.unet.run(None, inputs if text is None else {**inputs, "text": text.numpy()})[0]
    answers, limit = answers_and_limit(model.network, noisy, time, text)
    return largest_difference(answers, torch.from_numpy(exported)), limit


def _text_features(model: Model, captions: list[str]) -> Tensor:
    features, _ = encode_prompts(model, captions)
    assert features is not None
    return features


def _noise(model: Model, count: int) -> Tensor:
    """Return the noise from which the seeds 0, 1, 2, … start: (count, C, H, W)."""
    keys = torch.tensor([randomness.key(seed, "sample", -1) for seed in range(count)])
    return randomness.normal(keys, model.config.network.shape)


def _reference(model: Model, prompts: list[str], sampling: Sampling) -> _Reference:
    text, null = encode_prompts(model, prompts)
    *_, last = reverse_diffusion(model.network, model.config, text=text, negative=null, seeds=range(len(prompts)),
                                 sampling=sampling)
    return _Reference(prompts, sampling, _noise(model, len(prompts)), (last.noisy / 2 + 0.5).clamp(0, 1))
