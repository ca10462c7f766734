"""Does a model copy its training pictures? Nearest neighbours of what it drew, judged by those of real pictures.

A copy is much closer to one training picture than to the next ones; a new picture is about as close to several. How
close real pictures come to one another by chance is measured on the same data: so no threshold is a guess. Pixels in,
numbers and a gallery out. Knows no model.
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

SIDE = 8                                        # pictures are compared as so many squared mean colours
NEIGHBOURS = 20                                 # the nearest is compared with the mean over so many
CONTROLS = 2000                                 # training pictures at most whose own neighbours are looked up
QUANTILE = 0.01                                 # of the real pictures' ratios: below it, a picture is suspect
LEVEL = 0.01                                    # chance of calling a model memorising that draws like its data
FEW = 10                                        # fewer drawn pictures than this say nothing about a model
EXCESS = 0.05                                   # share of copies, beyond what chance gives, that matters
QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
_ELEMENTS = 2**24                               # of a matrix of distances in memory
MEMORISING, NOT_MEMORISING, TOO_FEW = "memorising", "not memorising", "too few pictures to tell"


@dataclass(frozen=True)
class Pair:
    """A drawn picture and the training picture nearest to it, by their positions."""

    drawn: int
    training: int
    ratio: float
    distance: float                             # root of the mean squared difference of the mean colours, of 255


@dataclass(frozen=True)
class Ratios:
    """Of one set of pictures: the distance to the nearest training picture over the mean to the NEIGHBOURS nearest."""

    count: int
    suspect: int                                # pictures whose ratio is below the threshold
    quantiles: tuple[float, ...]                # at QUANTILES; empty without pictures

    @property
    def share(self) -> float:
        """Of suspect pictures; NaN without pictures."""
        return self.suspect / self.count if self.count else math.nan


@dataclass(frozen=True)
class Memorisation:
    """The verdict, and what it rests on."""

    verdict: str                                # MEMORISING, NOT_MEMORISING or TOO_FEW
    threshold: float                            # the QUANTILE of the control's ratios
    expected: float                             # share of suspect pictures, were they drawn like the training pictures
    p_value: float                              # chance of as many suspects as were drawn, or more, in that case
    drawn: Ratios
    control: Ratios                             # training pictures, each against the others
    held_out: Ratios                            # real pictures that were never trained on: a check of the control
    pairs: tuple[Pair, ...]                     # one for each drawn picture, the most suspect first

    @property
    def sentence(self) -> str:
        """The verdict for people, in one sentence with its reason."""
        if self.verdict == TOO_FEW:
            return f"{self.verdict}: {self.drawn.count} drawn, {self.control.count} training pictures"
        return (f"{self.verdict}: {self.drawn.share:.1%} of the drawn pictures are as close to a single training "
                f"picture as {self.control.share:.1%} of the training pictures are to another")

    def closest(self, count: int) -> list[Pair]:
        """At most `count` pairs, the most suspect first, none with a training picture that was shown already."""
        first: dict[int, Pair] = {}
        for pair in self.pairs:
            first.setdefault(pair.training, pair)
        return list(first.values())[:count]

    def to_dict(self, *, pairs: int = 16) -> dict[str, Any]:
        """Ready for JSON once numbers that are not finite are replaced, with the closest `pairs`."""
        fields = dataclasses.asdict(dataclasses.replace(self, pairs=self.pairs[:pairs]))
        for name in ("drawn", "control", "held_out"):
            ratios: Ratios = getattr(self, name)
            fields[name] |= {"share": ratios.share, "quantiles": dict(zip(map(str, QUANTILES), ratios.quantiles,
                                                                          strict=False))}
        return {"sentence": self.sentence, **fields}


def judge(drawn: np.ndarray, training: np.ndarray, held_out: np.ndarray) -> Memorisation:
    """Is the model that drew `drawn` copying `training`? All (N, H, W, 3) uint8; `held_out` may be empty.

    The ratio is that of Carlini et al. 2023, section 5.1: the distance to the nearest training picture, over its mean
    to the NEIGHBOURS nearest. Pictures are compared as SIDE × SIDE mean colours, so that noise, sharpening or a shift
    by a pixel hide little, and with mirrored training pictures too. The control are training pictures, each against
    all others: to a model that draws like its data, they are more of the same.
    """
    originals = _distinct(training)
    references = _Reference(_colours(training[originals]))
    chosen = torch.linspace(0, len(originals) - 1, min(CONTROLS, len(originals))).round().long()
    control, _, _ = references.ratios(references.colours[chosen], itself=chosen)
    ratios, distances, nearest = references.ratios(_colours(drawn))
    fresh, _, _ = references.ratios(_colours(held_out))
    rank = max(1, round(QUANTILE * len(control)))
    threshold = control.kthvalue(rank).values.item() if references.usable else math.nan
    suspects = int((ratios < threshold).sum())
    p_value = chance_of_suspects(suspects, drawn=len(ratios), control=len(control), rank=rank)
    expected = rank / (len(control) + 1)
    half = chance_of_suspects(math.ceil(len(ratios) / 2), drawn=len(ratios), control=len(control), rank=rank)
    if not references.usable or len(ratios) < FEW or half > LEVEL:     # if half were copies, it could be chance
        verdict = TOO_FEW
    elif p_value <= LEVEL and suspects / len(ratios) >= expected + EXCESS:
        verdict = MEMORISING
    else:
        verdict = NOT_MEMORISING
    order = ratios.argsort(stable=True).tolist()
    pairs = tuple(Pair(k, originals[int(nearest[k])], ratios[k].item(), distances[k].item()) for k in order)
    return Memorisation(verdict, threshold, expected, p_value, _summary(ratios, threshold),
                        _summary(control, threshold), _summary(fresh, threshold), pairs)


def chance_of_suspects(suspects: int, *, drawn: int, control: int, rank: int) -> float:
    """P(at least `suspects` of `drawn` numbers are below the rank-th smallest of `control` others), from one source.

    Whatever that source is: all orders of the drawn + control numbers are equally likely, and so the count has a
    negative hypergeometric distribution (the precedence test, Nelson 1963).
    """
    if rank > control:
        return 1.0
    total = _log_choose(drawn + control, drawn)
    return min(1.0, math.fsum(
        math.exp(_log_choose(below + rank - 1, below) + _log_choose(drawn - below + control - rank, drawn - below)
                 - total) for below in range(suspects, drawn + 1)))


def gallery(pairs: Sequence[Pair], drawn: np.ndarray, training: np.ndarray) -> bytes:
    """The drawn pictures of some pairs, below each its nearest training picture and how near that is. → a PNG"""
    return image_files.encode(sheets.labelled([
        sheets.Row("drawn", [drawn[pair.drawn] for pair in pairs], [(f"no. {pair.drawn}",) for pair in pairs]),
        sheets.Row("nearest training picture", [np.asarray(training[pair.training]) for pair in pairs],
                     [(f"ratio {pair.ratio:.2f}",) for pair in pairs])]))


# ── Nearest neighbours ──────────────────────────────────────────────────────────────────────────────────────────────


class _Reference:
    """The training pictures, to which others are compared."""

    def __init__(self, colours: Tensor) -> None:
        self.colours = colours                                         # (N, SIDE, SIDE, 3), all distinct
        self.points = torch.cat([colours, colours.flip(2)]).flatten(1)             # (2N, D) with mirrored ones
        self.neighbours = min(NEIGHBOURS, len(colours) - 1)            # as many as each of them has others

    @property
    def usable(self) -> bool:
        """Whether a nearest and a next can be told apart."""
        return self.neighbours >= 2

    def ratios(self, colours: Tensor, *, itself: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """(M, SIDE, SIDE, 3) → ratio (M,), distance to the nearest (M,), its position (M,).

        `itself` (M,): the position of each picture among the training pictures, with which it is not compared.
        """
        if not self.usable or not len(colours):
            empty = torch.full((len(colours),), math.nan)
            return empty, empty, torch.zeros(len(colours), dtype=torch.int64)
        found = []
        rows = max(1, _ELEMENTS // len(self.points))
        for start in range(0, len(colours), rows):
            block = torch.cdist(                                       # by products it would lose small differences
                colours[start : start + rows].flatten(1), self.points, compute_mode="donot_use_mm_for_euclid_dist")
            block = block.view(len(block), 2, -1).amin(1)              # (rows, N), whichever way round
            if itself is not None:
                block.scatter_(1, itself[start : start + rows, None], math.inf)
            found.append(block.topk(self.neighbours, largest=False))
        values = torch.cat([block.values for block in found])          # (M, k), the nearest first
        scale = 255 / math.sqrt(self.points.shape[1])
        return values[:, 0] / values.mean(1), values[:, 0] * scale, torch.cat([block.indices[:, 0] for block in found])


def _colours(pixels: np.ndarray) -> Tensor:
    """(N, H, W, 3) uint8 → (N, SIDE, SIDE, 3) mean colours in [0, 1]; small pictures as they are."""
    if not len(pixels):
        return torch.empty(0, SIDE, SIDE, 3)
    parts = []
    for start in range(0, len(pixels), 1024):
        image = torch.from_numpy(np.ascontiguousarray(pixels[start : start + 1024])).permute(0, 3, 1, 2).float() / 255
        parts.append(F.adaptive_avg_pool2d(image, min(SIDE, image.shape[2])).permute(0, 2, 3, 1))
    return torch.cat(parts)


def _distinct(pixels: np.ndarray) -> list[int]:
    """Positions of pictures, each the first with its pixels."""
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
