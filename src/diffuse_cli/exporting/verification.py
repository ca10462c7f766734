"""What an exported model must have in common with the original, as figures: the lines of `export.json`.

The same questions are put to both: several batch sizes, noise levels and lengths of captions, and whole pictures. Knows
no format.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..config import ModelConfig
from ..errors import ExportError
from ..network.tokenizer import encode
from ..runtime import randomness
from ..storage.checkpoint import Model

LIMIT = 1e-4                                    # of an answer of the network, in full precision
BATCHES = {1: (999.0,), 3: (0.0, 250.5, 998.0), 5: (3.0, 100.0, 499.0, 700.0, 950.0)}       # size → stock indices


@dataclass(frozen=True)
class Comparison:
    """The largest difference between two answers to the same question, and how large it may be; or a count of them.
    """

    what: str
    max_abs: float
    limit: float

    @property
    def holds(self) -> bool:
        """False as well for what is not a number."""
        return self.max_abs <= self.limit and math.isfinite(self.max_abs)


@dataclass(frozen=True)
class Question:
    """What a network is asked: pictures of one batch, and what is said of them."""

    noisy: Tensor                               # (N, C, R, R)
    time: Tensor                                # (N,) stock indices, float32
    captions: list[str]                         # N; ignored by unconditional models


def judge(comparisons: Sequence[Comparison]) -> None:
    """Raise ExportError for the first comparison that does not hold."""
    for found in comparisons:
        if not found.holds:
            raise ExportError(f"what was exported is not the same as the model ({found.what}: {found.max_abs:.3g}, "
                              f"at most {found.limit:g})")


def captions_for(words: Sequence[str]) -> list[str]:
    """Captions of all lengths: none, one word, some, more than there are positions; and what tokenizers stumble over.
    """
    known = list(words)[:8] or ["red", "car"]
    return ["", known[0], " ".join(known), " ".join(known * 40), f"  Ünï-({known[-1]}) \U0001f697 & Co.\n"]


def questions(config: ModelConfig, words: Sequence[str]) -> Iterator[Question]:
    """The questions put to every exported network, always the same."""
    network, captions = config.network, captions_for(words)
    shape = (network.channels, network.resolution, network.resolution)
    for size, times in BATCHES.items():
        keys = randomness.keys(0, "export", size, torch.arange(size))
        yield Question(randomness.normal(keys, shape), torch.tensor(times), [captions[-1 - k] for k in range(size)])


def compare_tokenizers(model: Model, path: Path) -> Comparison:
    """How many token ids differ between the model's tokenizer and the file, read as stock libraries read it."""
    assert model.tokenizer is not None
    prompts = captions_for(list(model.words))
    theirs = torch.tensor([one.ids for one in Tokenizer.from_file(str(path)).encode_batch(prompts)])
    ours = encode(model.tokenizer, prompts)
    differing = (ours != theirs).sum().item() if ours.shape == theirs.shape else ours.numel()
    return Comparison("token ids that differ", float(differing), 0.0)


def largest(ours: Tensor, theirs: Tensor) -> float:
    """The largest absolute difference; infinite where shapes are not the same."""
    if ours.shape != theirs.shape:
        return math.inf
    return (ours - theirs).abs_().max().item()          # no wider numbers: of a big weight they would be much memory
