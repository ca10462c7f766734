"""An exported folder of ONNX graphs asked what the model is asked: networks, tokenizer, noise, and whole pictures."""

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
from .verification import LIMIT, Comparison, captions_for, compare_tokenizers, largest

if TYPE_CHECKING:
    from .standalone.sample import Sampler

BATCHES = (1, 2, 5, 8)                          # graphs are traced with two
TIMES = (999.0, 0.0, 500.5, 3.0, 250.0, 750.0, 998.0, 40.0)
PIXEL = 1 / 255
NOISE_LIMIT = 1e-6                              # the same bits, but another library's logarithm and cosine
FEW = Sampling(sampler="ddim", steps=5)         # other numbers of steps and pictures than a folder's table is made for


@dataclass(frozen=True)
class _Drawn:
    """Pictures that the model itself drew of some prompts; picture k has seed k."""

    prompts: list[str]
    sampling: Sampling
    noise: Tensor                               # (N, C, R, R), what they began as
    pictures: Tensor                            # (N, C, R, R) in [0, 1]


def compare(model: Model, folder: Path, how: Export) -> list[Comparison]:
    """The model against its folder, opened by onnxruntime. Raises UsageError when the extra is not installed."""
    check_extra()
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)                          # errors only: nothing else reaches the terminal
    gc.collect()                                                        # what writing left would be in the way
    captions = captions_for(list(model.words))
    drawn = [_drawn(model, captions[2:3], Sampling()), _drawn(model, captions[:3], FEW)]
    compared = _with_networks(model, folder, drawn)
    gc.collect()                                                        # their sessions, before that of the whole
    return [*compared, *_graph(model, folder, drawn)]


def versions() -> dict[str, str]:
    """That of the library that opens the graphs."""
    return {"onnxruntime": importlib.metadata.version("onnxruntime")}


def _with_networks(model: Model, folder: Path, drawn: Sequence[_Drawn]) -> list[Comparison]:
    """All that the two networks are asked, opened once."""
    from .standalone.sample import Sampler

    sampler = Sampler(folder)
    return [*_networks(model, folder, sampler), *_script(sampler, model, drawn)]


def _networks(model: Model, folder: Path, sampler: "Sampler") -> Iterator[Comparison]:
    """Tokenizer, text encoder and U-Net, each given the same as the model's own."""
    captions = captions_for(list(model.words))
    if model.tokenizer is not None:
        yield compare_tokenizers(model, folder / TOKENIZER_FILE)
        for size in BATCHES:
            prompts = (captions * 2)[-size:]
            yield Comparison(f"text encoder: features of {size} at once", largest(
                _text(model, prompts), torch.from_numpy(sampler.encode(prompts))), LIMIT)
    for size in BATCHES:
        yield Comparison(f"U-Net: answers to {size} at once", _largest_answer(model, sampler, (captions * 2)[-size:]),
                         LIMIT)


def _script(sampler: "Sampler", model: Model, drawn: Sequence[_Drawn]) -> Iterator[Comparison]:
    """The script that draws with the two networks, and its noise."""
    from .standalone.sample import noise_of, step_table

    for ours in drawn:
        text, negative = None, None
        if model.tokenizer is not None:
            text, negative = sampler.encode(ours.prompts), sampler.encode([""] * len(ours.prompts))
        noise = np.stack([noise_of(seed, sampler.shape) for seed in range(len(ours.prompts))])
        table = step_table(sampler.constants, ours.sampling.number_of_steps, sampler=ours.sampling.sampler)
        theirs = sampler.draw(noise, table, text=text, negative=negative, guidance=ours.sampling.guidance)
        yield Comparison("sample.py: noise", largest(ours.noise, torch.from_numpy(noise)), NOISE_LIMIT)
        yield Comparison(f"sample.py: {_told(ours)}", largest(ours.pictures, torch.from_numpy(theirs)), PIXEL)


def _graph(model: Model, folder: Path, drawn: Sequence[_Drawn]) -> Iterator[Comparison]:
    """The whole sampler in one graph."""
    import onnxruntime

    from .standalone.sample import PROVIDERS, step_table

    constants = json.loads((folder / CONSTANTS_FILE).read_bytes())
    session = onnxruntime.InferenceSession(folder / SAMPLER_FILE, providers=PROVIDERS)
    for ours in drawn:
        inputs: dict[str, Any] = {
            "noise": ours.noise.numpy(),
            "steps": step_table(constants, ours.sampling.number_of_steps, sampler=ours.sampling.sampler)}
        if model.tokenizer is not None:
            inputs |= {"tokens": encode(model.tokenizer, ours.prompts).numpy(),
                       "negative_tokens": encode(model.tokenizer, [""]).numpy(),
                       "guidance": np.array(ours.sampling.guidance, np.float32)}
        theirs = torch.from_numpy(session.run(None, inputs)[0])
        yield Comparison(f"{SAMPLER_FILE}: {_told(ours)}", largest(ours.pictures, theirs), PIXEL)


def _told(drawn: _Drawn) -> str:
    sampling = drawn.sampling
    return f"pictures by {sampling.number_of_steps} steps of {sampling.sampler}, {len(drawn.prompts)} at once,"


# ── The model's own answers ─────────────────────────────────────────────────────────────────────────────────────────


@torch.no_grad()
def _largest_answer(model: Model, sampler: "Sampler", captions: list[str]) -> float:
    noisy, time = _noise(model, len(captions)), torch.tensor(TIMES[: len(captions)])
    text = None if model.tokenizer is None else _text(model, captions)
    inputs = {"noisy": noisy.numpy(), "time": time.numpy()}
    theirs = sampler.unet.run(None, inputs if text is None else {**inputs, "text": text.numpy()})[0]
    return largest(model.network(noisy, time, text), torch.from_numpy(theirs))


def _text(model: Model, captions: list[str]) -> Tensor:
    features, _ = encode_prompts(model, captions)
    assert features is not None
    return features


def _noise(model: Model, count: int) -> Tensor:
    """The noise from which the seeds 0, 1, 2, … are drawn: (N, C, R, R)."""
    network = model.config.network
    keys = torch.tensor([randomness.key(seed, "sample", -1) for seed in range(count)])
    return randomness.normal(keys, (network.channels, network.resolution, network.resolution))


def _drawn(model: Model, prompts: list[str], sampling: Sampling) -> _Drawn:
    text, null = encode_prompts(model, prompts)
    *_, last = reverse_diffusion(model.network, model.config, text=text, null=null, seeds=range(len(prompts)),
                             sampling=sampling)
    return _Drawn(prompts, sampling, _noise(model, len(prompts)), (last.noisy / 2 + 0.5).clamp(0, 1))
