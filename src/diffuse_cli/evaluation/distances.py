"""How far generated pictures are from real ones: distances between two sets of features.

Features are tensors with one row for each picture (`features` makes them), and all distances are computed in float64.
Each distance is compared with its floor, the distance between two sets of real pictures.
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
_BLOCK = 1024                                   # rows of a matrix of all pairs that are held in memory at once


@dataclass(frozen=True)
class Distances:
    """The distances of a set of pictures from a set of real ones.

    If both sets come from one distribution, the expected kernel distance is 0, and precision and recall are near 1.
    """

    kernel: float                               # unbiased estimate of a squared distance, so it may be below 0
    kernel_standard_error: float
    frechet: float                              # biased upwards; the bias grows as the samples get fewer
    precision: float                            # share of the generated pictures that lie among the real ones
    recall: float                               # share of the real pictures that lie among the generated ones
    samples: int                                # pictures in each set
    dimensions: int                             # of the features

    @property
    def has_singular_covariance(self) -> bool:
        """Whether the covariances are singular. If so, `frechet` has a meaning only beside its floor."""
        return self.samples <= self.dimensions

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that JSON can hold."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class DistancesWithFloor:
    """The distances of generated pictures and, as their floor, of other real pictures from the same real pictures."""

    drawn: Distances                            # of generated pictures
    floor: Distances                            # of as many other real pictures

    def to_dict(self) -> dict[str, Any]:
        """As a dictionary that JSON can hold."""
        return dataclasses.asdict(self)


def compare_with_floor(real: Tensor, generated: Tensor, *, seed: int = 0) -> DistancesWithFloor:
    """The distances of generated from real pictures, and their floor at the same number of samples.

    real: (N, D) and generated: (M, D) features. Every set has n = min(M, N/2) pictures, and n must be above 1. A random
    half of the real pictures is the reference for both comparisons; the floor compares the other half with it.
    """
    samples = min(len(generated), len(real) // 2)
    order = randomness.permutation(len(real), seed, "halves")
    reference, others = real[order[:samples]], real[order[samples : 2 * samples]]
    return DistancesWithFloor(compare(reference, generated[:samples]), compare(reference, others))


def compare(real: Tensor, generated: Tensor) -> Distances:
    """All distances between two sets of features, (N, D) and (M, D), with N and M at least 2."""
    real, generated = real.double(), generated.double()
    kernel, standard_error = kernel_distance(real, generated)
    precision, recall = precision_recall(real, generated)
    return Distances(kernel, standard_error, frechet_distance(real, generated), precision, recall,
                     min(len(real), len(generated)), real.shape[1])


# ── Kernel distance ─────────────────────────────────────────────────────────────────────────────────────────────────


def kernel_distance(x: Tensor, y: Tensor) -> tuple[float, float]:
    """(Squared maximum mean discrepancy, its standard error) between (N, D) and (M, D), for k = (x·y/D + 1)³.

    The unbiased estimator over all pairs (Gretton et al. 2012, eq. 3) with the kernel of Bińkowski et al. 2018,
    section 4. The standard error is a jackknife over the pictures of both sets (Arvesen 1969), and NaN if a set has
    fewer than 3. For two sets from one distribution it is too large rather than too small (Efron & Stein 1981).
    """
    n, m = len(x), len(y)
    within_x = _kernel_sums(x, x) - _cubic(x.square().sum(1), x.shape[1])                 # (N,) without its own pair
    within_y = _kernel_sums(y, y) - _cubic(y.square().sum(1), x.shape[1])                 # (M,)
    x_to_y, y_to_x = _kernel_sums(x, y), _kernel_sums(y, x)                               # (N,), (M,)
    total_x, total_y, between = within_x.sum(), within_y.sum(), x_to_y.sum()

    def distance(sum_x: Tensor, sum_y: Tensor, sum_between: Tensor, n: int, m: int) -> Tensor:
        return sum_x / (n * (n - 1)) + sum_y / (m * (m - 1)) - 2 * sum_between / (n * m)

    value = distance(total_x, total_y, between, n, m).item()
    if min(n, m) < 3:
        return value, math.nan
    without_x = distance(total_x - 2 * within_x, total_y, between - x_to_y, n - 1, m)     # (N,) each without one
    without_y = distance(total_x, total_y - 2 * within_y, between - y_to_x, n, m - 1)     # (M,)
    variance = without_x.var(correction=0) * (n - 1) + without_y.var(correction=0) * (m - 1)
    return value, math.sqrt(variance.item())


def _kernel_sums(x: Tensor, y: Tensor) -> Tensor:
    """The sums of the kernel of each row of `x` with all rows of `y`. (N, D), (M, D) → (N,)"""
    return torch.cat([_cubic(rows @ y.T, x.shape[1]).sum(1) for rows in _blocks(x)])


def _cubic(products: Tensor, dimensions: int) -> Tensor:
    return (products / dimensions + 1) ** 3


# ── Fréchet distance ────────────────────────────────────────────────────────────────────────────────────────────────


def frechet_distance(x: Tensor, y: Tensor) -> float:
    """|μ₁ - μ₂|² + tr(C₁ + C₂ - 2 (C₁C₂)^½) between normal distributions fitted to (N, D) and (M, D).

    Heusel et al. 2017, eq. 6. If the centred features over √(N-1) are QR, then C = RᵀR, and the eigenvalues of C₁C₂ are
    the squared singular values of R₁R₂ᵀ. So no root of a matrix is taken, and singular covariances do no harm.
    """
    mean = (x.mean(0) - y.mean(0)).square().sum()
    root_x, root_y = _root_of_covariance(x), _root_of_covariance(y)
    spread = root_x.square().sum() + root_y.square().sum()
    shared = torch.linalg.svdvals(root_x @ root_y.T).sum()
    return max(0.0, float(mean + spread - 2 * shared))


def _root_of_covariance(x: Tensor) -> Tensor:
    """A matrix R with RᵀR the covariance of the rows. (N, D) → (min(N, D), D)"""
    root: Tensor = torch.linalg.qr(x - x.mean(0), mode="r").R / math.sqrt(len(x) - 1)
    return root


# ── Precision and recall ────────────────────────────────────────────────────────────────────────────────────────────


def precision_recall(real: Tensor, generated: Tensor, *, neighbours: int = NEIGHBOURS) -> tuple[float, float]:
    """(share of `generated` within the manifold of `real`, share of `real` within that of `generated`); (N, D), (M, D).

    The manifold of a set is the union of balls around its points. The radius of a ball is the distance to the k-th
    nearest neighbour in the set (Kynkäänniemi et al. 2019, eq. 1 and 2). A set of k points or fewer uses a smaller k.
    """
    return _share_within(generated, real, neighbours), _share_within(real, generated, neighbours)


def _share_within(points: Tensor, manifold: Tensor, neighbours: int) -> float:
    rank = min(neighbours, len(manifold) - 1) + 1                       # + 1, as the nearest point is itself
    radii = torch.cat([block.kthvalue(rank, dim=1).values for block in _distances(manifold, manifold)])
    return torch.cat([(block <= radii).any(1) for block in _distances(points, manifold)]).double().mean().item()


def _distances(x: Tensor, y: Tensor) -> Iterator[Tensor]:
    """Euclidean distances between all rows of two matrices, (N, M), some rows at a time."""
    for rows in _blocks(x):
        yield torch.cdist(rows, y)


def _blocks(x: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(x), _BLOCK):
        yield x[start : start + _BLOCK]
