"""Several programs use one run at the same time: only one trains, and a reader always finds a whole model."""

import json
import random
import subprocess
import sys
import time

import pytest
import tiny
import torch
from real import command, environment, wait_until

from diffuse_cli.storage import checkpoint

START = """
import sys, time
from pathlib import Path
from diffuse_cli.cli import app
start, delay = Path(sys.argv.pop(1)), float(sys.argv.pop(1))
print("ready", file=sys.stderr, flush=True)
while not start.exists():
    pass
time.sleep(delay)
app.main()
"""
FOR_EVER = ("--steps", "100000")


def racer(arguments, start, delay, home):
    """A program that has imported its modules, and runs the command as soon as the file `start` exists."""
    return subprocess.Popen([sys.executable, "-c", START, str(start), str(delay), *arguments[3:]],
                            env=environment(home), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("races", [5, pytest.param(50, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_of_two_trainers_one_wins_and_the_other_is_told(squares, home, tmp_path, seed, counted, races):
    rng = random.Random(seed)
    for number in range(races):
        start = tmp_path / f"start-{number}"
        two = [racer(command(squares, *FOR_EVER), start, delay, home) for delay in (0, rng.uniform(0, 0.02))]
        try:
            for one in two:
                assert one.stderr.readline() == "ready\n"
            start.touch()
            wait_until(lambda two=two: any(one.poll() is not None for one in two))
            loser, winner = sorted(two, key=lambda one: one.poll() is None)
            assert loser.returncode == 5
            assert winner.poll() is None
            assert f"being trained by process {winner.pid}" in loser.stderr.read()
        finally:
            for one in two:
                one.kill()
                one.communicate()
    counted("Of two trainers of one run, one wins; the other ends with exit 5 and names it", "both begin within 20 ms",
            races)


@pytest.mark.parametrize("loads", [20, pytest.param(500, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_a_model_in_training_is_whole_whenever_it_is_read(squares, home, counted, loads):
    path = tiny.run_directory(home) / "model.safetensors"
    train = command(squares, *FOR_EVER, "--save-every", "1")
    with subprocess.Popen(train, env=environment(home), stderr=subprocess.DEVNULL) as training:
        wait_until(path.exists)
        steps = []
        for _ in range(loads):
            steps.append(checkpoint.load_model(path, torch.device("cpu")).training.step)    # judges every byte
            time.sleep(0.01)
        assert diffuse(home, "models", "ls", "--json").returncode == 0
        shown = diffuse(home, "models", "show", "tiny", "--json")
        assert json.loads(shown.stdout)["training"]["step"] >= steps[-1]
        refused = diffuse(home, "models", "rm", "tiny", "--yes")
        assert (refused.returncode, f"being trained by process {training.pid}" in refused.stderr) == (5, True)
        drawn = diffuse(home, "sample", "a red square", "-m", "tiny", "--steps", "1", "-o", str(home / "out"))
        assert drawn.returncode == 0, drawn.stderr
        assert training.poll() is None
        training.kill()
    assert steps == sorted(steps)
    assert len(set(steps)) > loads / 10         # models were really read while others were written
    counted("A model in training is whole whenever it is read", "loaded while it is saved after every step", loads)


def diffuse(home, *arguments):
    return subprocess.run([sys.executable, "-m", "diffuse_cli", *arguments], env=environment(home), timeout=60,
                          capture_output=True, text=True, check=False)
