"""The metadata of a model file is read without torch, and refused where it makes no sense."""

import dataclasses
import json
import subprocess
import sys

import pytest

from diffuse_cli.checks import to_dict
from diffuse_cli.config import Recipe
from diffuse_cli.errors import ModelError, UsageError
from diffuse_cli.model_config import ModelConfig, NetworkConfig
from diffuse_cli.storage import safetensors_file
from diffuse_cli.storage.model_info import TrainingSummary, read_model_info

CONFIG = ModelConfig(schedule="cosine", prediction="v", network=NetworkConfig(
    resolution=16, widths=(8,), depths=(1,), attention=("none",), head_dim=8, groups=8, time_width=8, text=None))
METADATA = {"diffuse.format_version": "1", "diffuse.config": json.dumps(to_dict(CONFIG)),
            "diffuse.words": '{"red":3,"car":2}', "diffuse.training": '{"name":"cars","steps":10}'}


def _file(tmp_path, **change):
    metadata = {**METADATA, **{f"diffuse.{key}": value for key, value in change.items()}}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"".join(safetensors_file.encode([("w", "F32", (2, 3), bytes(24))], metadata)))
    return path


def test_the_metadata_of_a_file_is_read(tmp_path):
    path = _file(tmp_path)
    info = read_model_info(path)
    assert info.config == CONFIG
    assert info.words == {"red": 3, "car": 2}
    assert info.training == TrainingSummary(name="cars", steps=10)
    assert (info.parameters, info.bytes) == (6, path.stat().st_size)


def test_a_summary_that_was_read_is_written_again_as_it_was():
    for entries in ({}, {"steps": 10, "name": "cars"},
                    {"name": 3, "lr": 1, "else": [1, {"a": None}], "noise_mse": None},
                    {"step": True, "steps": 2.0, "seed": "7", "lr": "0.1", "objective": ["sigmoid"]}):
        assert json.dumps(TrainingSummary.from_json(entries).to_json()) == json.dumps(entries)


def test_a_new_summary_writes_every_entry_under_its_key_in_order():
    entries = TrainingSummary(name="cars", loss_weighting="sigmoid", lr=1e-3).to_json()
    assert list(entries) == [
        "name", "preset", "step", "steps", "images_seen", "train_images", "seed", "objective", "optimizer", "lr",
        "batch_size", "captions", "noise_mse", "delivered", "data_id", "init_id"]
    assert {key: value for key, value in entries.items() if value is not None} == {
        "name": "cars", "objective": "sigmoid", "lr": 1e-3}
    assert TrainingSummary.from_json(entries) == TrainingSummary(name="cars", loss_weighting="sigmoid", lr=1e-3)


def test_the_rendering_is_written_only_if_it_is_not_the_default():
    assert TrainingSummary().rendering_options == {**Recipe().colour_options, "fit": "crop"}
    summary = TrainingSummary(background="#102030", white_level=4095, fit="pad")
    assert list(summary.to_json())[-3:] == ["background", "white_level", "fit"]
    assert TrainingSummary.from_json(json.loads(json.dumps(summary.to_json()))).rendering_options == {
        "background": "#102030", "white_level": 4095, "fit": "pad"}
    for impossible in ({"background": ""}, {"white_level": 0}, {"white_level": -1.0}, {"fit": "auto"}, {"fit": "tile"}):
        with pytest.raises(UsageError, match=r"--background|--white-level|--fit"):
            _ = TrainingSummary.from_json(impossible).rendering_options


@pytest.mark.parametrize("value", [True, 1.5, "7", [7], {"a": 7}, None])
def test_an_entry_of_a_wrong_type_is_not_believed(value):
    summary = TrainingSummary.from_json({"step": value, "name": "cars", "loss_weighting": "not a key"})
    assert (summary.step, summary.name, summary.loss_weighting) == (None, "cars", None)


def test_a_whole_number_will_do_for_a_fraction_and_a_changed_entry_is_written():
    summary = TrainingSummary.from_json({"else": 1, "lr": 1, "step": 5})
    assert (summary.lr, summary.step) == (1, 5)
    assert dataclasses.replace(summary, step=6).to_json() == {"else": 1, "lr": 1, "step": 6}


@pytest.mark.parametrize(("change", "match"), [
    ({"format_version": None}, "not a model of diffuse-cli"),
    ({"format_version": "2"}, "has format '2', this version reads 1"),
    ({"config": None}, "lacks diffuse.config"),
    ({"config": "[]"}, "lacks diffuse.config"),
    ({"config": "{"}, "JSON is damaged"),
    ({"config": '{"evil":1}'}, "configuration is impossible"),
    ({"config": json.dumps({**to_dict(CONFIG), "schedule": "x"})}, "configuration is impossible"),
    ({"words": '{"red":"\\u001b"}'}, "word counts"),
    ({"words": '{"red":true}'}, "word counts"),
    ({"words": '{"red":-1}'}, "word counts"),
    ({"training": "1"}, "lacks diffuse.training"),
    ({"training": '{"a":"' + "x" * 2**20 + '"}'}, "too long"),
])
def test_metadata_that_makes_no_sense_is_a_model_error(tmp_path, change, match):
    with pytest.raises(ModelError, match=match):
        read_model_info(_file(tmp_path, **change))


def test_reading_metadata_needs_no_torch(tmp_path):
    code = ("import sys; from pathlib import Path; from diffuse_cli.storage.model_info import read_model_info; "
            "read_model_info(Path(sys.argv[1])); print({'torch', 'numpy', 'safetensors'} & set(sys.modules))")
    done = subprocess.run([sys.executable, "-c", code, _file(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
