"""The average of weights against its closed form: weight θ_i of a run of n steps by (i/n)^(γ+1) - ((i-1)/n)^(γ+1)."""

import pytest
import torch
from torch import Tensor, nn

from diffuse_cli.training import ema


def profile(steps: int) -> Tensor:
    """The weights of steps 1 … n. → (n,) float64"""
    share = torch.arange(steps + 1, dtype=torch.float64) / steps
    return (share ** (ema.GAMMA + 1)).diff()


def follow(weights: Tensor, *, start: float = 0.0) -> Tensor:
    """The averages after each step of a module whose only parameter takes the given values. weights: (n, d) → (n, d)"""
    module = nn.Linear(weights.shape[1], 1, bias=False).double()
    averaged = [torch.full_like(module.weight, start).detach()]
    averages = []
    for number, value in enumerate(weights, start=1):
        with torch.no_grad():
            module.weight.copy_(value[None])
        ema.update(averaged, module, number)
        averages.append(averaged[0][0].clone())
    return torch.stack(averages)


def test_updates_give_the_closed_form_weighted_sum() -> None:
    weights = torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    averages = follow(weights)
    for steps in (1, 2, 7, 40):
        torch.testing.assert_close(averages[steps - 1], profile(steps) @ weights[:steps], rtol=1e-10, atol=1e-12)


def test_the_first_update_forgets_the_start() -> None:
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.equal(follow(weights, start=1e6)[0], weights[0])
    assert torch.equal(follow(weights, start=1e6), follow(weights, start=-1e6))


def test_weights_that_stand_still_are_their_own_average() -> None:
    weights = torch.full((50, 3), 1.2345, dtype=torch.float64)
    torch.testing.assert_close(follow(weights), weights, rtol=0, atol=1e-14)


def test_the_exponent_gives_the_width() -> None:
    assert ema.relative_width(ema.GAMMA) == pytest.approx(0.05, abs=5e-5)


@pytest.mark.parametrize("gamma", [1.0, 6.94, 16.97])
def test_the_width_is_the_standard_deviation_of_the_profile(gamma: float) -> None:
    """By summing the profile τ^γ of a long run, τ the share of the training at which a weight was taken."""
    share = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    weight = share**gamma / (share**gamma).sum()
    mean = (weight * share).sum()
    deviation = (weight * (share - mean) ** 2).sum().sqrt()
    assert ema.relative_width(gamma) == pytest.approx(deviation.item(), rel=1e-6)


def test_published_widths() -> None:
    """Karras et al. 2024 name two exponents: 16.97 for a width of 0.05, 6.94 for 0.10."""
    assert ema.relative_width(16.97) == pytest.approx(0.05, abs=1e-4)
    assert ema.relative_width(6.94) == pytest.approx(0.10, abs=1e-4)


def test_all_parameters_are_averaged_in_place_and_none_needs_a_gradient() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    averaged = [torch.zeros_like(parameter).requires_grad_() for parameter in module.parameters()]
    places = [tensor.data_ptr() for tensor in averaged]
    ema.update(averaged, module, 1)
    assert [tensor.data_ptr() for tensor in averaged] == places
    for tensor, parameter in zip(averaged, module.parameters(), strict=True):
        assert torch.equal(tensor, parameter)
        assert tensor.is_leaf
