"""One fault at one call to the disk during a whole training, then the same command again: what it breaks, if anything.

Knows how disks fail; not how the program protects itself.
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
NEEDS_ROOM = ("write", "fsync", "mkdir", "replace", "rename", "link")           # and whatever creates a file


class Died(BaseException):
    """The process ended here: no handler of it writes or removes anything any more."""


class Fault:
    """A watcher that lets all calls through but the one at `position`, and what its failure entails."""

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
        if call.name == "write":                                   # whatever goes wrong, half of it gets through
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
    """When fsync fails, Linux forgets what it could not write: a second fsync succeeds, and the data are lost."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        os.pwrite(descriptor, bytes(status.st_size), 0)


def applies(kind: str, call: Call) -> bool:
    """Whether such a fault can happen to such a call."""
    if kind == SHORT:
        return call.name == "write" and len(call.arguments[1]) > 1
    return kind not in (FULL_ONCE, FULL) or call.name in NEEDS_ROOM or call.creates


def calls_of_a_training(home: Path, folder: Path) -> list[Call]:
    """Every call to the disk that an undisturbed training makes."""
    calls: list[Call] = []

    def note(call: Call) -> object:
        calls.append(call)
        return call.go()

    _train(home, folder, note)
    return calls


def breaches(home: Path, folder: Path, kind: str, position: int, expected: dict[str, bytes]) -> Iterator[str]:
    """Promises broken by a training with this fault and by the undisturbed one after it."""
    small_run.forget(home)
    told_before, outcome = _train(home, folder, Fault(kind, position))
    finished = outcome is None
    if isinstance(outcome, StorageError):
        if outcome.exit_code != 6 or kind in (CRASH, SHORT):
            yield f"the user was told: {outcome}"
    elif not (finished or isinstance(outcome, Died)):
        yield f"unexpected {outcome!r}"
    if finished and small_run.results(home) != expected:
        yield "it seemed to end well, with other results"
    told, outcome = _train(home, folder)
    if outcome is not None:
        yield f"it could not be resumed: {outcome!r}"
        return
    if (start := tiny.of_kind(events.Started, told)[0].step) < _saved(told_before):
        yield f"it was saved at step {_saved(told_before)}, but resumed from {start}"
    if not told[-1].complete or small_run.results(home) != expected:
        yield "other results after resuming"
    if left := small_run.temporaries(home):
        yield f"left behind: {[str(path.relative_to(home)) for path in left]}"


def _train(home: Path, folder: Path, watcher: Watcher = lambda call: call.go(),
           ) -> tuple[list[events.Event], BaseException | None]:
    """What a training told, and what ended it. Nobody cuts the power here, so nobody waits for the disk."""
    told: list[events.Event] = []
    try:
        with mock.patch.object(os, "fsync", return_value=None), watched(home, watcher):
            for event in small_run.train(folder):
                told.append(event)
    except (Died, Exception) as error:
        return told, error
    return told, None


def _saved(told: list[events.Event]) -> int:
    """The last step that was said to be saved."""
    return max((event.step for event in tiny.of_kind(events.Saved, told)), default=0)
