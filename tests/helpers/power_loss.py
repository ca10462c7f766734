"""Simulates power cuts: turns a log of the changes to a directory into the disks that may be found after a cut.

It keeps what POSIX promises, and nothing more: the bytes of a file are safe after its fsync, its name after the fsync
of the directory. Before that, each may be there or not, independently; the bytes may also be cut, or zeros.
"""

import os
import random
import stat
from dataclasses import dataclass, field
from pathlib import Path

from disk_door import Call


@dataclass
class File:
    """The contents of one file, which may have several names."""

    written: bytes = b""
    synced: bytes = b""

    def found(self, rng: random.Random) -> bytes:
        """Contents that may be read after the cut."""
        if self.written == self.synced:
            return self.synced
        cut = rng.randrange(len(self.written) + 1)
        return rng.choice((self.written, self.synced, self.written[:cut], bytes(len(self.written)),
                           self.written[:cut] + bytes(len(self.written) - cut)))


@dataclass
class Disk:
    """The files of a disk, and which of their names and bytes are safe. Replays a log, entry by entry."""

    files: dict[int, File] = field(default_factory=dict)
    lasting: dict[Path, int] = field(default_factory=dict)               # name → number of the file
    pending: list[tuple[str, Path, Path | int]] = field(default_factory=list)         # names not yet sure

    def apply(self, entry: tuple) -> None:
        kind, *rest = entry
        if kind == "bytes":
            number, data = rest
            self.files.setdefault(number, File()).written = data
        elif kind == "fsync":
            self.files[rest[0]].synced = self.files[rest[0]].written
        elif kind == "fsync directory":
            _rename(self.lasting, [change for change in self.pending if change[1].parent == rest[0]])
            self.pending = [change for change in self.pending if change[1].parent != rest[0]]
        elif kind in ("create", "rename", "link", "unlink"):
            self.pending.append(entry)

    def found(self, rng: random.Random) -> dict[Path, bytes]:
        """Names and contents that may be there after a cut at this moment."""
        names, share = dict(self.lasting), rng.choice((0.0, 0.5, 1.0))
        _rename(names, [change for change in self.pending if rng.random() < share])
        return {path: self.files[number].found(rng) for path, number in names.items()}


def _rename(names: dict[Path, int], changes: list[tuple[str, Path, Path | int]]) -> None:
    """Apply changes to names: create, rename, link and unlink. A rename or link without its source does nothing."""
    for kind, path, other in changes:
        if kind == "create":
            names[path] = other
        elif kind == "unlink":
            names.pop(path, None)
        elif path in names:
            names[other] = names.pop(path) if kind == "rename" else names[path]


class Recorder:
    """A watcher that writes the log. Callers add entries of their own with `note`."""

    def __init__(self) -> None:
        self.log: list[tuple] = []
        self._numbers: dict[Path, int] = {}
        self._open: dict[int, int] = {}

    def note(self, *entry) -> None:
        self.log.append(entry)

    def __call__(self, call: Call) -> object:
        if call.name == "fsync":                                   # it is not made, because a real disk takes time
            directory = stat.S_ISDIR(os.fstat(call.arguments[0]).st_mode)
            return self.note(*(("fsync directory", call.path) if directory else
                               ("fsync", self._open[call.arguments[0]])))
        result = call.go()
        if call.name == "open" and call.path.is_file():
            self._opened(call, result)
        elif call.name in ("write", "ftruncate"):
            self._bytes(self._open[call.arguments[0]])
        elif call.name in ("replace", "rename", "link"):
            self.note("link" if call.name == "link" else "rename", call.path, call.target)
            self._numbers[call.target] = self._numbers[call.path]
        elif call.name == "unlink":
            self.note("unlink", call.path, 0)
        if call.name in ("replace", "rename", "unlink"):
            del self._numbers[call.path]
        return result

    def _opened(self, call: Call, descriptor: int) -> None:
        new = call.path not in self._numbers
        number = self._open[descriptor] = self._numbers.setdefault(call.path, len(self.log))
        if new or call.arguments[1] & os.O_TRUNC:
            self._bytes(number)
        if new:
            self.note("create", call.path, number)

    def _bytes(self, number: int) -> None:
        path = next(path for path, other in self._numbers.items() if other == number)
        self.note("bytes", number, path.read_bytes())
