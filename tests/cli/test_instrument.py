"""Options of `diffuse sample`: negatives, init images, files of prompts, --from, sheets, animations, completion."""

import dataclasses
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from diffuse_cli.cli import app
from diffuse_cli.cli.terminal import view
from diffuse_cli.config import Sampling
from diffuse_cli.data import fitting, images
from diffuse_cli.model_config import Student
from diffuse_cli.pictures import sheets
from diffuse_cli.sampling.remarks import remarks_on
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint, registry


def read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def warnings(err):
    return [line.removeprefix("warning: ") for line in err.splitlines() if line.startswith("warning: ")]


@pytest.fixture
def photo(tmp_path):
    """A picture of 40 × 24 random pixels."""
    pixels = np.random.default_rng(1).integers(0, 256, (24, 40, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def mask(tmp_path):
    """White at the left half of the same square."""
    pixels = np.zeros((24, 40), np.uint8)
    pixels[:, :20] = 255
    Image.fromarray(pixels).save(tmp_path / "mask.png")
    return tmp_path / "mask.png"


# ── Negatives ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_negative_is_written_down_in_both_ways(diffuse, model):
    _, out, err = diffuse("a red square", "--negative", "a blue square", "-m", model, "-o", "x.png", "--json",
                          "--guidance-interval", 0, 1000)
    assert json.loads(out)["negative"] == "a blue square"
    assert warnings(err) == []
    with Image.open("x.png") as image:
        assert image.text["parameters"].startswith("a red square\nNegative prompt: a blue square\nSteps: 2, ")


def test_guidance_that_acts_at_no_step_is_warned_about(diffuse, model):
    drawn = []
    for interval, told in (((3, 3), True), ((0, 1000), False)):
        for guidance in (2, 6):
            _, out, err = diffuse("a red square", "-m", model, "-s", 1, "--guidance", guidance,
                                  "--guidance-interval", *interval)
            assert any("guidance does nothing" in line for line in warnings(err)) == told
            drawn.append(np.asarray(Image.open(out.strip())))
    assert np.array_equal(*drawn[:2])
    assert not np.array_equal(*drawn[2:])


def test_a_negative_of_a_distilled_model_is_warned_about(model):
    teacher = checkpoint.load_model(model, torch.device("cpu"))
    student = dataclasses.replace(teacher, config=dataclasses.replace(
        teacher.config, student=Student(evaluations=2, guidance=3.0, teacher="tiny")))
    request = SampleRequest(prompt="a red square", negative="blue", sampling=Sampling.of(student.config))
    assert list(remarks_on([request], student)) == [
        "--negative does nothing: the guidance of a distilled model is built in"]


def test_a_negative_that_does_nothing_is_warned_about(diffuse, model, unconditional):
    _, _, err = diffuse("--negative-prompt", "a blue square", "--guidance", "1", "-m", model)
    assert warnings(err) == ["--negative does nothing without guidance, and --guidance 1 is no guidance"]
    _, _, err = diffuse("--negative", "blue", "-m", unconditional[0] / "model.safetensors")
    assert warnings(err) == ["this model was trained without captions and ignores prompts"]
    _, _, err = diffuse("--negative", "zebra", "-m", model, "--guidance-interval", 0, 1000)
    assert warnings(err) == ["the model has never seen the word 'zebra'"]


# ── From a picture ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_strength_0_returns_the_picture(diffuse, model, photo):
    assert diffuse("a red square", "-m", model, "--init", photo, "--strength", "0", "-o", "x.png")[0] == 0
    assert np.array_equal(read("x.png"), fitting.fitted_pixels(images.open_rgb(photo), 8))


def test_pixels_outside_the_mask_stay_exactly_as_they_were(diffuse, model, photo, mask):
    assert diffuse("a red square", "-m", model, "--init", photo, "--mask", mask, "-o", "x.png")[0] == 0
    kept, drawn = fitting.fitted_pixels(images.open_rgb(photo), 8), read("x.png")
    new = fitting.fitted_pixels(images.open_rgb(mask), 8).mean(2) >= 127.5
    assert 0 < new.sum() < 64
    assert np.array_equal(drawn[~new], kept[~new])
    assert not np.array_equal(drawn[new], kept[new])


@pytest.mark.parametrize(("arguments", "code", "said"), [
    (("--init", "nowhere.png"), 3, "nowhere.png cannot be used: not there"),
    (("--init", "."), 3, ". cannot be used: a folder"), (("--init", "text.png"), 3, "text.png cannot be used: text"),
    (("--init", "PHOTO", "--mask", "text.png"), 3, "text.png cannot be used"),
    (("--strength", "0.5"), 2, "--strength needs a picture"), (("--mask", "PHOTO"), 2, "--mask needs a picture"),
    (("--init", "PHOTO", "--strength", "1.5"), 2, "--strength must be between"),
    (("--init", "PHOTO", "--strength", "nan"), 2, "--strength must be between")])
def test_an_unusable_init_image_is_one_line(diffuse, model, photo, arguments, code, said):
    Path("text.png").write_text("no picture")
    with mock.patch.object(checkpoint, "load_model", side_effect=AssertionError):
        found, out, err = diffuse("-m", model, *(photo if word == "PHOTO" else word for word in arguments))
    assert (found, out, len(err.splitlines())) == (code, "", 1)
    assert said in err


# ── Files of prompts ────────────────────────────────────────────────────────────────────────────────────────────────

LINES = """a red square

  # is no comment
{"prompt": "a blue square", "n": 2, "seed": 40, "steps": 1, "sampler": "ddim", "guidance": 2, "negative": "red"}\r
"""


def test_prompts_come_from_a_file_each_with_its_settings(diffuse, model):
    Path("list.txt").write_text(LINES, newline="")
    code, out, _ = diffuse("first", "--prompts", "list.txt", "-m", model, "-s", "7", "--json", "--negative", "grey")
    records = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [(made["prompt"], made["seed"], made["steps"], made["sampler"], made["guidance"], made["negative"])
            for made in records] == [
        ("first", 7, 2, "dpmpp-2m", 3.0, "grey"), ("a red square", 7, 2, "dpmpp-2m", 3.0, "grey"),
        ("# is no comment", 7, 2, "dpmpp-2m", 3.0, "grey"), ("a blue square", 40, 1, "ddim", 2.0, "red"),
        ("a blue square", 41, 1, "ddim", 2.0, "red")]
    diffuse("a blue square", "-m", model, "-s", "41", "-o", "x.png", "--steps", "1", "--sampler", "ddim",
            "--guidance", "2", "--negative", "red", "--batch-size", "2", quick=False)
    assert np.array_equal(read("x.png"), read(records[-1]["path"]))


def test_a_dash_reads_stdin_and_nothing_else_does(diffuse, model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", mock.Mock(buffer=io.BytesIO("\ufeffa red square\nrotes Käsebrot".encode())))
    _, out, _ = diffuse("--prompts", "-", "-m", model, "--json")
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == ["a red square", "rotes Käsebrot"]
    monkeypatch.setattr(sys, "stdin", mock.Mock(buffer=mock.Mock(read=mock.Mock(side_effect=AssertionError))))
    assert diffuse("a red square", "-m", model)[0] == 0


@pytest.mark.parametrize("name", ["sede", "init"])
def test_settings_that_mean_nothing_here_are_named(diffuse, model, name):
    Path("list.txt").write_text(f'a\n{{"prompt": "x", "{name}": "/etc/passwd"}}')
    code, out, err = diffuse("--prompts", "list.txt", "-m", model)
    assert (code, len(out.splitlines())) == (0, 2)
    assert f"list.txt has settings that mean nothing here and were left out: {name}" in err


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "cp1252", "mac_roman"])
def test_prompts_in_the_encodings_of_editors(diffuse, model, encoding):
    Path("list.txt").write_bytes("ein grüner Fisch\rein Käsebrot, très élégant".encode(encoding))
    _, out, _ = diffuse("--prompts", "list.txt", "-m", model, "--json")
    assert [json.loads(line)["prompt"] for line in out.splitlines()] == [
        "ein grüner Fisch", "ein Käsebrot, très élégant"]


@pytest.mark.parametrize(("content", "said"), [
    (b'a\n{"prompt": 1}', "line 2 of list.txt cannot be used"),
    (b'{"prompt": 1}', "line 1"), (b'{"n": true}', "it.n should be a whole number"), (b'{"n": 0}', "n must be"),
    (b'{"seed": -1}', "seed must be"),
    (b'{"steps": 0}', "--steps"), (b'{"sampler": "heunn"}', "Did you mean 'heun'"),
    (b'{"guidance": 1e999}', "line 1"),
    (b'{"n": 1, "n": 2}', "line 1"), (b"{", "line 1"),
    (b"\n \n", "holds no prompt"), (b"\x89PNG\0\0\0\1", "it is not text"), (b"a\n" * 9_000_000, "over 16 MB")],
    ids=range(13))
def test_unusable_lines_are_named(diffuse, model, content, said):
    Path("list.txt").write_bytes(content)
    with mock.patch.object(checkpoint, "load_model", side_effect=AssertionError):
        found, out, err = diffuse("--prompts", "list.txt", "-m", model)
    assert (found, out, len(err.splitlines())) == (3, "", 1)
    assert said in err
    assert not os.path.exists("samples")
    assert diffuse("--prompts", "nowhere", "-m", model)[0] == 3


def test_several_processes_sample_the_prompts_that_one_has_read(trained, tmp_path):
    drawn, environment = {}, {**os.environ, "PYTHONPATH": os.path.dirname(tiny.__file__)}
    lines = 'a red square\n{"prompt": "a blue square", "n": 3}\n{"prompt": "\\ud800", "steps": 1}\n'
    for processes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-m", "diffuse_cli", "sample", "--prompts", "-", "-m", trained[0] / "model.safetensors",
             "-s", "5", "--steps", "2", "--batch-size", "2", "--animate", "-o", processes, "--procs", processes],
            input=lines, text=True, capture_output=True, cwd=tmp_path, timeout=120, env=environment)
        assert done.returncode == 0, done.stderr
        drawn[processes] = [(path.name, path.read_bytes()) for path in sorted((tmp_path / processes).iterdir())]
    assert len(drawn["1"]) == 10
    assert drawn["1"] == drawn["2"]


# ── The same picture again ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def tiny_at_home(home, trained):
    (home / "models" / "tiny").mkdir(parents=True)
    (home / "models" / "tiny" / "model.safetensors").write_bytes((trained[0] / "model.safetensors").read_bytes())


@pytest.mark.usefixtures("tiny_at_home")
@pytest.mark.parametrize("options", [
    (), ("--sampler", "ddpm", "--guidance", "1.7", "--guidance-interval", "0.1", "3", "--negative", "a blue square"),
    ("--sampler", "unipc", "--batch-size", "5", "--precision", "bf16"), ("--init", "PHOTO", "--strength", "0.4"),
    ("--init", "PHOTO", "--mask", "MASK", "--sampler", "dpmpp-sde")])
def test_a_picture_is_generated_again_from_its_metadata(diffuse, photo, mask, options):
    options = [{"PHOTO": photo, "MASK": mask}.get(word, word) for word in options]
    _, out, _ = diffuse('a "red", square\nSteps: 3', "-n", "3", "-s", "11", "-m", "tiny", *options)
    old = out.splitlines()[1]
    again = [word for word in options if word in (photo, mask, "--init", "--mask")]
    code, _, err = diffuse("--from", old, "-o", "again.png", *again, quick=False)
    assert code == 0, err
    assert np.array_equal(read("again.png"), read(old))
    with Image.open("again.png") as one, Image.open(old) as other:
        assert one.text == other.text


@pytest.mark.usefixtures("tiny_at_home")
def test_options_replace_the_metadata(diffuse):
    diffuse("a red square", "-m", "tiny", "-s", "1", "-o", "old.png", "--sampler", "ddim", "--negative", "grey")
    _, out, _ = diffuse("--from", "old.png", "--guidance", "5", "-n", "2", "--json", "--steps", "3", quick=False)
    assert [(made["guidance"], made["seed"], made["steps"], made["sampler"], made["negative"], made["prompt"])
            for made in map(json.loads, out.splitlines())] == [
        (5, seed, 3, "ddim", "grey", "a red square") for seed in (1, 2)]
    _, out, _ = diffuse("a blue square", "--from", "old.png", "-s", "9", "--json", "--negative", "", quick=False)
    made = json.loads(out)
    assert (made["prompt"], made["seed"], made["negative"]) == ("a blue square", 9, "")


@pytest.mark.usefixtures("tiny_at_home")
def test_a_picture_generated_from_another_needs_that_one_again(diffuse, photo, mask):
    diffuse("-m", "tiny", "-o", "old.png", "--init", photo, "--mask", mask)
    code, _, err = diffuse("--from", "old.png", "-o", "new.png")
    assert (code, "Add --init" in err) == (2, True)
    code, _, err = diffuse("--from", "old.png", "--init", photo, "-o", "new.png")
    assert (code, "Add --mask" in err) == (2, True)
    _, _, err = diffuse("--from", "old.png", "--init", mask, "--mask", mask, "-o", "new.png")
    assert warnings(err) == [
        "--init or --mask is not the one that the picture was generated from, so the result will differ"]


def test_another_model_is_used_only_when_named(diffuse, model, unconditional, home):
    diffuse("a red square", "-m", model, "-o", "old.png", "-s", "1")
    (home / "models" / "tiny").mkdir(parents=True)         # another model of the same name
    (home / "models" / "tiny" / "model.safetensors").write_bytes((unconditional[0] / "model.safetensors").read_bytes())
    code, out, err = diffuse("--from", "old.png")
    assert (code, out, len(err.splitlines())) == (4, "", 1)
    assert "the model that generated it, 'tiny' with hash" in err
    code, _, err = diffuse("--from", "old.png", "-m", "tiny", "-o", "new.png", "-q")
    assert code == 0
    _, _, err = diffuse("--from", "old.png", "-m", "tiny", "-o", "new2.png")
    assert "the picture was generated by another model, tiny" in err
    assert "warning" not in diffuse("--from", "old.png", "-m", model, "-o", "new3.png")[2]


def test_settings_of_a_distilled_model_are_not_those_of_another(diffuse, model, tmp_path):
    teacher = checkpoint.load_model(model, torch.device("cpu"))
    config = dataclasses.replace(teacher.config, student=Student(evaluations=2, guidance=3.0, teacher="tiny"))
    weights = {name: weight * 0.99 for name, weight in teacher.network.state_dict().items()}
    student = tmp_path / "student.safetensors"
    checkpoint.save_model(student, config=config, weights=weights, tokenizer=teacher.tokenizer, words=teacher.words,
                          training=teacher.training)
    diffuse("a red square", "-m", student, "-o", "student.png", "-s", "1", quick=False)
    diffuse("a red square", "-m", model, "-o", "teacher.png", "-s", "2", "--guidance", "5")
    for old, other, seed, sampler, guidance in (
            ("student.png", model, 1, "dpmpp-2m", 3), ("teacher.png", student, 2, "ddim", 1)):
        code, out, err = diffuse("--from", old, "-m", other, "-o", f"new-{old}", "--json", quick=False)
        assert code == 0
        assert "sampler, steps and guidance are this model's own" in err
        record = json.loads(out)
        assert (record["seed"], record["prompt"]) == (seed, "a red square")
        assert (record["sampler"], record["guidance"]) == (sampler, guidance)
    assert diffuse("--from", "student.png", "-m", student, "-o", "again.png", quick=False)[0] == 0
    assert np.array_equal(read("again.png"), read("student.png"))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_a_picture_without_metadata_is_one_line(diffuse, model, suffix):
    diffuse("-m", model, "-o", f"old{suffix}")
    code, out, err = diffuse("--from", f"old{suffix}", "-m", model)
    assert (code, out, len(err.splitlines())) == (3, "", 1)
    assert "only those hold how they were made" in err
    assert diffuse("--from", "old.png", "--prompts", "x", "-m", model)[0] == 2


# ── Sheets, films, previews ─────────────────────────────────────────────────────────────────────────────────────────


def rows_of_sheet(diffuse, *arguments):
    with mock.patch.object(sheets, "labelled_rows", wraps=sheets.labelled_rows) as labelled:
        code, out, err = diffuse(*arguments, "--sheet")
    assert code == 0, err
    (rows,) = labelled.call_args.args
    return out.splitlines(), [(row.title, row.labels) for row in rows]


def test_a_sheet_has_a_row_for_each_prompt_and_labels(diffuse, model):
    paths, rows = rows_of_sheet(diffuse, "red", "blue", "-n", "2", "-s", "4", "-m", model, "--negative", "grey")
    assert paths[-1] == "samples/00004-sheet.png"
    labels = [("seed 4", "guidance 3"), ("seed 5", "guidance 3")]
    assert rows == [("red (not: grey)", labels), ("blue (not: grey)", labels)]


def test_several_guidances_are_columns_or_rows(diffuse, model):
    several = ("--guidance", "1", "--guidance", "2.5")
    paths, rows = rows_of_sheet(diffuse, "red", "blue", "-s", "4", "-m", model, *several)
    assert len(paths) == 5
    assert rows == [(prompt, [("seed 4", "guidance 1"), ("seed 4", "guidance 2.5")]) for prompt in ("red", "blue")]
    _, rows = rows_of_sheet(diffuse, "red", "-n", "2", "-s", "4", "-m", model, *several)
    assert rows == [("red", [(f"seed {seed}", f"guidance {scale}") for seed in (4, 5)]) for scale in ("1", "2.5")]


def test_animations_show_the_sampling_of_each_picture(diffuse, model):
    code, out, _ = diffuse("a red square", "-n", "2", "-s", "1", "-m", model, "--animate", "--steps", "5")
    paths = out.splitlines()
    assert (code, [Path(path).suffix for path in paths]) == (0, [".png", ".webp"] * 2)
    scale = round(sheets.ENLARGED_SIDE / 8)
    with Image.open(paths[1]) as film:
        assert film.n_frames >= 5
        film.seek(film.n_frames - 1)
        last = np.asarray(film.convert("RGB"))
    assert last.shape == (12 * scale, 20 * scale, 3)       # state | estimate, with a white edge of two pixels
    assert np.array_equal(last[2 * scale : 10 * scale : scale, 2 * scale : 10 * scale : scale], read(paths[0]))


@pytest.mark.parametrize(("name", "options", "files"), [
    ("x.gif", (), ["x.gif"]), ("x.webp", (), ["x.webp"]), ("x.gif", ("-n", "3", "--grid"), ["x.gif"])])
def test_an_animation_goes_to_the_named_file(diffuse, model, name, options, files):
    code, out, err = diffuse("-m", model, "--animate", "-o", name, *options)
    assert (code, out.splitlines(), os.listdir()) == (0, files, files), err
    with Image.open(name) as film:
        assert film.n_frames > 1


@pytest.mark.parametrize("arguments", [
    ("--animate", "-o", "x.png"), ("-o", "x.gif"), ("--animate", "-n", "2", "-o", "x.gif"), ("--sheet", "-o", "x.png")])
def test_a_file_is_for_one_thing_of_its_kind(diffuse, model, arguments):
    code, out, _ = diffuse("-m", model, *arguments)
    assert (code, out, os.listdir()) == (2, "", [])


def test_a_preview_shows_every_picture(diffuse, model):
    pictures: list[bytes] = []
    with mock.patch.object(view, "pictures", lambda row, of: pictures.extend(one.tobytes() for one in row)):
        _, out, _ = diffuse("-m", model, "-n", "2", "--preview")
        assert pictures == [read(path).tobytes() for path in out.splitlines()]
        diffuse("-m", model)
    assert len(pictures) == 2


# ── Completion ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("line", "expected"), [
    ("diffuse sample -m c", {"cars", "cats"}),
    ("diffuse sample --model ", {"cars", "cats", "dogs", "last", *registry.bundled_files()}),
    ("diffuse models show d", {"demo", "demo-fast", "dogs"}), ("diffuse models rm ", {"cars", "cats", "dogs"}),
    ("diffuse noise-demo -m l", {"last"})])
def test_the_shell_completes_models_without_torch(home, line, expected):
    for name in ("cars", "cats", "dogs"):
        (home / "models" / name).mkdir(parents=True)
        (home / "models" / name / "model.safetensors").touch()
    (home / "last").write_text("cars\n")
    code = ("import sys; sys.argv = ['diffuse']\nfrom diffuse_cli.cli import app\ntry: app.main()\n"
            "finally: assert not {'torch', 'numpy', 'PIL'} & set(sys.modules)")
    words = line.split(" ")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={
        **os.environ, "_DIFFUSE_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)})
    assert set(done.stdout.split()) == expected, done.stderr
    assert "Error" not in done.stderr


def test_a_home_that_cannot_be_read_completes_nothing(monkeypatch):
    from diffuse_cli.cli import options

    monkeypatch.setenv("DIFFUSE_HOME", "relative")
    assert options.complete_model("") == []


def test_completion_can_be_installed():
    assert {"install_completion", "show_completion"} <= {parameter.name for parameter in app._command().params}
