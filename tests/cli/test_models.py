"""`diffuse models` as people see it, on small sealed files without any weights worth the name."""

import io
import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from diffuse_cli.checks import to_dict
from diffuse_cli.cli import app
from diffuse_cli.cli.terminal import view
from diffuse_cli.files import durable, locks
from diffuse_cli.model_config import ModelConfig, NetworkConfig
from diffuse_cli.storage import registry, safetensors_file

CONFIG = ModelConfig(schedule="cosine", prediction="v", network=NetworkConfig(
    resolution=16, widths=(8,), depths=(1,), attention=("none",), head_dim=8, groups=8, time_width=8, text=None))
TRAINING = {"name": "cars", "step": 20_000, "train_images": 512, "noise_mse": 0.041, "preset": "nano"}


@pytest.fixture(autouse=True)
def _no_demo(monkeypatch, tmp_path):
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path / "absent")


@pytest.fixture
def diffuse(capsys, monkeypatch):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["diffuse", *arguments])
        with pytest.raises(SystemExit) as left:
            app.main()
        captured = capsys.readouterr()
        return left.value.code or 0, captured.out, captured.err

    return run


def _file(**training) -> bytes:
    return b"".join(safetensors_file.encode([("w", "F32", (2, 3), bytes(24))], {
        "diffuse.format_version": "1", "diffuse.config": json.dumps(to_dict(CONFIG)),
        "diffuse.words": json.dumps({"red": 9, "car": 12, "evil\x1b[2J": 1}),
        "diffuse.training": json.dumps({**TRAINING, **training})}))


def _save(name: str, *, age: int = 0, **training):
    path = durable.make_directory(registry.model_directory(name)) / registry.MODEL_FILE
    durable.write(path, _file(**training))
    os.utime(path, (1_700_000_000 - age,) * 2)
    return path


# ── ls ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_ls_without_models_prints_no_data_and_says_how_to_begin(diffuse):
    assert diffuse("models", "ls") == (0, "", "there is no model yet; train one: diffuse train ./images\n")


def test_ls_lists_the_newest_first(diffuse):
    _save("old", age=1000)
    _save("new", step="many")
    code, out, err = diffuse("models", "ls")
    rows = [line.split() for line in out.splitlines()]
    assert code == 0
    assert err == ""
    assert rows[0] == ["NAME", "PIXELS", "PARAMETERS", "PICTURES", "STEPS", "SIZE", "CHANGED"]
    assert rows[1][:5] == ["new", "16", "6", "512", "-"]
    assert rows[2][:5] == ["old", "16", "6", "512", "20,000"]


def test_ls_json(diffuse):
    path = _save("cars")
    registry.set_last("cars")
    code, out, _ = diffuse("models", "ls", "--json")
    assert code == 0
    assert json.loads(out) == {
        "schema": 1, "name": "cars", "path": str(path), "last": True, "changed": 1_700_000_000.0, "resolution": 16,
        "parameters": 6, "bytes": path.stat().st_size, "training": TRAINING}


def test_ls_survives_a_damaged_model(diffuse):
    _save("good")
    _save("bad").write_bytes(b"PK\x03\x04 a zip")
    code, out, err = diffuse("models", "ls")
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["NAME", "good"]
    assert err.count("warning: ") == 1
    assert "never loads pickles" in err


def test_ls_shows_the_demo_as_well(diffuse, monkeypatch, tmp_path):
    demo = tmp_path / "demo.safetensors"
    demo.write_bytes(_file())
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path)
    assert diffuse("models", "ls")[1].splitlines()[1].startswith("demo ")


# ── show, path ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_show_tells_all_that_the_header_holds(diffuse):
    _save("cars")
    code, out, _ = diffuse("models", "show", "cars")
    assert code == 0
    assert "\x1b" not in out
    lines = dict(line.split("  ", 1) for line in out.splitlines())
    lines = {label.strip(): text.strip() for label, text in lines.items()}
    assert lines["pictures"] == "16 x 16 pixels, RGB"
    assert lines["text"] == "none: unconditional"
    assert lines["prediction"] == "v, learned variance"
    assert lines["schedule"] == "cosine"
    assert lines["step"] == "20,000"
    assert lines["validation loss"] == "0.041"
    assert lines["words"] == "car, red, evil\\x1b[2J"


def test_show_gives_a_model_the_name_by_which_commands_find_it(diffuse):
    _save("cars")
    (registry.model_directory("cars")).rename(registry.model_directory("buses"))
    assert "\nname             buses\n" in diffuse("models", "show", "buses")[1]


def test_show_json_is_the_header(diffuse):
    path = _save("cars")
    shown = json.loads(diffuse("models", "show", "cars", "--json")[1])
    assert shown["config"] == json.loads(json.dumps(to_dict(CONFIG)))
    assert shown["training"] == TRAINING
    assert shown["words"] == {"red": 9, "car": 12, "evil\x1b[2J": 1}
    assert shown["path"] == str(path)


def test_training_text_from_anywhere_is_escaped(diffuse):
    _save("cars", **{"name\x1b]0;": "x\x1b[2J\ny" * 1000})
    out = diffuse("models", "show", "cars")[1]
    assert "\x1b" not in out
    assert len(out.splitlines()) == 14


def test_path_prints_the_path_alone(diffuse):
    path = _save("cars")
    registry.set_last("cars")
    assert diffuse("models", "path", "cars") == (0, f"{path}\n", "")
    assert diffuse("models", "path") == (0, f"{path}\n", "")
    assert json.loads(diffuse("models", "path", "--json")[1]) == {"schema": 1, "path": str(path)}


@pytest.mark.parametrize("command", ["show", "path", "verify"])
def test_a_misspelt_model_is_one_line_and_four(diffuse, command):
    _save("cars-64")
    assert diffuse("models", command, "cras-64") == (
        4, "", "error: there is no model 'cras-64'. Did you mean cars-64?\n")


@pytest.fixture
def run(trained, home):
    """A finished run in this test's home."""
    return Path(shutil.copytree(trained[0], home / "models" / "tiny"))


def test_show_html_writes_the_report_anew(diffuse, run):
    page = (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    assert diffuse("models", "show", "tiny", "--html") == (0, f"{run / 'report.html'}\n", "")
    written = (run / "report.html").read_bytes()
    assert written.startswith(b"<!doctype html>")
    assert len(written) > len(page)                                    # the tests' trainings draw no curves
    record = json.loads(diffuse("models", "show", "tiny", "--html", "--json")[1])
    assert record == {"schema": 1, "path": str(run / "report.html"), "bytes": len(written)}


def test_show_html_writes_elsewhere_but_over_nothing(diffuse, run, tmp_path):
    out = tmp_path / "new" / "page.html"
    before = (run / "report.html").read_bytes()
    assert diffuse("models", "show", "tiny", "--html", "-o", str(out)) == (0, f"{out}\n", "")
    assert out.read_bytes().startswith(b"<!doctype html>")
    assert (run / "report.html").read_bytes() == before
    code, _, err = diffuse("models", "show", "tiny", "--html", "-o", str(out))
    assert (code, err) == (2, f"error: {out} exists already. Choose another name with -o\n")
    assert diffuse("models", "show", "tiny", "--html", "-o", str(tmp_path / "page.txt"))[0] == 2
    assert diffuse("models", "show", "tiny", "-o", str(tmp_path / "other.html"))[0] == 2


def test_show_html_of_a_file_without_its_run_is_one_line_and_four(diffuse, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("alone.safetensors").write_bytes((run / "model.safetensors").read_bytes())
    code, out, err = diffuse("models", "show", "./alone.safetensors", "--html")
    assert (code, out) == (4, "")
    assert err.startswith(f"error: there is no run in {tmp_path}")
    assert err.count("\n") == 1


# ── verify ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_verify_says_what_was_checked(diffuse):
    path = _save("cars")
    code, out, _ = diffuse("models", "verify", "cars")
    assert code == 0
    assert out == (f"{path}: all {path.stat().st_size:,} bytes match the seal; "
                   "header and configuration are valid\n")


def test_verify_notices_one_bit(diffuse):
    path = _save("cars")
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)
    code, out, err = diffuse("models", "verify", str(path))
    assert (code, out) == (4, "")
    assert err == (f"error: cannot use {path}: it is damaged: its bytes differ from what was sealed. "
                   "Copy or download it again\n")


def test_verify_refuses_what_was_never_sealed(diffuse, tmp_path):
    import numpy as np
    import safetensors.numpy

    path = tmp_path / "foreign.safetensors"
    path.write_bytes(safetensors.numpy.save({"a": np.zeros(3)}))
    code, out, err = diffuse("models", "verify", str(path))
    assert (code, out) == (4, "")
    assert "it has no seal. It was not written by diffuse" in err


# ── rm ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_rm_never_asks_without_a_terminal(diffuse):
    path = _save("cars")
    code, _, err = diffuse("models", "rm", "cars")
    assert code == 2
    assert "Add --yes" in err
    assert path.exists()


def test_rm_removes_what_was_named(diffuse):
    _save("cars")
    _save("boats")
    _save("planes")
    code, out, err = diffuse("models", "rm", "cars", "boats", "--yes")
    assert (code, out, err) == (0, "", "removed cars\nremoved boats\n")
    assert registry.model_names() == ["planes"]


@pytest.mark.parametrize(("answer", "left"), [("y\n", []), ("n\n", ["cars"]), ("", ["cars"])])
def test_rm_asks_on_a_terminal(diffuse, monkeypatch, answer, left):
    _save("cars")
    monkeypatch.setattr(view, "interactive", lambda: True)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    code, _, err = diffuse("models", "rm", "cars")
    assert code == 0
    assert "Remove cars with all checkpoints? [y/N]" in err
    assert registry.model_names() == left


def test_rm_removes_nothing_when_one_name_is_wrong(diffuse):
    _save("cars")
    code, _, err = diffuse("models", "rm", "cars", "baots", "--yes")
    assert code == 4
    assert "no model 'baots'" in err
    assert registry.model_names() == ["cars"]


def test_rm_of_a_model_in_training_is_five(diffuse):
    path = _save("cars")
    with locks.lock(path.parent / registry.LOCK_FILE, doing="training"):
        code, _, err = diffuse("models", "rm", "cars", "--yes")
    assert code == 5
    assert "training by process" in err
    assert path.exists()
