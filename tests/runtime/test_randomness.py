"""Draws depend on their position alone: the same among any others, different elsewhere, and random enough."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from diffuse_cli.runtime import randomness

KEYS = randomness.keys(7, "test", 0, torch.arange(400))


def bits_of(words: Tensor) -> Tensor:
    """(…) int64 → (…, 64) of 0 and 1."""
    return (words[..., None] >> torch.arange(64)) & 1


def farthest_from(cdf: Tensor) -> float:
    """Kolmogorov & Smirnov's statistic of values through their own distribution function, times √n.

    1.95 is passed with probability 0.001.
    """
    ordered = cdf.double().flatten().sort().values
    n = len(ordered)
    steps = torch.arange(n + 1, dtype=torch.float64) / n
    return torch.maximum(ordered - steps[:-1], steps[1:] - ordered).max().item() * math.sqrt(n)


# ── A position's draw is its own ────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=30)
@given(order=st.permutations(range(8)), count=st.integers(1, 8))
def test_the_draws_of_an_index_do_not_depend_on_the_others(order: list[int], count: int) -> None:
    alone = {k: randomness.keys(3, "noise", 5, torch.tensor([k])) for k in range(8)}
    chosen = torch.tensor(order[:count])
    keys = randomness.keys(3, "noise", 5, chosen)
    draws = [randomness.uniform(keys, 5), randomness.normal(keys, (3, 2, 3)),
             randomness.Dropout(keys, 0.5)()(torch.ones(count, 4, 5))]
    for row, k in enumerate(order[:count]):
        expected = [randomness.uniform(alone[k], 5), randomness.normal(alone[k], (3, 2, 3)),
                    randomness.Dropout(alone[k], 0.5)()(torch.ones(1, 4, 5))]
        for draw, one in zip(draws, expected, strict=True):
            assert torch.equal(draw[row], one[0])


def test_a_longer_draw_begins_with_the_shorter() -> None:
    assert torch.equal(randomness.uniform(KEYS, 9)[:, :4], randomness.uniform(KEYS, 4))


def test_every_part_of_a_position_changes_the_key() -> None:
    indices = torch.arange(200)
    keys = torch.cat([
        randomness.keys(seed, purpose, step, indices)
        for seed, purpose, step in itertools.product((0, 1, 2**63 - 1), ("noise", "time"), (0, 1, 2, 10_000))])
    assert keys.dtype == torch.int64
    assert len(keys.unique()) == len(keys) == 24 * 200
    # Each of the 64 bits differs between about half of all pairs of neighbours.
    changed = bits_of(keys[1:] ^ keys[:-1]).double().mean(0)
    assert ((changed - 0.5).abs() < 5 * 0.5 / math.sqrt(len(keys))).all()


def test_positions_are_not_glued_together() -> None:
    positions = [(1, 23), (12, 3), (1, 2, 3), (123,), ("1", 23), (1, "23"), ("a", "b"), ("ab",), ("a", "b", "")]
    assert len({randomness.key(*position) for position in positions}) == len(positions)


def test_keys_and_hashes_are_the_published_splitmix64() -> None:
    """The first outputs of the generator for seed 1234567, as its reference implementation prints them."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431,
                16408922859458223821]
    found = randomness.bits(torch.tensor([1234567]), 5)[0].tolist()
    assert [value % 2**64 for value in found] == expected


def test_streams_of_different_keys_have_nothing_in_common() -> None:
    words = randomness.bits(KEYS, 50)
    assert len(words.unique()) == words.numel()
    shares = randomness.uniform(KEYS, 400)
    for one, other in [(shares[:-1], shares[1:]), (shares[:, :-1], shares[:, 1:])]:
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()
        assert abs(correlation) < 4 / math.sqrt(one.numel())


def test_torch_s_global_generator_is_neither_read_nor_moved() -> None:
    def draw_all() -> list[Tensor]:
        module = randomness.Dropout(KEYS, 0.3)
        return [KEYS, randomness.keys(1, "noise", 2, torch.arange(5)), randomness.uniform(KEYS, 3),
                randomness.normal(KEYS, (3,)), randomness.permutation(100, 1, "order", 0), module()(torch.ones(400, 7)),
                torch.rand(3, generator=randomness.generator(1, "weights"))]

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = draw_all()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(2)
    for one, other in zip(first, draw_all(), strict=True):
        assert torch.equal(one, other)


# ── The distributions ───────────────────────────────────────────────────────────────────────────────────────────────


def test_uniform_numbers_are_uniform() -> None:
    draws = randomness.uniform(KEYS, 1000)
    assert draws.dtype == torch.float64
    assert draws.min() >= 0
    assert draws.max() < 1
    assert farthest_from(draws) < 1.95
    counts = torch.histc(draws.float(), bins=256, min=0, max=1)
    expected = draws.numel() / 256
    chi_square = ((counts - expected) ** 2 / expected).sum().item()
    assert abs(chi_square - 255) < 4 * math.sqrt(2 * 255)


def test_every_bit_is_a_fair_coin() -> None:
    words = randomness.bits(KEYS, 1000)
    share = bits_of(words).double().mean((0, 1))
    assert ((share - 0.5).abs() < 4.5 * 0.5 / math.sqrt(words.numel())).all()


@pytest.mark.parametrize("shape", [(3, 16, 16), (5, 7, 11)])       # an even and an odd number
def test_normal_numbers_are_normal(shape: tuple[int, ...]) -> None:
    draws = randomness.normal(KEYS, shape)
    assert draws.shape == (400, *shape)
    assert draws.dtype == torch.float32
    n = draws.numel()
    # Moments 1 to 4 of N(0, 1) and the standard errors of their estimates: √((E x^2k - (E x^k)²) / n).
    for power, moment, variance in [(1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)]:
        assert abs((draws.double() ** power).mean().item() - moment) < 4 * math.sqrt(variance / n)
    assert farthest_from(torch.special.ndtr(draws.double())) < 1.95
    assert draws.abs().max() > 4                        # the tails are not missing


def test_the_two_numbers_of_a_pair_are_independent() -> None:
    """Box & Muller's cosine and sine: neither the numbers nor their squares are correlated."""
    first, second = randomness.normal(KEYS, (2, 400)).double().unbind(1)
    for one, other in [(first, second), (first**2, second**2), (first, second**2)]:
        correlation = torch.corrcoef(torch.stack([one.flatten(), other.flatten()]))[0, 1].item()
        assert abs(correlation) < 4 / math.sqrt(one.numel())


def test_the_sum_over_pictures_and_over_pixels_is_normal_too() -> None:
    """Neighbouring keys and neighbouring places are independent, or these sums would be too wide or too narrow."""
    draws = randomness.normal(KEYS, (1000,)).double()
    for axis in (0, 1):
        standard = draws.sum(axis) / math.sqrt(draws.shape[axis])
        assert farthest_from(torch.special.ndtr(standard)) < 1.95


# ── Dropout and orders ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("probability", [0.05, 0.12, 0.25, 0.5])
def test_dropout_keeps_its_share_and_the_mean(probability: float) -> None:
    found = randomness.Dropout(KEYS, probability)()(torch.ones(400, 5, 20, 10))
    rounded = round(probability * 256) / 256
    assert rounded == pytest.approx(probability, abs=1 / 512)
    kept = found != 0
    share, error = kept.double().mean().item(), math.sqrt(rounded * (1 - rounded) / found.numel())
    assert abs(share - (1 - rounded)) < 4 * error
    torch.testing.assert_close(found[kept], torch.full_like(found[kept], 1 / (1 - rounded)))
    per_place = kept.double().mean(0)                   # every element is kept equally often
    assert (per_place - (1 - rounded)).abs().max() < 5.5 * math.sqrt(rounded * (1 - rounded) / 400)


def test_dropout_masks_differ_from_call_to_call_and_return_in_the_next_pass() -> None:
    x = torch.ones(4, 3, 8, 8)
    dropout, again = randomness.Dropout(KEYS[:4], 0.5), randomness.Dropout(KEYS[:4], 0.5)
    mask = dropout()
    first, second = mask(x), dropout()(x)
    assert torch.equal(mask(x), first)                      # in the same pass, where a block computes once more
    assert torch.equal(again()(x), first)
    assert torch.equal(again()(x), second)
    agreement = ((first != 0) == (second != 0)).double().mean().item()
    assert abs(agreement - 0.5) < 4 * 0.5 / math.sqrt(x.numel())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_keeps_type_and_shape_and_passes_gradients_where_it_kept(dtype: torch.dtype) -> None:
    x = torch.randn(4, 3, 5, 1, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    found = randomness.Dropout(KEYS[:4], 0.25)()(x)
    assert found.dtype == dtype
    assert found.shape == x.shape
    found.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, found != 0)


def test_no_dropout_is_the_identity() -> None:
    x = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    assert torch.equal(randomness.Dropout(KEYS[:4], 0.0)()(x), x)


@given(length=st.integers(0, 300), seed=st.integers(0, 2**63 - 1), epoch=st.integers(0, 1000))
@settings(deadline=None, max_examples=50)
def test_a_permutation_holds_every_number_once_and_depends_on_its_position(length: int, seed: int, epoch: int) -> None:
    order = randomness.permutation(length, seed, "order", epoch)
    assert order.sort().values.tolist() == list(range(length))
    assert torch.equal(order, randomness.permutation(length, seed, "order", epoch))
    if length > 20:
        assert not torch.equal(order, randomness.permutation(length, seed, "order", epoch + 1))
        assert not torch.equal(order, randomness.permutation(length, seed, "split", epoch))
