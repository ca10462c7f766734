"""Trains for real in other processes, kills each at a random moment, and starts again until a training ends by itself.

The processes are forked from one that has imported torch, but never computed anything: so a start costs milliseconds,
and no thread is lost by the fork. This module knows nothing of the files that are saved.
"""

import multiprocessing
import random
import time
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import tiny
import torch

from diffuse_cli.storage import training_states
from diffuse_cli.training import loop as training
from diffuse_cli.training import saving

PREPARING, LEARNING, SAVING = 0, 1, 2
TIMEOUT = 120.0                                 # seconds until a training has failed; one takes about a second
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["pytest", "diffuse_cli.training.loop", "torch._dynamo", "torch._inductor"])


@dataclass
class Tally:
    """How many kills hit which part of a training."""

    kills: int = 0
    inside_a_save: int = 0
    before_learning: int = 0
    lost: int = 0                               # kills after which an acknowledged state was gone


class Victim:
    """A process that trains. `progress` has its activity, the last acknowledged step, the start of its steps in ns."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.progress = _PROCESSES.RawArray("q", 3)
        self.process = _PROCESSES.Process(target=_train, args=(home, folder, self.progress))
        self.process.start()

    def survives(self, seconds: float) -> bool:
        """Let it train for so many seconds, then kill it. → whether it had ended by itself"""
        self.process.join(seconds)
        self.process.kill()
        self.process.join()
        assert self.process.exitcode in (0, -9), "the training failed; its traceback is above"
        return self.process.exitcode == 0


def _train(home: Path, folder: Path, progress) -> None:
    torch.set_num_threads(1)
    loop, save, acknowledge = training._loop, saving.save, training_states.acknowledge

    def looping(*arguments):
        progress[0], progress[2] = LEARNING, time.monotonic_ns()
        return (yield from loop(*arguments))

    def counting_save(session):
        progress[0] = SAVING
        event = save(session)
        progress[0] = LEARNING
        return event

    def acknowledging(directory, state, **options):
        acknowledge(directory, state, **options)
        progress[1] = state.step

    with tiny.at_home(home), mock.patch.object(training, "_loop", looping), \
            mock.patch.object(saving, "save", counting_save), \
            mock.patch.object(training_states, "acknowledge", acknowledging):
        tiny.train(folder, save_every="1")


@dataclass
class Duration:
    """The estimated seconds that a training takes."""

    preparing: float
    learning: float

    def draw(self, rng: random.Random) -> float:
        """The seconds until a kill. Most fall into the first third of the steps, so that most attempts get further."""
        if rng.random() < 0.2:
            return rng.uniform(0, self.preparing)
        return self.preparing + rng.uniform(0, self.learning / 3)

    def scale(self, factor: float) -> None:
        self.preparing, self.learning = factor * self.preparing, factor * self.learning


def train_once(home: Path, folder: Path) -> Duration:
    """Train without a kill. → how long it took"""
    begun = time.monotonic()
    victim = Victim(home, folder)
    assert victim.survives(TIMEOUT), f"no end after {TIMEOUT} s"
    learning = victim.progress[2] / 1e9
    return Duration(learning - begun, time.monotonic() - learning)


def train_under_fire(home: Path, folder: Path, duration: Duration, rng: random.Random, tally: Tally) -> None:
    """Kill at random moments and start again, until the training ends by itself.

    `duration` adapts to the machine: it grows when an attempt saves nothing new, and shrinks when no kill hits.
    """
    saved, before = 0, tally.kills
    while True:
        victim = Victim(home, folder)
        if victim.survives(duration.draw(rng)):
            if tally.kills == before:
                duration.scale(0.5)
            return
        activity, reached, _ = victim.progress
        if reached <= saved:
            duration.scale(1.1)
        saved = max(saved, reached)
        tally.kills += 1
        tally.inside_a_save += activity == SAVING
        tally.before_learning += activity == PREPARING
        tally.lost += _newest(tiny.run_directory(home)) < saved


def _newest(directory: Path) -> int:
    """The step from which a training would resume; 0 for none."""
    states = training_states.saved_states(directory) if directory.exists() else []
    return next((state.step for state in states if training_states.is_whole(state)), 0)
