"""Verification: a comparison holds up to its limit, and the inputs cover batch sizes, noise levels and captions."""

import math

import pytest
import torch
from random_models import make_model

from diffuse_cli import api
from diffuse_cli.config import EXPORT_FORMATS, Export
from diffuse_cli.errors import ExportError
from diffuse_cli.exporting import diffusers_comparison, onnx_comparison, web_page
from diffuse_cli.exporting.model_comparison import compare_read_back
from diffuse_cli.exporting.verification import (
    RELATIVE_LIMIT,
    Comparison,
    answers_and_limit,
    features_and_limit,
    largest_difference,
    network_inputs,
    require_agreement,
)
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.storage import checkpoint, registry


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


def _inputs(model):
    *_, batch = network_inputs(model.config, list(model.words))
    text = model.network.encode(encode(model.tokenizer, batch.captions))
    return batch.noisy, batch.time, text


@torch.no_grad()
def test_the_limit_is_what_rounding_does_to_this_model():
    model = make_model("the default")
    noisy, time, text = _inputs(model)
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    answers, limit = answers_and_limit(model.network, noisy, time, text)
    assert all(torch.equal(value, before[name]) and value.dtype == torch.float32
               for name, value in model.network.state_dict().items())
    assert torch.equal(answers, model.network(noisy, time, text))
    one_by_one = torch.cat([model.network(noisy[k : k + 1], time[k : k + 1], text[k : k + 1])
                            for k in range(len(noisy))])
    assert largest_difference(answers, one_by_one) <= limit < 1e-3
    assert limit > RELATIVE_LIMIT * answers.abs().max()


@torch.no_grad()
def test_text_features_may_differ_by_their_rounding_alone():
    """Features a thousand times as large round a thousand times as much, and a wrong weight is noticed in both."""
    model = make_model("the default")
    tokens = encode(model.tokenizer, ["a red car", ""])
    limits = []
    for scale in (1.0, 1000.0):
        norm = model.network.text_encoder.encoder.final_layer_norm.weight
        norm *= scale
        features, limit = features_and_limit(model.network, tokens)
        assert torch.equal(features, model.network.encode(tokens))
        one_by_one = torch.cat([model.network.encode(tokens[k : k + 1]) for k in range(2)])
        assert largest_difference(features, one_by_one) <= limit < 1e-4 * features.abs().max()
        assert limit > RELATIVE_LIMIT * features.abs().max()           # some rounding was found
        norm *= 1.001
        assert largest_difference(features, model.network.encode(tokens)) > limit
        limits.append(limit)
    assert limits[1] == pytest.approx(1000 * limits[0], rel=0.5)


@torch.no_grad()
def test_a_wrong_weight_is_beyond_the_limit():
    model = make_model("the default")
    noisy, time, text = _inputs(model)
    answers, limit = answers_and_limit(model.network, noisy, time, text)
    weight = model.network.unet.conv_out.weight
    weight[0, 0, 1, 1] += 0.01 * weight.abs().mean()
    assert largest_difference(answers, model.network(noisy, time, text)) > limit


COMPARE = {"diffusers": diffusers_comparison.compare, "onnx": onnx_comparison.compare,
           "safetensors": compare_read_back, "web": web_page.compare}


@pytest.fixture(scope="module", params=["demo", "demo-fast"])
def exported(request, tmp_path_factory):
    """A bundled model, and where it is exported to each format."""
    for library in ("diffusers", "onnxruntime"):
        pytest.importorskip(library)
    directory = tmp_path_factory.mktemp("exported")
    for form, suffix in EXPORT_FORMATS.items():
        api.export(request.param, directory / f"{form}{suffix}", to=form, verify=False)
    return checkpoint.load_model(registry.resolve(request.param), torch.device("cpu")), directory


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("form", EXPORT_FORMATS)
def test_exports_of_the_bundled_models_agree_whatever_the_number_of_threads(exported, form, threads):
    (model, directory), before = exported, torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        comparisons = COMPARE[form](model, directory / f"{form}{EXPORT_FORMATS[form]}", Export(format=form))
    finally:
        torch.set_num_threads(before)
    require_agreement(comparisons)
    what = " ".join(comparison.what for comparison in comparisons)
    assert all(words in what for words in ("answers to 1 at once", "features of", "pictures"))


def test_a_refusal_names_the_way_around_it():
    with pytest.raises(ExportError) as caught:
        require_agreement([Comparison("answers", 1.0, 0.1)])
    assert "--no-verify" in caught.value.hint
