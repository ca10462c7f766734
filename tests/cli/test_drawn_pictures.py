"""`diffuse distill --prompts`: the teacher draws the pictures from which its student learns."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from diffuse_cli import api
from diffuse_cli.cli import drawn_pictures, train
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.picture_size import Size
from diffuse_cli.runtime import launch_environment
from diffuse_cli.sampling.png_metadata import read_settings

NAMES = ["0-a-red-square.png", "1-a-red-square.png", "2-a-blue-square.png", "3-a-blue-square.png"]


@pytest.fixture
def distil(command, trained, tmp_path, monkeypatch):
    """Run `diffuse distill TEACHER drawn --prompts FILE`, without a training: (exit code, stderr, its request)."""
    requested = []
    monkeypatch.setattr(train, "run_training", lambda folder, recipe, machine, **_: requested.append((folder, recipe)))
    monkeypatch.setattr(drawn_pictures, "PICTURES", 3)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a red square\na blue square\na red square\n")

    def run(*options, folder=tmp_path / "drawn"):
        code, _, stderr = command("distill", trained[0] / "model.safetensors", *([folder] if folder else []),
                                  "--prompts", prompts, "--device", "cpu", *options)
        return code, stderr, requested

    return run


def test_the_teacher_draws_what_sample_draws_and_each_prompt_as_often(distil, trained, tmp_path):
    code, stderr, [(folder, recipe)] = distil()
    assert code == 0
    assert "draws pictures of the 2 prompts in" in stderr
    assert f": 4 of 4, in {folder}" in stderr
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    teacher = api.load(trained[0] / "model.safetensors", device="cpu")
    for seed, name in enumerate(NAMES):
        prompt = "a red square" if seed < 2 else "a blue square"
        (expected,) = teacher.sample(prompt, seed=seed)
        assert np.array_equal(np.asarray(Image.open(folder / name)), np.asarray(expected))
        assert read_settings(folder / name).seed == seed
    captions = find_pictures(folder)
    assert captions.conditional
    assert recipe.captions == "auto"
    assert recipe.init == str(trained[0] / "model.safetensors")


def test_only_missing_pictures_are_drawn(distil, tmp_path):
    distil()
    kept = {name: (tmp_path / "drawn" / name).read_bytes() for name in NAMES}
    (tmp_path / "drawn" / NAMES[2]).unlink()
    (tmp_path / "drawn" / NAMES[0]).write_bytes(b"the user's")
    assert ": 1 of 4, in " in distil()[1]
    assert (tmp_path / "drawn" / NAMES[0]).read_bytes() == b"the user's"
    assert all((tmp_path / "drawn" / name).read_bytes() == kept[name] for name in NAMES[1:])
    assert "draws" not in distil()[1]


def test_pictures_are_not_drawn_among_others(distil, tmp_path):
    (tmp_path / "drawn").mkdir()
    (tmp_path / "drawn" / "cat.png").write_bytes(b"")
    code, stderr, requested = distil()
    assert (code, requested) == (3, [])
    assert "holds something else than this teacher's pictures of these prompts: cat.png" in stderr
    assert [path.name for path in (tmp_path / "drawn").iterdir()] == ["cat.png"]


@pytest.mark.parametrize(("options", "where", "words"), [
    (("--dry-run",), {}, "4 of 4 pictures have to be drawn before a training is planned"),
    (("--lr", "-1"), {}, "--lr must be between"),
    (("--evaluations", "99"), {}, "--evaluations must be between 1 and 8"),
    (("--name", "demo"), {}, "the name 'demo' is reserved"),
    ((), {"folder": None}, "--prompts needs a folder, which the teacher fills"),
])
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(distil, tmp_path, options, where, words):
    code, stderr, requested = distil(*options, **where)
    assert (code in (2, 3), requested) == (True, [])
    assert words in stderr
    assert not (tmp_path / "drawn").exists()


def test_pictures_of_other_prompts_and_other_teachers_are_not_taken(distil, tmp_path, monkeypatch):
    distil()
    read = drawn_pictures.read_model_info
    monkeypatch.setattr(drawn_pictures, "read_model_info",
                        lambda path: dataclasses.replace(read(path), sha256="0" * 64))
    assert f"this teacher's pictures of these prompts: {NAMES[0]}" in distil()[1]
    monkeypatch.setattr(drawn_pictures, "read_model_info", read)
    (tmp_path / "prompts.txt").write_text("a red square\na blue square!\n")          # their names are the same
    code, stderr, _ = distil()
    assert code == 3
    assert f"this teacher's pictures of these prompts: {NAMES[2]}" in stderr


def test_a_picture_that_another_command_drew_meanwhile_stays(distil, tmp_path, monkeypatch):
    distil()
    (tmp_path / "drawn" / NAMES[0]).write_bytes(b"drawn meanwhile")
    monkeypatch.setattr(drawn_pictures, "_names_in", lambda folder: set())
    code, _, requested = distil()
    assert (code, len(requested)) == (0, 2)
    assert (tmp_path / "drawn" / NAMES[0]).read_bytes() == b"drawn meanwhile"


def test_all_sizes_of_a_teacher_are_drawn_in_turn(distil, monkeypatch):
    drawn, read = [], drawn_pictures.read_model_info

    def with_two_sizes(path):
        info = read(path)
        network = dataclasses.replace(info.config.network, buckets=(Size(8, 8), Size(16, 8)))
        return dataclasses.replace(info, config=dataclasses.replace(info.config, network=network))

    monkeypatch.setattr(drawn_pictures, "read_model_info", with_two_sizes)
    monkeypatch.setattr(drawn_pictures, "_write", lambda path, requests, folder, machine: drawn.extend(requests))
    assert distil()[0] == 0
    assert [request.size for request in drawn] == [(8, 8), (16, 8)] * 2


def test_settings_beside_prompts_are_said_to_be_unused(distil, tmp_path):
    assert "are not used" not in distil()[1]
    (tmp_path / "prompts.txt").write_text("a red square --steps 3\na blue square\n")
    assert "warning: the settings beside prompts in" in distil()[1]


def test_a_process_that_this_one_started_reads_no_prompts(distil, tmp_path, monkeypatch):
    monkeypatch.setenv(launch_environment.PARENT, "1")
    (tmp_path / "prompts.txt").unlink()                                # as stdin, which has been read
    code, _, requested = distil()
    assert (code, len(requested)) == (0, 1)


def test_several_processes_do_not_draw_each(distil, tmp_path, monkeypatch):
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1"), ("MASTER_ADDR", "127.0.0.1"),
                        ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    code, stderr, requested = distil()
    assert (code, requested) == (2, [])
    assert "begin with one process" in stderr
    assert not (tmp_path / "drawn").exists()


def test_a_teacher_without_captions_draws_no_prompts(command, tmp_path):
    (tmp_path / "p.txt").write_text("x\n")
    code, _, stderr = command("distill", "upscaler-x4", tmp_path / "drawn", "--prompts", tmp_path / "p.txt")
    assert code == 2
    assert "--prompts is for teachers that draw pictures of prompts" in stderr
