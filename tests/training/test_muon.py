"""Muon against its definition and against torch's own."""

import pytest
import torch
from torch import nn

from diffuse_cli.training.muon import UPDATE_RMS, Muon, orthogonal_steps


def moved(optimizer, parameter, gradients):
    """The parameter after a step with each of the gradients."""
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach().clone()


def muon(weight, lr=0.02, dtype=torch.float32):
    """(optimiser, parameter) with a copy of this weight and no momentum yet."""
    parameter = nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    optimizer = Muon([parameter], lr=lr, dtype=dtype, directions=orthogonal_steps)
    optimizer.state[parameter] = {"momentum": torch.zeros_like(parameter)}
    return optimizer, parameter


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_every_direction_becomes_as_long(shape, dtype, rounding):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal_steps([matrix], dtype)[0] / (UPDATE_RMS * max(shape) ** 0.5)
    in_its_bases = left.T @ found @ right.T                                        # diagonal: the same singular vectors
    lengths = in_its_bases.diagonal()
    assert (in_its_bases - torch.diag(lengths)).abs().max() < rounding
    assert lengths.min() > 0.6
    assert lengths.max() < 1.25


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has none of its own")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_steps_are_those_of_torch(shape, dtype):
    """torch's multiplies in bf16, so that single entries differ by a few hundredths of the step."""
    weight, *gradients = torch.randn(4, *shape, generator=torch.Generator().manual_seed(1))
    theirs = nn.Parameter(weight.clone())
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.01, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    expected, found = moved(other, theirs, gradients), moved(*muon(weight, dtype=dtype), gradients)
    assert (found - expected).norm() < 0.03 * (expected - weight).norm()


def test_a_kernel_is_a_matrix_in_whichever_order_it_lies():
    weight, *gradients = torch.randn(3, 8, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    flat = moved(*muon(weight.flatten(1)), [gradient.flatten(1) for gradient in gradients])
    last = moved(*muon(weight.to(memory_format=torch.channels_last)), gradients)
    assert torch.allclose(last.flatten(1), flat, atol=1e-6)


def test_matrices_of_one_shape_are_orthogonalised_at_once_but_do_not_mix():
    weight, other, *gradients = torch.randn(6, 6, 10, generator=torch.Generator().manual_seed(4))
    both, one = muon(weight)
    second = nn.Parameter(other.clone())
    both.param_groups[0]["params"].append(second)
    both.state[second] = {"momentum": torch.zeros_like(second)}
    for first_gradient, second_gradient in (gradients[:2], gradients[2:]):
        one.grad, second.grad = first_gradient.clone(), second_gradient.clone()
        both.step()
    assert torch.allclose(one, moved(*muon(weight), gradients[::2]), atol=1e-6)
    assert torch.allclose(second, moved(*muon(other), gradients[1::2]), atol=1e-6)


def test_a_step_is_as_long_as_one_of_adams():
    weight = torch.zeros(32, 288)
    found = moved(*muon(weight, lr=0.1), [torch.randn(32, 288, generator=torch.Generator().manual_seed(3))])
    assert found.square().mean().sqrt() == pytest.approx(0.1 * UPDATE_RMS, rel=0.2)
