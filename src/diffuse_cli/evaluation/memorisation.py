"""Does a model copy its training pictures? Compares generated pictures with their nearest training pictures.

A copy is much closer to one training picture than to the next nearest ones. A new picture is about as close to several.
The threshold is not a guess: it is measured on the same data, by how close real pictures come to one another by chance.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..pictures import image_files, sheets
from ..pictures.channels import MID_GREY, opaque

SIDE = 8                                        # pictures are compared as about SIDE² mean colours
NEIGHBOURS = 20                                 # number of nearest training pictures in the denominator of the ratio
CONTROLS = 2000                                 # largest number of training pictures in the control
QUANTILE = 0.01                                 # of the control's ratios; a picture below it is suspect
LEVEL = 0.01                                    # probability of a false "memorising" for a model that samples its data
FEW = 10                                        # smallest number of generated pictures that gives a verdict
EXCESS = 0.05                                   # smallest share of suspects beyond chance that counts as memorising
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)               # of the ratios that are reported
_ELEMENTS = 2**24                               # largest number of elements of a matrix of distances
MEMORISING, NOT_MEMORISING, TOO_FEW = "memorising", "not memorising", "too few pictures to tell"


@dataclass(frozen=True)
class Pair:
    """A generated picture and the training picture that is nearest to it."""

    drawn: int                                  # position of the generated picture
    training: int                               # position of the training picture
    ratio: float
    distance: float                             # root mean square difference of mean colours, of 255


@dataclass(frozen=True)
class Ratios:
    """The ratios of one set of pictures: distance to the nearest training picture over the mean to the nearest ones."""

    count: int                                  # of pictures
    suspect: int                                # number of pictures whose ratio is below the threshold
    quantiles: tuple[float, ...]                # at QUANTILES; empty without pictures

    @property
    def share(self) -> float:
        """The share of suspect pictures; NaN without pictures."""
        return self.suspect / self.count if self.count else math.nan


@dataclass(frozen=True)
class Memorisation:
    """The verdict and the figures behind it."""

    verdict: str                                # MEMORISING, NOT_MEMORISING or TOO_FEW
    threshold: float                            # the QUANTILE of the control's ratios
    expected: float                             # share of suspects if generated pictures are distributed like the data
    p_value: float                              # probability of at least as many suspects in that case
    drawn: Ratios                               # of generated pictures
    control: Ratios                             # of training pictures, each against the others
    held_out: Ratios                            # of real pictures that were not trained on: a check of the control
    pairs: tuple[Pair, ...]                     # one for each generated picture, the most suspect first

    @property
    def sentence(self) -> str:
        """The verdict with its reason, as one sentence for people."""
        if self.verdict == TOO_FEW:
            return f"{self.verdict}: {self.drawn.count:,} drawn, {self.control.count:,} training pictures"
        return (f"{self.verdict}: {self.drawn.share:.1%} of the drawn pictures are as close to a single training "
                f"picture as {self.control.share:.1%} of the training pictures are to another")

    def closest(self, count: int) -> list[Pair]:
        """At most `count` pairs, the most suspect first, no two with the same training picture."""
        first: dict[int, Pair] = {}
        for pair in self.pairs:
            first.setdefault(pair.training, pair)
        return list(first.values())[:count]

    def to_dict(self, *, pairs: int = 16) -> dict[str, Any]:
        """As a dictionary for JSON, in which numbers may still be non-finite; with only the closest `pairs`."""
        fields = dataclasses.asdict(dataclasses.replace(self, pairs=self.pairs[:pairs]))
        for name in ("drawn", "control", "held_out"):
            ratios: Ratios = getattr(self, name)
            fields[name] |= {"share": ratios.share, "quantiles": dict(zip(map(str, QUANTILES), ratios.quantiles,
                                                                          strict=False))}
        return {"sentence": self.sentence, **fields}


def detect_memorisation(generated: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> Memorisation:
    """Decide whether the model that generated pictures copies its training pictures.

    All arrays are (N, H, W, C) uint8, and `held_out` may be empty. The ratio is that of Carlini et al. 2023, section
    5.1: the distance to the nearest training picture over the mean distance to the NEIGHBOURS nearest. Pictures are
    compared as about SIDE² mean colours, so that noise, sharpening or a shift by a pixel hides little; transparent ones
    lie on a grey ground. Mirrored training pictures count as well. The control consists of training pictures, each
    compared with all others: if a model samples from the distribution of its data, its ratios are distributed like
    theirs.
    """
    originals = _distinct(training)
    references = _Reference(_colours(training[originals]))
    chosen = torch.linspace(0, len(originals) - 1, min(CONTROLS, len(originals))).round().long()
    control, _, _ = references.ratios(references.colours[chosen], itself=chosen)
    ratios, distances, nearest = references.ratios(_colours(generated))
    unseen, _, _ = references.ratios(_colours(held_out))
    rank = max(1, round(QUANTILE * len(control)))
    threshold = control.kthvalue(rank).values.item() if references.usable else math.nan
    suspects = int((ratios < threshold).sum())
    p_value = chance_of_suspects(suspects, generated=len(ratios), control=len(control), rank=rank)
    expected = rank / (len(control) + 1)
    p_of_half = chance_of_suspects(math.ceil(len(ratios) / 2), generated=len(ratios), control=len(control), rank=rank)
    if not references.usable or len(ratios) < FEW or p_of_half > LEVEL:     # even copies of half could be chance
        verdict = TOO_FEW
    elif p_value <= LEVEL and suspects / len(ratios) >= expected + EXCESS:
        verdict = MEMORISING
    else:
        verdict = NOT_MEMORISING
    order = ratios.argsort(stable=True).tolist()
    pairs = tuple(Pair(k, originals[int(nearest[k])], ratios[k].item(), distances[k].item()) for k in order)
    return Memorisation(verdict, threshold, expected, p_value, _summary(ratios, threshold),
                        _summary(control, threshold), _summary(unseen, threshold), pairs)


def chance_of_suspects(suspects: int, *, generated: int, control: int, rank: int) -> float:
    """P(at least `suspects` of `generated` numbers are below the rank-th smallest of `control` others).

    All numbers are from one distribution, which may be any: all their orders are then equally likely, and the count has
    a negative hypergeometric distribution (the precedence test, Nelson 1963).
    """
    if rank > control:
        return 1.0
    total = _log_choose(generated + control, generated)
    return min(1.0, math.fsum(
        math.exp(_log_choose(below + rank - 1, below)
                 + _log_choose(generated - below + control - rank, generated - below) - total)
        for below in range(suspects, generated + 1)))


def gallery(pairs: Sequence[Pair], generated: np.ndarray, training: np.ndarray) -> bytes:
    """The generated pictures of some pairs, and below each its nearest training picture and their ratio. → a PNG"""
    return image_files.encode(sheets.labelled_rows_on_any_ground([
        sheets.Row("drawn", [generated[pair.drawn] for pair in pairs], [(f"no. {pair.drawn}",) for pair in pairs]),
        sheets.Row("nearest training picture", [np.asarray(training[pair.training]) for pair in pairs],
                     [(f"ratio {pair.ratio:.2f}",) for pair in pairs])]))


# ── Nearest neighbours ──────────────────────────────────────────────────────────────────────────────────────────────


class _Reference:
    """The training pictures, with which others are compared."""

    def __init__(self, colours: Tensor) -> None:
        self.colours = colours                                         # (N, G, L, 3), all distinct
        self.points = torch.cat([colours, colours.flip(2)]).flatten(1)             # (2N, D) with mirrored ones
        self.neighbours = min(NEIGHBOURS, len(colours) - 1)            # or all others, if fewer

    @property
    def usable(self) -> bool:
        """Whether each training picture can be compared with at least two other training pictures.

        With fewer, the ratio of the nearest distance to the mean of the nearest distances means nothing.
        """
        return self.neighbours >= 2

    def ratios(self, colours: Tensor, *, itself: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(M, G, L, 3) colours → ratio (M,), distance to the nearest (M,), position of the nearest (M,).

        `itself` (M,): positions of the same pictures among the training pictures; none is compared with itself.
        """
        if not self.usable or not len(colours):
            empty = torch.full((len(colours),), math.nan)
            return empty, empty, torch.zeros(len(colours), dtype=torch.int64)
        nearest = []
        rows = max(1, _ELEMENTS // len(self.points))
        for start in range(0, len(colours), rows):
            block = torch.cdist(                                       # as matrix products lose small differences
                colours[start : start + rows].flatten(1), self.points, compute_mode="donot_use_mm_for_euclid_dist")
            block = block.view(len(block), 2, -1).amin(1)              # (rows, N), the nearer of both mirrorings
            if itself is not None:
                block.scatter_(1, itself[start : start + rows, None], math.inf)
            nearest.append(block.topk(self.neighbours, largest=False))
        distances = torch.cat([block.values for block in nearest])     # (M, k), the nearest first
        positions = torch.cat([block.indices[:, 0] for block in nearest])
        scale = 255 / math.sqrt(self.points.shape[1])
        return distances[:, 0] / distances.mean(1), distances[:, 0] * scale, positions


def _colours(pixels: np.ndarray) -> Tensor:
    """(N, H, W, C) uint8 → (N, G, L, 3) mean colours in [0, 1], in a grid of about SIDE² square cells.

    Smaller pictures keep their size.
    """
    height, width = pixels.shape[1:3]
    aspect = math.sqrt(width / height)
    grid = min(max(1, round(SIDE / aspect)), height), min(max(1, round(SIDE * aspect)), width)
    if not len(pixels):
        return torch.empty(0, *grid, 3)
    parts = []
    for start in range(0, len(pixels), 1024):
        shown = np.ascontiguousarray(opaque(pixels[start : start + 1024], MID_GREY))
        image = torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255
        parts.append(F.adaptive_avg_pool2d(image, grid).permute(0, 2, 3, 1))
    return torch.cat(parts)


def _distinct(pixels: np.ndarray) -> list[int]:
    """The positions of distinct pictures. Of equal pictures, the first one counts."""
    first: dict[bytes, int] = {}
    for position, picture in enumerate(pixels):
        first.setdefault(picture.tobytes(), position)
    return list(first.values())


def _summary(ratios: Tensor, threshold: float) -> Ratios:
    known = ratios[~ratios.isnan()].double()
    quantiles = torch.quantile(known, torch.tensor(QUANTILES, dtype=torch.float64)).tolist() if len(known) else ()
    return Ratios(len(ratios), int((known < threshold).sum()), tuple(quantiles))


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
