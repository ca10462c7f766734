"""The protocol for saving a run's training states: which files there are, which are whole, and which are deleted.

To this module, a state is a file with a step number. The two HEAD files say which states are whole.
"""

import contextlib
import dataclasses
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..files import durable
from ..files.input_files import open_input, read_input
from ..files.strict_json import MAX_JSON_BYTES, loads_strict
from .safetensors_file import verify_seal
from .safetensors_header import MAX_FILE_BYTES

KEPT = 2                                        # newest states that are kept
BEST_FILE = "best.safetensors"                  # the averaged weights that did best on held-out pictures, as a model
HEADS = ("HEAD-0", "HEAD-1")
_STATE = re.compile(r"step-(\d{8,})\.safetensors")


@dataclass(frozen=True)
class SavedState:
    """A training state on the disk."""

    step: int
    path: Path
    bytes: int
    sha256: str | None                          # of the whole file as acknowledged; None if it never was


def is_state_or_head(name: str) -> bool:
    """Whether a file of that name in a run's directory is a state or a HEAD."""
    return name in HEADS or _STATE.fullmatch(name) is not None


def state_path(directory: Path, step: int) -> Path:
    """The file for the state of `step`. Every step has its own: no state is written over that of another step."""
    return directory / f"step-{step:08d}.safetensors"


def acknowledge(directory: Path, state: SavedState, *, keep: int | None = None) -> None:
    """Declare a state that is durably on the disk to be the newest, then delete others.

    HEAD-0 and HEAD-1 take turns, so that a torn write of one leaves the other. KEPT states stay, and the state of step
    `keep`. No later state stays: either it was not whole, or its steps are trained again with another plan.
    """
    heads = _heads(directory)
    earlier = {slot: head.step for slot, head in heads.items() if head.step < state.step}
    slot = min((0, 1), key=lambda slot: earlier.get(slot, -1))
    content = {"step": state.step, "file": state.path.name, "bytes": state.bytes, "sha256": state.sha256}
    durable.write(directory / HEADS[slot], json.dumps(content).encode())
    if (other := heads.get(1 - slot)) and other.step > state.step:
        durable.remove(directory / HEADS[1 - slot])
    files, acknowledged = _state_files(directory), {head.step for head in _heads(directory).values()}
    later = [step for step in files if step > state.step]
    ranked = sorted(files.keys() - set(later), key=lambda step: (step in acknowledged, step))
    for step in (*later, *(step for step in ranked[:-KEPT] if step != keep)):
        with contextlib.suppress(OSError):
            files[step].unlink()


def saved_states(directory: Path) -> list[SavedState]:
    """The states that a run may resume from: the acknowledged ones, newest first, then the others.

    The others are needed when both HEADs are lost.
    """
    heads = {head.step: head for head in sorted(_heads(directory).values(), key=lambda head: head.step, reverse=True)}
    others = sorted(_state_files(directory).items(), reverse=True)
    return [*heads.values(), *(SavedState(step, path, path.stat().st_size, None) for step, path in others
                               if step not in heads)]


def rewind(directory: Path, *, limit: int) -> None:
    """Make the newest whole state of at most `limit` steps the newest of all: later states are deleted.

    Does nothing if there are no states. Raises ModelError if there are only later ones.
    """
    states = saved_states(directory)
    for state in sorted(states, key=lambda state: state.step, reverse=True):
        if state.step <= limit and is_whole(state):
            acknowledge(directory, dataclasses.replace(state, sha256=_digest(state.path)))
            return
    if states:
        raise ModelError("no state from before the cool-down is left, so the run cannot become longer",
                         hint="Start anew with --fresh, or from its model with --init and another --name")


def _digest(path: Path) -> str:
    with open_input(path, limit=MAX_FILE_BYTES) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(state: SavedState) -> bool:
    """Whether a state's file has the bytes that were acknowledged; if it never was, the bytes that were sealed."""
    try:
        if state.sha256 is None:
            return verify_seal(state.path)
        return _digest(state.path) == state.sha256
    except (OSError, ModelError):
        return False


def _heads(directory: Path) -> dict[int, SavedState]:
    heads = {}
    for slot in (0, 1):
        with contextlib.suppress(Exception):                        # a damaged HEAD is no HEAD
            content = loads_strict(read_input(directory / HEADS[slot], limit=MAX_JSON_BYTES))
            step, file = int(content["step"]), str(content["file"])
            if file == state_path(directory, step).name:
                heads[slot] = SavedState(step, directory / file, int(content["bytes"]), str(content["sha256"]))
    return heads


def _state_files(directory: Path) -> dict[int, Path]:
    return {int(match[1]): path for path in directory.iterdir() if (match := _STATE.fullmatch(path.name))}
