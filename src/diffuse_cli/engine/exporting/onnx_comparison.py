"""An exported folder of ONNX graphs asked what the model is asked: networks, tokenizer, noise, and whole pictures."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from .. import randomness
from ..checkpoint import Model
from ..config import Sampling
from ..generation import denoise_steps, encode_prompts
from ..network.text import encode
from .onnx_folder import SAMPLER_FILE, TOKENIZER_FILE
from .onnx_graphs import check_extra
from .verification import LIMIT, Comparison, captions_for, compare_tokenizers, largest

if TYPE_CHECKING:
    from .standalone.sample import Sampler

BATCHES = (1, 2, 5, 8)                          # graphs are traced with two
TIMES = (999.0, 0.0, 500.5, 3.0, 250.0, 750.0, 998.0, 40.0)
PIXEL = 1 / 255
NOISE_LIMIT = 1e-6                              # the same bits, by another library's logarithm and cosine
FEW = Sampling(sampler="ddim", steps=5)         # other numbers of steps and pictures than a folder's table is made for


def compare_onnx(model: Model, folder: Path) -> list[Comparison]:
    """The model against its folder, opened by onnxruntime. Raises UsageError when the extra is not installed."""
    check_extra()
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)                          # errors only: nothing else reaches the terminal
    return [*_by_script(model, folder), *_by_graph(model, folder)]


def _by_script(model: Model, folder: Path) -> Iterator[Comparison]:
    """The two networks, and the script that draws with them."""
    from .standalone.sample import Sampler, noise_of, step_table

    sampler, captions = Sampler(folder), captions_for(list(model.words))
    if model.tokenizer is not None:
        yield compare_tokenizers(model, folder / TOKENIZER_FILE)
        for size in BATCHES:
            prompts = (captions * 2)[-size:]
            yield Comparison(f"text encoder: features of {size} at once", largest(
                _text(model, prompts), torch.from_numpy(sampler.encode(prompts))), LIMIT)
    for size in BATCHES:
        yield Comparison(f"U-Net: answers to {size} at once", _largest_answer(model, sampler, (captions * 2)[-size:]),
                         LIMIT)
    noise = torch.from_numpy(noise_of(7, sampler.shape))
    yield Comparison("noise of a seed", largest(_noise(model, [7])[0], noise), NOISE_LIMIT)

    prompts, sampling = captions[2:3], Sampling()
    text, negative = (None, None) if model.tokenizer is None else (sampler.encode(prompts), sampler.encode([""]))
    drawn = sampler.draw(_noise(model, [7]).numpy(), step_table(sampler.constants, sampling.number_of_steps),
                         text=text, negative=negative, guidance=sampling.guidance)
    yield Comparison("sample.py: pictures", largest(_pictures(model, prompts, [7], sampling), torch.from_numpy(drawn)),
                     PIXEL)


def _by_graph(model: Model, folder: Path) -> Iterator[Comparison]:
    """The sampler in one graph: the usual steps, then others."""
    import json

    import onnxruntime

    from .standalone.sample import PROVIDERS, step_table

    gc.collect()                                                        # the script's graphs are not needed any more
    constants = json.loads((folder / "sampler.json").read_bytes())
    session = onnxruntime.InferenceSession(folder / SAMPLER_FILE, providers=PROVIDERS)
    captions = captions_for(list(model.words))
    for prompts, sampling in ((captions[2:3], Sampling()), (captions[:3], FEW)):
        seeds = list(range(len(prompts)))
        inputs: dict[str, Any] = {
            "noise": _noise(model, seeds).numpy(),
            "steps": step_table(constants, sampling.number_of_steps, sampler=sampling.sampler)}
        if model.tokenizer is not None:
            inputs |= {"tokens": encode(model.tokenizer, prompts).numpy(),
                       "negative_tokens": encode(model.tokenizer, [""]).numpy(),
                       "guidance": np.array(sampling.guidance, np.float32)}
        drawn = torch.from_numpy(session.run(None, inputs)[0])
        yield Comparison(f"sampler.onnx: pictures by {sampling.number_of_steps} steps of {sampling.sampler}",
                         largest(_pictures(model, prompts, seeds, sampling), drawn), PIXEL)


# ── The model's own answers ─────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def _largest_answer(model: Model, sampler: "Sampler", captions: list[str]) -> float:
    noisy, time = _noise(model, range(len(captions))), torch.tensor(TIMES[: len(captions)])
    text = None if model.tokenizer is None else _text(model, captions)
    inputs = {"noisy": noisy.numpy(), "time": time.numpy()}
    theirs = sampler.unet.run(None, inputs if text is None else {**inputs, "text": text.numpy()})[0]
    return largest(model.network(noisy, time, text), torch.from_numpy(theirs))


def _text(model: Model, captions: list[str]) -> Tensor:
    features, _ = encode_prompts(model, captions)
    assert features is not None
    return features


def _noise(model: Model, seeds: "range | list[int]") -> Tensor:
    """The noise from which `diffuse sample` draws these seeds: (N, C, R, R)."""
    network = model.config.network
    keys = torch.tensor([randomness.key(seed, "sample", -1) for seed in seeds])
    return randomness.normal(keys, (network.channels, network.resolution, network.resolution))


def _pictures(model: Model, prompts: list[str], seeds: list[int], sampling: Sampling) -> Tensor:
    """(N, C, R, R) in [0, 1]."""
    text, null = encode_prompts(model, prompts)
    *_, last = denoise_steps(model.network, model.config, text=text, null=null, seeds=seeds, sampling=sampling)
    return (last.noisy / 2 + 0.5).clamp(0, 1)
