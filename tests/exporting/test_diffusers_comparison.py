"""Comparing a model with the pipeline that diffusers opens: a scheduler that means something else is found."""

import pytest
from random_models import make_model

from diffuse_cli.config import Export
from diffuse_cli.exporting import diffusers_comparison, diffusers_export


@pytest.fixture(scope="module")
def model():
    return make_model("the default")


@pytest.mark.parametrize(("old", "new", "property_name"), [
    ('"v_prediction"', '"epsilon"', "pixels"), ('"leading"', '"trailing"', None),
    ('"learned_range"', '"fixed_large"', "pixels")])
def test_a_changed_scheduler_is_found_by_its_pictures(model, tmp_path, old, new, property_name):
    """But not if only its time steps change: our sampler takes those that the scheduler has."""
    folder, export = tmp_path / "folder", Export(format="diffusers")
    folder.mkdir()
    diffusers_export.write(model, folder, export)
    path = folder / "scheduler/scheduler_config.json"
    path.write_text(path.read_text().replace(old, new))
    wrong = [comparison.what for comparison in diffusers_comparison.compare(model, folder, export)
             if not comparison.holds]
    assert bool(wrong) is (property_name is not None)
    assert all(property_name in what for what in wrong)
