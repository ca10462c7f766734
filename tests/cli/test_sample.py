"""`diffuse sample` as people and programs see it: files, names, stdout, warnings, exit codes."""

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tiny
from PIL import Image

from diffuse_cli.cli import output_files
from diffuse_cli.cli.terminal import view
from diffuse_cli.errors import StorageError, UsageError
from diffuse_cli.files import durable
from diffuse_cli.sampling import generate, remarks
from diffuse_cli.storage import checkpoint
from diffuse_cli.storage.checkpoint import Model


@pytest.fixture
def no_sampling(monkeypatch):
    """A refusal must come before a model is loaded or a picture is generated."""
    monkeypatch.setattr(generate, "generate", mock.Mock(side_effect=AssertionError))
    monkeypatch.setattr(checkpoint, "load_model", mock.Mock(side_effect=AssertionError))


# ── Files and names ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_pictures_go_into_samples_and_their_paths_to_stdout(diffuse, model):
    code, out, err = diffuse("a red square", "A BLUE square!", "-n", "2", "-m", model, "--seed", "7")
    assert code == 0
    assert out.splitlines() == [
        "samples/00000-7-a-red-square.png", "samples/00001-8-a-red-square.png", "samples/00002-7-a-blue-square.png",
        "samples/00003-8-a-blue-square.png"]
    for line in out.splitlines():
        with Image.open(line) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (8, 8), "RGB")
    assert sorted(os.listdir("samples")) == sorted(os.path.basename(line) for line in out.splitlines())
    assert "warning" not in err
    _, out, _ = diffuse("a red square", "-m", model, "--seed", "8")         # the next free number, the same picture
    assert out == "samples/00004-8-a-red-square.png\n"
    with Image.open("samples/00001-8-a-red-square.png") as one, Image.open(out.strip()) as again:
        assert np.array_equal(np.asarray(one), np.asarray(again))


def test_numbers_continue_after_the_highest(diffuse, model):
    os.mkdir("samples")
    for name in ("00041-1-x.png", "7-x.png", "notes.txt", "123456-2-y.jpg"):
        Path("samples", name).touch()
    assert diffuse("-m", model, "--seed", "1")[1] == "samples/123457-1.png\n"


def test_json_lines_say_how_each_picture_was_generated(diffuse, model):
    code, out, _ = diffuse("a red square", "-n", "2", "-m", model, "-s", "3", "--json", "--sampler", "ddim")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(line["seed"], line["index"]) for line in lines] == [(3, 0), (4, 1)]
    for line in lines:
        assert line["schema"] == 1
        assert (line["prompt"], line["sampler"], line["steps"], line["guidance"], line["size"], line["model"]) == (
            "a red square", "ddim", 2, 3.0, [8, 8], "tiny")
        assert len(line["model_sha256"]) == 64
        assert line["seconds"] > 0
        with Image.open(line["path"]) as image:
            inside = json.loads(image.text["diffuse"])
        assert inside.items() <= line.items()


def test_a_picture_can_be_generated_again_from_its_metadata(diffuse, model):
    diffuse("a red square", "-m", model, "-o", "a.png", "--sampler", "ddpm", "--guidance", "1.7")
    with Image.open("a.png") as image:
        said, pixels = json.loads(image.text["diffuse"]), np.asarray(image)
        steps, seed = said["steps"], said["seed"]
    diffuse(said["prompt"], "-m", model, "-o", "b.png", "--seed", seed, "--sampler", said["sampler"], "--guidance",
            said["guidance"], "--guidance-interval", *said["guidance_interval"], "--steps", steps, "--batch-size", 2,
            quick=False)
    with Image.open("b.png") as image:
        assert np.array_equal(np.asarray(image), pixels)


def test_the_random_seed_is_printed(diffuse, model):
    _, out, err = diffuse("-m", model)
    (seed,) = re.findall(r"^model tiny, seed (\d+)$", err, re.MULTILINE)
    assert out == f"samples/00000-{seed}.png\n"


def test_metadata_reveals_no_places_and_no_people(diffuse, model, monkeypatch):
    monkeypatch.setenv("USER", "somebody-with-a-name")
    diffuse("a red square", "-m", model, "-o", "x.png")
    with Image.open("x.png") as image:
        said = " ".join(image.text.values())
    assert "a red square" in said
    for secret in ("somebody-with-a-name", os.uname().nodename, "/", "\\"):
        assert secret not in said
    assert b"tIME" not in Path("x.png").read_bytes()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".JPG"])
def test_a_picture_can_be_without_metadata(diffuse, model, suffix):
    diffuse("a red square", "-m", model, "-o", f"with{suffix}", "-s", "1")
    diffuse("a red square", "-m", model, "-o", f"without{suffix}", "-s", "1", "--no-metadata")
    with Image.open(f"with{suffix}") as image, Image.open(f"without{suffix}") as bare:
        assert image.info.keys() & {"parameters", "diffuse", "exif"}
        assert not bare.info.keys() & {"parameters", "diffuse", "exif"}
        assert np.array_equal(np.asarray(image), np.asarray(bare))


def test_a_grid_is_one_more_file_with_every_picture(diffuse, model):
    code, out, _ = diffuse("a red square", "a blue square", "-n", "3", "-m", model, "-s", "1", "--grid")
    *paths, grid = out.splitlines()
    assert (code, len(paths), grid) == (0, 6, "samples/00006-grid.png")
    with Image.open(grid) as image:
        sheet = np.asarray(image)
    assert sheet.shape == ((2 * 10 + 2) * 14, (3 * 10 + 2) * 14, 3)        # a row for each prompt, enlarged to be seen
    assert np.array_equal(sheet, sheet[::14, ::14].repeat(14, 0).repeat(14, 1))
    sheet = sheet[::14, ::14]
    for index, path in enumerate(paths):
        top, left = 2 + index // 3 * 10, 2 + index % 3 * 10
        with Image.open(path) as image:
            assert np.array_equal(np.asarray(image), sheet[top : top + 8, left : left + 8])


def test_the_preview_shows_pictures_side_by_side(diffuse, model, monkeypatch):
    rows: list[int] = []
    monkeypatch.setattr(view, "pictures_in_a_row", lambda count: 2)
    monkeypatch.setattr(view, "pictures", lambda row, of: rows.append(len(row)))
    assert diffuse("-n", "3", "-m", model, "--preview")[0] == 0
    assert rows == [2, 1]


@pytest.mark.parametrize(("prompts", "warned"), [
    (("a", "red", "square"), True), (("a red", "square"), False), (("square",), False), (("a red square",), False)])
def test_a_prompt_without_quotes_is_noticed(diffuse, model, prompts, warned):
    _, _, err = diffuse(*prompts, "-m", model)
    assert ('needs quotes: diffuse sample "a red square"' in err) == warned


# ── One file ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_file_is_never_replaced_unasked(diffuse, model):
    assert diffuse("-m", model, "-o", "deep/er/x.png", "-s", "1")[:2] == (0, f"{os.path.join('deep/er', 'x.png')}\n")
    before = Path("deep/er/x.png").read_bytes()
    with mock.patch.object(generate, "generate", side_effect=AssertionError):    # refused before that
        code, out, err = diffuse("-m", model, "-o", "deep/er/x.png", "-s", "2")
    assert (code, out) == (2, "")
    assert "deep/er/x.png exists already. Use --force" in err
    assert Path("deep/er/x.png").read_bytes() == before
    assert diffuse("-m", model, "-o", "deep/er/x.png", "-s", "2", "--force")[0] == 0
    assert Path("deep/er/x.png").read_bytes() != before
    assert os.listdir("deep/er") == ["x.png"]


def test_a_link_is_replaced_not_followed(diffuse, model):
    Path("victim.png").touch()
    for victim in ("victim.png", "nowhere.png"):
        if os.path.lexists("link.png"):
            os.unlink("link.png")
        os.symlink(victim, "link.png")
        assert diffuse("-m", model, "-o", "link.png")[0] == 2
        assert os.path.islink("link.png")
        assert diffuse("-m", model, "-o", "link.png", "--force")[0] == 0
        assert not os.path.islink("link.png")
    assert os.path.getsize("victim.png") == 0
    assert not os.path.exists("nowhere.png")


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path):
    place = output_files.SampleTarget(tmp_path / "x.png", files=1, force=False)
    (tmp_path / "x.png").write_bytes(b"theirs")
    with pytest.raises(UsageError, match="exists already"):
        place.write(b"ours", "grid")
    assert (tmp_path / "x.png").read_bytes() == b"theirs"
    assert os.listdir(tmp_path) == ["x.png"]


@pytest.mark.parametrize("arguments", [("-n", "2"), ("x", "y"), ("--grid",)])
def test_one_file_is_for_one_picture(diffuse, model, no_sampling, arguments):
    code, _, err = diffuse(*arguments, "-m", model, "-o", "x.png")
    assert (code, "is one file, but 2 pictures" in err) == (2, True)


def test_a_directory_that_is_a_file_ends_with_6(diffuse, model, no_sampling):
    Path("taken").touch()
    assert diffuse("-m", model, "-o", "taken")[0] == 6
    assert diffuse("-m", model, "-o", "taken/below")[0] == 6
    with mock.patch.object(output_files.Path, "iterdir", side_effect=PermissionError(13, "Permission denied")):
        code, _, err = diffuse("-m", model, "-o", "new")
    assert (code, "permission denied" in err) == (6, True)


def test_a_disk_that_fills_up_keeps_what_is_there(diffuse, model):
    write, left = durable.write, [2]

    def filling(path, data, **options):
        left[0] -= 1
        if left[0] < 0:
            raise StorageError("cannot write: no space left on device")
        write(path, data, **options)

    with mock.patch.object(durable, "write", filling):
        code, out, err = diffuse("-m", model, "-n", "3", "-s", "1")
    assert (code, out.splitlines()) == (6, ["samples/00000-1.png", "samples/00001-2.png"])
    assert sorted(os.listdir("samples")) == ["00000-1.png", "00001-2.png"]
    assert err.count("no space left") == 1


def test_programs_side_by_side_never_write_the_same_file(tmp_path):
    drawn = mock.Mock(seed=1, prompt="x")
    targets = [output_files.SampleTarget(tmp_path, files=20, force=False) for _ in range(4)]
    written = [[] for _ in targets]

    def write(number):
        for k in range(20):
            written[number].append((targets[number].write(f"{number} {k}".encode(), drawn), f"{number} {k}"))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    everything = [item for part in written for item in part]
    assert len({path for path, _ in everything}) == 80
    assert all(path.read_text() == content for path, content in everything)
    assert len(os.listdir(tmp_path)) == 80


@pytest.mark.parametrize(("out", "said"), [("x.bmp", "cannot be a still picture"), ("x.TIFF", "cannot be"),
                                           ("-", "-o - would be stdout")])
def test_an_unsupported_suffix_and_stdout_are_refused(diffuse, model, out, said):
    code, stdout, err = diffuse("x", "-m", model, "-n", "1", "-o", out)
    assert (code, stdout, said in err) == (2, "", True)
    assert os.listdir() == []


# ── Which model ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_trained_model_is_the_default(diffuse, trained, monkeypatch):
    monkeypatch.setenv("DIFFUSE_HOME", str(trained[0].parent.parent))
    _, by_default, _ = diffuse("a red square", "-s", "1", "--json")
    _, by_name, _ = diffuse("a red square", "-s", "1", "--json", "-m", "tiny")
    sha = [json.loads(out)["model_sha256"] for out in (by_default, by_name)]
    assert sha[0] == sha[1]
    code, _, err = diffuse("x", "-m", "tinny", "-o", "nowhere")
    assert (code, "there is no model 'tinny'. Did you mean tiny?" in err) == (4, True)
    assert not os.path.exists("nowhere")                   # a refusal creates nothing


def test_without_any_model_there_is_advice(diffuse, no_sampling):
    code, out, err = diffuse("x")
    assert (code, out) == (4, "")
    assert err == "error: there is no model yet. Train one first: diffuse train ./images\n"


def test_a_damaged_model_is_one_line(diffuse, model, tmp_path):
    data = bytearray(model.read_bytes())
    data[-1] ^= 1
    (tmp_path / "bad.safetensors").write_bytes(data)
    code, out, err = diffuse("-m", tmp_path / "bad.safetensors")
    assert (code, out, len(err.splitlines())) == (4, "", 1)


# ── Warnings ────────────────────────────────────────────────────────────────────────────────────────────────────────


def warnings(err):
    return [line.removeprefix("warning: ") for line in err.splitlines() if line.startswith("warning: ")]


def test_unknown_words_are_warned_about_with_similar_ones(diffuse, model):
    _, _, err = diffuse("a redd square, with the zebra! A", "-m", model)
    assert warnings(err) == ["the model has never seen the word 'redd'; it knows red",
                             "the model has never seen the word 'zebra'"]
    _, _, err = diffuse("a redd square", "-m", model, "-q")
    assert err == ""


def test_an_endless_prompt_is_warned_about_briefly(diffuse, model):
    code, _, err = diffuse(" ".join(f"w{index}" for index in range(10_000)), "-m", model)
    assert code == 0
    assert len(warnings(err)) == remarks.MAX_WARNINGS + 2
    assert "never seen 9995 more of the words" in err
    assert "the prompt is too long for the model, so its end is ignored: w0 w1" in err


@pytest.mark.parametrize("prompt", ["\udcff\udc80", "\x1b[31mred\nsquare", "😀", "-"])
def test_any_prompt_can_be_drawn_and_shown(diffuse, model, prompt):
    code, out, err = diffuse("-m", model, "-s", "1", "--", prompt)
    assert code == 0
    assert "\x1b" not in err + out
    with Image.open(out.strip()) as image:
        assert json.loads(image.text["diffuse"])["prompt"] == prompt


def test_a_model_without_captions_ignores_prompts_and_says_so(diffuse, unconditional):
    path = unconditional[0] / "model.safetensors"
    _, _, err = diffuse("a red square", "-m", path, "-s", "1", "-o", "a.png")
    assert warnings(err) == ["this model was trained without captions and ignores prompts"]
    assert warnings(diffuse("-m", path, "-s", "1", "-o", "b.png")[2]) == []
    with Image.open("a.png") as one, Image.open("b.png") as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))


# ── Interrupted ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _interrupting(draw):
    def drawing(model: Model, *arguments, **options):
        for number, drawn in enumerate(draw(model, *arguments, **options)):
            if number == 2:
                raise KeyboardInterrupt
            yield drawn

    return drawing


def test_finished_pictures_outlive_an_interruption(diffuse, model):
    with mock.patch.object(generate, "generate", _interrupting(generate.generate)):
        code, out, _ = diffuse("-m", model, "-n", "5", "-s", "1")
    assert code == 130
    assert out.splitlines() == ["samples/00000-1.png", "samples/00001-2.png"]
    assert sorted(os.listdir("samples")) == ["00000-1.png", "00001-2.png"]


def test_sampling_imports_nothing_of_the_extras(model, tmp_path):
    """All of them are installed here. (torch itself imports tqdm.)"""
    code = ("import sys; from diffuse_cli.cli import app; sys.argv = ['diffuse', *sys.argv[1:]]\n"
            "try:\n    app.main()\n"
            "finally:\n    sys.stderr.write(repr({'huggingface_hub', 'onnx', 'onnxruntime', 'pyarrow', 'tensorboard', "
            "'wandb', 'IPython', 'matplotlib', 'diffusers', 'transformers'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code, "sample", "-m", model, "-s", "1", "--steps", "1", "-q"],
                          capture_output=True, text=True, cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("samples/00000-1.png\n", "set()")


def test_a_reader_that_leaves_ends_it_quietly(model, tmp_path):
    tests = os.path.dirname(tiny.__file__)
    done = subprocess.run(
        ["bash", "-c", '"$0" -m diffuse_cli sample -m "$1" -n 3 -s 1 --steps 1 --batch-size 1 | head -1; '
         'echo "${PIPESTATUS[0]}"', sys.executable, str(model)],
        capture_output=True, text=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": tests}, check=True)
    first, code = done.stdout.split()
    assert first == "samples/00000-1.png"
    assert code in ("0", "141")                            # all could be written before the reader left
    assert "Traceback" not in done.stderr
