"""A small convolutional network whose outputs tell pictures apart, and its training on a data set.

It learns which crops are of one picture, and the words of the captions if there are any. `trained_features` keeps it.
"""

import itertools
import math
import time
from collections import Counter
from collections.abc import Generator
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import caption_words
from ..data.listing import Dataset
from ..picture_size import Size
from ..pictures.channels import MID_GREY, opaque
from ..pictures.pixels import from_pixels
from ..runtime import randomness
from .features import Features

VERSION = 2                                     # of the encoder; must change with anything that changes a feature
STEPS, BATCH, LEARNING_RATE = 300, 64, 2e-3     # of training the encoder; the batch is in pictures
WIDTHS = (24, 48, 64, 96)                       # channels of the stem, then of the levels
SIDE, GRID = 64, 16                             # √pixels of the encoder's pictures, and of maps after its stem; reached
                                                # by whole factors, so that they may be nearly twice as large
LEAST = 8                                       # pixels that the shorter side of the encoder's pictures keeps
WORDS = 200                                     # largest number of caption words that the encoder learns to predict
SCALE = 4096                                    # largest number of pictures from which features are standardised
TEMPERATURE = 0.2                               # of the NT-Xent loss
ROUGHNESS_FEATURES = 12                         # number of features from `roughness`
VISIBLE = 8 / 255                               # differences below 4 of 255 levels count little (the range is 2)

AnyModule = TypeVar("AnyModule", bound=nn.Module)


# ── The network ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip. (N, C_in, H, W) → (N, C_out, H, W)."""

    def __init__(self, in_width: int, out_width: int) -> None:
        super().__init__()
        self.skip = nn.Conv2d(in_width, out_width, 1)
        self.conv1, self.norm1 = nn.Conv2d(in_width, out_width, 3, padding=1), nn.GroupNorm(8, in_width)
        self.conv2, self.norm2 = nn.Conv2d(out_width, out_width, 3, padding=1), nn.GroupNorm(8, out_width)

    def forward(self, maps: Tensor) -> Tensor:
        hidden = self.conv1(F.silu(self.norm1(maps)))
        hidden = self.conv2(F.silu(self.norm2(hidden)))
        result: Tensor = self.skip(maps) + hidden
        return result


class Encoder(nn.Module):
    """A small convolutional network. (N, 3, H, W) in [-1, 1], as from `reduced` → (N, width)

    Its outputs are the means and standard deviations of early feature maps, which keep colour and contrast, and the
    means of late ones, which keep shapes.
    """

    mean: Tensor                                # (D,) of the raw features of the training pictures
    std: Tensor                                 # (D,) of the same

    def __init__(self, resolution: Size | int) -> None:
        super().__init__()
        size = Size.of(resolution)
        side = int(size.side)
        self.reduction = max(1, min(side // SIDE, min(size) // LEAST))
        self.pooling = max(1, min(side, SIDE) // GRID)
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1)
        self.levels = nn.ModuleList(ResidualBlock(*widths) for widths in itertools.pairwise(WIDTHS))
        self.width = 2 * WIDTHS[0] + 2 * WIDTHS[1] + sum(WIDTHS[2:])
        self.register_buffer("mean", torch.zeros(ROUGHNESS_FEATURES + self.width))
        self.register_buffer("std", torch.ones(ROUGHNESS_FEATURES + self.width))

    def forward(self, images: Tensor) -> Tensor:
        maps = F.silu(self.stem(images))
        outputs = [maps.mean((2, 3)), maps.flatten(2).std(2)]
        maps = F.avg_pool2d(maps, self.pooling, ceil_mode=True)
        for number, level in enumerate(self.levels):
            maps = level(maps if number == 0 else F.avg_pool2d(maps, 2, ceil_mode=True))
            outputs.append(maps.mean((2, 3)))
            if number == 0:
                outputs.append(maps.flatten(2).std(2))
        return torch.cat(outputs, dim=1)

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) in [-1, 1] → (N, ROUGHNESS_FEATURES + width), mean 0 and deviation 1 over the training data."""
        features: Tensor = (self.raw_features(images) - self.mean) / self.std
        return features

    def raw_features(self, images: Tensor) -> Tensor:
        """The features before they are standardised: `roughness` and the outputs of the network."""
        images = self.reduced(images)
        return torch.cat([roughness(images), self(images)], dim=1)

    def reduced(self, images: Tensor) -> Tensor:
        """The pictures as the network sees them: averaged by a whole factor to less than twice SIDE. (N, 3, H, W)"""
        return F.avg_pool2d(images, self.reduction) if self.reduction > 1 else images


def roughness(images: Tensor) -> Tensor:
    """How rough pictures are, at two scales. (N, 3, H, W) in [-1, 1] → (N, ROUGHNESS_FEATURES)

    Two numbers summarise the squared differences between neighbouring pixels in each colour. The logarithm of their
    mean depends mostly on edges, and a blur lowers it. The mean of their logarithms depends mostly on even areas, and a
    little noise raises it.
    """
    parts = []
    for scaled in (images, F.avg_pool2d(images, 2)):
        across, down = scaled.diff(dim=3).square().flatten(2), scaled.diff(dim=2).square().flatten(2)
        squares = torch.cat([across, down], dim=2) + VISIBLE**2
        parts += [squares.mean(2).log(), squares.log().mean(2)]
    return torch.cat(parts, dim=1)
# ── Training the encoder ────────────────────────────────────────────────────────────────────────────────────────────


def train_encoder(dataset: Dataset, positions: np.ndarray, *, device: torch.device) -> Generator[
        tuple[int, int], None, Encoder]:
    """Train an encoder to tell which two crops are of one picture, and which words its captions contain.

    Yields (steps done, number of steps), returns the Encoder. The first task is instance discrimination with the
    NT-Xent loss (Chen et al. 2020, eq. 1). Crops are not resized, recoloured or blurred. So two crops of one picture
    have colour, sharpness and shape in common, and the features keep all three.
    """
    count = len(positions)
    words = _words(dataset, positions)                                 # (N, W)
    generator = randomness.generator(0, "encoder")
    with torch.device("meta"):
        encoder = Encoder(size_of(dataset, positions))
        heads = nn.ModuleDict({
            "instance": nn.Linear(encoder.width, 64), "words": nn.Linear(encoder.width, max(1, words.shape[1]))})
    encoder, heads = _initialised(encoder, generator).to(device), _initialised(heads, generator).to(device)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, weight_decay=0.01)
    learning_rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for step in range(STEPS):
        chosen = torch.randperm(count, generator=generator)[:BATCH]
        images = encoder.reduced(from_pixels(opaque(dataset.pixels(positions[chosen.numpy()]), MID_GREY)))
        views = torch.cat([_crops(images, generator), _crops(images, generator)]).to(device)
        with torch.enable_grad():
            outputs = F.layer_norm(encoder(views), (encoder.width,))
            loss = nt_xent(heads["instance"](outputs))
            if words.shape[1]:
                loss = loss + F.binary_cross_entropy_with_logits(
                    heads["words"](outputs), words[chosen].repeat(2, 1).to(device)) * 10
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        learning_rates.step()
        yield step + 1, STEPS
    encoder.eval().requires_grad_(False)
    subset = positions[torch.linspace(0, count - 1, min(count, SCALE)).long().numpy()]
    raw_features = Features("", device, encoder.raw_features)(dataset.pixels(subset))
    encoder.mean.copy_(raw_features.mean(0))
    std = raw_features.std(0)
    encoder.std.copy_(std.clamp_min(max(0.05 * std.median().item(), 1e-4)))        # a feature may be constant
    return encoder


def measure_training(dataset: Dataset, positions: np.ndarray, *, device: torch.device) -> float:
    """About how many seconds `train_encoder` will take. Measures a step on grey pictures."""
    size = size_of(dataset, positions)
    encoder = Encoder(size).to(device)
    height, width = (_three_quarters(side // encoder.reduction) for side in (size.height, size.width))
    grey = torch.zeros(2 * min(BATCH, len(positions)), 3, height, width, device=device)
    started = 0.0
    for _ in range(2):                          # the first step is slower than the others
        started = time.monotonic()
        with torch.enable_grad():
            encoder(grey).square().mean().backward()
    return STEPS * (time.monotonic() - started)


def size_of(dataset: Dataset, positions: np.ndarray) -> Size:
    """The size that all of these pictures have."""
    return dataset.sizes[dataset.size_number(positions[0])]


def nt_xent(projections: Tensor) -> Tensor:
    """The NT-Xent loss: each of 2N vectors must recognise its partner, N places away, among all others.

    Chen et al. 2020, eq. 1, with cosine similarities over TEMPERATURE. (2N, D) → one number
    """
    unit = F.normalize(projections, dim=1)
    similarity = (unit @ unit.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(unit), device=unit.device).roll(len(unit) // 2))


def _crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """A part from a random place of each picture, with three quarters of its sides. (N, 3, H, W) → (N, 3, h, w)"""
    height, width = map(_three_quarters, images.shape[2:])
    tops, lefts = images.shape[2] - height + 1, images.shape[3] - width + 1         # numbers of places
    draws = torch.randint(math.lcm(tops, lefts), (len(images), 2), generator=generator)
    return torch.stack([image[:, top : top + height, left : left + width] for image, (top, left) in zip(
        images, (draws % torch.tensor([tops, lefts])).tolist(), strict=True)])


def _three_quarters(side: int) -> int:
    return -(-3 * side // 4)


def _words(dataset: Dataset, positions: np.ndarray) -> Tensor:
    """(N, W): 1 where a caption of the picture contains the word, else 0.

    The words are the WORDS most frequent ones that neither all pictures have nor hardly any (one, or 0.5 %).
    """
    words_of = [set(caption_words.split_words(" ".join(dataset.captions[k]))) for k in positions.tolist()]
    pictures = len(words_of)
    counts = Counter(word for words in words_of for word in words)
    useful = [(word, count) for word, count in counts.items() if max(2, pictures // 200) <= count < pictures]
    kept = [word for word, _ in sorted(useful, key=lambda item: (-item[1], item[0]))[:WORDS]]
    return torch.tensor([[float(word in words) for word in kept] for words in words_of]).view(pictures, len(kept))


def _initialised(module: AnyModule, generator: torch.Generator) -> AnyModule:
    """The module on the CPU with initial weights: uniform within ± √(3/fan-in), biases 0, norms the identity."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                bound = (3 / parameter[0].numel()) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.fill_(float("norm" in name and name.endswith("weight")))
    return module
