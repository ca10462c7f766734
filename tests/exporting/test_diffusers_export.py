"""An exported folder opened by diffusers itself: its pictures are those of our samplers, and it comes back the same."""


import numpy as np
import pytest
import torch
from made_models import CONFIGURATIONS, QUICK, make_model
from open_folder import GUIDANCE, PROMPTS

from diffuse_cli.config import EXPORT_SCHEDULERS, Export
from diffuse_cli.exporting import diffusers_export
from diffuse_cli.exporting.diffusers_comparison import drawn_alike, drawn_by_pipeline, open_pipeline
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
def test_stock_pipelines_draw_the_pictures_of_our_samplers(model, tmp_path, scheduler):
    """Within one of 255 levels at every pixel, for the same noise, time steps and guidance."""
    pipeline = open_pipeline(written(model, tmp_path / "folder", scheduler))
    stock, ours = (torch.Generator().manual_seed(5) for _ in range(2))
    theirs = drawn_by_pipeline(pipeline, PROMPTS, steps=STEPS[scheduler], guidance=GUIDANCE, generator=stock)
    alike = drawn_alike(model, scheduler, pipeline.scheduler.timesteps.tolist(), PROMPTS, guidance=GUIDANCE,
                        generator=ours)
    assert theirs.shape == alike.shape == (2, *[model.config.network.resolution] * 2, 3)
    assert len(np.unique(theirs)) > 50
    assert np.abs(theirs.astype(int) - alike.astype(int)).max() <= 1


def test_every_comparison_holds_and_diffusers_took_part(model, tmp_path):
    folder, how = written(model, tmp_path / "folder"), Export(format="diffusers")
    comparisons = [found for compare in FORMATS["diffusers"].comparisons for found in compare(model, folder, how)]
    assert all(comparison.holds for comparison in comparisons), comparisons
    assert {"weights", "answers to 5 at once", "diffusers: answers to 5 at once",
            "diffusers: pixels of the pipeline's pictures"} <= {comparison.what for comparison in comparisons}
    exact = {comparison.what: comparison.max_abs for comparison in comparisons}
    assert exact["weights"] == exact["betas of the scheduler"] == 0


def test_it_comes_back_with_the_same_tensors(model, tmp_path):
    back = load_model(written(model, tmp_path / "folder") / "model_index.json", CPU)
    ours, theirs = model.network.state_dict(), back.network.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert back.config == model.config
    assert back.sha256 == model.sha256


def test_it_comes_back_after_diffusers_saved_it_anew(model, tmp_path):
    """With all the entries that the libraries add, and without what only we write."""
    open_pipeline(written(model, tmp_path / "folder")).save_pretrained(tmp_path / "again")
    back = load_model(tmp_path / "again" / "model_index.json", CPU)
    ours, theirs = model.network.state_dict(), back.network.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert back.config == model.config
    if model.tokenizer is not None:
        assert back.tokenizer.encode("a big red car").ids == model.tokenizer.encode("a big red car").ids
