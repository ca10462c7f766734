"""The training data as a function of the step: which pictures, captions, noise and times each step sees.

Nothing is remembered between steps, so resuming needs only the step number, and a batch may be cut into micro-batches
or shared among processes at will. Knows no network.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..config import Plan
from ..data.dataset import Dataset
from ..diffusion.losses import training_times
from ..network.tokenizer import encode
from ..pictures.pixels import from_pixels
from ..runtime import randomness
from .loss import Batch


@dataclass(frozen=True)
class Batches:
    """Draws every batch of a run. `tokenizer` is None when unconditional."""

    plan: Plan
    dataset: Dataset
    train: np.ndarray                           # (…,) int64, positions of the training pictures
    tokenizer: Tokenizer | None
    device: torch.device

    def draw(self, step: int, start: int, count: int) -> tuple[Batch, Tensor]:
        """Pictures start … start + count - 1 of step's global batch, and the keys of their dropout masks.

        Every picture is seen once an epoch, in an order of the epoch's own; a batch may span two epochs.
        """
        plan = self.plan
        index = torch.arange(start, start + count)
        positions = self._positions(step * plan.batch_size + index)
        image = from_pixels(self.dataset.images[positions], self.device)
        if plan.flip:
            flipped = randomness.uniform(self._keys("flip", step, index), 1)[:, 0] < 0.5
            image = torch.where(flipped.to(self.device)[:, None, None, None], image.flip(3), image)
        uniform = randomness.uniform(self._keys("time", step, index), 1)[:, 0]
        t = training_times(uniform, index=index, batch_size=plan.batch_size, times=plan.times)
        noise = randomness.normal(self._keys("noise", step, index).to(self.device), tuple(image.shape[1:]))
        tokens, caption_of = self._tokens(step, index, positions)
        return Batch(image, noise, t, tokens, caption_of), self._keys("dropout", step, index).to(self.device)

    def _keys(self, purpose: str, step: int, index: Tensor) -> Tensor:
        return randomness.keys(self.plan.seed, purpose, step, index)

    def _positions(self, seen: Tensor) -> np.ndarray:
        """Numbers of pictures seen before, over all epochs, (N,) → positions in the data set (N,)."""
        length = len(self.train)
        return self.train[[
            _order(self.plan.seed, number // length, length)[number % length] for number in seen.tolist()]]

    def _tokens(self, step: int, index: Tensor, positions: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        """The distinct captions of a batch as tokens, and which of them each picture has."""
        if self.tokenizer is None:
            return None, None
        draws = randomness.uniform(self._keys("caption", step, index), 2).numpy()
        words = self._keys("words", step, index)
        captions = [
            self._caption(self.dataset.captions[position], pick, drop, words[number : number + 1])
            for number, (position, (pick, drop)) in enumerate(zip(positions.tolist(), draws, strict=True))]
        distinct = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
        caption_of = torch.tensor([distinct[caption] for caption in captions])
        return encode(self.tokenizer, list(distinct)).to(self.device), caption_of.to(self.device)

    def _caption(self, alternatives: tuple[str, ...], pick: float, drop: float, key: Tensor) -> str:
        """One of the alternatives; now and then the empty caption of classifier-free guidance, or a word less."""
        if not alternatives or drop < self.plan.caption_drop:
            return ""
        caption = alternatives[int(pick * len(alternatives))]
        if self.plan.word_drop == 0:
            return caption
        words = caption.split()
        kept = randomness.uniform(key, len(words))[0].numpy() >= self.plan.word_drop
        return " ".join(np.array(words, dtype=object)[kept]) if kept.any() else caption


@functools.lru_cache(maxsize=2)                 # a batch spans at most two epochs, unless the data set is tiny
def _order(seed: int, epoch: int, length: int) -> Tensor:
    return randomness.permutation(length, seed, "order", epoch)
