"""A session: everything that one process holds while it trains one run."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..config import Plan
from ..data.caption_words import count_words
from ..data.listing import Dataset
from ..data.split import Split
from ..diffusion.schedule import make_schedule
from ..diffusion.upscaling import LowRes
from ..network.tokenizer import encode
from ..pictures.pixels import from_pixels, to_unit_range
from ..runtime import randomness
from .batches import shuffled
from .distillation import Probe
from .low_res import SmallPictures
from .run import Run
from .trainer import Trainer


@dataclass(frozen=True)
class Best:
    """The step whose weights have the lowest validation loss so far."""

    step: int
    noise_mse: float                            # that loss
    data_id: str | None = None                  # `Plan.data_id` of the pictures on which it was measured


class HeldOut(NamedTuple):
    """N held-out pictures of one size; of an upscaler, one crop of each."""

    images: Tensor                              # (N, C, H, W) in [-1, 1]
    tokens: Tensor | None                       # (N, 77) of their first captions; None when unconditional
    low_res: LowRes | None = None               # their small pictures, of an upscaler
    enlarged: Tensor | None = None              # (N, C, H, W), the same without noise

    def of(self, rows: slice, device: torch.device) -> "HeldOut":
        """Some of the pictures, on a device."""
        tokens, enlarged = (None if part is None else part[rows].to(device) for part in (self.tokens, self.enlarged))
        low_res = self.low_res and self.low_res.of(rows).on(device)
        return HeldOut(self.images[rows].to(device), tokens, low_res, enlarged)


@dataclass
class Session:
    """Everything that one process needs to train one run."""

    run: Run
    plan: Plan
    dataset: Dataset
    split: Split
    tokenizer: Tokenizer | None                 # None for an unconditional model
    trainer: Trainer
    validation: list[HeldOut]                   # the pictures of a validation, for each size that some of them have
    probes: list[Probe] = field(default_factory=list)      # what the validations of a student compare, once made
    best: Best | None = None
    noise_mse: float | None = None              # loss of the newest validation
    failed_writes: int = 0                      # number of writes in a row that failed
    begun: float = field(default_factory=time.monotonic)                # on the monotonic clock, in seconds

    @property
    def directory(self) -> Path:
        """The run's directory."""
        return self.run.directory

    @cached_property
    def words(self) -> dict[str, int]:
        """The most frequent words of the captions that are trained on → how often each occurs."""
        return count_words(text for position in self.split.train.tolist() for text in self.dataset.captions[position])


def held_out_groups(
    plan: Plan, dataset: Dataset, split: Split, tokenizer: Tokenizer | None,
) -> list[HeldOut]:
    """The held-out pictures of a validation during training, drawn at random, each with its first caption.

    They are in groups of one size. The crops of an upscaler, and the noise on their small pictures, never change.
    """
    groups = []
    for positions in dataset.by_size(shuffled(split.held_out, plan.seed)[: plan.validation_probe]):
        if not len(positions):
            continue
        tokens = None if tokenizer is None else encode(
            tokenizer, [next(iter(dataset.captions[position]), "") for position in positions.tolist()])
        if not plan.model.is_upscaler:
            groups.append(HeldOut(from_pixels(dataset.pixels(positions)), tokens))
            continue
        index = torch.arange(len(positions))
        schedule = make_schedule(plan.model.schedule, plan.model.network.schedule_side)
        small = SmallPictures.of(
            dataset, positions, randomness.uniform(randomness.keys(0, "validated crop", 0, index), 3),
            randomness.keys(0, "validated small noise", 0, index), config=plan.model, schedule=schedule)
        enlarged = small.without_noise()
        groups.append(HeldOut(to_unit_range(small.crops), tokens, small.with_noise(enlarged, schedule), enlarged))
    return groups
