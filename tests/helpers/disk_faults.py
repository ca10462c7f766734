"""Injects one fault into one disk call of a training, runs the same command again, and reports broken promises.

This module knows how disks fail, not how the program protects itself.
"""

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import small_run
import tiny
from disk_door import Call, Watcher, watched

from diffuse_cli import events
from diffuse_cli.errors import StorageError

CRASH, FULL_ONCE, FULL, BROKEN, SHORT, INTERRUPTED = KINDS = (
    "crash", "ENOSPC once", "ENOSPC for ever", "EIO once", "short write", "EINTR")
NEEDS_ROOM = ("write", "fsync", "mkdir", "replace", "rename", "link")           # and any call that creates a file


class Died(BaseException):
    """The process has ended: after this, none of its handlers may write or remove anything."""


class Fault:
    """A watcher that makes the call at `position` fail, and later calls if the fault lasts. All others go through."""

    def __init__(self, kind: str, position: int) -> None:
        self.kind, self.position, self.seen, self.dead = kind, position, 0, False

    def __call__(self, call: Call) -> object:
        if self.dead:
            raise Died
        self.seen += 1
        late = self.seen > self.position and self.kind == FULL and applies(self.kind, call)
        return self._strike(call) if late or self.seen == self.position else call.go()

    def _strike(self, call: Call) -> object:
        assert applies(self.kind, call), f"{call.name} cannot fail so"
        if self.kind == CRASH:
            self.dead = True
        if call.name == "write":                                   # half of the bytes are written before any fault
            data = bytes(call.arguments[1])
            count = call.go(data[:(len(data) + 1) // 2])
            if self.kind == SHORT:
                return count
        if self.kind == CRASH:
            raise Died
        if call.name == "fsync":
            _lose_pages(call.arguments[0])
        code = {BROKEN: errno.EIO, INTERRUPTED: errno.EINTR}.get(self.kind, errno.ENOSPC)
        raise OSError(code, os.strerror(code), str(call.path))


def _lose_pages(descriptor: int) -> None:
    """Do as Linux does when fsync fails: drop the pages, so that a second fsync succeeds and the data are lost."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        os.pwrite(descriptor, bytes(status.st_size), 0)


def applies(kind: str, call: Call) -> bool:
    """Whether this kind of fault can happen to this call."""
    if kind == SHORT:
        return call.name == "write" and len(call.arguments[1]) > 1
    return kind not in (FULL_ONCE, FULL) or call.name in NEEDS_ROOM or call.creates


def calls_of_a_training(home: Path, folder: Path) -> list[Call]:
    """All disk calls of an undisturbed training."""
    calls: list[Call] = []

    def note(call: Call) -> object:
        calls.append(call)
        return call.go()

    _train(home, folder, note)
    return calls


def breaches(home: Path, folder: Path, kind: str, position: int, expected: dict[str, bytes]) -> Iterator[str]:
    """The promises that a training with this fault breaks, or the undisturbed training after it."""
    small_run.forget(home)
    events_before, outcome = _train(home, folder, Fault(kind, position))
    finished = outcome is None
    if isinstance(outcome, StorageError):
        if outcome.exit_code != 6 or kind in (CRASH, SHORT):
            yield f"the user was told: {outcome}"
    elif not (finished or isinstance(outcome, Died)):
        yield f"unexpected {outcome!r}"
    if finished and small_run.results(home) != expected:
        yield "it seemed to end well, with other results"
    events_now, outcome = _train(home, folder)
    if outcome is not None:
        yield f"it could not be resumed: {outcome!r}"
        return
    if (start := tiny.of_kind(events.Started, events_now)[0].step) < _saved(events_before):
        yield f"it was saved at step {_saved(events_before)}, but resumed from {start}"
    if not events_now[-1].complete or small_run.results(home) != expected:
        yield "other results after resuming"
    if left := small_run.temporaries(home):
        yield f"left behind: {[str(path.relative_to(home)) for path in left]}"


def _train(home: Path, folder: Path, watcher: Watcher = lambda call: call.go(),
           ) -> tuple[list[events.Event], BaseException | None]:
    """Train. → (its events, the error that ended it). There is no power cut here, so fsync does nothing."""
    events_now: list[events.Event] = []
    try:
        with mock.patch.object(os, "fsync", return_value=None), watched(home, watcher):
            for event in small_run.train(folder):
                events_now.append(event)
    except (Died, Exception) as error:
        return events_now, error
    return events_now, None


def _saved(events_now: list[events.Event]) -> int:
    """The last step that an event reported as saved."""
    return max((event.step for event in tiny.of_kind(events.Saved, events_now)), default=0)
