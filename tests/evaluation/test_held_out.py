"""Which pictures a model is evaluated on: those that its run held out, or a folder; and which errors there are."""

import json
import shutil

import pytest
import tiny
import torch

from diffuse_cli.data.split import split_dataset
from diffuse_cli.errors import DataError, UsageError
from diffuse_cli.evaluation.held_out import open_held_out
from diffuse_cli.events import Noticed
from diffuse_cli.storage import registry
from diffuse_cli.storage.checkpoint import load_model

CPU = torch.device("cpu")


@pytest.fixture
def run(trained, decoded, squares, home, tmp_path):
    """A copy of the run `trained` on a copy of its pictures: (directory, folder)."""
    folder = shutil.copytree(squares, tmp_path / "squares")
    directory = shutil.copytree(trained[0], home / "models" / "tiny")
    stored = json.loads((directory / "config.json").read_text())
    stored["request"]["folder"] = str(folder)
    (directory / "config.json").write_text(json.dumps(stored))
    return directory, folder


def opened(directory, folder=None):
    """(the HeldOut, the warnings)."""
    steps, warnings = open_held_out(directory / registry.MODEL_FILE, folder, resolution=8), []
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            return end.value, warnings
        if isinstance(event, Noticed):
            warnings.append(event.message)


def test_a_run_is_measured_on_what_it_held_out(run):
    found, warnings = opened(run[0])
    split = split_dataset(found.dataset.pixel_hashes)
    assert found.held_out_by_run
    assert warnings == []
    assert found.positions.tolist() == split.held_out.tolist() != []
    assert found.training.train.tolist() == split.train.tolist()
    model = load_model(run[0] / registry.MODEL_FILE, CPU)
    assert found.dataset.content_id == model.training.data_id


def test_all_pictures_of_a_folder_are_used_and_a_warning_counts_training_pictures(run, tmp_path):
    found, warnings = opened(run[0], tiny.draw_squares(tmp_path / "other", 30))
    assert not found.held_out_by_run
    assert len(found.positions) == 30
    assert [line.split(" are among")[0].split()[:4] for line in warnings] == [["22", "of", "the", "30"]]


def test_pictures_of_a_run_that_changed_or_are_gone_are_refused(run, tmp_path):
    directory, folder = run
    (folder / "000.txt").write_text("something else")
    with pytest.raises(DataError, match="changed since"):
        opened(directory)
    other = tiny.draw_squares(tmp_path / "other", 3)
    found, warnings = opened(directory, other)
    assert found.training is None
    assert "memorisation cannot be measured: " in warnings[0]
    shutil.rmtree(folder)
    with pytest.raises(DataError, match="are gone"):
        opened(directory)


def test_a_model_on_its_own_needs_a_folder(run, tmp_path):
    copy = tmp_path / "elsewhere"
    copy.mkdir()
    shutil.copy(run[0] / registry.MODEL_FILE, copy)
    with pytest.raises(UsageError, match="nothing beside this model"):
        opened(copy)
    found, warnings = opened(copy, run[1])
    assert (found.training, warnings, len(found.positions)) == (None, [], 24)


def test_too_few_pictures_hold_nothing_out(home, tmp_path):
    tiny.train(tiny.draw_squares(tmp_path / "few", 6))
    with pytest.raises(DataError, match="held nothing out"):
        opened(tiny.run_directory(home))
