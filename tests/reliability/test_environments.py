"""Every command in every environment in which people start it: one table of expected exit codes.

Whatever happens, an error is one line, and neither a traceback nor an escape sequence is printed. A quick run takes one
cell for each command and each environment; the slow tests take all.
"""

import functools
import os
import pty
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path

import consistent_models
import pytest
from real import environment

DIFFUSE = (sys.executable, "-P", "-m", "diffuse_cli")
LIGHT, HEAVY = "needs no torch", "imports torch or NumPy"
OK, USAGE, MODEL, STORAGE, MEMORY, LOST, READER_LEFT = 0, 2, 4, 6, 7, 9, -13
NO_TIME, KILLED = -24, -9                       # SIGXCPU, and what follows it: no program can say that it has no time


@dataclass(frozen=True)
class Command:
    words: str
    kind: str = HEAVY
    prints: bool = True                         # whether stdout gets anything
    writes_cache: bool = False                  # whether it must write below DIFFUSE_HOME
    writes_much: bool = False                   # whether it writes a file of more than 4 KB
    usual: int = OK


TRAIN = "train {pictures} --name again --resolution 8 --preset nano --steps 1 --batch-size 4 --device cpu"
COMMANDS = {
    "train": Command(TRAIN, writes_cache=True, writes_much=True),
    "train in two": Command(f"{TRAIN} --procs 2", writes_cache=True, writes_much=True),
    "sample": Command("sample red -m tiny --steps 1 -o {out}"),
    "sample in two": Command("sample red blue -m tiny --steps 1 --batch-size 1 -o {out} --procs 2"),
    "sample larger": Command("sample red -m tiny --upscaler {upscaler} --steps 1 -o {out}"),
    "upscale": Command("upscale {pictures}/000.png -m {upscaler} -o {out}/large.png", writes_much=True),
    "distill": Command("distill tiny {pictures} --evaluations 1 --steps 1 --batch-size 2 --name taught",
                       writes_cache=True),
    "evaluate": Command("evaluate tiny {pictures} -n 4"),
    "noise-demo": Command("noise-demo --num 2 -o {out}/strip.png", writes_much=True),
    "export": Command("export tiny --to safetensors -o {out}/slim.safetensors", writes_much=True),
    "models ls": Command("models ls", LIGHT),
    "models show": Command("models show tiny", LIGHT),
    "models path": Command("models path tiny", LIGHT),
    "models verify": Command("models verify tiny", LIGHT),
    "models compare": Command("models compare tiny other -n 0 -o {out}/page.html", LIGHT, writes_much=True),
    "models rm": Command("models rm other --yes", LIGHT, prints=False, writes_cache=True),
    "data check": Command("data check {pictures}", prints=False, writes_cache=True),      # it prints problems alone
    "data preview": Command("data preview {pictures} --resolution 8 -o {out}/sheet.png", writes_much=True),
    "data demo": Command("data demo {out}/scenes -n 2 --resolution 16", LIGHT),
    "data clear": Command("data clear", prints=False, writes_cache=True),
    "doctor": Command("doctor", LIGHT),         # tells what is too little, in its table
    "help": Command("-h", LIGHT),
    "an unknown model": Command("models show \x1b[31mé日", LIGHT, prints=False, usual=MODEL),
    "upscale by a model that is none": Command("upscale small.png -m tiny", LIGHT, prints=False, usual=USAGE),
    "ui of an unknown model": Command("ui no-such-model --no-browser", LIGHT, prints=False, usual=MODEL),
    "a wrong option": Command("sample red --steps many", LIGHT, prints=False, usual=USAGE),
}


def usual(command):
    return {command.usual}


def unless_light(code):
    return lambda command: {command.usual if command.kind == LIGHT else code}


def if_it_prints(code):
    return lambda command: {code if command.prints else command.usual}


def if_it_needs_the_cache(code):
    """Help, usage errors, drawings that need no model, and models that are named by a path need no DIFFUSE_HOME."""
    return lambda command: {code, command.usual} if command.words[:2] in ("-h", "no") or command.usual == USAGE or \
        command.words.startswith(("data demo", "doctor", "upscale")) else {code}    # doctor tells it in its table


def out_of_time(code):
    """A lost process of several ends all with exit 9."""
    return lambda command: {code, command.usual} | ({LOST} if "--procs" in command.words else set())


@dataclass(frozen=True)
class Environment:
    expected: object = usual                    # command → the allowed exit codes
    variables: dict = field(default_factory=dict)
    before: str = ""                            # of the shell, before the program replaces it
    after: str = ""                             # redirections, or the rest of a pipe
    within: tuple = ()                          # a program that starts the shell
    terminal: bool = False
    left: bool = False                          # whether the reader of stdout has left before the first byte
    ascii: bool = False
    prepare: object = None                      # called with the place of the test


UID = 54321                                     # of nobody
STRANGER = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups", "--inh-caps=+dac_read_search",
            "--ambient-caps=+dac_read_search", "--bounding-set=-sys_resource,-sys_admin")
ENVIRONMENTS = {
    "no terminal": Environment(),
    "no stdin": Environment(after="<&-"),
    "TERM=dumb": Environment(variables={"TERM": "dumb"}, terminal=True),
    "NO_COLOR": Environment(variables={"TERM": "xterm", "NO_COLOR": "1"}, terminal=True),
    "a CI system": Environment(variables={"CI": "1", "GITHUB_ACTIONS": "1", "FORCE_COLOR": "1", "PY_COLORS": "1"}),
    "20 columns": Environment(variables={"COLUMNS": "20"}),
    "1 column": Environment(variables={"COLUMNS": "1"}),
    "LC_ALL=C": Environment(ascii=True, variables={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}),
    "ASCII": Environment(ascii=True, variables={"PYTHONIOENCODING": "ascii"}),
    "Latin-1": Environment(variables={"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}),
    "closed stdout": Environment(after=">&-"),
    "closed streams": Environment(after="<&- >&- 2>&-"),
    "full stdout": Environment(if_it_prints(STORAGE), after=">/dev/full"),
    "full stdout, unbuffered": Environment(if_it_prints(STORAGE), {"PYTHONUNBUFFERED": "1"}, after=">/dev/full"),
    "full stderr": Environment(after="2>/dev/full"),
    "a reader that left": Environment(if_it_prints(READER_LEFT), left=True),
    "head -1": Environment(lambda command: {command.usual, READER_LEFT, 141}, after="| head -1"),
    "no HOME, unknown user": Environment(
        if_it_needs_the_cache(STORAGE), before="unset HOME DIFFUSE_HOME XDG_CACHE_HOME", within=STRANGER),
    "unknown user": Environment(before="unset HOME", within=STRANGER, prepare=lambda place: place.give_away()),
    "a relative DIFFUSE_HOME": Environment(if_it_needs_the_cache(STORAGE), {"DIFFUSE_HOME": "relative"}),
    "a read-only cache": Environment(
        lambda command: {STORAGE} if command.writes_cache else {command.usual}, within=STRANGER,
        prepare=lambda place: (place.give_away(), place.make_read_only())),
    "a cache of somebody else": Environment(if_it_needs_the_cache(STORAGE), within=STRANGER),
    "a cache that others can write": Environment(
        if_it_needs_the_cache(STORAGE), prepare=lambda place: place.home.chmod(0o777)),
    "a cache that is a planted link": Environment(
        if_it_needs_the_cache(STORAGE), within=STRANGER, prepare=lambda place: place.replace_home_by_link()),
    "links in the place of results": Environment(
        lambda command: {USAGE} if "{out}/" in command.words else {command.usual},
        prepare=lambda place: place.plant_links()),
    "little memory": Environment(unless_light(MEMORY), before="ulimit -v 400000"),
    "little data": Environment(unless_light(MEMORY), before="ulimit -d 300000"),
    "few files": Environment(unless_light(STORAGE), before="ulimit -n 16"),
    "few files, softly": Environment(before="ulimit -S -n 16"),
    "small files": Environment(
        lambda command: {STORAGE} if command.writes_much else {command.usual, STORAGE}, before="ulimit -f 1"),
    "few processes": Environment(
        unless_light(MEMORY), before="ulimit -u 3", within=STRANGER, prepare=lambda place: place.give_away()),
    "a small stack": Environment(unless_light(MEMORY), before="ulimit -s 256"),
    "little time": Environment(out_of_time(KILLED), before="ulimit -t 1"),
    "little time, softly": Environment(out_of_time(NO_TIME), before="ulimit -S -t 1"),
    "no /dev/shm": Environment(within=("unshare", "--mount"), before="mount -t tmpfs -o ro none /dev/shm"),
    "no network": Environment(
        lambda command: {USAGE if "--procs" in command.words else command.usual}, within=("unshare", "--net")),
    "a clock that jumps": Environment(variables={"PYTHONPATH": str(Path(__file__).parent / "jumping_clock")}),
}
ALL = [(command, name) for command in COMMANDS for name in ENVIRONMENTS]
# One cell for each environment; light commands wherever the environment allows, because torch takes seconds to import.
QUICK = {(command, name) for command, name in zip([
    "distill", "models rm", "models verify", "an unknown model", "doctor", "data demo", "models show",
    "ui of an unknown model", "data check", "help", "models path", "models ls", "help", "models ls", "models show",
    "sample in two", "models compare", "data clear", "upscale", "a wrong option", "models rm", "models verify",
    "data clear", "models show", "noise-demo", "sample", "sample larger", "upscale by a model that is none",
    "models ls", "export", "data preview", "evaluate", "models show", "noise-demo", "models verify", "train in two",
    "train"], ENVIRONMENTS, strict=True)}


class Place:
    """The directories of one cell: a home with models, an empty directory for results."""

    def __init__(self, trained, directory):
        self.home, self.out, self.directory = directory / "home", directory / "out", directory
        shutil.copytree(trained[0].parent.parent, self.home)
        shutil.copytree(trained[0], self.home / "models" / "other")
        self.home.chmod(0o700)
        self.out.mkdir()
        self.victim = directory / "victim"
        self.victim.write_text("precious")

    def give_away(self):
        for path in (self.directory, *self.directory.rglob("*")):
            os.chown(path, UID, UID, follow_symlinks=False)

    def make_read_only(self):
        for path in (self.home, *self.home.rglob("*")):
            if path.is_dir():
                path.chmod(0o500)

    def replace_home_by_link(self):
        self.give_away()
        self.home.rename(self.directory / "elsewhere")
        self.home.symlink_to(self.directory / "elsewhere")              # of root, to a directory of the stranger

    def plant_links(self):
        for name in ("strip.png", "slim.safetensors", "sheet.png", "scenes", "00000-0-red.png", "page.html",
                     "large.png"):
            (self.out / name).symlink_to(self.victim)


@pytest.fixture(scope="module")
def upscaler(tmp_path_factory):
    """A model that enlarges pictures of 8 pixels to 16."""
    directory = tmp_path_factory.mktemp("upscaler")
    directory.chmod(0o755)
    path = consistent_models.sealed(directory / "upscaler.safetensors", consistent_models.configuration(
        **consistent_models.UPSCALERS["twice"]))
    path.chmod(0o644)
    return path


@functools.cache
def _can(within):
    try:
        return subprocess.run([*within, "true"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


@pytest.mark.parametrize(("command", "name"), [
    pytest.param(*cell, id=" in ".join(cell).replace("/", " "), marks=() if cell in QUICK else pytest.mark.slow)
    for cell in ALL])
def test_a_command_in_an_environment(command, name, squares, trained, upscaler, tmp_path, counted):
    one, surroundings = COMMANDS[command], ENVIRONMENTS[name]
    if not _can(surroundings.within):
        pytest.skip(f"{surroundings.within[0]} is not allowed here")
    for path in (tmp_path, *tmp_path.parents[:-2], squares, squares.parent):
        path.chmod(path.stat().st_mode | 0o055)                         # a stranger must get here
    (tmp_path / "place").mkdir()
    place = Place(trained, tmp_path / "place")
    if surroundings.prepare:
        surroundings.prepare(place)
    words = [word.format(pictures=squares, out=place.out, upscaler=upscaler) for word in one.words.split(" ")]
    script = f'{surroundings.before or ":"}; "$@" {surroundings.after}' if surroundings.after else \
        f'{surroundings.before or ":"}; exec "$@"'
    code, out, err = run([*surroundings.within, "bash", "-o", "pipefail", "-c", script, "bash", *DIFFUSE, *words],
                         environment(place.home, **surroundings.variables), place, terminal=surroundings.terminal,
                         left=surroundings.left)
    shown = (out + err).decode(errors="replace")
    assert code in surroundings.expected(one), shown
    assert "Traceback" not in shown
    assert "\x1b" not in shown
    assert not surroundings.ascii or shown.isascii()
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]
    reported = name not in ("full stderr", "closed streams")
    assert len(errors) == (code not in (OK, READER_LEFT, 141, NO_TIME, KILLED) and reported), shown
    assert place.victim.read_text() == "precious"
    assert not (place.directory / "relative").exists()
    counted("Every command in every environment ends as documented, with one line", f"{name}", 1)


def run(arguments, variables, place, *, terminal, left):
    """(exit code, stdout, stderr) of a program; in a terminal, both are stdout."""
    common = {"env": variables, "cwd": place.directory, "timeout": 300}
    if left:
        ours, theirs = os.pipe()
        os.close(ours)
        done = subprocess.run(arguments, **common, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.PIPE)
        os.close(theirs)
        return done.returncode, b"", done.stderr
    if not terminal:
        done = subprocess.run(arguments, **common, capture_output=True, stdin=subprocess.DEVNULL)
        return done.returncode, done.stdout, done.stderr
    ours, theirs = pty.openpty()
    shown = bytearray()

    def read():
        try:
            while data := os.read(ours, 65536):
                shown.extend(data)
        except OSError:                                                 # the other end is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    done = subprocess.run(arguments, **common, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    reader.join(10)
    os.close(ours)
    return done.returncode, bytes(shown), b""


def test_the_quick_cells_name_every_command_and_every_environment():
    assert set(ALL) >= QUICK
    assert {command for command, _ in QUICK} == set(COMMANDS)
    assert {name for _, name in QUICK} == set(ENVIRONMENTS)


def test_every_command_of_the_program_is_in_the_table():
    from diffuse_cli.cli import app

    root = app._command()
    groups = ("models", "data")
    names = {f"{group} {name}" for group in groups for name in root.commands[group].commands}
    names |= root.commands.keys() - set(groups)
    assert {name for name in names if not any(one.words.startswith(name) for one in COMMANDS.values())} == set()
