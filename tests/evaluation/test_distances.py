"""Distances between sets of features: closed forms, invariances, and the answers of scipy and scikit-learn."""

import json
import math

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.metrics.pairwise import polynomial_kernel
from sklearn.neighbors import NearestNeighbors

from diffuse_cli.evaluation import distances
from diffuse_cli.evaluation.distances import compare, compare_with_floor, frechet_distance, kernel_distance


def normal(count: int, dimensions: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whitened(count: int, dimensions: int) -> torch.Tensor:
    """Points with mean 0 and covariance 1 to rounding, so that closed forms hold exactly."""
    x = normal(count, dimensions)
    x = x - x.mean(0)
    return x @ torch.linalg.inv(torch.linalg.cholesky(x.T @ x / (count - 1))).T


# ── Kernel distance ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_kernel_distance_is_the_textbook_estimator_over_another_kernel_function(monkeypatch):
    monkeypatch.setattr(distances, "_BLOCK", 7)                    # the blocks do not matter
    x, y = normal(30, 5), normal(20, 5, seed=1) * 1.5 + 0.3

    def kernel(a, b):
        return polynomial_kernel(a.numpy(), b.numpy(), degree=3, gamma=1 / 5, coef0=1)

    xx, yy = kernel(x, x), kernel(y, y)
    expected = ((xx.sum() - np.trace(xx)) / (30 * 29) + (yy.sum() - np.trace(yy)) / (20 * 19)
                - 2 * kernel(x, y).mean())
    assert kernel_distance(x, y)[0] == pytest.approx(expected, rel=1e-12)


def test_the_standard_error_is_the_jackknife_of_the_distance_itself():
    x, y = normal(12, 3), normal(9, 3, seed=1) + 0.5
    variance = 0.0
    for points, without in ((x, lambda k: (torch.cat([x[:k], x[k + 1 :]]), y)),
                            (y, lambda k: (x, torch.cat([y[:k], y[k + 1 :]])))):
        left_out = np.array([kernel_distance(*without(k))[0] for k in range(len(points))])
        variance += left_out.var() * (len(points) - 1)
    assert kernel_distance(x, y)[1] == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_kernel_distance_is_unbiased_and_its_standard_error_is_that_of_many_repetitions():
    """For one distribution the mean is 0. For two it is that of large samples, with the right standard error."""
    same = [kernel_distance(normal(20, 4, 2 * k), normal(20, 4, 2 * k + 1)) for k in range(200)]
    values, errors = np.array(same).T
    assert abs(values.mean()) < 3 * values.std() / math.sqrt(len(values))
    assert math.sqrt((errors**2).mean()) >= values.std()               # too large rather than too small
    apart = np.array([kernel_distance(normal(40, 4, 2 * k), normal(40, 4, 2 * k + 1) + 1) for k in range(200)])
    truth = kernel_distance(normal(4000, 4, 5000), normal(4000, 4, 5001) + 1)
    assert apart[:, 0].mean() == pytest.approx(truth[0], abs=3 * (apart[:, 0].std() / 14 + truth[1]))
    assert math.sqrt((apart[:, 1] ** 2).mean()) == pytest.approx(apart[:, 0].std(), rel=0.2)


# ── Fréchet distance ────────────────────────────────────────────────────────────────────────────────────────────────


def test_frechet_distance_of_normal_distributions_with_known_answers():
    x = whitened(200, 6)
    shift = torch.tensor([3.0, 0, 0, 4, 0, 0], dtype=torch.float64)
    scale = torch.tensor([1.0, 2, 3, 1, 0.5, 0], dtype=torch.float64)
    assert frechet_distance(x, x) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(x, x + shift) == pytest.approx(25)
    assert frechet_distance(x, x * scale) == pytest.approx((scale - 1).square().sum().item())     # Σ (σ₁ - σ₂)²
    assert frechet_distance(x, x * scale + shift) == pytest.approx(25 + (scale - 1).square().sum().item())


@pytest.mark.parametrize("count", [200, 8])
def test_frechet_distance_equals_that_with_scipys_root_of_a_matrix(count):
    """With 8 samples in 10 dimensions the covariances are singular, so scipy needs a small multiple of the identity."""
    x, y = normal(count, 10) @ normal(10, 10, 1), normal(count, 10, 2) @ normal(10, 10, 3) + 0.5
    first, second = np.cov(x.numpy().T), np.cov(y.numpy().T)
    root = scipy.linalg.sqrtm((first + 1e-10 * np.eye(10)) @ (second + 1e-10 * np.eye(10)))
    expected = np.square(x.numpy().mean(0) - y.numpy().mean(0)).sum() + np.trace(first + second - 2 * np.real(root))
    assert frechet_distance(x, y) == pytest.approx(expected, rel=1e-3 if count == 8 else 1e-8)


# ── Precision and recall ────────────────────────────────────────────────────────────────────────────────────────────


def test_precision_and_recall_of_known_sets():
    real, far = normal(100, 3), normal(100, 3, 1) + 100
    assert distances.precision_recall(real, real) == (1, 1)
    assert distances.precision_recall(real, far) == (0, 0)
    two_modes = torch.cat([real, far])
    precision, recall = distances.precision_recall(two_modes, real)    # one of two modes was drawn
    assert precision == 1
    assert recall == pytest.approx(0.5, abs=0.02)
    assert distances.precision_recall(real, two_modes) == (recall, precision)


@pytest.mark.parametrize("neighbours", [1, 2, 3, 5])
def test_precision_equals_that_with_scikit_learns_neighbours(monkeypatch, neighbours):
    monkeypatch.setattr(distances, "_BLOCK", 32)
    real, drawn = normal(80, 8), normal(300, 8, 1) * 1.3
    index = NearestNeighbors(n_neighbors=neighbours + 1).fit(real)     # itself and the others
    radii = index.kneighbors(real)[0][:, neighbours]
    gaps = np.linalg.norm(drawn.numpy()[:, None] - real.numpy(), axis=2)
    expected = (gaps <= radii).any(1).mean()
    assert 0.1 < expected < 0.9
    assert distances.precision_recall(real, drawn, neighbours=neighbours)[0] == pytest.approx(expected)


# ── All together ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_distance_depends_on_the_order_or_on_a_rotation():
    x, y = normal(60, 5), normal(50, 5, 1) * 1.2 + 0.2
    rotation, _ = torch.linalg.qr(normal(5, 5, 2))
    expected = compare(x, y).to_dict()
    for first, second in ((x.flip(0), y[torch.randperm(50, generator=torch.Generator().manual_seed(0))]),
                          (x @ rotation, y @ rotation)):
        assert compare(first, second).to_dict() == pytest.approx(expected, rel=1e-9)


def test_generated_pictures_and_the_floor_have_the_same_number_of_samples():
    real = normal(2000, 4)
    same = compare_with_floor(real, normal(900, 4, 1))
    assert same.drawn.samples == same.floor.samples == 900
    assert same.drawn.frechet == pytest.approx(same.floor.frechet, abs=0.03)
    assert abs(same.drawn.kernel) < 3 * same.drawn.kernel_standard_error
    other = compare_with_floor(real, normal(1400, 4, 1) + 1)
    assert other.drawn.samples == other.floor.samples == 1000              # two halves of the real ones
    assert other.drawn.kernel > other.floor.kernel + 5 * other.drawn.kernel_standard_error
    assert other.drawn.frechet > 4 * other.floor.frechet
    json.dumps(other.to_dict(), allow_nan=False)


def test_the_halves_of_the_real_pictures_have_no_picture_in_common():
    real = torch.arange(20, dtype=torch.float64)[:, None]
    seen = []

    def spy(x, y):
        seen.append((set(x.flatten().tolist()), set(y.flatten().tolist())))
        return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(distances, "compare", spy)
        compare_with_floor(real, torch.full((9, 1), -1.0))
    (reference, drawn), (again, others) = seen
    assert drawn == {-1.0}
    assert reference == again
    assert len(reference) == len(others) == 9
    assert not reference & others


def test_few_says_whether_the_covariances_are_singular():
    assert compare(normal(10, 10), normal(10, 10, 1)).has_singular_covariance
    assert not compare(normal(12, 10), normal(12, 10, 1)).has_singular_covariance
