"""Training batches as a function of the step number: its pictures, captions, noise and times.

Nothing is remembered between steps. So resuming needs only the step number, and a batch may be cut into micro-batches
or shared among processes at will.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from ..config import Plan
from ..data.listing import Dataset
from ..diffusion.losses import training_times
from ..diffusion.schedule import Schedule, make_schedule
from ..network.tokenizer import CachedTokens
from ..runtime import devices, randomness
from ..runtime.transfer import Packed
from . import half_side
from .ahead import Ahead
from .loss import Batch, Coefficients
from .low_res import SmallPictures
from .pictures import Pictures
from .turns import Turns


@dataclass
class Batches:
    """All batches of a run."""

    plan: Plan
    dataset: Dataset
    train: np.ndarray                           # int64, positions of the training pictures in the data set
    tokenizer: Tokenizer | None                 # None for an unconditional network
    device: torch.device                        # to which batches are moved

    def draw(self, step: int, start: int, count: int) -> tuple[Batch, Tensor]:
        """Pictures start … start + count - 1 of the global batch of `step`. → them, and the keys of their dropout masks

        Every picture occurs once in an epoch, in an order of the epoch's own. A batch may span two epochs. Of pictures
        with several sizes, a batch has one, and each size has epochs of its own. The first steps may see pictures at
        half their side, see `half_side`.

        A device gets everything in one copy. The keys of a student's batch stay on the CPU, where they are used.
        """
        t, keys, packed = self._prepare(step, start, count)
        read, noise_keys, *rest = packed.send()
        number = self.dataset.size_number(self._turns.at(step)[0][0])
        image = self._pictures.on_device(read, number)                                  # (N, C, H, W)
        low_res = enlarged = None
        if self._is_upscaler:
            small = SmallPictures(read, *rest[:len(SmallPictures._fields) - 1])
            rest = rest[len(SmallPictures._fields) - 1:]
            enlarged = small.without_noise()
            low_res = small.with_noise(enlarged, self._schedule)
        flipped = rest.pop(0) if self.plan.flip else None
        if flipped is not None:
            image = _mirrored(image, flipped)
            enlarged = None if enlarged is None else _mirrored(enlarged, flipped)
            low_res = low_res and low_res._replace(image=_mirrored(low_res.image, flipped))
        noise, reduction = randomness.normal(noise_keys, tuple(image.shape[1:])), 1
        if step < self.plan.half_side_steps:
            reduction = half_side.REDUCTION
            image, noise = half_side.halved(image), reduction * half_side.halved(noise)  # its deviation is 1 again
        tokens, caption_of = (rest.pop(0), rest.pop(0)) if self.tokenizer is not None else (None, None)
        if self.plan.model.student is not None:
            return Batch(image, noise, t, tokens, caption_of, low_res=low_res, enlarged=enlarged), keys
        coefficients = Coefficients.from_flat(rest[1:])
        return Batch(image, noise, t, tokens, caption_of, coefficients, low_res, reduction=reduction), rest[0]

    def draw_ahead(self, step: int, start: int, count: int) -> None:
        """Begin to draw in a thread, so that the next `draw` with the same arguments need not wait for it.

        Not on a CPU, where the thread would take the time that it saves from the network.
        """
        if self.device.type != "cpu":
            self._prepare.begin(step, start, count)

    def settle(self) -> None:
        """Keep all pictures on the device from now on, if it is a GPU with room for them: see `Pictures.settle`.

        To be called after a step, when the memory is in use that training needs. Crops are cut on the CPU.
        """
        if not self._is_upscaler:
            self._pictures.settle(devices.free_memory(self.device))

    def release(self) -> bool:
        """Free the device's memory that the pictures take. → whether they took any"""
        self._prepare.forget()                  # a batch drawn ahead may count on them
        return self._pictures.release()

    def follow(self, plan: Plan) -> None:
        """Draw by another plan from now on, of which the steps so far are the same."""
        self._prepare.forget()
        self.plan = plan

    def close(self) -> None:
        """End the thread that draws ahead."""
        self._prepare.close()

    @property
    def _is_upscaler(self) -> bool:
        return self.plan.model.is_upscaler

    @functools.cached_property
    def _pictures(self) -> Pictures:
        return Pictures(self.dataset.arrays, self.device)

    @functools.cached_property
    def _turns(self) -> Turns:
        return Turns(self.dataset.by_size(self.train))

    @functools.cached_property
    def _order(self) -> Callable[[int, int], Tensor]:
        """The order of so many pictures in an epoch. A batch spans two epochs at most, unless its size is rare."""
        return functools.lru_cache(maxsize=2 * len(self._turns.groups))(
            functools.partial(_order, self.plan.seed))

    @functools.cached_property
    def _schedule(self) -> Schedule:
        return make_schedule(self.plan.model.schedule, self.plan.model.network.schedule_side)

    @functools.cached_property
    def _encode(self) -> CachedTokens:
        assert self.tokenizer is not None
        return CachedTokens(self.tokenizer)

    @functools.cached_property
    def _prepare(self) -> Ahead[tuple[Tensor, Tensor, Packed]]:
        return Ahead(self._prepare_now)

    def _prepare_now(self, step: int, start: int, count: int) -> tuple[Tensor, Tensor, Packed]:
        """What `draw` needs from the CPU. → times t (N,), keys of dropout masks (N,), and the tensors that it moves"""
        plan = self.plan
        index = torch.arange(start, start + count)                                      # (N,), in the global batch
        group, turns = self._turns.at(step)
        positions = self._positions(group, turns * plan.batch_size + index)
        uniform = randomness.uniform(self._keys("time", step, index), 1)[:, 0]          # (N,)
        t = training_times(uniform, index=index, batch_size=plan.batch_size, times=plan.times)
        keys = self._keys("dropout", step, index)
        number = self.dataset.size_number(positions[0])
        noise_keys = self._keys("noise", step, index)
        if self._is_upscaler:
            pixels, *small = SmallPictures.of(
                self.dataset, positions, randomness.uniform(self._keys("crop", step, index), 3),
                self._keys("small noise", step, index), config=plan.model, schedule=self._schedule)
            tensors = [pixels, noise_keys, *small]
        else:
            tensors = [self._pictures.read(self.dataset.rows(positions), number), noise_keys]
        if plan.flip:
            tensors.append(randomness.uniform(self._keys("flip", step, index), 1)[:, 0] < 0.5)
        tensors += self._tokens(step, index, positions)
        if plan.model.student is None:          # a student's times are others
            coefficients = Coefficients.of(self._schedule, t)
            if step < plan.half_side_steps:
                t, coefficients = half_side.matched(self._schedule, t)
            tensors += [keys, *coefficients.flat()]
        return t, keys, Packed(tensors, self.device)

    def _keys(self, purpose: str, step: int, index: Tensor) -> Tensor:
        return randomness.keys(self.plan.seed, purpose, step, index)

    def _positions(self, group: np.ndarray, drawn: Tensor) -> np.ndarray:
        """Positions of pictures of a group in the data set.

        group: (n,) positions; drawn: (N,) numbers of pictures, counted from the start of the run over all its epochs.
        → (N,) int64
        """
        length = len(group)
        chosen: np.ndarray = group[[
            self._order(number // length, length)[number % length] for number in drawn.tolist()]]
        return chosen

    def _tokens(self, step: int, index: Tensor, positions: np.ndarray) -> list[Tensor]:
        """Draw a caption for each of N pictures. → (M, 77) the M distinct captions, (N,) which one each picture has

        Nothing without a tokenizer.
        """
        if self.tokenizer is None:
            return []
        draws = randomness.uniform(self._keys("caption", step, index), 2).numpy()       # (N, 2)
        captions = [self._caption(self.dataset.captions[position], pick, drop)
                    for position, (pick, drop) in zip(positions.tolist(), draws, strict=True)]
        if self.plan.shuffle_tags or self.plan.tag_drop:
            captions = self._varied_tags(captions, self._keys("tags", step, index))
        if self.plan.word_drop:
            captions = self._without_words(captions, self._keys("words", step, index))
        distinct = {caption: number for number, caption in enumerate(dict.fromkeys(captions))}
        caption_of = torch.tensor([distinct[caption] for caption in captions])          # (N,)
        return [self._encode(list(distinct)), caption_of]

    def _caption(self, alternatives: tuple[str, ...], pick: float, drop: float) -> str:
        """One of a picture's captions; with probability `caption_drop` the empty one, for classifier-free guidance.

        pick, drop: uniform in [0, 1).
        """
        if not alternatives or drop < self.plan.caption_drop:
            return ""
        return alternatives[int(pick * len(alternatives))]

    def _without_words(self, captions: list[str], keys: Tensor) -> list[str]:
        """N captions, each word left out with probability `word_drop`, unless none would be left. keys: (N,)"""
        split = [np.array(caption.split(), dtype=object) for caption in captions]
        draws = randomness.uniform(keys, max(map(len, split))).numpy()                  # (N, words): all in one call
        kept = [row[:len(words)] >= self.plan.word_drop for row, words in zip(draws, split, strict=True)]
        return [" ".join(words[which]) if which.any() else caption
                for caption, words, which in zip(captions, split, kept, strict=True)]

    def _varied_tags(self, captions: list[str], keys: Tensor) -> list[str]:
        """N captions of tags between commas, some left out and the others in another order, as the plan says.

        keys: (N,)
        """
        split = [np.array([tag.strip() for tag in caption.split(",") if tag.strip()], dtype=object)
                 for caption in captions]
        draws = randomness.uniform(keys, 2 * max(map(len, split))).numpy()              # (N, 2·tags): all in one call
        varied = []
        for caption, tags, row in zip(captions, split, draws, strict=True):
            kept = row[:len(tags)] >= self.plan.tag_drop
            order = np.argsort(row[len(tags):2 * len(tags)]) if self.plan.shuffle_tags else np.arange(len(tags))
            varied.append(", ".join(tags[order[kept[order]]]) if len(tags) >= 2 and kept.any() else caption)
        return varied


def _mirrored(images: Tensor, flipped: Tensor) -> Tensor:
    """Pictures (N, C, H, W), those mirrored for which `flipped` (N,) is true."""
    return torch.where(flipped[:, None, None, None], images.flip(3), images)


def shuffled(positions: np.ndarray, seed: int) -> np.ndarray:
    """Positions of pictures in random order, so that the first of them come from all folders of the data set.

    positions: (N,) int64 → (N,) int64
    """
    return np.take(positions, randomness.permutation(len(positions), seed, "validation").numpy())


def _order(seed: int, epoch: int, length: int) -> Tensor:
    """The order of `length` training pictures in an epoch. → (length,) int32, or int64 if there are too many"""
    order = randomness.permutation(length, seed, "order", epoch)
    return order.int() if length < 2**31 else order
