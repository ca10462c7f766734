"""Malformed command lines, made at random from the real options: each is understood or refused, and none crashes.

There is no model and no picture, so that a line that is understood ends soon.
"""

import io
import random
import sys

import pytest

from diffuse_cli.cli import app
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.storage import registry

ODD = ("", "-", "--", "---", "0", "-1", "1e9", "nan", "inf", "-inf", "1_000", "٣", "0x10", "9" * 400, "2**70", "true",
       "None", "./x", "x/" * 40, "~", "/dev/null", "*", "$(touch x)", "[bold]red[/]", "\x1b[31m", "\u202e", "\ud800",
       "é日", "a=b", "=", "x" * 5000, "%s%n", "\n", "\0", "--=", "-é", "--num=", "@file", "50%", "5m", "-5m", "1h-30m")
COMMON = ("-q", "--json", "-v", "-h", "--help", "--version")
DOCUMENTED = {0, 2, 3, 4, 6}                    # 3, 4 and 6: there is no such folder, no model, no such place


@pytest.fixture
def commands(monkeypatch, tmp_path, home):
    """(words, names of its options) of every command. They find nothing, and draw nothing."""
    monkeypatch.setattr(registry, "_BUNDLED", tmp_path / "absent")
    monkeypatch.setattr(scenes, "write_demo_folder", lambda *_, **__: (number for number in ()))
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.chdir(tmp_path)
    found = []

    def visit(command, words):
        names = [name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)]
        found.append((words, [name for name in names if name.startswith("-") and "completion" not in name]))
        for name, one in getattr(command, "commands", {}).items():
            visit(one, [*words, name])

    root = app._command()
    monkeypatch.setattr(app, "_command", lambda: root)                  # to build it takes longer than to use it
    visit(root, [])
    return found


def line(rng, commands):
    """A command line: words of a command, some of them damaged, then options and values in any order."""
    words, options = rng.choice(commands)
    words = [damaged(rng, word) if rng.random() < 0.1 else word for word in words]
    rest = []
    for _ in range(rng.randrange(8)):
        option = rng.choice(options) if options and rng.random() < 0.9 else rng.choice(COMMON)
        option = damaged(rng, option) if rng.random() < 0.2 else option
        value = rng.choice(ODD) if rng.random() < 0.7 else str(rng.randrange(-3, 10**rng.randrange(1, 25)))
        rest += rng.choice(([option], [option, value], [f"{option}={value}"], [value], [option] * 2, [option + value]))
    return [*words, *rest]


def damaged(rng, word):
    position = rng.randrange(len(word) + 1)
    inserted = word[:position] + rng.choice(ODD) + word[position:]
    return rng.choice((word[:position], word[position:], inserted, word.upper(), word * 2))


@pytest.mark.parametrize("count", [100, pytest.param(3_000, marks=pytest.mark.slow)])
def test_no_command_line_crashes(commands, command, seed, counted, count):
    rng, codes = random.Random(seed), []
    for _ in range(count):
        arguments = line(rng, commands)
        code, out, err = command(*arguments)
        codes.append(code)
        assert code in DOCUMENTED, (arguments, code, err)
        assert "Traceback" not in out + err or "--debug" in str(arguments), arguments
        assert "\x1b" not in out + err, arguments
        assert err.count("error: ") == (code != 0 and err != ""), (arguments, err)
    assert {0, 2} <= set(codes)
    counted("A malformed command line is refused with one line", "options and values at random", count)
