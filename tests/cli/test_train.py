"""`diffuse train` as people and programs see it: stdout, stderr, exit codes and signals."""

import dataclasses
import importlib.util
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import consistent_models
import pytest
import tiny
import torch

from diffuse_cli import events
from diffuse_cli.cli import app, distill, options, recipe_file, train
from diffuse_cli.cli.terminal import view
from diffuse_cli.config import Machine, Recipe
from diffuse_cli.errors import UsageError
from diffuse_cli.picture_size import Size
from diffuse_cli.runtime import devices
from diffuse_cli.storage import home_directory, registry
from diffuse_cli.storage.model_info import TrainingSummary
from diffuse_cli.training import estimate, loop
from diffuse_cli.training.run import open_run
from diffuse_cli.training.trainer import Trainer

OPTIONS = ("--resolution", "8", "--preset", "nano", "--steps", "8", "--batch-size", "4", "--name", "tiny", "--device",
           "cpu", "--precision", "fp32", "--save-every", "3", "--preview-every", "100%")


@pytest.fixture
def diffuse(capsys, monkeypatch):
    """Run a command line in this process: (exit code, stdout, stderr)."""

    def run(*arguments):
        arguments = list(map(str, arguments))
        monkeypatch.setattr(sys, "argv", ["diffuse", *arguments])
        view.start()
        with tiny.scaled_down(), mock.patch.object(estimate, "MEASURED_SECONDS", 0):
            code = app._run(arguments)
        return code, *capsys.readouterr()

    yield run
    view.start()


def at_step(number, action):
    """Do something in the middle of a step of training."""
    step = Trainer.step

    def acting(self):
        if self.global_step + 1 == number:
            action()
        return step(self)

    return mock.patch.object(Trainer, "step", acting)


def model_of(home, name="tiny"):
    return home / "models" / name / "model.safetensors"


# ── Other logs ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_log_whose_library_is_missing_is_refused_before_anything_begins(diffuse, squares, home, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    code, out, err = diffuse("train", squares, *OPTIONS, "--log", "wandb")
    assert (code, out) == (2, "")
    assert err == ("error: --log wandb needs a package that is not installed. "
                   "Install it: pip install 'diffuse-cli[wandb]'\n")
    assert not (home / "models").exists()
    code, _, err = diffuse("train", squares, *OPTIONS, "--log", "tensorbord")
    assert code == 2
    assert "Did you mean 'tensorboard'?" in err


def test_a_training_is_logged_to_tensorboard_and_a_rehearsal_is_not(diffuse, squares, decoded, home):
    assert diffuse("train", squares, *OPTIONS, "--log", "tensorboard", "--dry-run")[0] == 0
    assert not (home / "models" / "tiny").exists()
    assert diffuse("train", squares, *OPTIONS, "--log", "tensorboard")[0] == 0
    (written,) = (home / "models" / "tiny" / "tensorboard").iterdir()
    assert b"validated/noise_mse" in written.read_bytes()


# ── What is printed ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_path_of_the_model_is_all_there_is_on_stdout(diffuse, squares, decoded, home, trained):
    code, out, err = diffuse("train", squares, *OPTIONS)
    assert (code, out) == (0, f"{model_of(home)}\n")
    assert model_of(home).read_bytes() == (trained[0] / "model.safetensors").read_bytes()
    for text in ("24 used (22 to train on, 2 held out)", "captions: sidecar .txt (24 of 24 files)", "“a red square”",
                 "8 steps of 4", "step 8/8", "sample it: diffuse sample 'a red square' -m tiny"):
        assert text in err
    assert "\x1b" not in err
    code, out, err = diffuse("train", squares, *OPTIONS)
    assert (code, out) == (0, f"{model_of(home)}\n")
    assert "already trained to 8 steps" in err
    code, out, err = diffuse("train", squares, *OPTIONS, "--quiet")
    assert (code, out, err) == (0, f"{model_of(home)}\n", "")


def test_json_lines_are_the_events(diffuse, squares, decoded, home):
    code, out, _ = diffuse("train", squares, *OPTIONS, "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert {line["schema"] for line in lines} == {events.SCHEMA}
    assert [line["event"] for line in lines if line["event"] in ("started", "saved", "finished")] == [
        "started", "saved", "saved", "saved", "finished"]
    assert lines[-1]["path"] == str(model_of(home))


def test_the_main_process_alone_prints_the_plan_of_a_dry_run(diffuse, squares, decoded, home, monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert diffuse("train", squares, *OPTIONS, "--dry-run") == (0, "", "")
    monkeypatch.setenv("RANK", "0")
    code, _, err = diffuse("train", squares, *OPTIONS, "--dry-run")
    assert code == 0
    assert "arithmetic" in err


def test_a_dry_run_prints_the_plan_and_its_cost_and_leaves_nothing(diffuse, squares, decoded, home):
    code, out, err = diffuse("train", squares, *OPTIONS, "--dry-run")
    assert (code, out) == (0, "")
    for text in ("batch: 4 pictures", "budget: 8 steps", "time: about", "speed:", "disk:", "memory:", "arithmetic:"):
        assert text in err
    assert list((home / "models").iterdir()) == []
    assert registry.last() is None


def test_a_dry_run_plans_a_network_that_has_no_room_here(diffuse, squares, decoded, home, monkeypatch):
    """Nothing is allocated for its weights, so its speed is not measured."""
    monkeypatch.setattr(devices, "total_memory", lambda device: 10**6)
    monkeypatch.setattr(Trainer, "step", lambda self: pytest.fail("it must not train"))
    code, _, err = diffuse("train", squares, *OPTIONS, "--dry-run")
    assert code == 0
    assert re.search(r"memory: [\d,]+ MB planned for one picture at once; [\d,]+ MB in each of 8 processes", err)
    assert "speed: not measured" in err
    timed = " ".join(OPTIONS).replace("--steps 8", "--time 1m").split()
    code, _, err = diffuse("train", squares, *timed, "--dry-run")
    assert (code, "cannot be measured for --time" in err) == (2, True)


def test_a_dry_run_of_a_longer_budget_says_where_the_training_will_resume(diffuse, squares, decoded, home):
    diffuse("train", squares, *OPTIONS)
    longer = [*OPTIONS, "--steps", "12"]
    _, _, planned = diffuse("train", squares, *longer, "--dry-run")
    _, _, done = diffuse("train", squares, *longer)
    resumed = [line for line in done.splitlines() if line.startswith("resuming tiny at step ")]
    assert len(resumed) == 1
    assert resumed[0] in planned
    assert "time: none: it is trained to the end" in diffuse("train", squares, *longer, "--dry-run")[2]


def test_a_dry_run_warns_as_the_training_does(diffuse, squares, decoded):
    (squares / "unused.csv").write_text("image,caption\nnothing.png,x\n")
    caption = squares / f"{sorted(path.stem for path in squares.glob('*.png'))[0]}.txt"
    before = caption.read_text()
    caption.write_text(" ".join(f"word{number}" for number in range(80)))
    try:
        _, _, planned = diffuse("train", squares, *OPTIONS, "--dry-run")
        _, _, done = diffuse("train", squares, *OPTIONS)
    finally:
        (squares / "unused.csv").unlink()
        caption.write_text(before)
    for text in ("unused.csv is not used", "1 caption is longer than the 77 tokens"):
        assert text in planned
        assert text in done


def test_several_folders_and_a_table_are_found_again_from_another_directory(diffuse, squares, tmp_path, monkeypatch):
    """They are saved as absolute paths, so that a resumed run and an evaluation find them."""
    table, more = tmp_path / "table.csv", tiny.draw_bars(tmp_path / "bars")
    table.write_text(f"file_name,text\n{squares.name}/{sorted(os.listdir(squares))[0]},one\n")
    monkeypatch.chdir(tmp_path)
    assert diffuse("train", squares, more.name, *OPTIONS, "--captions", "table.csv", "--steps", "2")[0] == 0
    monkeypatch.chdir("/")
    plan = model_of(home_directory.root()).parent / "config.json"
    code, _, err = diffuse("train", "--config", plan, "--name", "tiny", "--device", "cpu")
    assert (code, "already trained to 2 steps" in err) == (0, True), err


def test_the_path_of_the_copy_is_printed_instead(diffuse, squares, decoded, home, tmp_path):
    out = tmp_path / "cars.safetensors"
    assert diffuse("train", squares, *OPTIONS, "-o", out)[:2] == (0, f"{out}\n")
    assert out.read_bytes() == model_of(home).read_bytes()
    code, _, err = diffuse("train", squares, *OPTIONS, "-o", out)
    assert (code, "exists already" in err) == (2, True)


def test_a_copy_that_cannot_be_written_is_refused_before_the_training(diffuse, squares, home, tmp_path):
    with mock.patch.object(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK)):
        code, _, err = diffuse("train", squares, *OPTIONS, "-o", tmp_path / "cars.safetensors")
    assert (code, "you have no permission to write into" in err) == (6, True)
    assert not home.exists() or os.listdir(home) == []


def test_fresh_says_where_the_old_run_is(diffuse, squares, decoded, home):
    diffuse("train", squares, *OPTIONS)
    assert "the old run is kept as tiny-old" in diffuse("train", squares, *OPTIONS, "--fresh")[2]
    assert model_of(home, "tiny-old").is_file()


def test_the_config_of_a_run_asks_for_the_same_again(diffuse, squares, decoded, home, tmp_path):
    machine = OPTIONS[8:]
    diffuse("train", squares, *OPTIONS)
    config = tmp_path / "config.json"
    config.write_bytes((home / "models" / "tiny" / "config.json").read_bytes())
    code, _, err = diffuse("train", "--config", config, *machine)
    assert (code, "already trained" in err) == (0, True)
    code, _, err = diffuse("train", "--config", config, *machine, "--lr", "0.5")
    assert (code, "lr: not given → 0.5" in err) == (2, True)
    code, _, err = diffuse("train", "--config", config, *machine, "--images", "32")        # replaces --steps 8, of 4
    assert (code, "already trained" in err) == (0, True)
    code, _, err = diffuse("train", "--config", config, *machine, "--images", "28")
    assert (code, "was begun for 8 steps, and this is 7" in err) == (2, True)


# ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────────

BAD = [("--steps", "0"), ("--steps", "-1"), ("--steps", "x"), ("--resolution", "7"), ("--resolution", "100000"),
       ("--lr", "nan"), ("--lr", "0"), ("--seed", str(2**70)), ("--batch-size", "0"), ("--time", "soon"),
       ("--lr", "inf"), ("--steps", str(2**70)), ("--time", "99999999h"),
       ("--time", "0s"), ("--loss-weighting", "simpel"), ("--preset", "nan0"), ("--captions", "maybe"),
       ("--save-every", "often"), ("--preview-every", "0%"), ("--micro-batch", "0"), ("--gpus", "-1"),
       ("--precision", "fp8"), ("--caption-template", "a car"), ("-o", "model.ckpt"),
       ("-o", "/no/such/directory/m.safetensors"), ("--config", "/no/such/file.json"), ("--name", "../x"),
       ("--steps", "5", "--images", "5"), ("--flop",)]


def test_bad_values_are_refused_before_torch_is_imported(squares):
    """All in one fresh process, in which torch must not have appeared."""
    commands = [["train", str(squares), *options] for options in BAD]
    commands += [["train"], ["train", ""],
                 ["sample", "-n", "0"], ["sample", "-n", "1000000000"], ["sample", "--steps", "0"],
                 ["sample", "--guidance", "nan"], ["sample", "--seed", str(2**70)], ["sample", "--seed", "-1"],
                 ["sample", "--sampler", "dpm"], ["sample", "--guidance-interval", "2", "1"],
                 ["sample", "--guidance-interval", "0", "inf"], ["sample", "--precision", "fp16"]]
    code = ("import json, sys; from diffuse_cli.cli import app; from diffuse_cli.cli.terminal import view\n"
            "for command in json.loads(sys.argv[1]): view.start(); print(app._run(command), flush=True)\n"
            "print('torch' in sys.modules)")
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(commands)], capture_output=True, text=True, check=True)
    *codes, imported = done.stdout.splitlines()
    assert [(command, code) for command, code in zip(commands, codes, strict=True) if code != "2"] == []
    assert imported == "False"
    errors = done.stderr.splitlines()
    assert len(errors) == len(commands)
    assert "config." not in done.stderr.replace("config.json", "")     # options are called what they are called
    assert all(line.startswith("error: ") for line in errors)
    assert errors.count("error: no folder of pictures was given. For example: diffuse train ./images") == 2
    for text in ("--steps must be between 1 and", "Did you mean 'simple'?", "Did you mean 'nano'?",
                 "Did you mean --flip?", "Write 90s, 30m", "--lr should be a number, not 'nan'",
                 "--steps is out of range", "--time, in seconds,", "must contain {label}"):
        assert any(text in line for line in errors), text


def test_a_folder_without_pictures_ends_with_3(diffuse, tmp_path, home):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_text("x")
    for folder in ("missing", "empty", "a.txt"):
        code, out, err = diffuse("train", tmp_path / folder)
        assert (code, out) == (3, "")
        assert folder in err
        assert len(err.splitlines()) == 1


def test_pictures_that_cannot_be_read_end_with_3(diffuse, tmp_path, home):
    folder = tiny.draw_squares(tmp_path / "mostly bad", 3)
    for index in range(4):
        (folder / f"bad{index}.png").write_bytes(b"no picture")
    code, _, err = diffuse("train", folder, "--resolution", "8")
    assert code == 3
    assert "skipped 4 of 7" in err
    assert os.listdir(home / "models") == []               # nothing was begun
    (folder / "bad3.png").unlink()
    code, _, err = diffuse("train", folder, "--resolution", "8", "--strict")
    assert (code, "bad0.png" in err) == (3, True)


def test_problems_with_the_data_are_reported_and_recorded(diffuse, tmp_path, home):
    folder = tiny.draw_squares(tmp_path / "squares", 24)
    (folder / "000.png").write_bytes(b"no picture")
    (folder / "gone.png").symlink_to(tmp_path / "nowhere")
    (folder / "source.psd").touch()
    (folder / "alone.txt").write_text("a caption of nothing")
    code, _, err = diffuse("train", folder, *OPTIONS, "--steps", "1")
    assert code == 0
    assert err.count("warning: 4 problems with the data (broken link 1, picture with layers 1, text 1, "
                     f"caption without a picture 1); `diffuse data check {folder}` lists them\n") == 1
    assert re.search(r"pictures: 23 used \(.*\), 3 skipped\n", err)
    lines = (home / "models" / "tiny" / "skipped.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"name": "gone.png", "reason": "broken link"}, {"name": "source.psd", "reason": "picture with layers"},
        {"name": "000.png", "reason": "text"}]


def test_a_gpu_that_is_not_there_ends_with_2(diffuse, squares, decoded):
    with mock.patch.object(torch.cuda, "is_available", return_value=False):
        code, _, err = diffuse("train", squares, "--resolution", "8", "--gpus", "1")
    assert code == 2
    assert "--gpus 1 was asked for, but no GPU is visible" in err


def test_a_run_in_use_ends_with_5(diffuse, squares, decoded):
    with open_run(squares, tiny.RECIPE, Machine(**tiny.OPTIONS)):
        code, _, err = diffuse("train", squares, *OPTIONS)
    assert (code, f"process {os.getpid()}" in err) == (5, True)


def test_a_dry_run_saves_the_whole_recipe_which_trains_the_same(diffuse, squares, decoded, home, tmp_path):
    file, machine = tmp_path / "recipe.toml", OPTIONS[8:]
    assert diffuse("train", squares, *OPTIONS, "--dry-run", "--save", file)[:2] == (0, f"{file}\n")
    told = tomllib.loads(file.read_text())
    assert told["folder"] == str(squares)
    assert {"resolution", "preset", "steps", "batch-size", "lr", "flip", "seed"} < told.keys()
    assert told.keys() - {"folder"} <= {field.name.replace("_", "-") for field in dataclasses.fields(Recipe)}
    diffuse("train", squares, *OPTIONS)
    diffuse("train", "--config", file, *machine, "--name", "again")
    assert model_of(home, "again").exists()
    first, second = (json.loads((home / "models" / name / "config.json").read_text()) for name in ("tiny", "again"))
    assert second["plan"] == first["plan"]
    code, _, err = diffuse("train", squares, *OPTIONS, "--dry-run", "--save", file)
    assert (code, "exists already" in err, "--save" in err) == (2, True, True)
    assert diffuse("train", squares, *OPTIONS, "--save", tmp_path / "new.toml")[0] == 2


def test_a_recipe_file_says_what_is_typed(tmp_path):
    """What is written is read again; names may have hyphens, a time is written as it is typed."""
    plan = SimpleNamespace(preset="nano", batch_size=16, lr=0.004, flip=True, steps=100)
    asked = Recipe(time=5400.0, caption='"a" {name}\n\x7f\u2603', more_folders=("/b", "/c"), seed=2**62)
    recipe_file.write(tmp_path / "a.toml", Path("/a b"), asked, plan, Size(64, 64))
    folder, recipe = recipe_file.read(tmp_path / "a.toml", None, {})
    assert folder == Path("/a b")
    assert recipe == dataclasses.replace(asked, resolution=64, preset="nano", batch_size=16, lr=0.004, flip=True)
    assert 'time = "5400s"' in (tmp_path / "a.toml").read_text()
    (tmp_path / "b.toml").write_text('folder = "/a"\nbatch-size = 8\ntime = "1h30m"\n')
    assert recipe_file.read(tmp_path / "b.toml", None, {}) == (Path("/a"), Recipe(batch_size=8, time=5400.0))
    assert recipe_file.read(tmp_path / "b.toml", None, {"steps": 5})[1] == Recipe(batch_size=8, steps=5)
    for content in ("folder = 3", "x", "steps = nan", "surprise = 1", "seed = 1\nseed = 2", "lr = '1'", "a.b = 1",
                    "x = " + "[" * 100_000, "time = 'soon'", "steps = 1979-05-27", "\udcff"):
        (tmp_path / "c.toml").write_text(content, errors="surrogateescape")
        with pytest.raises(UsageError, match="--config"):
            recipe_file.read(tmp_path / "c.toml", Path("/a"), {})


@pytest.mark.parametrize("written", ['"16x8"', '"16X8"', '"16×8"', '" 16x8 "'])
def test_a_file_writes_sizes_as_the_option_takes_them(tmp_path, written):
    (tmp_path / "a.toml").write_text(f"resolution = {written}", encoding="utf-8")
    assert recipe_file.read(tmp_path / "a.toml", Path("/a"), {})[1].resolution == (16, 8)


def test_the_folder_can_come_from_the_config_alone(tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"request": {"folder": "/a", "recipe": {"steps": 5, "seed": 3}}, "plan": {}}))
    folder, recipe = recipe_file.read(config, None, options.fields_of(Recipe, {"seed": None, "lr": 0.5}))
    assert (folder, recipe.steps, recipe.seed, recipe.lr) == (Path("/a"), 5, 3, 0.5)
    folder, recipe = recipe_file.read(config, Path("/b"), {"time": 60.0})
    assert (folder, recipe.steps, recipe.time) == (Path("/b"), None, 60.0)
    for content in ("", "{}", "[]", '{"request": {}}', '{"request": {"folder": "/a", "recipe": {"surprise": 1}}}'):
        config.write_text(content)
        with pytest.raises(UsageError, match="--config"):
            recipe_file.read(config, None, {})


# ── Names of options ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def requested(monkeypatch):
    """(recipe, machine) of every training that was asked for; none is run."""
    runs = []
    monkeypatch.setattr(
        train, "run_training", lambda folder, recipe, machine, **_: runs.append((recipe, machine)))
    return runs


def test_every_field_of_recipe_and_machine_is_an_option():
    fields = {field.name for kind in (Recipe, Machine) for field in dataclasses.fields(kind)}
    fields -= {"more_folders", "evaluations", "guidance"}              # arguments, and options of `distill`
    assert fields <= set(inspect.signature(train.train).parameters)
    assert {"evaluations", "guidance"} <= set(inspect.signature(distill.distill).parameters)


def test_options_come_to_the_recipe_and_to_the_machine(diffuse, requested):
    assert diffuse("train", "x", "--time", "2h", "--no-flip", "--lr", "0.5", "--caption", "a cat", "--compile",
                   "--gpus", "all", "--preview-prompt", "a", "--preview-prompt", "b", "--fresh")[0] == 0
    assert requested == [(Recipe(time=7200.0, flip=False, lr=0.5, caption="a cat"),
                          Machine(compile=True, gpus="all", preview_prompt=("a", "b"), fresh=True))]
    assert diffuse("train", "x")[0] == 0
    assert requested[1] == (Recipe(), Machine())


def test_a_student_reads_pictures_as_a_teacher_without_its_run_did(diffuse, requested, tmp_path):
    teacher = consistent_models.sealed(tmp_path / "a.safetensors", consistent_models.configuration(), training=(
        TrainingSummary(background="black", white_level=4095.0, fit="pad")))
    assert diffuse("distill", teacher, "x")[0] == 0
    (recipe, _), = requested
    assert (recipe.background, recipe.white_level, recipe.fit) == ("black", 4095.0, "pad")


def test_the_former_name_of_an_option_asks_for_the_same_run(diffuse, requested):
    for name in ("--objective", "--loss-weighting"):
        assert diffuse("train", "x", name, "simple")[0] == 0
    assert requested[0] == requested[1]
    assert requested[0][0].loss_weighting == "simple"


def test_a_config_with_the_former_name_of_a_field_asks_for_the_same_run(tmp_path):
    config = tmp_path / "config.json"
    recipes = []
    for name in ("objective", "loss_weighting"):
        config.write_text(json.dumps({"request": {"folder": "/a", "recipe": {name: "simple", "steps": 5}}, "plan": {}}))
        recipes.append(recipe_file.read(config, None, {})[1])
        assert recipe_file.read(config, None, {"loss_weighting": "min-snr"})[1].loss_weighting == "min-snr"
    assert recipes == [Recipe(loss_weighting="simple", steps=5)] * 2


# ── Signals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_the_first_signal_finishes_the_step_and_saves(diffuse, squares, decoded, home, trained, name, code):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with at_step(2, lambda: signal.raise_signal(getattr(signal, name))):
        left, out, err = diffuse("train", squares, *OPTIONS, "--fresh")
    assert (left, out) == (code, "")
    assert "stopping after this step and saving" in err
    assert f"resume with: diffuse train {squares} --resolution 8" in err
    assert "--fresh" not in err.split("resume with:")[1]      # which would start anew
    assert [path.name for path in model_of(home).parent.glob("step-*")] == ["step-00000002.safetensors"]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    if name == "SIGINT":
        _, _, err = diffuse("train", squares, *OPTIONS)
        assert "resuming tiny at step 2: " in err
        assert model_of(home).read_bytes() == (trained[0] / "model.safetensors").read_bytes()


def test_a_signal_that_was_ignored_stays_ignored(diffuse, squares, decoded):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with at_step(2, lambda: signal.raise_signal(signal.SIGHUP)):
            code, _, err = diffuse("train", squares, *OPTIONS)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (code, "stopping" in err) == (0, False)


def while_reading(number):
    """Raise a signal when the reading of pictures begins."""
    read = loop.open_dataset

    def interrupted(*arguments, **options):
        signal.raise_signal(number)
        return (yield from read(*arguments, **options))

    return mock.patch.object(loop, "open_dataset", interrupted)


def test_a_signal_while_pictures_are_read_begins_nothing(diffuse, squares, home):
    with while_reading(signal.SIGINT):
        code, out, err = diffuse("train", squares, *OPTIONS)
    assert (code, out) == (130, "")
    assert os.listdir(home / "models") == []
    assert err.endswith("stopped while pictures were read: nothing was trained or saved\n")


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="there is no such signal")
def test_a_request_to_save_while_pictures_are_read_is_no_reason_to_stop(diffuse, squares, home):
    with while_reading(signal.SIGUSR1):
        code, out, _ = diffuse("train", squares, *OPTIONS)
    assert (code, out.strip()) == (0, str(model_of(home)))


def test_a_signal_ends_a_dry_run_wherever_it_is(diffuse, squares, decoded):
    def interrupted(*_):
        signal.raise_signal(signal.SIGINT)

    with mock.patch.object(loop.estimate, "facts", interrupted):
        code, out, err = diffuse("train", squares, *OPTIONS, "--dry-run")
    assert (code, out) == (130, "")
    assert "saving" not in err


DRIVER = """
import os, signal, sys
from unittest import mock
sys.path.insert(0, sys.argv.pop(1))
kills = int(sys.argv.pop(1))
import tiny
from diffuse_cli.cli import app
from diffuse_cli.training.trainer import Trainer
step = Trainer.step
def acting(self):
    for _ in range(kills if self.global_step == 1 else 0):
        os.kill(os.getpid(), signal.SIGINT)
    return step(self)
with tiny.scaled_down(), mock.patch.object(Trainer, "step", acting):
    app.main()
"""


@pytest.mark.parametrize(("kills", "saved"), [(1, ["step-00000002.safetensors"]), (2, [])])
def test_a_shell_sees_that_a_signal_ended_it_and_the_second_one_leaves_at_once(squares, decoded, home, kills, saved):
    tests = str(Path(tiny.__file__).parent)
    done = subprocess.run([sys.executable, "-c", DRIVER, tests, str(kills), "train", str(squares), *OPTIONS],
                          capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGINT
    assert done.stdout == ""
    assert ("resume with" in done.stderr) == (kills == 1)
    assert [path.name for path in model_of(home).parent.glob("step-*")] == saved


def test_a_stop_that_interrupts_a_message_is_announced_after_it(monkeypatch):
    said = []

    def say(text):
        said.append(text)
        if len(said) == 1:
            raise RuntimeError("reentrant call")

    monkeypatch.setattr(view, "say", say)
    with train._catch_signals(announce=True) as should_stop:
        signal.raise_signal(signal.SIGINT)
        assert (should_stop(), should_stop()) == ("SIGINT", "SIGINT")
    assert said == [train.STOPPING] * 2
