"""The projection of a step on more GPUs, against sums that are done by hand."""

import argparse
import dataclasses
import math

import pytest
import torch

from benchmarks.studies import projection
from benchmarks.studies.projection import Counts, step
from diffuse_cli.network.presets import network_config

OPTIONS = argparse.Namespace(teraflops=1.0, memory=1.0, launch=10.0, inside=4.0, between=1.0)
COUNTS = Counts(picture=2e9, traffic=1e6, muon=5e9, parameters=1_000_000, launches=100,
                matrices=(torch.Size((8, 8)),) * 4)


def test_one_gpu_computes_all_and_updates():
    """8 pictures of 2 ms; Muon's 5 ms and 36 MB at 1 GB/s."""
    seconds, busy = step(COUNTS, 8, gpus=1, options=OPTIONS)
    assert seconds == pytest.approx(0.016 + 0.005 + 0.036)
    assert busy == pytest.approx(0.016 / seconds)


def test_memory_or_launches_may_take_longer():
    moved = dataclasses.replace(COUNTS, traffic=3e6)
    assert step(moved, 8, gpus=1, options=OPTIONS)[0] == pytest.approx(8 * 0.003 + 0.041)
    launched = dataclasses.replace(COUNTS, launches=20_000)
    assert step(launched, 8, gpus=1, options=OPTIONS)[0] == pytest.approx(0.2)


@pytest.mark.parametrize(("gpus", "exchange"), [(8, 2 * 7 / 8 * 4e6 / 4e9), (16, 2 * 15 / 16 * 4e6 / 1e9)])
def test_gradients_hide_behind_two_thirds_of_the_computing(gpus, exchange):
    """Muon's four equal matrices do not divide among more than four; its steps move a quarter of that."""
    one, several = (step(COUNTS, 1, gpus=count, options=OPTIONS)[0] for count in (1, gpus))
    assert several - one == pytest.approx(max(0, exchange - 0.002 * 2 / 3) + exchange / 4 - 0.005 * 3 / 4)


def test_muon_takes_its_products():
    """Five times: the Gram matrix and its product with the matrix, 2·m²·n each, and its square, 2·m³."""
    config = network_config("nano", 32, vocabulary=400, learned_variance=True)
    shapes = [(shape[0], math.prod(shape[1:])) for name, shape in projection.parameter_shapes(config).items()
              if len(shape) >= 2 and not name.startswith((*projection.FIRST_AND_LAST_LAYERS, *projection.TEXT_LAYERS))]
    expected = sum(5 * (4 * min(m, n) ** 2 * max(m, n) + 2 * min(m, n) ** 3) for m, n in shapes)
    assert projection.muon_flops(config) == expected
