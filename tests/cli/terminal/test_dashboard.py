"""The display of a training for its three readers: a person at a terminal, a log, and a program."""

import dataclasses
import io
import json
import math
import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from diffuse_cli import events
from diffuse_cli.cli.terminal import dashboard, view
from diffuse_cli.cli.terminal.dashboard import TrainingView
from diffuse_cli.pictures import image_files, sheets

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


def test_verbose_reports_saves(capsys):
    _shown(_training(), verbose=True)
    assert "step 10: saved /x/step (12.3 MB in 0.2 s)" in capsys.readouterr().err


def test_quiet_prints_nothing(capsys):
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


def test_a_stopped_training_says_why(capsys):
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


def test_a_resumed_training_says_at_which_step(capsys):
    _shown([dataclasses.replace(STARTED, step=300)])
    assert "resuming cars-64 at step 300: " in capsys.readouterr().err


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
    _terminal(monkeypatch, columns, 40, terminal)
    with TrainingView() as shown:
        for event in list(_training())[:-1]:
            shown.show(event)
        frame = shown._render()
        page = Console(file=io.StringIO(), width=columns, color_system=None, force_terminal=False)
        page.print(frame)
        return page.file.getvalue().splitlines()


def _strip(path: Path, count: int = 8, size: int = 16) -> events.Previewed:
    """A preview whose pictures are of one colour each, from black to white."""
    drawn = np.stack([np.full((size, size, 3), 255 * k // (count - 1), np.uint8) for k in range(count)])
    path.write_bytes(image_files.encode(sheets.tile(drawn, columns=count)))
    prompts = tuple(f"a [red] thing\x1b[2J that has number {k}" for k in range(count))
    return events.Previewed(step=10, path=str(path), prompts=prompts)


def _frame(shown: TrainingView, columns: int) -> str:
    page = Console(file=io.StringIO(), width=columns, color_system="truecolor", force_terminal=True)
    page.print(shown._render())
    return page.file.getvalue()


def _terminal(monkeypatch, columns: int, lines: int, terminal: io.StringIO | None = None) -> None:
    monkeypatch.setattr(sys, "stderr", terminal or _Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    monkeypatch.delenv("NO_COLOR", raising=False)
    view.start()


@pytest.mark.parametrize(("columns", "lines", "in_a_row", "shown", "side"), [
    (80, 24, 4, 8, 14), (80, 40, 4, 8, 16), (200, 50, 8, 8, 16), (40, 24, 2, 2, 16), (20, 24, 1, 1, 16),
    (10, 24, 0, 0, 16), (80, 12, 0, 0, 16)])
def test_the_newest_preview_is_drawn_where_there_is_room(monkeypatch, tmp_path, columns, lines, in_a_row, shown, side):
    """All pictures if there is room, every prompt if they must be small for it, else as many as possible."""
    _terminal(monkeypatch, columns, lines)
    with TrainingView() as display:
        for event in (STARTED, _stepped(10), _strip(tmp_path / "strip.png")):
            display.show(event)
        rows = [line for line in _frame(display, columns).splitlines() if "▀" in line]
    assert len(rows) == side // 2 * math.ceil(shown / max(1, in_a_row))
    for number, row in enumerate(rows):
        first = number // (side // 2) * in_a_row
        pictures = range(first, min(shown, first + in_a_row))
        assert row.count("▀") == len(pictures) * side
        assert {int(level) for level in re.findall(r"38;2;(\d+);", row)} == {255 * k // 7 for k in pictures}


def test_every_prompt_is_shown_before_a_second_picture_of_one(monkeypatch, tmp_path):
    """Of eight pictures four have room: two of each prompt, not four of the first."""
    _terminal(monkeypatch, 67, 20)
    strip = dataclasses.replace(_strip(tmp_path / "strip.png"), prompts=("car",) * 4 + ("fish",) * 4)
    with TrainingView() as display:
        for event in (STARTED, _stepped(10), strip):
            display.show(event)
        rows = _frame(display, 67).splitlines()
    assert re.findall("car|fish", " ".join(rows)) == ["car", "car", "fish", "fish"]
    levels = {int(level) for row in rows for level in re.findall(r"38;2;(\d+);\d+;\d+m▀", row)}
    assert {255 * k // 7 for k in (0, 1, 4, 5)} >= levels - {249}


def test_the_display_leaves_curve_pictures_and_validation_behind(monkeypatch, tmp_path):
    terminal = _Terminal()
    _terminal(monkeypatch, 80, 24, terminal)
    monkeypatch.setattr(TrainingView, "_render", lambda _: Text(""))                # only what is printed for good
    _shown([STARTED, _stepped(10, noise_mse=0.8), _strip(tmp_path / "strip.png"),
            *(events.Validated(step=step, noise_mse=loss, log_snr=(), noise_mse_at=(), best=True)
              for step, loss in ((10, 0.25), (20, 0.5))), _stepped(20, noise_mse=0.4), FINISHED])
    left = Text.from_ansi(terminal.getvalue()).plain
    assert "█▁  noise max 0.800, min 0.400" in left
    assert left.count("▀" * 16) == 8 * 4                                            # one row of four
    assert "validation 0.5000 at step 20, best 0.2500 at step 10\nfinished 1,000 steps in 1:01:01" in left


def test_under_each_picture_is_its_prompt_and_foreign_text_is_harmless(monkeypatch, tmp_path):
    _terminal(monkeypatch, 200, 50)
    with TrainingView() as display:
        for event in (STARTED, _stepped(10), _strip(tmp_path / "strip.png", count=3, size=32)):
            display.show(event)
        frame = _frame(display, 200)
    assert frame.count("a [red] thing\\x1b[2J that has") == 3
    assert "\x1b[2J" not in frame


def test_large_pictures_are_shrunk(monkeypatch, tmp_path):
    _terminal(monkeypatch, 200, 50)
    with TrainingView() as display:
        for event in (STARTED, _stepped(10), _strip(tmp_path / "strip.png", size=128)):
            display.show(event)
        frame = _frame(display, 200)
    assert frame.count("▀") == 8 * 32 * 16


def test_a_preview_that_cannot_be_read_is_no_error(monkeypatch, tmp_path):
    _terminal(monkeypatch, 80, 24)
    (tmp_path / "strip.png").write_text("no picture")
    with TrainingView() as display:
        for name in ("strip.png", "absent.png"):
            for event in (STARTED, _stepped(10), events.Previewed(step=1, path=str(tmp_path / name), prompts=())):
                display.show(event)
        assert "▀" not in _frame(display, 80)


def test_validation_is_shown_by_noise_level_with_the_best_so_far(monkeypatch):
    _terminal(monkeypatch, 80, 24)
    levels = tuple(float(4 - k) for k in range(8))
    with TrainingView() as display:
        display.show(STARTED)
        for step, loss in ((10, 0.25), (20, 0.125), (30, 0.5)):
            display.show(_stepped(step))
            display.show(events.Validated(step=step, noise_mse=loss, log_snr=levels, noise_mse_at=(loss,) * 8,
                                          best=False))
        frame = Text.from_ansi(_frame(display, 80)).plain
        assert "validation 0.5000  best 0.1250 at step 20" in frame
        assert "log-SNR     nearly clean   +4.0   +3.0   +2.0   +0.0   -1.0   -3.0  nearly noise\n" in frame
        assert "\nvalidation" + " " * 16 + "0.500  0.500" in frame
        assert "━" * 77 in frame                                       # the bar is as wide as the terminal
        monkeypatch.setenv("COLUMNS", "30")
        view.start()
        narrow = Text.from_ansi(_frame(display, 30)).plain
    assert "log-SNR" not in narrow


def test_a_resumed_training_shows_the_whole_run(monkeypatch, tmp_path):
    """The part before comes from its log, without the steps that were lost and are trained again."""
    levels = tuple(float(4 - k) for k in range(8))
    before = [STARTED, *(_stepped(step, noise_mse=loss) for step, loss in ((1, 0.8), (2, 0.4), (9, 0.001))),
              *(events.Validated(step=step, noise_mse=loss, log_snr=levels, noise_mse_at=(loss,) * 8, best=True)
                for step, loss in ((2, 0.125), (9, 0.001)))]
    again = dataclasses.replace(STARTED, step=2, directory=str(tmp_path))
    lines = [json.dumps(events.to_dict(event)) for event in (*before, again)]
    (tmp_path / "events.jsonl").write_text("\n".join((lines[0], '{"event": "validated", "step": 1}', *lines[1:])))
    _terminal(monkeypatch, 80, 24)
    with TrainingView() as display:
        display.show(again)
        display.show(_stepped(3, noise_mse=0.2))
        frame = Text.from_ansi(_frame(display, 80)).plain
        assert "noise max 0.800, min 0.200" in frame
        assert "validation 0.1250" in frame
        assert "\nvalidation" + " " * 16 + "0.125" in frame


def test_a_pause_between_steps_is_explained_until_it_ends(monkeypatch):
    _terminal(monkeypatch, 80, 24)
    with TrainingView() as display:
        for event in (STARTED, _stepped(10), events.Paused(step=10, doing="validating")):
            display.show(event)
        assert "validating ..." in _frame(display, 80)
        display.show(events.Validated(step=10, noise_mse=0.5, log_snr=(0.0,), noise_mse_at=(0.5,), best=True))
        assert "validating" not in _frame(display, 80)
        display.show(events.Saved(step=10, path="/x", bytes=1, seconds=1.0))
        assert "saved at step 10" in _frame(display, 80)


def test_the_curve_shows_its_largest_and_smallest_loss(monkeypatch):
    _terminal(monkeypatch, 80, 24)
    with TrainingView() as display:
        display.show(STARTED)
        for step, loss in enumerate((0.8, 0.4, 0.2, 0.1), start=1):
            display.show(_stepped(step, noise_mse=loss))
        frame = Text.from_ansi(_frame(display, 80)).plain
    assert "█▆▃▁  noise max 0.800, min 0.100" in frame                       # halvings are equal steps


def test_the_last_lines_name_the_report_if_there_is_one(capsys, tmp_path):
    finished = dataclasses.replace(FINISHED, path=str(tmp_path / "model.safetensors"))
    _shown([STARTED, finished])
    assert "report: " not in capsys.readouterr().err
    (tmp_path / "report.html").write_text("")
    _shown([STARTED, finished])
    assert f"report: {tmp_path / 'report.html'}\nsample it: " in capsys.readouterr().err


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
        assert len(shown._losses) <= dashboard.MAX_LOSSES
        assert all(map(math.isfinite, shown._losses))
        assert shown._losses == sorted(shown._losses, reverse=True)


@pytest.mark.parametrize(("value", "text"), [(2e-4, "2.0e-4"), (1.0, "1.0e0"), (0.0, "0.0e0"), (math.nan, "nan")])
def test_learning_rates(value, text):
    assert dashboard._scientific(value) == text
