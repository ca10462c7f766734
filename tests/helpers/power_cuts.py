"""Records a training, cuts the power at every moment of the record, and lets the real recovery read what is left.

This module knows what was promised to the user, not how the program keeps it.
"""

import contextlib
import dataclasses
import hashlib
import os
import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import small_run
import tiny
from disk_door import watched
from disk_faults import Died
from power_loss import Disk, Recorder

from diffuse_cli.errors import DiffuseError
from diffuse_cli.storage import registry, run_directory, safetensors_file, training_states

STEPS, LONGER = 8, 11                           # steps of the first two starts, and of a third with a longer budget
DIES_AT = 4                                     # step whose state the first process saves, but never acknowledges
ACKNOWLEDGED = "acknowledged"


@dataclass
class Record:
    """All that three processes of one training did to the disk, and the hash of each state in each plan."""

    directory: Path
    log: list[tuple] = field(default_factory=list)
    hashes: dict[tuple[int, int], str] = field(default_factory=dict)         # by (steps of the plan, step)


def record_training(home: Path, folder: Path) -> Record:
    """Record three processes: the first dies between a state and its acknowledgement, the second completes the
    training, the third trains beyond it with a longer budget.
    """
    small_run.decode(folder)
    recorder = Recorder()
    record = Record(tiny.run_directory(home, "small"), recorder.log)
    acknowledge, rewind = training_states.acknowledge, training_states.rewind

    def acknowledging(directory: Path, state: training_states.SavedState, **options) -> None:
        steps = run_directory.read_config(directory)["plan"]["steps"]
        record.hashes[steps, state.step] = state.sha256
        if state.step == DIES_AT and process == "first":
            raise Died
        acknowledge(directory, state, **options)
        recorder.note(ACKNOWLEDGED, state.step)

    def rewinding(directory: Path, *, limit: int) -> None:
        recorder.note(ACKNOWLEDGED, limit)                         # from now on, later states may be lost
        record.hashes.update({(LONGER, step): digest for (_, step), digest in record.hashes.items() if step <= limit})
        rewind(directory, limit=limit)

    with mock.patch.object(training_states, "acknowledge", acknowledging), \
            mock.patch.object(training_states, "rewind", rewinding), watched(home, recorder):
        for process, steps in (("first", STEPS), ("second", STEPS), ("third", LONGER)):  # noqa: B007 - read above
            with contextlib.suppress(Died):
                list(small_run.train(folder, dataclasses.replace(small_run.RECIPE, steps=steps)))
    return record


def breaches(record: Record, *, count: int, rng: random.Random, place: Path) -> Iterator[str]:
    """The promises that are broken after `count` power cuts, spread evenly over all moments of the record.

    The disk that each cut leaves is built at `place`.
    """
    moments = sorted(number % (len(record.log) + 1) for number in range(count))
    disk, acknowledged, done = Disk(), 0, 0
    for moment in moments:
        for kind, *rest in record.log[done:moment]:
            disk.apply((kind, *rest))
            acknowledged = rest[0] if kind == ACKNOWLEDGED else acknowledged
        done = moment
        _build(place, record.directory, disk.found(rng), rng)
        for breach in _judge(place, acknowledged, record.hashes):
            yield f"cut after {moment} of {len(record.log)} operations: {breach}"


def _build(place: Path, directory: Path, files: dict[Path, bytes], rng: random.Random) -> None:
    """Build the run's directory with these files. Their times are random: nothing may depend on a clock."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path, data in files.items():
        if path.parent == directory:
            (place / path.name).write_bytes(data)
            os.utime(place / path.name, (rng.randrange(2**31),) * 2)


def _judge(place: Path, acknowledged: int, hashes: dict[tuple[int, int], str]) -> Iterator[str]:
    try:
        config, model = run_directory.read_config(place), place / registry.MODEL_FILE
        if model.exists() and not safetensors_file.verify_seal(model):
            yield "the model has lost its seal"
    except DiffuseError as error:
        yield str(error)
        return
    state = next((state for state in training_states.saved_states(place) if training_states.is_whole(state)), None)
    if config is None or state is None:
        if acknowledged:
            yield f"step {acknowledged} was acknowledged, and {'the plan is lost' if state else 'nothing is found'}"
    elif state.step < acknowledged:
        yield f"step {acknowledged} was acknowledged, {state.step} is found"
    elif hashlib.sha256(state.path.read_bytes()).hexdigest() != hashes.get((config["plan"]["steps"], state.step)):
        yield f"the state of step {state.step} is taken for whole, but does not belong to the plan"
