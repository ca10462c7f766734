"""Mistakes in crash safety, each of which some program has shipped. Every mutant replaces a few lines of ours.

A mutant is a function that gets pytest's MonkeyPatch. It does not know which test will notice it.
"""

import contextlib
import os
import stat
from pathlib import Path

import pytest

from diffuse_cli.files import durable
from diffuse_cli.storage import training_states

Patch = pytest.MonkeyPatch
TEMPORARY = f"{durable.TEMPORARY}mutant"


def files_are_not_synced(patch: Patch) -> None:
    sync = durable._sync
    patch.setattr(durable, "_sync", lambda descriptor: sync(descriptor) if _is_directory(descriptor) else None)


def directories_are_not_synced(patch: Patch) -> None:
    patch.setattr(durable, "sync_directory", lambda path: None)


def the_plan_is_not_synced(patch: Patch) -> None:
    _write_otherwise(patch, "config.json", lambda path, data: _in_place(path, data, sync=False))


def files_are_renamed_before_they_are_synced(patch: Patch) -> None:
    def write(path: Path, data: bytes) -> None:
        descriptor = os.open(path.with_name(TEMPORARY), os.O_WRONLY | os.O_CREAT)
        os.write(descriptor, data)
        os.replace(path.with_name(TEMPORARY), path)
        os.fsync(descriptor)
        os.close(descriptor)
        durable.sync_directory(path.parent)

    _write_otherwise(patch, "", write)


def files_are_written_in_place(patch: Patch) -> None:
    _write_otherwise(patch, "", lambda path, data: _in_place(path, data, sync=True))


def the_head_is_written_before_the_state(patch: Patch) -> None:
    write, waiting = durable.write, []

    def late(path: Path, data: bytes, **options) -> None:
        if path.name.startswith("step-"):
            waiting.append((path, data))
            return
        if waiting and not path.name.startswith("HEAD-"):
            write(*waiting.pop())
        write(path, data, **options)

    patch.setattr(durable, "write", late)


def all_states_have_the_same_name(patch: Patch) -> None:
    patch.setattr(training_states, "state_path", lambda directory, step: directory / "step-00000001.safetensors")


def the_head_is_always_in_the_same_slot(patch: Patch) -> None:
    write = durable.write
    _write_otherwise(patch, "HEAD-", lambda path, data: write(path.with_name("HEAD-0"), data))


def old_states_are_deleted_before_the_head_is_written(patch: Patch) -> None:
    acknowledge = training_states.acknowledge

    def early(directory: Path, state: training_states.SavedState, **options) -> None:
        files = training_states._state_files(directory)
        for step in sorted(files)[:-training_states.KEPT]:
            files[step].unlink()
        acknowledge(directory, state, **options)

    patch.setattr(training_states, "acknowledge", early)


def only_one_state_is_kept(patch: Patch) -> None:
    patch.setattr(training_states, "KEPT", 1)


def states_are_not_verified(patch: Patch) -> None:
    patch.setattr(training_states, "is_whole", lambda state: state.path.exists())


def states_are_ordered_by_the_time_of_their_files(patch: Patch) -> None:
    states = training_states.saved_states
    patch.setattr(training_states, "saved_states", lambda directory: sorted(
        states(directory), key=lambda state: state.path.stat().st_mtime if state.path.exists() else 0, reverse=True))


def rewinding_leaves_the_later_head(patch: Patch) -> None:
    patch.setattr(durable, "remove", lambda path: None)


def short_writes_are_not_noticed(patch: Patch) -> None:
    patch.setattr(durable, "_write_all", lambda descriptor, data: os.write(descriptor, data))


def errors_of_fsync_are_ignored(patch: Patch) -> None:
    sync = durable._sync

    def ignoring(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            sync(descriptor)

    patch.setattr(durable, "_sync", ignoring)


def fsync_is_tried_again(patch: Patch) -> None:
    sync = durable._sync

    def again(descriptor: int) -> None:
        try:
            sync(descriptor)
        except OSError:
            sync(descriptor)

    patch.setattr(durable, "_sync", again)


def errors_are_not_explained(patch: Patch) -> None:
    def fail(error: OSError, path: Path, *, need: int = 0) -> None:
        raise error

    patch.setattr(durable, "fail", fail)


def temporaries_stay(patch: Patch) -> None:
    patch.setattr(durable, "remove_temporaries", lambda directory: None)


def _is_directory(descriptor: int) -> bool:
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def _write_otherwise(patch: Patch, prefix: str, other) -> None:
    """Make `durable.write` call `other` for files whose names begin with `prefix`."""
    write = durable.write

    def written(path: Path, data, **options) -> None:
        if path.name.startswith(prefix):
            other(path, data if isinstance(data, bytes) else b"".join(data))
        else:
            write(path, data, **options)

    patch.setattr(durable, "write", written)


def _in_place(path: Path, data: bytes, *, sync: bool) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.write(descriptor, data)
    if sync:
        os.fsync(descriptor)
        durable.sync_directory(path.parent)
    os.close(descriptor)
