"""A real training in a process of its own that is killed at a random moment, and started again until one gets through.

The processes are forked from one that has imported torch and never computed anything: a start costs milliseconds, and
no thread is lost on the way. Knows neither what is saved nor how.
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
LONG = 120.0                                    # seconds: a training here takes one
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["pytest", "diffuse_cli.training.loop", "torch._dynamo", "torch._inductor"])


@dataclass
class Tally:
    """What the kills hit."""

    kills: int = 0
    inside_a_save: int = 0
    before_learning: int = 0
    lost: int = 0                               # kills after which the newest whole state was not the newest saved


class Victim:
    """Trains in another process: `progress` is what it does, the last step acknowledged, when learning began (ns)."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.progress = _PROCESSES.RawArray("q", 3)
        self.process = _PROCESSES.Process(target=_train, args=(home, folder, self.progress))
        self.process.start()

    def survives(self, seconds: float) -> bool:
        """Let it train so long, then kill it. Whether it had ended by itself."""
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
    """Of a training, in seconds, as far as known."""

    preparing: float
    learning: float

    def draw(self, rng: random.Random) -> float:
        """A moment to kill at: mostly in the first third of the learning: most attempts get a bit further."""
        if rng.random() < 0.2:
            return rng.uniform(0, self.preparing)
        return self.preparing + rng.uniform(0, self.learning / 3)

    def scale(self, factor: float) -> None:
        self.preparing, self.learning = factor * self.preparing, factor * self.learning


def train_once(home: Path, folder: Path) -> Duration:
    """Train without a disturbance; how long it takes."""
    begun = time.monotonic()
    victim = Victim(home, folder)
    assert victim.survives(LONG), f"no end after {LONG} s"
    learning = victim.progress[2] / 1e9
    return Duration(learning - begun, time.monotonic() - learning)


def train_under_fire(home: Path, folder: Path, duration: Duration, rng: random.Random, tally: Tally) -> None:
    """Kill at random moments and start again, until the training ends by itself.

    `duration` follows the machine: longer where an attempt gets nowhere, shorter where none is hit.
    """
    saved, before = 0, tally.kills
    while True:
        victim = Victim(home, folder)
        if victim.survives(duration.draw(rng)):
            if tally.kills == before:
                duration.scale(0.5)
            return
        doing, reached, _ = victim.progress
        if reached <= saved:
            duration.scale(1.1)
        saved = max(saved, reached)
        tally.kills += 1
        tally.inside_a_save += doing == SAVING
        tally.before_learning += doing == PREPARING
        tally.lost += _newest(tiny.run_directory(home)) < saved


def _newest(directory: Path) -> int:
    """The step that would be resumed from; 0 for the beginning."""
    states = training_states.saved_states(directory) if directory.exists() else []
    return next((state.step for state in states if training_states.is_whole(state)), 0)
