"""Training batches as a function of the step number: its pictures, captions, noise and times.

Nothing is remembered between steps. So resuming needs only the step number, and a batch may be cut into micro-batches
or shared among processes at will.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..config import Plan
from ..data.listing import Dataset
from ..diffusion.losses import training_times
from ..network.tokenizer import encode
from ..pictures.pixels import from_pixels
from ..runtime import randomness
from .loss import Batch


@dataclass(frozen=True)
class Batches:
    """All batches of a run."""

    plan: Plan
    dataset: Dataset
    train: np.ndarray                           # int64, positions of the training pictures in the data set
    tokenizer: Tokenizer | None                 # None for an unconditional network
    device: torch.device                        # to which batches are moved

    def draw(self, step: int, start: int, count: int) -> tuple[Batch, Tensor]:
        """Pictures start … start + count - 1 of the global batch of `step`. → them, and the keys of their dropout masks

        Every picture occurs once in an epoch, in an order of the epoch's own. A batch may span two epochs.
        """
        plan = self.plan
        index = torch.arange(start, start + count)                                      # (N,), in the global batch
        # Pictures
        positions = self._positions(step * plan.batch_size + index)
        image = from_pixels(self.dataset.images[positions], self.device)                # (N, 3, H, W)
        if plan.flip:
            flipped = randomness.uniform(self._keys("flip", step, index), 1)[:, 0] < 0.5
            image = torch.where(flipped.to(self.device)[:, None, None, None], image.flip(3), image)
        # Times, noise and captions
        uniform = randomness.uniform(self._keys("time", step, index), 1)[:, 0]          # (N,)
        t = training_times(uniform, index=index, batch_size=plan.batch_size, times=plan.times)
        noise = randomness.normal(self._keys("noise", step, index).to(self.device), tuple(image.shape[1:]))
        tokens, caption_of = self._tokens(step, index, positions)
        return Batch(image, noise, t, tokens, caption_of), self._keys("dropout", step, index).to(self.device)

    def _keys(self, purpose: str, step: int, index: Tensor) -> Tensor:
        return randomness.keys(self.plan.seed, purpose, step, index)

    def _positions(self, drawn: Tensor) -> np.ndarray:
        """(N,) numbers of pictures, counted from the start of the run over all epochs → positions in the data set."""
        length = len(self.train)
        return self.train[[
            _order(self.plan.seed, number // length, length)[number % length] for number in drawn.tolist()]]

    def _tokens(self, step: int, index: Tensor, positions: np.ndarray) -> tuple[Tensor | None, Tensor | None]:
        """Draw a caption for each of N pictures. → (M, 77) the M distinct captions, (N,) which one each picture has

        Both are None without a tokenizer.
        """
        if self.tokenizer is None:
            return None, None
        draws = randomness.uniform(self._keys("caption", step, index), 2).numpy()       # (N, 2)
        word_keys, tag_keys = self._keys("words", step, index), self._keys("tags", step, index)      # (N,) each
        captions = [
            self._caption(self.dataset.captions[position], pick, drop, word_keys[number : number + 1],
                          tag_keys[number : number + 1])
            for number, (position, (pick, drop)) in enumerate(zip(positions.tolist(), draws, strict=True))]
        distinct = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
        caption_of = torch.tensor([distinct[caption] for caption in captions])          # (N,)
        return encode(self.tokenizer, list(distinct)).to(self.device), caption_of.to(self.device)

    def _caption(
        self, alternatives: tuple[str, ...], pick: float, drop: float, word_key: Tensor, tag_key: Tensor,
    ) -> str:
        """One of a picture's captions; with probability `caption_drop` the empty one, for classifier-free guidance.

        Each tag is left out with probability `tag_drop`, and each word with `word_drop`, unless none would be left.
        pick, drop: uniform in [0, 1).
        """
        if not alternatives or drop < self.plan.caption_drop:
            return ""
        caption = alternatives[int(pick * len(alternatives))]
        if self.plan.shuffle_tags or self.plan.tag_drop:
            caption = self._varied_tags(caption, tag_key)
        if self.plan.word_drop == 0:
            return caption
        words = caption.split()
        kept = randomness.uniform(word_key, len(words))[0].numpy() >= self.plan.word_drop
        return " ".join(np.array(words, dtype=object)[kept]) if kept.any() else caption

    def _varied_tags(self, caption: str, key: Tensor) -> str:
        """A caption of tags between commas, some of them left out and the others in another order, as the plan says."""
        tags = np.array([tag.strip() for tag in caption.split(",") if tag.strip()], dtype=object)
        if len(tags) < 2:
            return caption
        draws = randomness.uniform(key, 2 * len(tags))[0].numpy()
        kept = draws[:len(tags)] >= self.plan.tag_drop
        order = np.argsort(draws[len(tags):]) if self.plan.shuffle_tags else np.arange(len(tags))
        return ", ".join(tags[order[kept[order]]]) if kept.any() else caption


def shuffled(positions: np.ndarray, seed: int) -> np.ndarray:
    """Positions of pictures in random order, so that the first of them come from all folders of the data set.

    positions: (N,) int64 → (N,) int64
    """
    return np.take(positions, randomness.permutation(len(positions), seed, "validation").numpy())


@functools.lru_cache(maxsize=2)                 # a batch spans at most two epochs, unless the data set is tiny
def _order(seed: int, epoch: int, length: int) -> Tensor:
    """The order of `length` training pictures in an epoch. → (length,) int32, or int64 if there are too many"""
    order = randomness.permutation(length, seed, "order", epoch)
    return order.int() if length < 2**31 else order
