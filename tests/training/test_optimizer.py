"""Which parameters belong to Muon, and which to Adam."""

import dataclasses

import pytest
import tiny
import torch

from diffuse_cli.config import Recipe
from diffuse_cli.data.split import split_dataset
from diffuse_cli.network.network import Network
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.training.optimizer import FIRST_AND_LAST_LAYERS, TEXT_LAYERS, Optimizer
from diffuse_cli.training.plan import make_plan

CAPTIONS = [("a red square",), ("a blue square",)] * 6


@pytest.fixture(scope="module")
def plan():
    data = tiny.dataset(CAPTIONS)
    tokenizer = train_tokenizer(text for texts in CAPTIONS for text in texts)
    recipe = Recipe(preset="nano", batch_size=4, steps=100, lr=1e-3, optimizer="muon")
    with tiny.scaled_down():
        split = split_dataset(data.pixel_hashes)
        plan, _ = make_plan(recipe, data, split, resolution=8, fit="crop", tokenizer=tokenizer, init=None,
                            device=torch.device("cpu"))
    return plan


def test_muon_has_the_matrices_between_the_ends(plan):
    network = Network(plan.model.network)
    optimizer = Optimizer(network, plan, precision="fp32")
    muon_params = {name.removeprefix("momentum.") for name in optimizer.moments if name.startswith("momentum.")}
    for name, parameter in network.named_parameters():
        is_muons = parameter.ndim >= 2 and not name.startswith((*FIRST_AND_LAST_LAYERS, *TEXT_LAYERS))
        assert (name in muon_params) == is_muons, name
        assert (f"exp_avg.{name}" in optimizer.moments) == (name not in muon_params)
    held = [one for part in optimizer.parts for group in part.param_groups for one in group["params"]]
    assert len(held) == len(set(held)) == len(list(network.parameters()))


def test_without_muon_all_is_adams(plan):
    for kind in ("adamw", "adam"):
        optimizer = Optimizer(Network(plan.model.network), dataclasses.replace(plan, optimizer=kind), precision="fp32")
        assert [type(part) for part in optimizer.parts] == [torch.optim.AdamW]
