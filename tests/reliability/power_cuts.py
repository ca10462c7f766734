"""A training is recorded, the power is cut at every moment of the record, and the real recovery judges what is left.

Knows what was promised to the user; not how it is kept.
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

from diffuse_cli.engine import header, registry, runs
from diffuse_cli.engine.errors import DiffuseError

RECIPE = dataclasses.replace(small_run.RECIPE, steps=7)
DIES_AT = 4                                     # saved by the first life, never acknowledged by it
ACKNOWLEDGED = "acknowledged"


@dataclass
class Record:
    """Everything that two lives of a training did to the disk, and which bytes each state had."""

    directory: Path
    log: list[tuple] = field(default_factory=list)
    hashes: dict[int, str] = field(default_factory=dict)


def record_training(home: Path, folder: Path) -> Record:
    """The first life ends between the state of a step and its acknowledgement, the second goes on to the end."""
    small_run.decode(folder)
    acknowledge, recorder, lives = runs.acknowledge, Recorder(), 0
    record = Record(tiny.run_directory(home, "small"), recorder.log)

    def noted(directory: Path, state: runs.SavedState, **options) -> None:
        record.hashes[state.step] = hashlib.sha256(state.path.read_bytes()).hexdigest()
        if state.step == DIES_AT and lives == 1:
            raise Died
        acknowledge(directory, state, **options)
        recorder.note(ACKNOWLEDGED, state.step)

    with mock.patch.object(runs, "acknowledge", noted), watched(home, recorder):
        for lives in (1, 2):  # noqa: B007 - `noted` reads it
            with contextlib.suppress(Died):
                list(small_run.train(folder, RECIPE))
    return record


def breaches(record: Record, *, count: int, rng: random.Random, place: Path) -> Iterator[str]:
    """Promises broken on the disks that are found after so many power cuts, built one after another at `place`."""
    moments = sorted(rng.choices(range(len(record.log) + 1), k=count))
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
    """Such a disk, as a directory. Nothing may depend on the times of files: clocks jump."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path, data in files.items():
        if path.parent == directory:
            (place / path.name).write_bytes(data)
            os.utime(place / path.name, (rng.randrange(2**31),) * 2)


def _judge(place: Path, acknowledged: int, hashes: dict[int, str]) -> Iterator[str]:
    state = next((state for state in runs.saved_states(place) if runs.is_whole(state)), None)
    if state is None:
        if acknowledged:
            yield f"step {acknowledged} was acknowledged, nothing is found"
    elif state.step < acknowledged:
        yield f"step {acknowledged} was acknowledged, {state.step} is found"
    elif hashlib.sha256(state.path.read_bytes()).hexdigest() != hashes[state.step]:
        yield f"the state of step {state.step} is taken for whole, but has other bytes"
    model = place / registry.MODEL_FILE
    try:
        if acknowledged and runs.read_config(place) is None:
            yield "the plan of the run is lost"
        if model.exists() and not header.verify_seal(model):
            yield "the model has lost its seal"
    except DiffuseError as error:
        yield str(error)
