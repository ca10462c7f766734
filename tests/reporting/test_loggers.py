"""Logs read back as TensorBoard reads them. Weights & Biases is replaced by a stub, as no test may use a network."""

import math
import sys
import types
from pathlib import Path
from unittest import mock

import pytest
import tiny

from diffuse_cli import events
from diffuse_cli.config import Machine
from diffuse_cli.errors import UsageError
from diffuse_cli.reporting import loggers
from diffuse_cli.training import loop, monitor
from diffuse_cli.training.run import open_run

STARTED = events.Started(name="cars", step=0, steps=9, parameters=1, batch_size=1, micro_batch=1, device="cpu",
                         precision="fp32", directory="", facts=(("seed", "0"),))
VALIDATED = events.Validated(step=4, noise_mse=0.5, log_snr=(4.75, -3.0), noise_mse_at=(0.25, math.nan), best=True)


def _stepped(step: int, loss: float) -> events.Stepped:
    return events.Stepped(step=step, steps=9, train_objective=1.0, noise_mse=loss, variance_loss=None,
                          gradient_norm=math.inf, lr=0.5, images_per_second=2.0, seconds=3.0, remaining=4.0, skipped=0,
                          memory=5)


def _train(folder: Path, name: str | None, *, stop_at: int | None = None) -> list[str]:
    """Train as the command does, with every step reported. → the messages about failures of the log"""
    complaints: list[str] = []
    with open_run(folder, tiny.RECIPE, Machine(**tiny.OPTIONS)) as run, tiny.scaled_down(), \
            mock.patch.object(monitor, "REPORT_SECONDS", 0), \
            loggers.open_log(name, run.directory, warn=complaints.append) as log:
        for event in loop.train(run, should_stop=tiny.StopAfter(stop_at)):
            log(event)
    return complaints


def _read_back(directory: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(directory / loggers.DIRECTORY)).Reload()


def test_scalars_are_named_as_the_events_and_their_fields():
    assert loggers.scalars(_stepped(3, 0.25)) == {
        "stepped/train_objective": 1.0, "stepped/noise_mse": 0.25, "stepped/lr": 0.5, "stepped/images_per_second": 2.0,
        "stepped/skipped": 0.0, "stepped/memory": 5.0}
    assert loggers.scalars(VALIDATED) == {"validated/noise_mse": 0.5, "validated/noise_mse_at/+4.8": 0.25}
    assert loggers.scalars(STARTED) == {}


# ── TensorBoard ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_tensorboard_reads_the_numbers_of_the_events_and_no_bit_of_the_models_changes(trained, squares, decoded, home):
    assert _train(squares, "tensorboard") == []
    directory = tiny.run_directory(home)
    read = _read_back(directory)
    logged = {scalar.step: scalar.value for scalar in read.Scalars("stepped/noise_mse")}
    assert sorted(logged) == list(range(1, 9))
    last = tiny.of_kind(events.Validated, trained[1])[-1]
    assert read.Scalars("validated/noise_mse")[-1].value == pytest.approx(last.noise_mse, rel=1e-6)
    levels = [tag for tag in read.Tags()["scalars"] if tag.startswith("validated/noise_mse_at/")]
    assert len(levels) == len(last.log_snr)
    (image,) = read.Images("previewed")
    assert image.step == 8
    assert image.encoded_image_string.startswith(b"\x89PNG")
    for name in ("model.safetensors", "step-00000008.safetensors"):
        assert (directory / name).read_bytes() == (trained[0] / name).read_bytes()


def test_a_resumed_run_continues_its_log_and_no_step_appears_twice(tmp_path):
    tensorboard = [(STARTED, [_stepped(step, 1.0) for step in (2, 4, 6, 8)]),
                   (events.Started(**{**vars(STARTED), "step": 4}), [_stepped(step, 0.5) for step in (5, 6, 7)])]
    for started, stream in tensorboard:
        with loggers.open_log("tensorboard", tmp_path, warn=pytest.fail) as log:
            for event in (started, *stream):
                log(event)
    read = [(scalar.step, scalar.value) for scalar in _read_back(tmp_path).Scalars("stepped/noise_mse")]
    assert read == [(2, 1.0), (4, 1.0), (5, 0.5), (6, 0.5), (7, 0.5)]


def test_a_log_that_fails_gives_one_message_and_ends_no_training(squares, decoded, home):
    with mock.patch.object(loggers.TensorBoard, "add", side_effect=OSError("no space left")):
        assert _train(squares, "tensorboard") == ["nothing is logged to tensorboard any more: no space left"]
    assert (tiny.run_directory(home) / "model.safetensors").exists()


def test_without_a_name_nothing_is_logged(tmp_path):
    with loggers.open_log(None, tmp_path, warn=pytest.fail) as log:
        for event in (STARTED, _stepped(1, 1.0)):
            log(event)
    assert list(tmp_path.iterdir()) == []


# ── Weights & Biases ────────────────────────────────────────────────────────────────────────────────────────────────


class _Run:
    """The needed part of `wandb.Run`, with its server's rule that steps only grow."""

    def __init__(self, step: int = 0) -> None:
        self.step, self.logged, self.finished = step, [], False

    def log(self, values, *, step):
        assert step >= self.step
        self.logged.append((step, values))
        self.step = step

    def finish(self):
        self.finished = True


@pytest.fixture
def wandb(monkeypatch):
    """A stub of the library, which replaces an installed one."""
    module = types.ModuleType("wandb")
    module.Image = lambda path, caption: ("image", path, caption)
    module.Settings = lambda **settings: settings
    module.init = mock.Mock(side_effect=lambda **_: _Run())
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_wandb_gets_scalars_and_strips_under_one_id(wandb, squares, decoded, home):
    started = []
    wandb.init.side_effect = lambda **_: started.append(_Run(step=started[0].step if started else 0)) or started[-1]
    assert _train(squares, "wandb", stop_at=5) == []
    assert _train(squares, "wandb") == []
    first, second = (call.kwargs for call in wandb.init.call_args_list)
    assert first["id"] == second["id"]
    assert len(first["id"]) == 16
    assert (first["name"], first["resume"], first["dir"]) == ("tiny", "allow", str(tiny.run_directory(home)))
    assert first["config"]["seed"] == "0"
    assert first["settings"]["console"] == "off"
    assert all(run.finished for run in started)
    steps = [step for run in started for step, values in run.logged if "stepped/noise_mse" in values]
    assert steps == list(range(1, 9))
    (strip,) = [values["previewed"] for _, values in started[1].logged if "previewed" in values]
    assert strip[1].endswith("step-00000008.png")
    assert "square" in strip[2]


def test_wandb_never_begins_in_the_current_directory(wandb, tmp_path, monkeypatch):
    """It would send its key to the server that `wandb/settings` there names."""
    places = []
    (tmp_path / "pictures").mkdir()
    (tmp_path / "run").mkdir()
    monkeypatch.chdir(tmp_path / "pictures")
    wandb.init.side_effect = lambda **_: places.append(Path.cwd()) or _Run()
    with loggers.open_log("wandb", tmp_path / "run", warn=pytest.fail) as log:
        log(STARTED)
    assert places == [tmp_path / "run"]
    assert Path.cwd() == tmp_path / "pictures"


def test_wandb_that_cannot_begin_is_one_line(wandb, tmp_path):
    wandb.init.side_effect = RuntimeError("api_key not configured\n(no-tty)")
    with pytest.raises(UsageError, match=r"cannot begin: api_key not configured \(no-tty\)") as caught, \
            loggers.open_log("wandb", tmp_path, warn=pytest.fail) as log:
        log(STARTED)
    assert "WANDB_MODE=offline" in caught.value.hint


def test_wandb_is_not_touched_unless_it_was_asked_for(wandb, squares, decoded):
    _train(squares, None)
    wandb.init.assert_not_called()


# ── What is not installed ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_library_is_one_line_with_the_command(name, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "path", [])
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(UsageError, match=f"--log {name} needs a package") as caught:
        loggers.check_log(name)
    assert caught.value.hint == f"Install it: pip install 'diffuse-cli[{name}]'"
    (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])                  # the library's own output is not the library
    with pytest.raises(UsageError):
        loggers.check_log(name)
