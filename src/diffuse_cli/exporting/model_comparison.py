"""Compares a model with the model that is read back from its export: weights, network outputs and a whole picture."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ..config import Export, Sampling
from ..network.tokenizer import encode
from ..sampling.generate import encode_prompts, reverse_diffusion
from ..storage.checkpoint import Model, load_model
from ..storage.diffusers_config import INDEX_FILE
from .single_file import DTYPES
from .verification import Comparison, NetworkInput, comparison_captions, largest_difference, network_inputs

STEPS = 4                                       # number of sampling steps of the picture that is compared
LIMIT = 1e-4                                    # the same code with the same weights: next to nothing
HALF_PRECISION_LIMIT = 0.05                     # half precision rounds weights by up to 1/2048


def compare_read_back(model: Model, path: Path, settings: Export) -> list[Comparison]:
    """Compare the model with the one that is read from an exported file or an exported diffusers folder."""
    device = next(model.network.parameters()).device
    read_back = load_model(path / INDEX_FILE if path.is_dir() else path, device)
    dtype = DTYPES[settings.precision or "fp32"]
    return compare_models(model, read_back, rounding=lambda weight: weight.to(dtype).float(),
                          limit=HALF_PRECISION_LIMIT if settings.precision == "fp16" else LIMIT)


def compare_models(
    model: Model, read_back: Model, *, rounding: Callable[[Tensor], Tensor] = torch.Tensor.float, limit: float = LIMIT,
) -> list[Comparison]:
    """Compare weights exactly, after `rounding` the model's own; outputs, features and a picture up to `limit`.

    It is a share of the largest output and feature, and absolute for the picture, whose values are in [-1, 1].
    Variance channels that one of them lacks are left out: some formats have no place for them.
    """
    tensors, channels = read_back.network.state_dict(), read_back.config.network.out_channels
    weights = [largest_difference(rounding(weight)[: len(tensors[name])], tensors[name])
               for name, weight in model.network.state_dict().items()]
    comparisons = [Comparison("weights", max(weights), 0.0)]
    for batch in network_inputs(model.config, list(model.words)):
        answers = network_output(model, batch)[:, :channels]
        difference = largest_difference(answers, network_output(read_back, batch))
        comparisons.append(Comparison(
            f"answers to {len(batch.noisy)} at once", difference, limit * answers.abs().max().item()))
    captions = comparison_captions(list(model.words))
    if model.tokenizer is not None:
        features = _features(model, captions)
        difference = largest_difference(features, _features(read_back, captions))
        comparisons.append(Comparison("features of captions", difference, limit * features.abs().max().item()))
    difference = largest_difference(_picture(model, captions[2]), _picture(read_back, captions[2]))
    comparisons.append(Comparison("pictures of a seed", difference, limit))
    return comparisons


@torch.no_grad()
def network_output(model: Model, batch: NetworkInput) -> Tensor:
    """Run the model's network on its own device. → (N, out_channels, H, W) float32"""
    device = next(model.network.parameters()).device
    text = None
    if model.tokenizer is not None:
        text = model.network.encode(encode(model.tokenizer, batch.captions).to(device))
    low_res = batch.low_res and batch.low_res.on(device)
    output: Tensor = model.network(batch.noisy.to(device), batch.time.to(device), text, low_res=low_res)
    return output.float()


def _features(model: Model, captions: list[str]) -> Tensor:
    features, _ = encode_prompts(model, captions)
    assert features is not None
    return features


def _picture(model: Model, caption: str) -> Tensor:
    """Generate a picture, (1, C, H, W), before it is rounded to pixels."""
    text, null = encode_prompts(model, [caption])
    steps = {} if model.config.student is not None else {"sampler": "ddim", "steps": STEPS}
    network, low_res = model.config.network, None
    if network.upscaling is not None:
        (batch, *_) = network_inputs(model.config, [])
        low_res = batch.low_res and batch.low_res.on(next(model.network.parameters()).device)
    *_, last = reverse_diffusion(
        model.network, model.config, text=text, negative=null, seeds=[0], sampling=Sampling.of(model.config, **steps),
        size=None if low_res is None else network.resolution, low_res=low_res)
    return last.noisy
