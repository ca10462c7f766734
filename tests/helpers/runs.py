"""Helpers for tests of whole runs of `tiny`: the files in a run's directory, and its events."""

import tiny

from diffuse_cli import events

STATE = "step-00000008.safetensors"             # the last state of `tiny.RECIPE`


def results(directory):
    """The bytes that must not depend on how the end was reached."""
    return {name: (directory / name).read_bytes() for name in ("model.safetensors", STATE)}


def steps_of(kind, stream):
    """The steps of all events of this kind."""
    return [event.step for event in tiny.of_kind(kind, stream)]


def warnings(stream):
    """The messages of all warnings."""
    return [event.message for event in tiny.of_kind(events.Noticed, stream) if event.level == "warning"]


def listing(folder):
    """Time, size and content of everything in a folder, for comparisons."""
    return {path: (path.stat().st_mtime_ns, path.stat().st_size, path.is_file() and path.read_bytes())
            for path in (folder, *folder.rglob("*"))}
