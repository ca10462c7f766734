"""Pictures → features, in which distances between pictures mean something: a small encoder trained on the data itself.

Nothing is downloaded: the encoder learns from the training pictures, and from their captions if there are any, and is
kept beside the decoded pictures. Or a TorchScript file that the user names. Knows no model and no distance.
"""

import contextlib
import hashlib
import itertools
import json
import warnings
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data import caption_words
from ..data.dataset import Dataset
from ..errors import InUseError, ModelError
from ..files import durable
from ..pictures.pixels import from_pixels
from ..runtime import randomness
from ..storage import checkpoint

VERSION = 2                                     # of the encoder: change it with anything that changes a feature
STEPS, BATCH, RATE = 300, 64, 2e-3
WIDTHS = (24, 48, 64, 96)                       # channels of the stem, then of the levels
SIDE, GRID = 64, 16                             # pixels to which pictures are reduced, and maps after the stem, at most
WORDS = 200                                     # of the captions that are learnt, at most
SCALE = 4096                                    # pictures at most that say what is a large difference in a feature
TEMPERATURE = 0.2
DETAILS = 12                                    # numbers of `details`
VISIBLE = 8 / 255                               # differences below 4 of 255 levels matter little
_FILE = "encoder.safetensors"

T = TypeVar("T", bound=nn.Module)
Progress = Generator[tuple[int, int], None, "Features"]


@dataclass(frozen=True)
class Features:
    """A function from pictures to features: (N, H, W, 3) uint8 → (N, D) float32 on the CPU."""

    name: str                                   # what they are, for people
    device: torch.device
    function: Callable[[Tensor], Tensor]        # (BATCH, 3, H, W) float32 in [-1, 1] → (BATCH, D)

    def __call__(self, pixels: np.ndarray) -> Tensor:
        """In batches of one size, so that the features of a picture do not depend on its company."""
        found = []
        with torch.no_grad():
            for start in range(0, len(pixels), BATCH):
                rows = np.arange(start, start + BATCH) % len(pixels)
                images = from_pixels(pixels[rows], self.device)
                found.append(self.function(images).float().cpu()[: len(pixels) - start])
        return torch.cat(found)


# ── Features of the data set itself ─────────────────────────────────────────────────────────────────────────────────


def open_features(dataset: Dataset, positions: np.ndarray, *, directory: Path, device: torch.device) -> Progress:
    """Train an encoder on the pictures at `positions`, or find it trained: yields (steps done, of how many), returns
    the Features (`yield from` it).

    It is kept in `directory`, that of the decoded pictures, under a hash of the pictures, captions and positions; a
    damaged file is replaced. At least two pictures are needed.
    """
    facts = json.dumps([VERSION, dataset.id, positions.tolist()])
    home = directory / f"encoder-{hashlib.sha256(facts.encode()).hexdigest()[:32]}"
    encoder = _read(home / _FILE, dataset.images.shape[1])
    if encoder is None:
        encoder = yield from train_encoder(dataset, positions, device=device)
        with contextlib.suppress(InUseError), durable.lock(directory / f"{home.name}.lock", doing="keeping an encoder"):
            durable.make_directory(home)
            checkpoint.save_state(home / _FILE, encoder.state_dict(), {"version": VERSION})
    encoder = encoder.to(device).eval().requires_grad_(False)
    return Features("an encoder trained on these pictures", device, encoder.features)


def _read(path: Path, resolution: int) -> "Encoder | None":
    with torch.device("meta"):
        encoder = Encoder(resolution)
    shapes = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    try:
        tensors, _ = checkpoint.load_state(path, shapes)
    except ModelError:                                             # missing or damaged
        return None
    encoder.load_state_dict(tensors, assign=True)
    return encoder


class Level(nn.Module):
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
    """(N, 3, H, W) in [-1, 1], at most SIDE wide → (N, width): means and standard deviations of early maps, which keep
    colour and contrast, and means of late ones, which keep shapes."""

    mean: Tensor                                # (D,) of the training pictures, as `std`
    std: Tensor

    def __init__(self, resolution: int) -> None:
        super().__init__()
        self.reduction = max(1, resolution // SIDE)
        self.pooling = max(1, min(resolution, SIDE) // GRID)
        self.stem = nn.Conv2d(3, WIDTHS[0], 3, padding=1)
        self.levels = nn.ModuleList(Level(*widths) for widths in itertools.pairwise(WIDTHS))
        self.width = 2 * WIDTHS[0] + 2 * WIDTHS[1] + sum(WIDTHS[2:])
        self.register_buffer("mean", torch.zeros(DETAILS + self.width))
        self.register_buffer("std", torch.ones(DETAILS + self.width))

    def forward(self, images: Tensor) -> Tensor:
        maps = F.silu(self.stem(images))
        found = [maps.mean((2, 3)), maps.flatten(2).std(2)]
        maps = F.avg_pool2d(maps, self.pooling, ceil_mode=True)
        for number, level in enumerate(self.levels):
            maps = level(maps if number == 0 else F.avg_pool2d(maps, 2, ceil_mode=True))
            found.append(maps.mean((2, 3)))
            if number == 0:
                found.append(maps.flatten(2).std(2))
        return torch.cat(found, dim=1)

    def features(self, images: Tensor) -> Tensor:
        """(N, 3, R, R) → (N, DETAILS + width), with mean 0 and standard deviation 1 over the training pictures."""
        features: Tensor = (self.raw_features(images) - self.mean) / self.std
        return features

    def raw_features(self, images: Tensor) -> Tensor:
        """The same, as they come."""
        images = self.reduced(images)
        return torch.cat([details(images), self(images)], dim=1)

    def reduced(self, images: Tensor) -> Tensor:
        """(N, 3, R, R) → at most SIDE wide, or nearly."""
        return F.avg_pool2d(images, self.reduction) if self.reduction > 1 else images


def details(images: Tensor) -> Tensor:
    """How rough pictures are, at two scales: (N, 3, H, W) in [-1, 1] → (N, DETAILS).

    Of the differences between neighbours, in each colour: the logarithm of their mean square, which edges decide, and
    the mean of its logarithm, which even areas decide: a blur lowers the first, a little noise raises the second.
    """
    found = []
    for scaled in (images, F.avg_pool2d(images, 2)):
        across, down = scaled.diff(dim=3).square().flatten(2), scaled.diff(dim=2).square().flatten(2)
        squares = torch.cat([across, down], dim=2) + VISIBLE**2
        found += [squares.mean(2).log(), squares.log().mean(2)]
    return torch.cat(found, dim=1)


# ── Training the encoder ────────────────────────────────────────────────────────────────────────────────────────────


def train_encoder(dataset: Dataset, positions: np.ndarray, *, device: torch.device) -> Generator[
        tuple[int, int], None, Encoder]:
    """An encoder that learns which two crops are of one picture, and what words its captions have.

    The first is instance discrimination with the NT-Xent loss (Chen et al. 2020, eq. 1). Crops are not resized,
    recoloured or blurred: what they have in common, and the features keep, is colour, sharpness and shape alike.
    """
    resolution, count = dataset.images.shape[1], len(positions)
    words = _words(dataset, positions)                                 # (N, W)
    generator = randomness.generator(0, "encoder")
    with torch.device("meta"):
        encoder = Encoder(resolution)
        heads = nn.ModuleDict({
            "instance": nn.Linear(encoder.width, 64), "words": nn.Linear(encoder.width, max(1, words.shape[1]))})
    encoder, heads = _started(encoder, generator).to(device), _started(heads, generator).to(device)
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    for step in range(STEPS):
        chosen = torch.randperm(count, generator=generator)[:BATCH]
        images = encoder.reduced(from_pixels(dataset.images[positions[chosen.numpy()]]))
        views = torch.cat([_crops(images, generator), _crops(images, generator)]).to(device)
        with torch.enable_grad():
            found = F.layer_norm(encoder(views), (encoder.width,))
            loss = nt_xent(heads["instance"](found))
            if words.shape[1]:
                loss = loss + F.binary_cross_entropy_with_logits(
                    heads["words"](found), words[chosen].repeat(2, 1).to(device)) * 10
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        yield step + 1, STEPS
    encoder.eval().requires_grad_(False)
    scale = positions[torch.linspace(0, count - 1, min(count, SCALE)).long().numpy()]
    found = Features("", device, encoder.raw_features)(dataset.images[scale])
    encoder.mean.copy_(found.mean(0))
    std = found.std(0)
    encoder.std.copy_(std.clamp_min(max(0.05 * std.median().item(), 1e-4)))        # a feature may be the same in all
    return encoder


def nt_xent(projections: Tensor) -> Tensor:
    """Each of the 2N vectors must recognise its partner, N places away, among all others. (2N, D) → one number."""
    unit = F.normalize(projections, dim=1)
    similarity = (unit @ unit.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    return F.cross_entropy(similarity, torch.arange(len(unit), device=unit.device).roll(len(unit) // 2))


def _crops(images: Tensor, generator: torch.Generator) -> Tensor:
    """A square of three quarters of the side at a random place of each picture."""
    size = -(-3 * images.shape[2] // 4)
    places = torch.randint(images.shape[2] - size + 1, (len(images), 2), generator=generator).tolist()
    return torch.stack([image[:, top : top + size, left : left + size]
                        for image, (top, left) in zip(images, places, strict=True)])


def _words(dataset: Dataset, positions: np.ndarray) -> Tensor:
    """(N, W) 1 where a caption of the picture has the word: the most frequent ones that not every picture has."""
    found = [set(caption_words.split_words(" ".join(dataset.captions[k]))) for k in positions.tolist()]
    counts = Counter(word for words in found for word in words)
    useful = [(word, count) for word, count in counts.items() if max(2, len(found) // 200) <= count < len(found)]
    kept = [word for word, _ in sorted(useful, key=lambda item: (-item[1], item[0]))[:WORDS]]
    return torch.tensor([[float(word in words) for word in kept] for words in found]).view(len(found), len(kept))


def _started(module: T, generator: torch.Generator) -> T:
    """All weights, on the CPU: uniform within ± √(3/fan-in), biases 0, norms the identity."""
    module.to_empty(device="cpu")
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim > 1:
                bound = (3 / parameter[0].numel()) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
            else:
                parameter.fill_(float("norm" in name and name.endswith("weight")))
    return module


# ── Features of the user's choice ───────────────────────────────────────────────────────────────────────────────────


def load_features(path: Path, device: torch.device) -> Features:
    """A TorchScript file, called with (N, 3, H, W) float32 in [0, 255], that answers (N, D). Raises ModelError.

    This is what the extractors of published metrics take; like them, it is asked for `return_features=True` if it has
    such an argument. It resizes and normalises pictures itself.
    """
    if not path.is_file():
        raise ModelError(f"there is no file {path}", hint="Give a TorchScript file to --features, or leave it out")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            module = torch.jit.load(str(path), map_location=device).eval()  # type: ignore[no-untyped-call]
            names = [argument.name for argument in module.forward.schema.arguments]
    except Exception as error:
        raise ModelError(f"cannot read {path} as TorchScript", hint="Save it with torch.jit.save") from error
    options = {"return_features": True} if "return_features" in names else {}

    def function(images: Tensor) -> Tensor:
        try:
            found = module((images + 1) * 127.5, **options)
        except Exception as error:
            raise ModelError(f"{path} does not take pictures {tuple(images.shape)}",
                             hint="It must accept float32 (N, 3, H, W) in [0, 255]") from error
        if not (isinstance(found, Tensor) and found.ndim == 2 and len(found) == len(images)
                and found.is_floating_point() and torch.isfinite(found).all()):
            raise ModelError(f"{path} does not answer with finite features (N, D)")
        return found

    return Features(path.name, device, function)
