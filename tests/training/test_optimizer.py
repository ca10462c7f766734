"""Muon against its definition and against torch's own; which parameters are whose."""

import dataclasses

import pytest
import tiny
import torch
from torch import nn

from diffuse_cli.config import Recipe
from diffuse_cli.data.split import split_dataset
from diffuse_cli.network.network import Network
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.training.muon import RMS, Muon, orthogonal
from diffuse_cli.training.optimizer import ENDS, READS_TEXT, Optimizer
from diffuse_cli.training.plan import make_plan

CAPTIONS = [("a red square",), ("a blue square",)] * 6


def moved(optimizer, parameter, gradients):
    """Where the parameter is after a step for each gradient."""
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    return parameter.detach().clone()


def ours(weight, lr=0.02, dtype=torch.float32):
    parameter = nn.Parameter(weight.clone(memory_format=torch.preserve_format))
    optimizer = Muon([parameter], lr=lr, dtype=dtype)
    optimizer.state[parameter] = {"momentum": torch.zeros_like(parameter)}
    return optimizer, parameter


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-4), (torch.bfloat16, 0.03)])
@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_every_direction_becomes_as_long(shape, dtype, rounding):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(matrix, full_matrices=False)
    turned = left.T @ orthogonal(matrix[None], dtype)[0] @ right.T         # diagonal: the same singular vectors
    lengths = turned.diagonal()
    assert (turned - torch.diag(lengths)).abs().max() < rounding
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
    expected, found = moved(other, theirs, gradients), moved(*ours(weight, dtype=dtype), gradients)
    assert (found - expected).norm() < 0.03 * (expected - weight).norm()


def test_a_kernel_is_a_matrix_in_whichever_order_it_lies():
    weight, *gradients = torch.randn(3, 8, 4, 3, 3, generator=torch.Generator().manual_seed(2))
    flat = moved(*ours(weight.flatten(1)), [gradient.flatten(1) for gradient in gradients])
    last = moved(*ours(weight.to(memory_format=torch.channels_last)), gradients)
    assert torch.allclose(last.flatten(1), flat, atol=1e-6)


def test_matrices_of_one_shape_turn_together_but_do_not_meet():
    weight, other, *gradients = torch.randn(6, 6, 10, generator=torch.Generator().manual_seed(4))
    both, one = ours(weight)
    second = nn.Parameter(other.clone())
    both.param_groups[0]["params"].append(second)
    both.state[second] = {"momentum": torch.zeros_like(second)}
    for first_gradient, second_gradient in (gradients[:2], gradients[2:]):
        one.grad, second.grad = first_gradient.clone(), second_gradient.clone()
        both.step()
    assert torch.allclose(one, moved(*ours(weight), gradients[::2]), atol=1e-6)
    assert torch.allclose(second, moved(*ours(other), gradients[1::2]), atol=1e-6)


def test_a_step_is_as_long_as_one_of_adams():
    weight = torch.zeros(32, 288)
    found = moved(*ours(weight, lr=0.1), [torch.randn(32, 288, generator=torch.Generator().manual_seed(3))])
    assert found.square().mean().sqrt() == pytest.approx(0.1 * RMS, rel=0.2)


@pytest.fixture(scope="module")
def plan():
    data = tiny.dataset(CAPTIONS)
    tokenizer = train_tokenizer(text for texts in CAPTIONS for text in texts)
    recipe = Recipe(preset="nano", batch_size=4, steps=100, lr=1e-3, optimizer="muon")
    with tiny.scaled_down():
        made, _ = make_plan(recipe, data, split_dataset(data.hashes), resolution=8, tokenizer=tokenizer, init=None,
                            device=torch.device("cpu"))
    return made


def test_muon_has_the_matrices_between_the_ends(plan):
    network = Network(plan.model.network)
    optimizer = Optimizer(network, plan, precision="fp32")
    turned = {name.removeprefix("momentum.") for name in optimizer.moments if name.startswith("momentum.")}
    for name, parameter in network.named_parameters():
        assert (name in turned) == (parameter.ndim >= 2 and not name.startswith((*ENDS, *READS_TEXT))), name
        assert (f"exp_avg.{name}" in optimizer.moments) == (name not in turned)
    held = [one for part in optimizer.parts for group in part.param_groups for one in group["params"]]
    assert len(held) == len(set(held)) == len(list(network.parameters()))


def test_without_muon_all_is_adams(plan):
    for kind in ("adamw", "adam"):
        optimizer = Optimizer(Network(plan.model.network), dataclasses.replace(plan, optimizer=kind), precision="fp32")
        assert [type(part) for part in optimizer.parts] == [torch.optim.AdamW]
