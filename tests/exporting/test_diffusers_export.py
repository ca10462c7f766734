"""Exported folders: diffusers opens them and generates the pictures of our samplers; we read the same model back."""

import numpy as np
import pytest
import torch
from open_folder import GUIDANCE, PROMPTS
from random_models import CONFIGURATIONS, QUICK, make_model

from diffuse_cli.config import EXPORT_SCHEDULERS, Export
from diffuse_cli.exporting import diffusers_export
from diffuse_cli.exporting.diffusers_comparison import open_pipeline, sample_like_pipeline, sample_with_pipeline
from diffuse_cli.exporting.publishing import FORMATS
from diffuse_cli.storage.checkpoint import load_model

CPU = torch.device("cpu")
STEPS = {"ddpm": 20, "dpmpp-2m": 10, "ddim": 10}
NAMES = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CONFIGURATIONS]


@pytest.fixture(scope="module", params=NAMES)
def model(request):
    return make_model(request.param)


def written(model, folder, scheduler="ddpm"):
    folder.mkdir()
    diffusers_export.write(model, folder, Export(format="diffusers", scheduler=scheduler))
    return folder


@pytest.mark.parametrize("scheduler", EXPORT_SCHEDULERS)
def test_stock_pipelines_generate_the_pictures_of_our_samplers(model, tmp_path, scheduler):
    """Within one of 255 levels at every pixel, for the same noise, time steps and guidance."""
    pipeline = open_pipeline(written(model, tmp_path / "folder", scheduler))
    one, other = (torch.Generator().manual_seed(5) for _ in range(2))
    theirs = sample_with_pipeline(pipeline, PROMPTS, steps=STEPS[scheduler], guidance=GUIDANCE, generator=one)
    ours = sample_like_pipeline(model, scheduler, pipeline.scheduler.timesteps.tolist(), PROMPTS, guidance=GUIDANCE,
                                generator=other)
    assert theirs.shape == ours.shape == (2, *model.config.network.resolution, 3)
    assert len(np.unique(theirs)) > 50
    assert np.abs(theirs.astype(int) - ours.astype(int)).max() <= 1


def test_every_comparison_holds_and_diffusers_took_part(model, tmp_path):
    folder, export = written(model, tmp_path / "folder"), Export(format="diffusers")
    comparisons = [comparison for compare in FORMATS["diffusers"].comparisons
                   for comparison in compare(model, folder, export)]
    assert all(comparison.holds for comparison in comparisons), comparisons
    assert {"weights", "answers to 5 at once", "diffusers: answers to 5 at once",
            "diffusers: pixels of the pipeline's pictures"} <= {comparison.what for comparison in comparisons}
    differences = {comparison.what: comparison.max_abs for comparison in comparisons}
    assert differences["weights"] == differences["betas of the scheduler"] == 0


def test_the_model_is_read_back_with_the_same_tensors(model, tmp_path):
    back = load_model(written(model, tmp_path / "folder") / "model_index.json", CPU)
    ours, theirs = model.network.state_dict(), back.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert back.config == model.config
    assert back.sha256 == model.sha256


def test_the_model_is_read_back_after_diffusers_saved_it_anew(model, tmp_path):
    """The libraries add entries to the JSON files, and drop those that only we write."""
    open_pipeline(written(model, tmp_path / "folder")).save_pretrained(tmp_path / "again")
    back = load_model(tmp_path / "again" / "model_index.json", CPU)
    ours, theirs = model.network.state_dict(), back.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert back.config == model.config
    if model.tokenizer is not None:
        assert back.tokenizer.encode("a big red car").ids == model.tokenizer.encode("a big red car").ids
