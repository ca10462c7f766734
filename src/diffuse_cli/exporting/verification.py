"""Verification of exports: the inputs on which networks are compared, the comparisons, and the verdict.

The inputs cover several batch sizes, noise levels and lengths of captions. They are the same for every export.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..diffusion.upscaling import LowRes
from ..errors import ExportError
from ..model_config import ModelConfig
from ..network.network import Network
from ..network.tokenizer import encode
from ..runtime import randomness
from ..storage.checkpoint import Model

RELATIVE_LIMIT = 1e-5                           # of answers and features, as a share of the largest; to it comes
ROUNDINGS = 8                                   # this many times the error that rounding makes in the model's own
TIMES_BY_BATCH_SIZE = {1: (999.0,), 3: (0.0, 250.5, 998.0), 5: (3.0, 100.0, 499.0, 700.0, 950.0)}      # stock times


@dataclass(frozen=True)
class Comparison:
    """The largest absolute difference of one property between a model and its export, or a count of differences.

    The fields are written to `export.json` under their names.
    """

    what: str
    max_abs: float
    limit: float

    @property
    def holds(self) -> bool:
        """Whether the difference is at most the limit; NaN and infinity never are."""
        return self.max_abs <= self.limit and math.isfinite(self.max_abs)


@dataclass(frozen=True)
class NetworkInput:
    """One batch of inputs for a network."""

    noisy: Tensor                               # (N, C, H, W)
    time: Tensor                                # (N,) float32, indices of the 1000 stock time steps
    captions: list[str]                         # N; ignored by unconditional models
    low_res: LowRes | None                      # the small pictures, of an upscaler


def require_agreement(comparisons: Sequence[Comparison]) -> None:
    """Raise ExportError for the first comparison that does not hold."""
    for comparison in comparisons:
        if not comparison.holds:
            raise ExportError(f"the export differs from the model ({comparison.what}: {comparison.max_abs:.3g}, "
                              f"at most {comparison.limit:g})")


def comparison_captions(words: Sequence[str]) -> list[str]:
    """Return captions without words, with one, with some, with more words than positions, and with odd characters.

    words: those of the training captions, from which most of these are made.
    """
    known = list(words)[:8] or ["red", "car"]
    return ["", known[0], " ".join(known), " ".join(known * 40), f"  Ünï-({known[-1]}) \U0001f697 & Co.\n"]


def network_inputs(config: ModelConfig, words: Sequence[str]) -> Iterator[NetworkInput]:
    """Yield the batches on which exported networks are compared: one for each entry of TIMES_BY_BATCH_SIZE."""
    captions = comparison_captions(words)
    for size, times in TIMES_BY_BATCH_SIZE.items():
        keys = randomness.keys(0, "export", size, torch.arange(size))
        low_res = None if config.network.upscaling is None else LowRes(
            randomness.normal(keys + 1, config.network.shape), torch.tensor(times).flip(0))
        yield NetworkInput(randomness.normal(keys, config.network.shape), torch.tensor(times),
                           [captions[-1 - k] for k in range(size)], low_res)


@torch.no_grad()
def answers_and_limit(
    network: Network, noisy: Tensor, time: Tensor, text: Tensor | None, low_res: LowRes | None = None,
) -> tuple[Tensor, float]:
    """The answers of a network in float32 (N, out_channels, H, W), and how far other right answers may be from them.

    A network that adds the same numbers in another order answers differently. How differently depends on the model and
    on the machine. So the model is asked in float64 as well: its own float32 answers are as wrong as those of others.
    """
    answers: Tensor = network(noisy, time, text, low_res=low_res)
    network.double()
    exact = network(noisy.double(), time, None if text is None else text.double(), low_res=low_res)
    network.float()                             # exactly what it was
    return answers, _limit(answers, exact)


@torch.no_grad()
def features_and_limit(network: Network, tokens: Tensor) -> tuple[Tensor, float]:
    """The text features of tokens in float32 (N, 77, width), and how far others may be: see `answers_and_limit`."""
    features = network.encode(tokens)
    network.double()
    exact = network.encode(tokens)
    network.float()
    return features, _limit(features, exact)


def _limit(answers: Tensor, exact: Tensor) -> float:
    rounding = largest_difference(exact, answers.double())
    return RELATIVE_LIMIT * answers.abs().max().item() + ROUNDINGS * rounding


def compare_tokenizers(model: Model, path: Path) -> Comparison:
    """Count the token ids that differ between the model's tokenizer and the file, read as stock libraries read it."""
    assert model.tokenizer is not None
    captions = comparison_captions(list(model.words))
    exported = torch.tensor([encoding.ids for encoding in Tokenizer.from_file(str(path)).encode_batch(captions)])
    expected = encode(model.tokenizer, captions)
    differing = (expected != exported).sum().item() if expected.shape == exported.shape else expected.numel()
    return Comparison("token ids that differ", float(differing), 0.0)


def largest_difference(expected: Tensor, exported: Tensor) -> float:
    """Return the largest absolute difference of two tensors; infinity if their shapes differ."""
    if expected.shape != exported.shape:
        return math.inf
    return (expected - exported).abs_().max().item()        # in float32: float64 copies of big weights need much memory
