"""A training may be killed at any moment, any number of times: it ends with the same bits as an undisturbed one."""

import hashlib
import random
import shutil

import pytest
import small_run
import tiny
from killing import Tally, train_once, train_under_fire


def results(directory):
    return [hashlib.sha256((directory / name).read_bytes()).hexdigest()
            for name in ("model.safetensors", "step-00000008.safetensors")]


@pytest.mark.usefixtures("decoded")
@pytest.mark.parametrize("kills", [10, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_a_training_that_is_killed_again_and_again_ends_bit_identical(squares, home, seed, counted, kills):
    tally, rng, directory = Tally(), random.Random(seed), tiny.run_directory(home)
    train_once(home, squares)                   # also starts the process from which all others are forked
    shutil.rmtree(directory)
    duration = train_once(home, squares)
    expected = results(directory)
    while tally.kills < kills:
        shutil.rmtree(directory)
        train_under_fire(home, squares, duration, rng, tally)
        assert results(directory) == expected, f"after {tally}"
        assert not small_run.temporaries(home)
    print(tally, duration)
    assert tally.lost == 0
    assert tally.before_learning < tally.kills
    promise = "A killed training resumes, bit for bit"
    counted(promise, "SIGKILL inside a save", tally.inside_a_save)
    counted(promise, "SIGKILL before the first step", tally.before_learning)
    counted(promise, "SIGKILL at another moment", tally.kills - tally.inside_a_save - tally.before_learning)
