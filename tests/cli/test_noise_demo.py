"""`diffuse noise-demo` as people see it: files, numbers, warnings, refusals."""

import functools
import json
from pathlib import Path

import numpy as np
import pytest
from encoded_pictures import tiff
from PIL import Image

from diffuse_cli.storage import registry


@pytest.fixture
def diffuse(command, monkeypatch, tmp_path):
    """Run `diffuse noise-demo …` in an empty directory of its own: (exit code, stdout, stderr)."""
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path / "absent")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return functools.partial(command, "noise-demo")


def test_without_a_picture_it_draws_one_and_nothing_is_ever_replaced(diffuse):
    assert diffuse()[:2] == (0, "noise-demo.png\n")
    first = Path("noise-demo.png").read_bytes()
    assert diffuse("--seed", "1")[:2] == (0, "noise-demo-2.png\n")
    assert Path("noise-demo.png").read_bytes() == first
    assert Path("noise-demo-2.png").read_bytes() != first
    code, out, err = diffuse("-o", "noise-demo.png")
    assert (code, out) == (2, "")
    assert "exists already" in err


def test_a_picture_that_cannot_be_read_is_one_line(diffuse, tmp_path):
    (tmp_path / "a.tif").write_bytes(tiff(np.zeros((9, 9, 5), np.uint8)))
    code, out, err = diffuse(tmp_path / "a.tif")
    assert (code, out) == (3, "")
    assert err.splitlines() == [f"error: {tmp_path / 'a.tif'} cannot be used: 5 bands. Give another picture, or none "
                                "for a demo scene"]


def test_plot_takes_no_picture(diffuse, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "photo.png")
    code, out, err = diffuse(tmp_path / "photo.png", "--plot")
    assert (code, out) == (2, "")
    assert "no picture" in err


def test_a_strip_has_a_column_for_each_level_and_a_row_for_each_schedule(diffuse, tmp_path):
    Image.effect_noise((90, 70), 60).save(tmp_path / "photo.png")
    diffuse(tmp_path / "photo.png", "-n", "4", "--resolution", "16", "-o", "four.png")
    diffuse(tmp_path / "photo.png", "-n", "8", "--resolution", "16", "-o", "eight.png")
    diffuse(tmp_path / "photo.png", "-n", "4", "--resolution", "16", "-o", "two.png", "--schedule", "cosine",
            "--schedule", "linear")
    four, eight, two = (Image.open(name) for name in ("four.png", "eight.png", "two.png"))
    assert eight.height == four.height
    assert eight.width == pytest.approx(2 * four.width, abs=10)
    assert two.width == four.width
    assert two.height == pytest.approx(2 * four.height, abs=10)


def test_json_has_the_numbers_of_every_level(diffuse):
    _, out, _ = diffuse("--json", "-n", "3", "--resolution", "16", "--schedule", "cosine")
    record = json.loads(out)
    assert record["path"] == "noise-demo.png"
    assert [level["t"] for level in record["levels"]] == [0.001, 0.5005, 1.0]
    assert {level["schedule"] for level in record["levels"]} == {"cosine"}
    for level in record["levels"]:
        assert level["alpha"] ** 2 / level["sigma"] ** 2 == pytest.approx(level["snr"])
        assert level["noise_mse"] is None


def test_a_model_adds_its_estimate_at_each_level(diffuse, trained):
    path = trained[0] / "model.safetensors"
    diffuse("-n", "3", "--resolution", "8", "-o", "plain.png")
    code, out, _ = diffuse("-n", "3", "-m", path, "--json", "-o", "model.png")
    assert code == 0
    losses = [level["noise_mse"] for level in json.loads(out)["levels"]]
    assert all(0 < loss < 10 for loss in losses)
    assert Image.open("model.png").height > 1.5 * Image.open("plain.png").height
    for more in (["--schedule", "cosine"], ["--plot"], ["--resolution", "16"]):
        assert diffuse("-m", path, *more)[0] == 2


@pytest.mark.parametrize("suffix", ["webp", "gif"])
def test_an_animation_goes_to_noise_and_back_for_ever(diffuse, suffix):
    code, out, _ = diffuse("--animate", "-o", f"a.{suffix}", "--resolution", "16")
    assert (code, out) == (0, f"a.{suffix}\n")
    film = Image.open(f"a.{suffix}")
    assert film.n_frames > 40
    assert film.info.get("loop") == 0
    film.seek(0)
    first = np.asarray(film.convert("RGB"), np.float64)
    film.seek(film.n_frames // 2)
    assert np.abs(np.asarray(film.convert("RGB"), np.float64) - first).mean() > 5


def test_the_curves_of_all_schedules_are_a_picture(diffuse):
    code, out, err = diffuse("--plot", "--resolution", "128")
    assert (code, out) == (0, "noise-demo.png\n")
    assert Image.open("noise-demo.png").width == 1200
    assert "linear leaks at 128 px" in err
    assert "interpolated" not in err


def test_invalid_arguments_are_refused_in_one_line(diffuse, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"nothing")
    for arguments, code in [
        (["missing.png"], 3), ([tmp_path / "broken.png"], 3), (["-n", "1"], 2), (["--schedule", "other"], 2),
        (["--resolution", "4"], 2), (["--animate", "--plot"], 2), (["-o", "a.txt"], 2), (["-m", "absent"], 4),
        (["--seed", "-1"], 2),
    ]:
        left, out, err = diffuse(*arguments)
        assert (left, out) == (code, ""), arguments
        assert err.startswith("error: ")
        assert err.count("\n") == 1
