"""Commands killed at any moment: nothing half-made has a final name, and the next start works and cleans up."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import consistent_models
import pytest
import tiny
from PIL import Image
from real import environment

from diffuse_cli.files.temporaries import TEMPORARY
from diffuse_cli.storage import safetensors_file

# A command, forked from a process that has imported what it needs: so most kills hit its work, not its imports.
START = """
import os, sys
from diffuse_cli.cli import app, data, evaluate, export
from diffuse_cli.evaluation import evaluate as measuring
from diffuse_cli.exporting import publishing
from diffuse_cli.reporting import comparison
from diffuse_cli.sampling import upscale
from diffuse_cli.training import loop
import torch
torch.set_num_threads(1)
for line in sys.stdin:
    sys.argv = ["diffuse", *line.split()]
    if (pid := os.fork()) == 0:
        os.setsid()
        os.dup2(2, 1)
        app.main()
    print(pid, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
"""
COMMANDS = {
    "evaluate": "evaluate tiny -n 2 -q",
    "distill": "distill tiny {pictures} --evaluations 1 --steps 3 --batch-size 2 --name taught-{number} -q",
    "export to safetensors": "export tiny --to safetensors -o {out}/slim.safetensors --force -q",
    "export to diffusers": "export tiny --to diffusers -o {out}/folder --force -q",
    "export to onnx": "export tiny --to onnx -o {out}/onnx --force -q",
    "data check": "data check {pictures} -q",
    "cache building": "data preview {pictures} --resolution {resolution} -o {out}/sheet-{number}.png -q",
    "data demo": "data demo {out}/scenes-{number} -n 20 --resolution 16 -q",
    "sample": "sample red blue -n 8 -m tiny --steps 1 -o {out}/drawn --sheet -q",
    "upscale": "upscale {pictures}/000.png -m {upscaler} -o {out}/large-{number}.png -q",
    "models compare": "models compare tiny other -n 2 -o {out}/page-{number}.html -q",
}
FAST = ("export to safetensors", "cache building")


class Starter:
    """Starts commands one after the other, and kills them with their children after some seconds."""

    def __init__(self, home):
        self.process = subprocess.Popen([sys.executable, "-c", START], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True, env=environment(home))

    def run(self, words, seconds=None):
        """→ its exit code"""
        self.process.stdin.write(words + "\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        assert pid > 1
        if seconds is not None:
            time.sleep(seconds)
            with contextlib.suppress(ProcessLookupError):                # it has ended, or has not begun
                os.killpg(pid, signal.SIGKILL)                           # some programs `kill` take -123 for -1: all
        return int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(60)


def half_made(home, out):
    """What lies at a final name and is not whole."""
    for path in (*out.rglob("*"), *home.rglob("*")):
        if any(part.startswith(TEMPORARY) for part in path.parts) or not path.is_file():
            continue
        if path.suffix == ".png":
            with Image.open(path) as picture:
                picture.load()
        elif path.suffix == ".html":
            assert path.read_bytes().rstrip().endswith(b"</html>")
        elif path.suffix == ".json" and not path.name.startswith("seen-"):
            json.loads(path.read_text())
        elif path.suffix == ".safetensors" and (path.parent == out or path.is_relative_to(home)):
            assert safetensors_file.verify_seal(path)
        elif path.name == "index.jsonl":
            header, _, body = path.read_bytes().partition(b"\n")
            assert json.loads(header)["sha256"] == hashlib.sha256(body).hexdigest()
    for folder in ("folder", "onnx"):
        if (out / folder).exists() and not (out / folder / "export.json").exists():
            yield out / folder
        elif (out / folder).exists():
            listed = json.loads((out / folder / "export.json").read_text())["files"]
            yield from (out / folder / name for name in listed if not (out / folder / name).is_file())


@pytest.mark.parametrize(("name", "kills"), [
    *((name, 2) for name in FAST), *(pytest.param(name, 30, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])
                                     for name in COMMANDS)])
def test_a_killed_command_leaves_nothing_half_made(name, kills, squares, trained, home, tmp_path, seed, counted):
    shutil.copytree(trained[0], tiny.run_directory(home))
    shutil.copytree(trained[0], tiny.run_directory(home).with_name("other"))
    shutil.copytree(trained[0].parent.parent / "images", home / "images")
    upscaler = consistent_models.sealed(tmp_path / "upscaler.safetensors", consistent_models.configuration(
        **consistent_models.UPSCALERS["twice"]))
    rng, out, hits = random.Random(seed), tmp_path / "out", 0
    out.mkdir()

    def words(number):
        return COMMANDS[name].format(out=out, pictures=squares, upscaler=upscaler, number=number,
                                     resolution=8 + 8 * (number % 8))

    with Starter(home) as starter:
        begun = time.monotonic()
        assert starter.run(words(0)) == 0
        duration = time.monotonic() - begun
        number = 0
        while hits < kills:
            number += 1
            if starter.run(words(number), rng.uniform(0, duration)) == -9:
                hits += 1
            else:
                duration *= 0.7                                          # it had ended before: the first run was slower
            assert list(half_made(home, out)) == []
        for again in range(number + 1, number + (2 if name != "cache building" else 1 + min(kills, 8))):
            assert starter.run(words(again)) == 0                        # each cache that a kill left is made good
    assert list(half_made(home, out)) == []
    left = [path for place in (out, home / "images", tiny.run_directory(home)) for path in place.rglob(f"{TEMPORARY}*")]
    assert left == []
    counted("A killed command leaves nothing half-made, and the next start cleans up", f"SIGKILL of {name}", hits)
