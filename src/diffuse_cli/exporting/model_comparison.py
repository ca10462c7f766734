"""A model against the one that is read back from its export."""

from pathlib import Path

import torch
from torch import Tensor

from ..config import Export, Sampling
from ..network.tokenizer import encode
from ..sampling.generate import encode_prompts, reverse_diffusion
from ..storage.checkpoint import Model, load_model
from ..storage.diffusers_config import INDEX_FILE
from .single_file import TYPES
from .verification import LIMIT, Comparison, Question, captions_for, largest, questions

STEPS = 4                                       # of a picture drawn to compare
HALF_LIMIT = 0.05                               # of an answer, whose size is about 1: half precision rounds to 1/2048


@torch.no_grad()
def answer(model: Model, question: Question) -> Tensor:
    """(N, out_channels, R, R): what the model answers."""
    device = next(model.network.parameters()).device
    text = None
    if model.tokenizer is not None:
        text = model.network.encode(encode(model.tokenizer, question.captions).to(device))
    output: Tensor = model.network(question.noisy.to(device), question.time.to(device), text)
    return output.float()


def compare_read_back(model: Model, path: Path, how: Export) -> list[Comparison]:
    """The model against the one in the file or the folder of diffusers' form at `path`."""
    found = load_model(path / INDEX_FILE if path.is_dir() else path, next(model.network.parameters()).device)
    return compare_models(model, found, rounding=TYPES[how.precision or "fp32"],
                          limit=None if how.precision != "fp16" else HALF_LIMIT)


def compare_models(
    model: Model, found: Model, *, rounding: torch.dtype = torch.float32, limit: float | None = None,
) -> list[Comparison]:
    """A model against one that was read back: weights, once rounded, exactly; answers and pictures up to `limit`.

    Of variance channels only those that both have are compared: some formats have no place for them.
    """
    most = LIMIT if limit is None else limit
    theirs, channels = found.network.state_dict(), found.config.network.out_channels
    weights = [largest(weight.to(rounding).float()[: len(theirs[name])], theirs[name])
               for name, weight in model.network.state_dict().items()]
    comparisons = [Comparison("weights", max(weights), 0.0)]
    for question in questions(model.config, list(model.words)):
        ours, answered = answer(model, question)[:, :channels], answer(found, question)
        comparisons.append(Comparison(f"answers to {len(question.noisy)} at once", largest(ours, answered), most))
    prompts = captions_for(list(model.words))
    if model.tokenizer is not None:
        comparisons.append(Comparison("features of captions", largest(
            *(_given(encode_prompts(one, prompts)[0]) for one in (model, found))), most))
    drawn = largest(*(_picture(one, prompts[2]) for one in (model, found)))
    comparisons.append(Comparison("pictures of a seed", drawn, most))
    return comparisons


def _picture(model: Model, caption: str) -> Tensor:
    """(1, C, R, R): a picture before it is rounded to pixels."""
    text, null = encode_prompts(model, [caption])
    return list(reverse_diffusion(model.network, model.config, text=text, null=null, seeds=[0],
                              sampling=Sampling(sampler="ddim", steps=STEPS)))[-1].noisy


def _given(features: Tensor | None) -> Tensor:
    assert features is not None
    return features
