"""Comparing a model with the one that is read back: every difference is found, and half precision is allowed for."""

import pytest
import torch
from random_models import make_model

from diffuse_cli.config import Export
from diffuse_cli.errors import UsageError
from diffuse_cli.exporting import single_file
from diffuse_cli.exporting.model_comparison import compare_models, compare_read_back


@pytest.fixture(scope="module")
def model():
    return make_model("the default")


@pytest.mark.parametrize("name", ["unet.conv_in.weight", "unet.mid_block.attentions.0.add_k_proj.weight",
                                  "text_encoder.shared.weight"])
def test_a_network_with_one_changed_tensor_is_found(model, name):
    other = make_model("the default")
    with torch.no_grad():
        other.network.state_dict()[name].mul_(2)
    comparisons = {comparison.what: comparison for comparison in compare_models(model, other)}
    assert not comparisons["weights"].holds
    assert not all(comparisons[f"answers to {size} at once"].holds for size in (1, 3, 5))
    assert comparisons["features of captions"].holds is name.startswith("unet.")


def test_in_half_precision_the_weights_are_compared_after_rounding(model, tmp_path):
    export = Export(format="safetensors", precision="fp16")
    single_file.write(model, tmp_path / "half.safetensors", export)
    comparisons = compare_read_back(model, tmp_path / "half.safetensors", export)
    assert all(comparison.holds for comparison in comparisons)
    assert {comparison.what: comparison.max_abs for comparison in comparisons}["weights"] == 0
    assert max(comparison.max_abs for comparison in comparisons) > 1e-5


def test_a_weight_too_large_for_half_precision_is_named(tmp_path):
    model = make_model("the default")
    with torch.no_grad():
        model.network.state_dict()["unet.conv_in.bias"][0] = 1e5
    with pytest.raises(UsageError, match=r"unet\.conv_in\.bias"):
        single_file.write(model, tmp_path / "half.safetensors", Export(format="safetensors", precision="fp16"))
    assert not list(tmp_path.iterdir())
