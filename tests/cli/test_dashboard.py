"""A training as three readers see it: a person at a terminal, a log, and a program."""

import dataclasses
import io
import json
import math
import shlex
import sys

import pytest

from diffuse_cli.cli import dashboard, view
from diffuse_cli.cli.dashboard import TrainingView
from diffuse_cli.engine import events

STARTED = events.Started(name="cars-64", step=0, steps=1000, parameters=3_274_115, batch_size=64, micro_batch=64,
                         device="cpu", precision="fp32", directory="/x",
                         facts=(("images", "512 in ./images"), ("captions", "text files: 'a [red] car\x1b[2J'")))
FINISHED = events.Finished(step=1000, steps=1000, path="/x/model.safetensors", complete=True, reason="",
                           delivered="best", prompt="a red car's door", seconds=3661.4)


def _stepped(step: int, **change) -> events.Stepped:
    values = {"step": step, "steps": 1000, "train_objective": 1.0, "noise_mse": 0.041, "variance_loss": 0.003,
              "gradient_norm": 1.0, "lr": 2e-4, "images_per_second": 312.4, "seconds": 10.0, "remaining": 2470.0,
              "skipped": 0, "memory": 1_234_000_000}
    return events.Stepped(**{**values, **change})


def _training():
    yield events.Scanned(done=512, total=512)
    yield events.Noticed(message="7 pictures are small", level="warning")
    yield STARTED
    yield _stepped(10)
    yield events.Validated(step=10, noise_mse=0.05, log_snr=(0.0,), noise_mse_at=(math.nan,), best=True)
    yield events.Saved(step=10, path="/x/step", bytes=12_300_000, seconds=0.25)
    yield _stepped(1000, variance_loss=None, skipped=2, images_per_second=3.14)
    yield FINISHED


@pytest.fixture(autouse=True)
def _fresh():
    view.start()
    yield
    view.start()


def _shown(stream, **settings) -> None:
    view.configure(**settings)
    with TrainingView() as shown:
        for event in stream:
            shown.show(event)


# ── In a pipe ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_lines_in_a_pipe(capsys):
    _shown(_training())
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[:6] == [
        "warning: 7 pictures are small",
        "training cars-64: 3.3 M parameters, 1,000 steps of 64, cpu fp32",
        "images: 512 in ./images",
        "captions: text files: 'a [red] car\\x1b[2J'",
        "step 10/1000  noise 0.0410  variance 0.0030  lr 2.0e-4  312 img/s  eta 0:41:10",
        "step 1000/1000  noise 0.0410  validation 0.0500  skipped 2  lr 2.0e-4  3.1 img/s  eta 0:41:10",
    ]
    assert "finished 1,000 steps in 1:01:01" in captured.err


def test_verbose_tells_of_saves(capsys):
    _shown(_training(), verbose=True)
    assert "step 10: saved /x/step (12.3 MB in 0.2 s)" in capsys.readouterr().err


def test_quiet_tells_nothing(capsys):
    _shown(_training(), quiet=True)
    assert capsys.readouterr() == ("", "")


def test_steps_in_a_pipe_come_at_the_pace_of_the_clock(capsys):
    now = 0.0
    with TrainingView(clock=lambda: now) as shown:
        for step in range(1, 1000):
            now = step * 1.0
            shown.show(_stepped(step))
    steps = [int(line.split()[1].split("/")[0]) for line in capsys.readouterr().err.splitlines()]
    assert steps == [1, *range(10, 300, 10), *range(350, 1000, 60)]


def test_one_that_was_stopped_says_why(capsys):
    stopped = events.Finished(step=500, steps=1000, path="/x", complete=False, reason="asked to", delivered="last",
                              prompt="", seconds=5)
    _shown([STARTED, stopped])
    err = capsys.readouterr().err
    assert "stopped" in err
    assert "asked to" in err
    assert "step 500 of 1,000" in err
    assert err.endswith("sample it: diffuse sample -m cars-64\n")


def test_the_last_line_can_be_typed(capsys):
    _shown([STARTED, FINISHED])
    command = capsys.readouterr().err.splitlines()[-1].removeprefix("sample it: ")
    assert shlex.split(command) == ["diffuse", "sample", "a red car's door", "-m", "cars-64"]


def test_going_on_says_where(capsys):
    _shown([dataclasses.replace(STARTED, step=300)])
    assert "going on at step 300" in capsys.readouterr().err


# ── As JSON ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_event_is_one_json_line(capsys):
    _shown(_training(), json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [json.loads(json.dumps(events.to_dict(event))) for event in _training()]
    assert lines[4]["noise_mse_at"] == [None]


# ── On a terminal ───────────────────────────────────────────────────────────────────────────────────────────────────


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


class _AsciiTerminal(_Terminal):
    encoding = "ascii"


def _drawn(monkeypatch, columns: int, terminal: io.StringIO) -> list[str]:
    """The last live frame on a terminal so wide, as lines of text."""
    from rich.console import Console

    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    view.start()
    with TrainingView() as shown:
        for event in list(_training())[:-1]:
            shown.show(event)
        frame = shown._render()
        page = Console(file=io.StringIO(), width=columns, color_system=None, force_terminal=False)
        page.print(frame)
        return page.file.getvalue().splitlines()


@pytest.mark.parametrize("columns", [20, 40, 80, 200])
def test_the_live_display_fits(monkeypatch, columns):
    lines = _drawn(monkeypatch, columns, _Terminal())
    assert max(len(line.rstrip()) for line in lines) <= columns
    assert len(lines) < 15
    text = "\n".join(lines)
    for part in ("step 1,000/1,000", "100%", "noise 0.0410", "validation 0.0500", "3.1 img/s", "eta 0:41:10", "1.2 GB"):
        assert part in text                                         # whole: never broken within


def test_an_ascii_terminal_gets_ascii(monkeypatch):
    terminal = _AsciiTerminal()
    _drawn(monkeypatch, 60, terminal)
    with TrainingView() as shown:
        for event in _training():
            shown.show(event)
    assert terminal.getvalue().isascii()


def test_the_display_is_gone_when_training_fails(monkeypatch):
    terminal = _Terminal()
    _drawn(monkeypatch, 60, terminal)
    stream = iter([STARTED, _stepped(10)])

    def fails():
        yield from stream
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        _shown(fails())
    view.say("after")
    assert terminal.getvalue().endswith("after\n")
    assert "\x1b[?25h" in terminal.getvalue()                      # the cursor is back


# ── Figures ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_curve_goes_from_the_highest_to_the_lowest_mark():
    falling = dashboard._sparkline([8.0, 7, 6, 5, 4, 3, 2, 1], 80, ascii_only=False)
    assert falling == "█▇▆▅▄▃▂▁"
    assert dashboard._sparkline([1.0] * 5, 80, ascii_only=False) == "▁" * 5
    assert dashboard._sparkline([], 80, ascii_only=False) == ""
    assert len(dashboard._sparkline([float(value) for value in range(1000)], 30, ascii_only=True)) == 30


def test_a_long_run_is_kept_at_half_the_detail():
    with TrainingView() as shown:
        for step in range(1, 10_000):
            shown.show(_stepped(step, noise_mse=math.nan if step % 100 == 0 else 1 / step))
        assert len(shown._noise) <= dashboard.KEPT
        assert all(map(math.isfinite, shown._noise))
        assert shown._noise == sorted(shown._noise, reverse=True)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01"),
                                               (360_000, "100:00:00"), (math.inf, "-:--:--"), (math.nan, "-:--:--")])
def test_durations(seconds, text):
    assert dashboard._duration(seconds) == text


@pytest.mark.parametrize(("value", "text"), [(2e-4, "2.0e-4"), (1.0, "1.0e0"), (0.0, "0.0e0"), (math.nan, "nan")])
def test_learning_rates(value, text):
    assert dashboard._scientific(value) == text
