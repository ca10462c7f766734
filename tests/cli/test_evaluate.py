"""`diffuse evaluate` as people see it: lines, JSON, the files that it writes, refusals."""

import functools
import json
import os
import shutil

import pytest
import tiny

from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.errors import StorageError
from diffuse_cli.evaluation import encoder
from diffuse_cli.files import durable
from diffuse_cli.storage import registry


@pytest.fixture
def diffuse(command, monkeypatch, tmp_path):
    """Run `diffuse evaluate …`: (exit code, stdout, stderr)."""
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path / "absent")
    monkeypatch.setattr(encoder, "STEPS", 2)
    return functools.partial(command, "evaluate")


@pytest.fixture
def model(trained, decoded, home):
    """The run directory of `tiny` in this test's home."""
    registry_directory = shutil.copytree(trained[0], home / "models" / "tiny")
    registry.set_last("tiny")
    return registry_directory


KEYS = {"schema", "version", "model_sha256", "step", "seed", "pictures", "levels", "noise_mse", "noise_mse_ref",
        "bits_per_dim", "variance_gain_bpd", "variance_calibration", "prompts", "distances", "memorisation"}


def test_each_figure_says_which_values_are_good(diffuse, model):
    code, out, err = diffuse("-n", "2")
    assert code == 0, err
    head, table = (part.splitlines() for part in out.split("\n\n"))
    lines = {line.split("  ")[0]: line for line in head}
    assert "2 pictures held out by its training; trained on 22" in lines["measured on"]
    for label in ("noise loss", "reference", "bits/dim", "variance"):
        assert "±" in lines[label], label
    assert "lower is better" in lines["bits/dim"]
    assert "without them" in lines["captions"]
    assert "too few pictures to tell" in lines["memorisation"]
    assert "kernel distance" not in lines                              # two pictures have no floor
    assert table[0].split() == ["LOG-SNR", "NOISE", "LOSS", "NO", "CAPTION", "WRONG", "CAPTION"]
    assert len(table) == 25
    assert max(map(len, head)) < 160


def test_json_is_the_same_as_the_file_beside_the_model(diffuse, model):
    code, out, err = diffuse("tiny", "-n", "2", "--json", "-s", "3")
    record = json.loads(out)
    assert (code, out.count("\n")) == (0, 1), err
    assert record.keys() == KEYS
    assert json.loads((model / "evaluation.json").read_text()) == record
    assert (model / "closest.png").read_bytes().startswith(b"\x89PNG")
    assert (record["seed"], record["step"]) == (3, 8)
    assert record["pictures"] == {"held_out": 2, "train": 22, "own": True}
    assert len(record["levels"]) == len(record["prompts"]["levels"]) == 24
    for figure in (record["noise_mse"], *record["bits_per_dim"].values(), record["prompts"]["shuffled_rise"]):
        assert figure.keys() == {"value", "standard_error"}
        assert figure["standard_error"] > 0
    assert record["distances"] is None


def test_without_drawing_nothing_is_compared(diffuse, model):
    code, out, _ = diffuse("tiny", "-n", "0", "--json")
    assert (code, json.loads(out)["memorisation"]) == (0, None)
    assert not (model / "closest.png").exists()
    assert diffuse("tiny", "-n", "0", "--images", "1")[0] == 0          # one picture has no standard errors
    assert json.loads((model / "evaluation.json").read_text())["noise_mse"]["standard_error"] is None


def test_a_folder_of_other_pictures(diffuse, model, tmp_path):
    folder = tiny.draw_squares(tmp_path / "other", 30)
    before = sorted(os.listdir(folder))
    code, out, err = diffuse("tiny", folder, "-n", "6")
    assert code == 0, err
    assert "30 pictures in the given folder; trained on 22" in out
    assert "among those that the model was trained on" in err
    for line in ("kernel distance", "Fréchet distance", "precision", "recall", "features          an encoder"):
        assert f"\n{line}" in out
    assert sorted(os.listdir(folder)) == before


def test_a_folder_of_other_pictures_leaves_the_figures_of_those_held_out(diffuse, model, tmp_path):
    folder = tiny.draw_squares(tmp_path / "other", 30)                     # among them its training pictures
    code, out, err = diffuse("tiny", folder, "-n", "2")
    assert code == 0, err
    assert "2 pictures each" in out
    assert "nan" not in out                                                # a distance of two has no standard error
    assert not (model / "evaluation.json").exists()
    assert not (model / "closest.png").exists()
    assert diffuse("tiny", "-n", "2")[0] == 0
    kept = (model / "evaluation.json").read_bytes()
    assert diffuse("tiny", folder, "-n", "0")[0] == 0
    assert (model / "evaluation.json").read_bytes() == kept
    assert (model / "closest.png").exists()


def test_a_model_on_its_own_leaves_nothing_behind(diffuse, model, tmp_path, squares):
    lone = tmp_path / "lone"
    lone.mkdir()
    shutil.copy(model / "model.safetensors", lone)
    code, out, err = diffuse(lone / "model.safetensors")
    assert (code, out) == (2, "")
    assert "diffuse evaluate MODEL DIR" in err
    code, out, err = diffuse(lone / "model.safetensors", squares, "-n", "2", "--images", "8")
    assert code == 0, err
    assert "memorisation" not in out
    assert os.listdir(lone) == ["model.safetensors"]


def test_an_unconditional_model_has_no_captions_to_judge(diffuse, unconditional, decoded, home):
    shutil.copytree(unconditional[0], home / "models" / "tiny")
    code, out, _ = diffuse("tiny", "-n", "2")
    assert code == 0
    assert "none: unconditional" in out
    assert "CAPTION" not in out


def test_a_changed_folder_is_refused_in_one_line(diffuse, model, squares, tmp_path):
    folder = shutil.copytree(squares, tmp_path / "squares")
    stored = json.loads((model / "config.json").read_text())
    stored["request"]["folder"] = str(folder)
    (model / "config.json").write_text(json.dumps(stored))
    (folder / "000.png").unlink()
    for reason in ("changed since 'tiny' was trained on them", "are gone"):
        code, out, err = diffuse("tiny")
        assert (code, out) == (3, "")
        assert reason in err
        assert err.count("error: ") == 1
        shutil.rmtree(folder, ignore_errors=True)


def test_invalid_arguments_are_refused_in_one_line(diffuse, model, tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    for arguments, code in [
        (["absent"], 4), (["tiny", tmp_path / "absent"], 3), (["-n", "-1"], 2), (["--images", "0"], 2),
        (["--seed", "-1"], 2), (["--precision", "fp16"], 2), (["--batch-size", "0"], 2), (["--device", "tpu9"], 2),
        (["--features", tmp_path / "no.onnx"], 4), (["--features", tmp_path / "no.onnx", "-n", "0"], 2),
    ]:
        left, out, err = diffuse(*arguments)
        assert (left, out) == (code, ""), arguments
        assert err.startswith("error: "), err
        assert err.count("\n") == 1
    assert not (model / "evaluation.json").exists()


def test_a_full_disk_costs_the_record_not_the_answer(diffuse, model, monkeypatch):
    def full(*_, **__):
        raise StorageError("the disk is full")

    monkeypatch.setattr(durable, "write", full)
    code, out, err = diffuse("tiny", "-n", "0", "--json")
    assert code == 6
    assert json.loads(out).keys() == KEYS
    assert "the disk is full" in err


def test_an_empty_name_is_not_the_current_directory(diffuse, model):
    code, out, err = diffuse("tiny", "")
    assert (code, out) == (2, "")
    assert "no folder of pictures was given" in err


# ── Quickly, and the demo model ─────────────────────────────────────────────────────────────────────────────────────


def test_a_quick_look_generates_nothing_and_keeps_nothing(diffuse, model):
    code, out, err = diffuse("--quick", "--json")
    record = json.loads(out)
    assert code == 0, err
    assert (record["pictures"]["held_out"], record["distances"], record["memorisation"]) == (2, None, None)
    assert "not kept" in err
    assert not (model / "evaluation.json").exists()
    assert json.loads(diffuse("--quick", "-n", "1", "--json")[1])["memorisation"] is not None


def test_the_time_of_an_encoder_is_told_once_before_it_is_trained(diffuse, model, squares):
    told = "distances need an encoder of these pictures: it is trained now, in about 0:0"
    _, out, err = diffuse("tiny", squares, "-n", "2")
    assert told in err
    assert "kernel distance" in out
    assert told not in diffuse("tiny", squares, "-n", "2")[2]          # it was kept


def test_the_demo_model_is_measured_on_new_demo_scenes(diffuse, model, home, monkeypatch, tmp_path):
    demo = tmp_path / "demo.safetensors"
    shutil.copy(model / "model.safetensors", demo)
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path)
    code, out, err = diffuse("demo", "-n", "0", "--images", "3")
    assert code == 0, err
    assert "3 pictures of new demo scenes" in out
    folder = home / "images" / "demo-scenes-3-8"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert len(before) == 4
    (folder / "00002.png").unlink()                                    # as if drawing it had been killed
    assert diffuse("demo", "-n", "0", "--images", "3")[:2] == (0, out)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    own = tmp_path / "own"
    list(scenes.write_demo_folder(own, count=3, resolution=8, seed=0))         # as the training's
    assert not {path.read_bytes() for path in own.glob("*.png")} & set(before.values())
