"""The command as a shell sees it: exit codes, one line for each error, no torch before it is needed."""

import contextlib
import errno
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from diffuse_cli import __version__, config, errors, model_config
from diffuse_cli.cli import app
from diffuse_cli.cli.terminal import view
from diffuse_cli.storage import registry

DIFFUSE = (sys.executable, "-m", "diffuse_cli")
GROUPS = ((), ("models",), ("data",))
COMMANDS = (*GROUPS, ("train",), ("distill",), ("sample",), ("upscale",), ("evaluate",), ("noise-demo",), ("export",),
            ("ui",), ("doctor",),
            *(("models", name) for name in ("ls", "show", "compare", "path", "rm", "verify")),
            *(("data", name) for name in ("check", "preview", "demo", "clear")))


def _run(*arguments: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([*DIFFUSE, *arguments], **{"capture_output": True, "timeout": 120, **options})


@pytest.fixture
def inside(capsys, monkeypatch):
    """Run a command line in this process with `models ls` replaced: (exit code, stderr)."""

    def run(action, *arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(registry, "last", action)
        monkeypatch.setattr(sys, "argv", ["diffuse", *arguments, "models", "ls"])
        monkeypatch.setattr(app, "_die_by", lambda number: sys.exit(128 + number))
        with pytest.raises(SystemExit) as left:
            app.main()
        return left.value.code or 0, capsys.readouterr().err

    return run


def _raises(error: BaseException):
    def action() -> None:
        raise error

    return action


# ── Help ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_command_is_tested_here():
    found = {()}
    root = app._command()
    for name, command in root.commands.items():
        found.add((name,))
        found |= {(name, inner) for inner in getattr(command, "commands", {})}
    assert found == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_needs_no_torch(command):
    code = ("import sys\nfrom diffuse_cli.cli import app\nsys.argv = ['diffuse', *sys.argv[1:]]\n"
            "try:\n    app.main()\n"
            "finally:\n    sys.stderr.write(repr({'torch', 'numpy', 'PIL', 'safetensors', 'tqdm', 'matplotlib', "
            "'IPython', 'huggingface_hub', 'onnx', 'onnxruntime', 'pyarrow', 'tensorboard', 'wandb'}"
            " & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code, *command, "-h"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert done.stderr == "set()"
    assert "Usage: diffuse" in done.stdout
    assert "\x1b" not in done.stdout
    assert "completion" not in done.stdout
    if command not in GROUPS:                                       # once as the usage, once as an example
        assert done.stdout.count(" ".join(("diffuse", *command))) >= 2


@pytest.mark.parametrize("command", GROUPS)
def test_without_a_command_there_is_help_and_two(command):
    done = _run(*command, text=True)
    assert done.returncode == 2
    assert "Usage: diffuse" in done.stdout
    assert done.stderr == ""


def test_help_speaks_one_language(capsys):
    """Every default is told by a sentence, every choice by its words, and no flag takes a value."""
    for path, command in app.commands(app._command()):
        with contextlib.suppress(SystemExit):
            command.main(["-h"], prog_name=" ".join(path))
        page = capsys.readouterr().out
        assert "--help" in page
        for wrong in ("<bool>", "list[", "[default", "(default", "Default for", "BOOLEAN"):
            assert wrong not in page, (path, wrong)
        assert not re.search(r"Default [\w.]", page), path


@pytest.mark.parametrize("option", ["--version", "-V"])
def test_version(option):
    done = _run(option, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"diffuse-cli {__version__}\n", "")


def test_completion_can_be_had():
    environment = {**os.environ, "_DIFFUSE_COMPLETE": "complete_bash", "COMP_WORDS": "diffuse mod", "COMP_CWORD": "1"}
    assert _run(env=environment, text=True).stdout.split() == ["models"]


@pytest.mark.parametrize("others", [{}, {"COMP_WORDS": "diffuse mod"}, {"COMP_WORDS": "diffuse", "COMP_CWORD": "x"}])
def test_a_completion_that_no_shell_asks_for_is_one_line(others, monkeypatch, capsys):
    for name in ("COMP_WORDS", "COMP_CWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**others, "_DIFFUSE_COMPLETE": "complete_bash"}.items():
        monkeypatch.setenv(name, value)
    assert app._run([]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") <= 3
    assert "_DIFFUSE_COMPLETE is set" in " ".join(err.split())


@pytest.mark.parametrize(("command", "option", "words"), [
    ("train", "preset", config.PRESETS), ("train", "schedule", model_config.SCHEDULES),
    ("train", "captions", config.CAPTION_SOURCES), ("train", "log", config.LOGS), ("train", "device", config.DEVICES),
    ("train", "precision", config.PRECISIONS), ("sample", "sampler", config.SAMPLERS),
    ("sample", "device", config.DEVICES), ("evaluate", "precision", config.PRECISIONS[1:]),
    ("noise-demo", "schedule", model_config.SCHEDULES), ("export", "to", tuple(config.EXPORT_FORMATS)),
    ("export", "scheduler", config.EXPORT_SCHEDULERS)])
def test_choices_can_be_completed_and_are_in_the_help(command, option, words):
    parsed = dict(app.commands(app._command()))["diffuse", command]
    (parameter,) = (each for each in parsed.params if each.name == option)
    context = typer.Context(parsed)
    assert tuple(item.value for item in parameter.shell_complete(context, "")) == words
    assert tuple(item.value for item in parameter.shell_complete(context, words[-1][:3])) == tuple(
        word for word in words if word.startswith(words[-1][:3]))
    assert ", ".join(words) in parameter.help


# ── Usage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("arguments", "line"), [
    (("modles",), "there is no command 'modles'. Did you mean models?"),
    (("models", "sohw"), "there is no command 'sohw'. Did you mean show?"),
    (("models", "ls", "--jsno"), "there is no option --jsno. Did you mean --json?"),
    (("models", "ls", "--zzzzzz"), "there is no option --zzzzzz. See `diffuse models ls -h`"),
    (("models", "rm"), "missing argument"),
    (("models", "ls", "extra"), "unexpected extra argument"),
    (("data", "demo", "x", "-n", "many"), "invalid value for '--num' / '-n'"),
    (("models", "ls", "--x\x1b[2J"), "there is no option --x"),
])
def test_a_misuse_is_one_line_and_two(arguments, line):
    done = _run(*arguments, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("error: ")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert "\x1b" not in done.stderr


def test_common_options_are_understood_before_and_after_the_command():
    for arguments in (("--json", "models", "path", "./x"), ("models", "path", "./x", "--json")):
        done = _run(*arguments, text=True)
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr == "error: there is no file x. `diffuse models ls` lists the models that have a name\n"


# ── The boundary ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("error", "code"), [
    (errors.UsageError, 2), (errors.DataError, 3), (errors.ModelError, 4), (errors.InUseError, 5),
    (errors.StorageError, 6), (errors.OutOfMemoryError, 7), (errors.DivergedError, 8),
])
def test_an_error_is_a_line_and_its_code(inside, error, code):
    assert inside(_raises(error("this happened", hint="Do that"))) == (code, "error: this happened. Do that\n")


def test_quiet_does_not_silence_errors(inside):
    assert inside(_raises(errors.DataError("this happened")), "-q") == (3, "error: this happened\n")


def test_debug_adds_the_traceback(inside):
    code, err = inside(_raises(errors.DataError("this happened")), "--debug")
    assert code == 3
    assert err.startswith("Traceback (most recent call last):")
    assert err.endswith("\nerror: this happened\n")


def test_an_unforeseen_error_is_a_line_a_report_and_seventy(inside, home):
    code, err = inside(_raises(ValueError("odd\x1b[2J\nthing")))
    assert code == 70
    (report,) = (home / "crashes").iterdir()
    assert err == f"error: unexpected ValueError: odd\\x1b[2J\\x0athing. Please report this, with {report}\n"
    text = report.read_text()
    assert "Traceback (most recent call last):" in text
    assert f"diffuse-cli {__version__}" in text
    assert "diffuse models ls" in text
    assert report.stat().st_mode & 0o777 == 0o600


def test_a_report_that_cannot_be_saved_is_not_another_crash(inside, home):
    home.chmod(0o777)                                               # refused as a root
    code, err = inside(_raises(ValueError("odd")))
    assert (code, err) == (70, "error: unexpected ValueError: odd. Run it again with --debug to see where\n")


def test_exhausted_memory_and_disks_have_their_codes(inside):
    assert inside(_raises(MemoryError()))[0] == 7
    code, err = inside(_raises(OSError(errno.ENOSPC, "No space left on device")))
    assert (code, err) == (6, "error: cannot write: no space left on device\n")


@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (BrokenPipeError(), 141)])
def test_signals_have_no_message(inside, error, code):
    assert inside(_raises(error)) == (code, "")


# ── The process ─────────────────────────────────────────────────────────────────────────────────────────────────────

HELD = "import sys; from diffuse_cli.cli import app; from diffuse_cli.storage import registry\n" \
       "def wait(): print('ready', file=sys.stderr, flush=True); __import__('time').sleep(60)\n" \
       "registry.last = wait; sys.argv = ['diffuse', 'models', 'ls']; app.main()"


def test_an_interrupt_ends_by_the_signal():
    """So that a shell's loop around the command ends as well."""
    held = subprocess.Popen([sys.executable, "-c", HELD], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert held.stderr.readline() == b"ready\n"
    held.send_signal(signal.SIGINT)
    out, err = held.communicate(timeout=60)
    assert (held.returncode, out, err) == (-signal.SIGINT, b"", b"")


@pytest.mark.parametrize("ignored", [False, True])
def test_an_interrupt_while_the_command_line_is_imported_ends_it_silently(ignored):
    """Unless whoever started it has interrupts ignored, as a shell does for what runs in the background."""
    code = ("import os, signal, sys\n"
            "class Interrupting:\n"
            "    def find_spec(self, name, *_):\n"
            "        if name == 'typer': os.kill(os.getpid(), signal.SIGINT)\n"
            "sys.meta_path.insert(0, Interrupting())\n"
            "sys.argv = ['diffuse', '--version']\n"
            "from diffuse_cli.__main__ import main\n"
            "main()")
    ignore = (lambda: signal.signal(signal.SIGINT, signal.SIG_IGN)) if ignored else None
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, preexec_fn=ignore)
    assert (done.returncode, done.stderr) == ((0, b"") if ignored else (-signal.SIGINT, b""))


def test_no_file_is_opened_as_a_closed_stream():
    """Otherwise the output of a library to descriptor 1 would end up in that file."""
    code = ("import os, sys\nfrom diffuse_cli.cli import app\nfrom diffuse_cli.storage import registry\n"
            "registry.last = lambda: sys.exit(50 + os.open(os.devnull, os.O_RDONLY))\n"
            "sys.argv = ['diffuse', 'models', 'ls']\napp.main()")
    done = subprocess.run(["bash", "-c", '"$@" 0<&- 1>&- 2>&-', "bash", sys.executable, "-c", code], timeout=60)
    assert done.returncode > 52


def test_models_are_listed_without_torch():
    code = ("import sys; from diffuse_cli.cli import app; sys.argv = ['diffuse', 'models', 'ls', '--json']\n"
            "try:\n    app.main()\nfinally:\n    print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    *models, imported = map(json.loads, done.stdout.splitlines())
    assert "demo" in [model["name"] for model in models]
    assert imported == []


@pytest.fixture(autouse=True)
def _fresh():
    yield
    view.start()


# ── The reference ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_command_and_option_is_in_the_reference():
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"`(-[^` ]*|[a-z]+)[^`]*`", text))
    waiting = [app._command()]
    while waiting:
        command = waiting.pop()
        inner = getattr(command, "commands", {})
        waiting += inner.values()
        for parameter in (each for each in command.params if not getattr(each, "hidden", False)):
            for name in (*parameter.opts, *parameter.secondary_opts):
                assert not name.startswith("-") or name in documented or f"diffuse {name}" in text, name
        for name in inner:
            assert name in documented or f"`diffuse {name}" in text, name


def test_every_exit_code_is_in_the_reference():
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    for error in errors.DiffuseError.__subclasses__():
        assert f"\n| {error.exit_code} | " in text


# ── Threads ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("given", "seen"), [
    ({}, "10000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None),
])
def test_waiting_threads_sleep_soon_unless_the_user_decides_how_they_wait(inside, monkeypatch, given, seen):
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    met = []
    inside(lambda: met.append(os.environ.get("GOMP_SPINCOUNT")))
    assert met == [seen]


@pytest.mark.parametrize(("given", "seen"), [(None, "1"), ("0", "0")])
def test_torch_uses_the_cpu_for_gaps_of_an_apple_gpu_unless_the_user_forbids_it(inside, monkeypatch, given, seen):
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", given or "")
    if given is None:
        monkeypatch.delenv("PYTORCH_ENABLE_MPS_FALLBACK")
    met = []
    inside(lambda: met.append(os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK")))
    assert met == [seen]


@pytest.mark.parametrize("width", ["9" * 20, "9" * 5000, "99999", "²", "-5", "0", "abc", ""])
def test_a_width_that_no_terminal_has_is_ignored(inside, monkeypatch, width):
    """Rich would end in a crash, or write lines of that length."""
    for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH"):
        monkeypatch.setenv(name, width)
    met = []
    inside(lambda: met.append([os.environ.get(name) for name in ("COLUMNS", "LINES", "TERMINAL_WIDTH")]))
    assert met == [[None, None, None]]
    monkeypatch.setenv("COLUMNS", "020")
    inside(lambda: met.append(os.environ.get("COLUMNS")))
    assert met[1] == "020"
