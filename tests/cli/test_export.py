"""`diffuse export` as people see it: a path, a folder that is read again, refusals, and nothing half-written."""

import contextlib
import errno
import json
import os
import re
import shutil
import signal
import stat
from pathlib import Path

import pytest
import torch

from diffuse_cli import config
from diffuse_cli.exporting import diffusers_comparison, publishing, verification
from diffuse_cli.storage import checkpoint, registry, safetensors_file, safetensors_header


@pytest.fixture
def diffuse(command, monkeypatch, tmp_path):
    """Run `diffuse …` in an empty directory of its own, without diffusers: (exit code, stdout, stderr)."""
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path / "absent")
    monkeypatch.setattr(diffusers_comparison, "LIBRARIES", {"a_library_that_is_not_there": "DiffusionPipeline"})
    monkeypatch.setitem(config.SAMPLER_STEPS, "dpmpp-2m", 2)
    monkeypatch.setattr(verification, "TIMES_BY_BATCH_SIZE", {1: (999.0,), 2: (0.0, 250.5)})
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return command


@pytest.fixture
def model(trained):
    return trained[0] / "model.safetensors"


def weights(path):
    return checkpoint.load_model(path, torch.device("cpu")).network.state_dict()


def same(one, other):
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


# ── The export ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_named_after_the_model_whose_path_is_all_that_is_printed(diffuse, trained, home):
    shutil.copytree(trained[0], home / "models" / "tiny")
    code, out, err = diffuse("export", "tiny", "--to", "diffusers")
    assert (code, out) == (0, "tiny-diffusers\n"), err
    assert "compared with the model" in err
    assert set(os.listdir()) == {"tiny-diffusers"}
    assert set(os.listdir("tiny-diffusers")) == {
        "model_index.json", "scheduler", "unet", "text_encoder", "tokenizer", "README.md", "samples", "export.json"}
    assert same(home / "models/tiny/model.safetensors", registry.resolve("./tiny-diffusers"))


def test_the_card_tells_of_pictures_data_and_figures(diffuse, model):
    assert diffuse("export", model, "--to", "diffusers", "-o", "out")[0] == 0
    card = (Path("out") / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: diffusers\npipeline_tag: text-to-image\n")
    for text in ("# tiny", "samples/1.png", "AutoPipelineForText2Image", "| pictures | 22 |", "square", "noise loss"):
        assert text in card, text


def test_the_card_of_a_model_without_its_run_shows_words_that_name_something(diffuse, model):
    shutil.copy(model, "alone.safetensors")
    assert diffuse("export", "./alone.safetensors", "--to", "diffusers", "-o", "out", "--no-verify")[0] == 0
    card = (Path("out") / "README.md").read_text(encoding="utf-8")
    words = checkpoint.load_model(model, torch.device("cpu")).words
    assert "a" in words
    assert "*a*" not in card
    assert "*square*" in card
    assert not re.search(r"frequent words \|.*\ba\b", card)


def test_the_report_holds_every_figure_with_its_limit_and_the_versions(diffuse, model):
    code, out, _ = diffuse("export", model, "--to", "diffusers", "-o", "out", "--scheduler", "ddim", "--json")
    assert code == 0
    with open("out/export.json", encoding="utf-8") as file:
        report = json.load(file)
    told = json.loads(out)
    assert told.pop("path") == "out"
    assert told.pop("seconds") > 0
    assert {**told, "training": report["training"], "words": report["words"]} == report
    assert report["words"]["square"] > 0
    assert report["verified"] is True
    assert report["scheduler"] == "ddim"
    assert report["opened_by"] == {}
    assert {"weights", "answers to 2 at once", "token ids that differ", "betas of the scheduler", "pictures of a seed"
            } <= {entry["what"] for entry in report["comparisons"]}
    assert all(entry["max_abs"] <= entry["limit"] for entry in report["comparisons"])
    assert report["libraries"]["torch"] == torch.__version__
    with open("out/scheduler/scheduler_config.json", encoding="utf-8") as file:
        assert json.load(file)["_class_name"] == "DDIMScheduler"


def test_one_file_that_is_a_model_like_any_other(diffuse, model):
    for precision, size in (("fp32", 4), ("fp16", 2)):
        code, out, err = diffuse("export", model, "--to", "safetensors", "--precision", precision, "-o",
                                 f"{precision}.safetensors")
        assert (code, out) == (0, f"{precision}.safetensors\n"), err
        head = safetensors_file.read_header(Path(out.strip()))
        assert {safetensors_header.ITEM_BYTES[entry.dtype] for entry in head.tensors.values()} == {size}
        assert safetensors_file.verify_seal(Path(out.strip()))
        assert json.loads(head.metadata["diffuse.export"])["verified"] is True
        assert head.metadata["modelspec.architecture"] == "diffuse-unet"
        assert stat.S_IMODE(os.stat(out.strip()).st_mode) == 0o666 & ~_umask()
    assert same(model, Path("fp32.safetensors"))
    assert diffuse("sample", "a red square", "-m", "./fp16.safetensors", "--steps", "2")[0] == 0


def test_a_folder_is_taken_wherever_a_model_is(diffuse, model, squares):
    assert diffuse("export", model, "--to", "diffusers", "-o", "out")[0] == 0
    drawn = [diffuse("sample", "a red square", "-m", which, "--steps", "2", "-s", "1", "-o", f"{number}.png")
             for number, which in enumerate((model, "./out"))]
    assert [code for code, *_ in drawn] == [0, 0]
    assert Path("0.png").read_bytes() == Path("1.png").read_bytes()
    assert "validation loss" in diffuse("models", "show", "./out")[1]
    assert diffuse("models", "verify", "./out")[0] == 0
    assert diffuse("noise-demo", squares / "000.png", "-m", "./out", "-n", "2")[0] == 0
    assert diffuse("export", "./out", "--to", "safetensors", "-o", "back.safetensors")[0] == 0
    assert same(model, Path("back.safetensors"))
    assert diffuse("train", squares, "--init", "./out", "--steps", "1", "--dry-run")[0] == 0


def test_without_verification_the_report_says_so(diffuse, model):
    code, _, err = diffuse("export", model, "--to", "diffusers", "-o", "out", "--no-verify")
    assert code == 0
    assert "not compared" in err
    with open("out/export.json", encoding="utf-8") as file:
        report = json.load(file)
    assert (report["verified"], report["comparisons"]) == (False, [])


# ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("arguments", "told"), [
    (("--to", "difusers"), "Did you mean 'diffusers'?"),
    (("--to", "diffusers", "--scheduler", "ddmp"), "Did you mean 'ddpm'?"),
    (("--to", "safetensors", "--scheduler", "ddpm"), "--scheduler is for --to diffusers"),
    (("--to", "diffusers", "--precision", "fp16"), "--precision is for --to safetensors"),
    (("--to", "safetensors", "-o", "out.bin"), "a .safetensors file"),
    (("--to", "web", "-o", "out"), "a .html file"),
    (("--to", "web", "--precision", "fp16"), "--precision is for --to safetensors"),
    ((), "--to"),
])
def test_invalid_options_are_refused_before_anything_is_loaded(diffuse, model, monkeypatch, arguments, told):
    monkeypatch.setattr(checkpoint, "load_model", None)
    code, out, err = diffuse("export", model, *arguments)
    assert (code, out) == (2, "")
    assert told in err
    assert not os.listdir()


def test_nothing_is_replaced_without_force_and_with_it_only_an_earlier_export(diffuse, model):
    os.mkdir("out")
    Path("out/thesis.txt").write_text("mine")
    for more in ((), ("--force",)):
        code, _, err = diffuse("export", model, "--to", "diffusers", "-o", "out", *more)
        assert code == 2
        assert "exists already" in err or "out holds thesis.txt" in err
    assert os.listdir("out") == ["thesis.txt"]

    assert diffuse("export", model, "--to", "diffusers", "-o", "again", "--no-verify")[0] == 0
    assert diffuse("export", model, "--to", "diffusers", "-o", "again", "--no-verify")[0] == 2
    os.remove("again/samples/1.png")
    assert diffuse("export", model, "--to", "diffusers", "-o", "again", "--no-verify", "--force")[0] == 0
    assert os.path.exists("again/samples/1.png")
    assert set(os.listdir()) == {"out", "again"}


@pytest.mark.parametrize("mine", ["thesis.txt", "unet/notes.txt", "link"])
def test_a_users_file_in_an_export_is_never_lost(diffuse, model, mine):
    assert diffuse("export", model, "--to", "diffusers", "-o", "out", "--no-verify")[0] == 0
    if mine == "link":
        os.symlink("..", "out/link")
    else:
        (Path("out") / mine).write_text("mine")
    code, out, err = diffuse("export", model, "--to", "diffusers", "-o", "out", "--no-verify", "--force")
    assert (code, out) == (2, "")
    assert mine in err
    assert os.path.lexists(Path("out") / mine)
    assert os.listdir() == ["out"]


def test_a_folder_with_another_programs_export_json_is_not_an_export(diffuse, model):
    os.mkdir("out")
    Path("out/export.json").write_text('{"schema": 1, "files": "all"}')
    assert diffuse("export", model, "--to", "diffusers", "-o", "out", "--force")[0] == 2
    assert os.listdir("out") == ["export.json"]


@pytest.mark.parametrize("place", [".", "..", "missing/..", "/", "", "out.safetensors", "out.onnx"])
def test_a_place_without_a_name_of_its_own_is_no_place_for_a_folder(diffuse, model, place):
    for more in ((), ("--force",)):
        code, out, err = diffuse("export", model, "--to", "diffusers", "-o", place, "--no-verify", *more)
        assert (code, out) == (2, "")
        assert "takes the name of a folder" in err
        assert not os.listdir()


def test_the_name_of_a_model_that_is_reached_by_dots(diffuse, trained, home):
    shutil.copytree(trained[0], "cars")
    os.mkdir("cars/below")
    os.chdir("cars/below")
    assert diffuse("export", "..", "--to", "safetensors", "--no-verify")[1] == "cars.safetensors\n"


def test_a_model_never_gives_way_to_its_own_export(diffuse, model):
    shutil.copy(model, "cars.safetensors")
    before = Path("cars.safetensors").read_bytes()
    for more in ((), ("--force",)):
        assert diffuse("export", "./cars.safetensors", "--to", "safetensors", *more)[0] == 2
    assert Path("cars.safetensors").read_bytes() == before


def test_a_model_of_a_newer_version(diffuse, model):
    data = b"".join(safetensors_file.encode([], {"diffuse.format_version": "99"}))
    Path("new.safetensors").write_bytes(data)
    code, _, err = diffuse("export", "./new.safetensors", "--to", "diffusers")
    assert code == 4
    assert "Upgrade diffuse-cli" in err
    assert os.listdir() == ["new.safetensors"]


@pytest.mark.parametrize("to", ["diffusers", "safetensors", "web"])
@pytest.mark.parametrize("nth", [1, 3])
def test_a_full_disk_in_the_middle_leaves_nothing(diffuse, model, monkeypatch, to, nth):
    target = "new/out" + config.EXPORT_FORMATS[to]
    real, written = os.fsync, []

    def fsync(descriptor):
        written.append(descriptor)
        if len(written) >= 2 * nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    code, out, err = diffuse("export", model, "--to", to, "-o", target)
    monkeypatch.setattr(os, "fsync", real)
    assert (code, out) == (6, "")
    assert "no space left" in err
    assert not os.listdir()


def test_a_full_disk_leaves_the_earlier_export(diffuse, model, monkeypatch):
    assert diffuse("export", model, "--to", "diffusers", "-o", "out", "--no-verify")[0] == 0
    Path("out/README.md").write_text("old")
    real = os.replace

    def replace(source, target):
        if str(target).endswith("out") and ".tmp-" in str(source) and (Path(source) / "README.md").read_text() != "old":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    assert diffuse("export", model, "--to", "diffusers", "-o", "out", "--no-verify", "--force")[0] == 6
    assert Path("out/README.md").read_text() == "old"
    assert os.listdir() == ["out"]


def test_ctrl_c_leaves_nothing(diffuse, model, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(publishing, "require_agreement", interrupted)
    assert diffuse("export", model, "--to", "diffusers", "-o", "new/out")[0] == 130
    assert not os.listdir()


def test_libraries_that_cannot_open_the_folder_are_a_failed_verification(diffuse, model, monkeypatch):
    def opened(_):
        raise OSError("no such pipeline")

    monkeypatch.setattr(diffusers_comparison, "versions", lambda: {"diffusers": "0.1"})
    monkeypatch.setattr(diffusers_comparison, "_quiet", contextlib.nullcontext)
    monkeypatch.setattr(diffusers_comparison, "open_pipeline", opened)
    code, out, err = diffuse("export", model, "--to", "diffusers", "-o", "out")
    assert (code, out) == (10, "")
    assert "diffusers 0.1 cannot use the folder (OSError: no such pipeline)" in err
    assert not os.listdir()


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_leaves_nothing_and_ends_by_itself(diffuse, model, monkeypatch, name):
    number = getattr(signal, name)
    before = signal.getsignal(number)
    monkeypatch.setattr(publishing, "require_agreement", lambda _: signal.raise_signal(number))
    assert diffuse("export", model, "--to", "safetensors", "-o", "new/out.safetensors")[:2] == (128 + number, "")
    assert not os.listdir()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("to", ["diffusers", "safetensors"])
def test_an_export_that_differs_from_the_model_is_never_published(diffuse, model, monkeypatch, to):
    real = checkpoint._on_cpu

    def spoilt(tensors):
        name = "conv_in.bias" if "conv_in.bias" in tensors else "unet.conv_in.bias"
        return real({**tensors, **({name: tensors[name] + 1} if name in tensors else {})})

    monkeypatch.setattr(checkpoint, "_on_cpu", spoilt)
    target = "out" + (".safetensors" if to == "safetensors" else "")
    code, out, err = diffuse("export", model, "--to", to, "-o", target)
    assert (code, out) == (10, "")
    assert "weights: 1" in err
    assert not os.listdir()


def _umask():
    before = os.umask(0)
    os.umask(before)
    return before
