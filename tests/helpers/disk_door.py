"""Shows a watcher every call that changes the disk below a directory.

The functions of `os` themselves are replaced, so no part of the program can bypass the watcher.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

NAMES = ("open", "write", "fsync", "replace", "rename", "link", "unlink", "mkdir", "rmdir", "chmod", "ftruncate")
BY_DESCRIPTOR = ("write", "fsync", "ftruncate")
READING = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass(frozen=True)
class Call:
    """One call on its way to the disk. `go()` makes the call; `go(data)` writes other bytes instead."""

    name: str
    path: Path                                  # the file or directory; of a rename or link, the source
    arguments: tuple[Any, ...]
    go: Callable[..., Any]

    @property
    def target(self) -> Path:
        """The new name of a rename or link."""
        return Path(self.arguments[1])

    @property
    def creates(self) -> bool:
        return self.name == "open" and bool(self.arguments[1] & os.O_CREAT)


Watcher = Callable[[Call], Any]


@contextlib.contextmanager
def watched(directory: Path, watcher: Watcher) -> Iterator[None]:
    """Pass every change below `directory` to `watcher`, which makes the call, alters it or raises an error."""
    real = {name: getattr(os, name) for name in (*NAMES, "close")}
    opened: dict[int, Path] = {}

    def path_of(name: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> Path | None:
        if name in BY_DESCRIPTOR or isinstance(arguments[0], int):
            return opened.get(arguments[0])
        path = Path(opened.get(options.get("dir_fd") or -1, Path()), os.fsdecode(arguments[0]))
        return path if path.is_relative_to(directory) else None

    def door(name: str, *arguments: Any, **options: Any) -> Any:
        path = path_of(name, arguments, options)
        if path is None or (name == "open" and not arguments[1] & ~READING):       # elsewhere, or only reading
            return real[name](*arguments, **options)

        def go(data: bytes | None = None) -> Any:
            return real[name](*(arguments if data is None else (arguments[0], data)), **options)

        result = watcher(Call(name, path, arguments, go))
        if name == "open":
            opened[result] = path
        return result

    def close(descriptor: int) -> None:
        opened.pop(descriptor, None)
        real["close"](descriptor)

    with contextlib.ExitStack() as patches:
        for name in NAMES:
            patches.enter_context(mock.patch.object(os, name, lambda *a, _name=name, **o: door(_name, *a, **o)))
        patches.enter_context(mock.patch.object(os, "close", close))
        yield
