"""A comparison holds up to its limit; whatever is wrong with an export, in whichever part, is found."""

import math

import pytest
import torch
from made_models import make_model

from diffuse_cli.config import Export
from diffuse_cli.errors import ExportError, UsageError
from diffuse_cli.exporting import diffusers_comparison, diffusers_export, single_file
from diffuse_cli.exporting.model_comparison import compare_models, compare_read_back
from diffuse_cli.exporting.verification import Comparison, judge, largest, questions


@pytest.fixture(scope="module")
def model():
    return make_model("the default")


@pytest.mark.parametrize(("found", "limit", "holds"), [
    (0.0, 0.0, True), (1e-4, 1e-4, True), (1.1e-4, 1e-4, False), (math.nan, 1.0, False), (math.inf, math.inf, False)])
def test_a_comparison_holds_up_to_its_limit(found, limit, holds):
    comparison = Comparison("answers", found, limit)
    assert comparison.holds is holds
    if holds:
        judge([comparison])
    else:
        with pytest.raises(ExportError, match="answers"):
            judge([comparison])


def test_shapes_that_differ_are_infinitely_far_apart():
    assert largest(torch.zeros(2, 3), torch.zeros(3, 2)) == math.inf
    assert largest(torch.zeros(2), torch.tensor([0.0, -3.0])) == 3


def test_questions_are_of_several_sizes_levels_and_lengths(model):
    asked = list(questions(model.config, list(model.words)))
    assert len({len(question.noisy) for question in asked}) == 3
    assert {0.0, 999.0} <= {time for question in asked for time in question.time.tolist()}
    lengths = {len(caption.split()) for question in asked for caption in question.captions}
    assert min(lengths) == 0
    assert max(lengths) > 77


@pytest.mark.parametrize("name", ["unet.conv_in.weight", "unet.mid_block.attentions.0.add_k_proj.weight",
                                  "text_encoder.shared.weight"])
def test_a_network_that_answers_otherwise_is_found(model, name):
    other = make_model("the default")
    with torch.no_grad():
        other.network.state_dict()[name].mul_(2)
    found = {comparison.what: comparison for comparison in compare_models(model, other)}
    assert not found["weights"].holds
    assert not all(found[f"answers to {size} at once"].holds for size in (1, 3, 5))
    assert found["features of captions"].holds is name.startswith("unet.")


@pytest.mark.parametrize(("old", "new", "told"), [
    ('"v_prediction"', '"epsilon"', "pixels"), ('"leading"', '"trailing"', None), ('"learned_range"', '"fixed_large"',
                                                                                  "pixels")])
def test_a_scheduler_that_means_something_else_is_found_by_its_pictures(model, tmp_path, old, new, told):
    """But not other time steps: our sampler takes whichever it has."""
    folder = tmp_path / "folder"
    folder.mkdir()
    diffusers_export.write(model, folder, Export(format="diffusers"))
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(path.read_text().replace(old, new))
    wrong = [comparison.what for comparison in diffusers_comparison.compare(
        model, folder, Export(format="diffusers")) if not comparison.holds]
    assert bool(wrong) is (told is not None)
    assert all(told in what for what in wrong)


def test_half_precision_is_compared_with_what_was_rounded(model, tmp_path):
    how = Export(format="safetensors", precision="fp16")
    single_file.write(model, tmp_path / "half.safetensors", how)
    comparisons = compare_read_back(model, tmp_path / "half.safetensors", how)
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
