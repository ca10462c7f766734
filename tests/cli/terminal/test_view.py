"""Data goes to stdout, messages go to stderr, and no text from elsewhere can control the terminal."""

import errno
import io
import json
import math
import re
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from diffuse_cli.cli.terminal import progress, view
from diffuse_cli.errors import StorageError


@pytest.fixture(autouse=True)
def _fresh():
    view.start()
    yield
    view.start()


class _Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def _on_terminal(monkeypatch, **environment: str) -> _Terminal:
    """stderr becomes a terminal of 60 columns; stdout stays a pipe. (No fixture: pytest would put its stderr back.)"""
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", "COLUMNS": "60", "LINES": "30", **environment}.items():
        monkeypatch.setenv(name, value)
    view.start()
    return stream


# ── Foreign text ────────────────────────────────────────────────────────────────────────────────────────────────────


@given(st.text(st.characters(), max_size=80))
def test_nothing_said_or_printed_can_move_the_cursor(text):
    streams = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", streams[0])
        patch.setattr(sys, "stderr", streams[1])
        view.start()
        view.out(text)
        view.out_json({"text": text})
        view.table(("A", "B"), [(text, text)])
        view.say(text)
        view.warn(text)
        view.error(text)
        view.listing([(text, text)])
    written = streams[0].getvalue() + streams[1].getvalue()
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\ud800-\udfff]", written)
    assert streams[0].getvalue().count("\n") == 4                   # one line each: out, out_json, the table's two


def test_markup_is_not_obeyed(capsys):
    view.say("[red]not red[/red] :smile:")
    assert capsys.readouterr().err == "[red]not red[/red] :smile:\n"


# ── Two streams ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_data_goes_to_stdout_and_messages_do_not(capsys):
    view.out("/a/path")
    view.say("talk")
    view.warn("doubt")
    view.error("trouble. do this")
    captured = capsys.readouterr()
    assert captured.out == "/a/path\n"
    assert captured.err == "talk\nwarning: doubt\nerror: trouble. do this\n"


def test_long_lines_are_never_wrapped(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    path = "/a/very/long/path with spaces/" * 20
    view.out(path)
    view.say(path)
    captured = capsys.readouterr()
    assert captured.out == captured.err == path + "\n"


def test_quiet_does_not_silence_errors(capsys):
    view.configure(quiet=True)
    view.say("talk")
    view.warn("doubt")
    view.listing([("a", "b")])
    view.error("trouble")
    assert capsys.readouterr().err == "error: trouble\n"


def test_settings_add_up_and_start_forgets_them():
    view.configure(quiet=True)
    view.configure(json=True)
    assert (view.settings.quiet, view.settings.json, view.settings.debug) == (True, True, False)
    view.start()
    assert not view.settings.quiet


def test_an_error_is_one_line(capsys):
    view.error("two\nlines\x1b")
    assert capsys.readouterr().err == "error: two lines\\x1b\n"


def test_closed_streams_are_silent(monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    view.start()
    view.out("x")
    view.say("x")
    assert not view.interactive()


def test_a_full_stdout_is_a_storage_error(monkeypatch):
    class Full(io.StringIO):
        def flush(self) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sys, "stdout", Full())
    with pytest.raises(StorageError, match="cannot write to stdout: no space left on device"):
        view.out("x")


# ── JSON and tables ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_json_is_exact_where_text_is_escaped(capsys):
    value = {"path": "a\nb\x1b\udc80é", "numbers": [1.5, math.nan, -math.inf]}
    view.out_json(value)
    line = capsys.readouterr().out
    assert line.isascii()
    assert line.count("\n") == 1
    assert json.loads(line) == {"schema": 1, **value, "numbers": [1.5, None, None]}


def test_columns_align_also_with_wide_characters(capsys):
    view.table(("NAME", "SIZE"), [("cars", "5"), ("日本", "1,234")], right=("SIZE",))
    assert capsys.readouterr().out == "NAME   SIZE\ncars      5\n日本  1,234\n"


def test_a_long_text_goes_on_below_itself_on_a_terminal_and_is_one_line_elsewhere(capsys, monkeypatch):
    words = ", ".join(["word", "日本語"] * 20)
    view.labelled([("name", "cars"), ("words", words)])
    assert capsys.readouterr().out == f"name   cars\nwords  {words}\n"
    _on_terminal(monkeypatch)
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    view.labelled([("words", words)])
    lines = terminal.getvalue().splitlines()
    assert len(lines) > 2
    assert all(cell_len(line) <= 60 for line in lines)
    assert [line[:7] for line in lines] == ["words  "] + ["       "] * (len(lines) - 1)
    assert " ".join(line[7:] for line in lines) == words
    view.labelled([("file", "/a" * 60)])
    assert terminal.getvalue().splitlines()[-1] == "file  " + "/a" * 60


# ── Terminals ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": ""}, {"TERM": "unknown"},
                                         {"JPY_PARENT_PID": "1"}])
def test_no_escape_on_a_terminal_that_does_not_want_it(monkeypatch, environment):
    terminal = _on_terminal(monkeypatch, **environment)
    assert not view.can_draw()
    view.warn("doubt")
    with progress.of("counting", 3) as advance_to:
        advance_to(3)
    assert "\x1b" not in terminal.getvalue()


def test_no_escape_off_a_terminal_even_where_colour_is_forced(capsys, monkeypatch):
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.setenv(name, "1")
    view.start()
    view.warn("doubt")
    view.error("trouble")
    assert capsys.readouterr().err == "warning: doubt\nerror: trouble\n"


def test_progress_is_drawn_and_erased(monkeypatch):
    terminal = _on_terminal(monkeypatch)
    with progress.of("counting", 3) as advance_to:
        advance_to(2)
        view.say("between")
    shown = terminal.getvalue()
    assert "counting" in shown
    assert "between\n" in shown
    assert shown.rstrip("\r").endswith("\x1b[2K")                  # the last frame is erased


def _both_on_terminal(monkeypatch):
    """stdout and stderr become the same terminal."""
    terminal = _on_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdout", terminal)
    view.start()
    return terminal


def test_data_during_progress_is_a_line_of_its_own(monkeypatch):
    """With stdout on the same terminal, the live display gives way to each line of data."""
    terminal = _both_on_terminal(monkeypatch)
    with progress.of("counting", 3) as advance_to:
        advance_to(1)
        view.out("/a/path")
    assert re.search(r"(^|\n|\x1b\[2K|\r)/a/path\n", terminal.getvalue())


def test_data_is_not_erased_by_the_live_display(monkeypatch):
    """The live display erases upwards from its last line, and no more lines than it has drawn itself."""
    terminal = _both_on_terminal(monkeypatch)
    with progress.of("counting", 3) as advance_to:
        for place in range(3):
            time.sleep(0.3)                                            # it is drawn four times a second
            advance_to(place + 1)
            view.out(f"/a/path/{place}")
    assert [line for line in _screen(terminal.getvalue()) if line] == ["/a/path/0", "/a/path/1", "/a/path/2"]


def test_the_live_display_gives_way_to_any_number_of_lines(monkeypatch):
    terminal = _both_on_terminal(monkeypatch)
    with progress.of("counting", 3) as advance_to:
        advance_to(1)
        for place in range(1_200):
            view.out(f"/a/path/{place}")
    assert [line for line in _screen(terminal.getvalue()) if line] == [f"/a/path/{place}" for place in range(1_200)]


def _screen(written: str) -> list[str]:
    """The lines that a terminal shows after carriage returns, cursors going up, and erasures."""
    lines, row, column = [""], 0, 0
    for command, up, letter in re.findall(r"(\x1b\[(?:(\d+)A|[?\d;]*[a-zA-Z]))|([\s\S])", written):
        if up:
            row = max(0, row - int(up))
        elif command == "\x1b[2K":
            lines[row] = ""
        elif letter == "\r":
            column = 0
        elif letter == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        elif letter:
            lines[row] = lines[row][:column].ljust(column) + letter + lines[row][column + 1:]
            column += 1
    return lines


def test_messages_are_silent_where_json_prints_to_the_same_terminal(monkeypatch):
    terminal = _on_terminal(monkeypatch)
    view.configure(json=True)
    view.say("stdout is a pipe")
    monkeypatch.setattr(sys, "stdout", terminal)
    view.say("stdout is this terminal")
    view.warn("doubt")
    assert "stdout is a pipe" in terminal.getvalue()
    assert "this terminal" not in terminal.getvalue()
    assert "doubt" in terminal.getvalue()


def test_progress_in_a_pipe_is_a_line_from_time_to_time(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.of("counting", 1234) as advance_to:
        for now, done in [(1.0, 0), (9.9, 1), (10.0, 2), (15.0, 3), (21.0, 4), (40.0, 1234)]:       # noqa: B007
            advance_to(done)
    assert capsys.readouterr().err == (
        "counting 2/1,234, eta 1:42:40\ncounting 4/1,234, eta 1:47:38\ncounting 1,234/1,234\n")


def test_unfinished_parts_count_in_the_time_that_is_left(capsys, monkeypatch):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.of("drawing", 8) as advance_to:
        now = 100.0
        advance_to(1.6)
    assert capsys.readouterr().err == "drawing 1/8, eta 0:06:40\n"


def test_the_pace_slows_after_five_minutes():
    seconds = iter(range(601))
    pace = progress.Pace(lambda: next(seconds))
    assert [now for now in range(1, 601) if pace.due()] == [*range(10, 300, 10), *range(350, 601, 60)]


@pytest.mark.parametrize(("answer", "yes"),
                         [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_only_yes_is_yes(monkeypatch, answer, yes):
    terminal = _on_terminal(monkeypatch)
    monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
    assert view.confirm("Remove?") is yes
    assert "Remove? [y/N] " in terminal.getvalue()


# ── Pictures ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("columns", "count", "expected"), [
    ("80", 1, 1), ("80", 4, 4), ("80", 8, 4), ("80", 5, 3), ("120", 6, 6), ("120", 8, 4), ("10", 3, 1)])
def test_pictures_stand_in_rows_of_nearly_equal_length(monkeypatch, columns, count, expected):
    _on_terminal(monkeypatch, COLUMNS=columns)
    assert view.pictures_in_a_row(count) == expected
