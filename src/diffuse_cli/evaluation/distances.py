"""How far drawn pictures are from real ones: distances between two sets of points, and their floor for equal sources.

Pure functions of features, one row for each picture, computed in float64. Knows neither pictures nor what the features
are (`features` does), and no model.
"""

import dataclasses
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..runtime import randomness

NEIGHBOURS = 3                                  # k of precision and recall, as in the paper
_BLOCK = 1024                                   # rows of a matrix of all pairs that are in memory at once


@dataclass(frozen=True)
class Distances:
    """Between real and drawn pictures. Zero, or a little below for `kernel`, and 1 for the last two: the same."""

    kernel: float                               # unbiased: its mean is 0 when both sets have one source
    kernel_standard_error: float
    frechet: float                              # biased: above 0 for one source too, the more so the fewer samples
    precision: float                            # share of the drawn pictures that lie among the real ones
    recall: float                               # share of the real pictures that lie among the drawn ones
    samples: int                                # of each set
    dimensions: int                             # of the features

    @property
    def few(self) -> bool:
        """Whether covariances are singular, and `frechet` says nothing unless compared with its floor."""
        return self.samples <= self.dimensions

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Comparison:
    """The distances of drawn from real pictures, beside those of equally many other real pictures from the same."""

    drawn: Distances
    floor: Distances

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return dataclasses.asdict(self)


def compare_with_floor(real: Tensor, drawn: Tensor, *, seed: int = 0) -> Comparison:
    """Distances of the drawn pictures, and of real from real at the same number of samples. (N, D), (M, D) features.

    All are n = min(M, N/2) pictures: one half of the real ones, drawn at random, is the reference of both comparisons.
    Needs n > 1.
    """
    samples = min(len(drawn), len(real) // 2)
    order = randomness.permutation(len(real), seed, "halves")
    reference = real[order[:samples]]
    return Comparison(compare(reference, drawn[:samples]), compare(reference, real[order[samples : 2 * samples]]))


def compare(real: Tensor, drawn: Tensor) -> Distances:
    """All distances between two sets of features, (N, D) and (M, D), at least two of each."""
    real, drawn = real.double(), drawn.double()
    kernel, standard_error = kernel_distance(real, drawn)
    precision, recall = precision_recall(real, drawn)
    return Distances(kernel, standard_error, frechet_distance(real, drawn), precision, recall,
                     min(len(real), len(drawn)), real.shape[1])


# ── Kernel distance ─────────────────────────────────────────────────────────────────────────────────────────────────


def kernel_distance(x: Tensor, y: Tensor) -> tuple[float, float]:
    """(Squared maximum mean discrepancy, its standard error) between (N, D) and (M, D), for k = (x·y/D + 1)³.

    The unbiased estimator over all pairs (Gretton et al. 2012, eq. 3) with the kernel of Bińkowski et al. 2018,
    section 4. The standard error is a jackknife over the pictures of both sets (Arvesen 1969); where the two have one
    source it is too large rather than too small (Efron & Stein 1981).
    """
    n, m = len(x), len(y)
    within_x = _kernel_sums(x, x) - _cubic(x.square().sum(1), x.shape[1])                 # (N,) without itself
    within_y = _kernel_sums(y, y) - _cubic(y.square().sum(1), x.shape[1])                 # (M,)
    x_to_y, y_to_x = _kernel_sums(x, y), _kernel_sums(y, x)                               # (N,), (M,)
    total_x, total_y, between = within_x.sum(), within_y.sum(), x_to_y.sum()

    def distance(sum_x: Tensor, sum_y: Tensor, sum_between: Tensor, n: int, m: int) -> Tensor:
        return sum_x / (n * (n - 1)) + sum_y / (m * (m - 1)) - 2 * sum_between / (n * m)

    value = distance(total_x, total_y, between, n, m).item()
    if min(n, m) < 3:
        return value, math.nan
    without_x = distance(total_x - 2 * within_x, total_y, between - x_to_y, n - 1, m)     # (N,) leaving out each
    without_y = distance(total_x, total_y - 2 * within_y, between - y_to_x, n, m - 1)     # (M,)
    variance = without_x.var(correction=0) * (n - 1) + without_y.var(correction=0) * (m - 1)
    return value, math.sqrt(variance.item())


def _kernel_sums(x: Tensor, y: Tensor) -> Tensor:
    """(N,) the sum over all of `y` of the kernel with each of `x`."""
    return torch.cat([_cubic(rows @ y.T, x.shape[1]).sum(1) for rows in _blocks(x)])


def _cubic(products: Tensor, dimensions: int) -> Tensor:
    return (products / dimensions + 1) ** 3


# ── Fréchet distance ────────────────────────────────────────────────────────────────────────────────────────────────


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """|μ₁ - μ₂|² + tr(C₁ + C₂ - 2 (C₁C₂)^½) between normal distributions fitted to (N, D) and (M, D).

    Heusel et al. 2017, eq. 6. With X the centred features and X = QR, C = RᵀR/(N-1), and the eigenvalues of C₁C₂ are
    the squared singular values of R₁R₂ᵀ: no root of a matrix is taken, and singular covariances do no harm.
    """
    mean = (x.mean(0) - y.mean(0)).square().sum()
    root_x, root_y = _root_of_covariance(x), _root_of_covariance(y)
    spread = root_x.square().sum() + root_y.square().sum()
    shared = torch.linalg.svdvals(root_x @ root_y.T).sum()
    return max(0.0, float(mean + spread - 2 * shared))


def _root_of_covariance(x: Tensor) -> Tensor:
    """(min(N, D), D): R with RᵀR the covariance."""
    root: Tensor = torch.linalg.qr(x - x.mean(0), mode="r").R / math.sqrt(len(x) - 1)
    return root


# ── Precision and recall ────────────────────────────────────────────────────────────────────────────────────────────


def precision_recall(real: Tensor, drawn: Tensor, *, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """(Share of `drawn` within the manifold of `real`, share of `real` within that of `drawn`); (N, D), (M, D).

    The manifold of a set is the union of balls around its points, each as wide as the distance to its k-th nearest
    neighbour in the set (Kynkäänniemi et al. 2019, eq. 1 and 2). Needs more than k points for that: fewer are taken.
    """
    return _share_within(drawn, real, neighbours), _share_within(real, drawn, neighbours)


def _share_within(points: Tensor, manifold: Tensor, neighbours: int) -> float:
    rank = min(neighbours, len(manifold) - 1) + 1                       # the nearest of all is the point itself
    radii = torch.cat([block.kthvalue(rank, dim=1).values for block in _distances(manifold, manifold)])
    return torch.cat([(block <= radii).any(1) for block in _distances(points, manifold)]).double().mean().item()


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Euclidean distances (N, M), some rows at a time."""
    for rows in _blocks(x):
        yield torch.cdist(rows, y)


def _blocks(x: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(x), _BLOCK):
        yield x[start : start + _BLOCK]
