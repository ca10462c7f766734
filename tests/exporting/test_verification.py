"""Verification: a comparison holds up to its limit, and the inputs cover batch sizes, noise levels and captions."""

import math

import pytest
import torch
from random_models import make_model

from diffuse_cli.errors import ExportError
from diffuse_cli.exporting.verification import Comparison, largest_difference, network_inputs, require_agreement


@pytest.mark.parametrize(("difference", "limit", "holds"), [
    (0.0, 0.0, True), (1e-4, 1e-4, True), (1.1e-4, 1e-4, False), (math.nan, 1.0, False), (math.inf, math.inf, False)])
def test_a_comparison_holds_up_to_its_limit(difference, limit, holds):
    comparison = Comparison("answers", difference, limit)
    assert comparison.holds is holds
    if holds:
        require_agreement([comparison])
    else:
        with pytest.raises(ExportError, match="answers"):
            require_agreement([comparison])


def test_tensors_of_different_shapes_differ_infinitely():
    assert largest_difference(torch.zeros(2, 3), torch.zeros(3, 2)) == math.inf
    assert largest_difference(torch.zeros(2), torch.tensor([0.0, -3.0])) == 3


def test_network_inputs_cover_several_sizes_noise_levels_and_lengths_of_captions():
    model = make_model("the default")
    batches = list(network_inputs(model.config, list(model.words)))
    assert len({len(batch.noisy) for batch in batches}) == 3
    assert {0.0, 999.0} <= {time for batch in batches for time in batch.time.tolist()}
    lengths = {len(caption.split()) for batch in batches for caption in batch.captions}
    assert min(lengths) == 0
    assert max(lengths) > 77
