"""Where samples go: names of files, and what is never replaced. Knows nothing of how pictures come about."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StorageError, UsageError
from ..files import durable
from ..storage import registry
from .terminal import view

if TYPE_CHECKING:
    from ..sampling.request import Sample

STILLS, ANIMATIONS = (".png", ".jpg", ".jpeg", ".webp"), (".webp", ".gif")
UNWRITTEN = (".bmp", ".tif", ".tiff", ".avif")  # pictures all the same: no directory is meant
_NUMBERED = re.compile(r"(\d{5,})-")


class Target:
    """Where pictures go: into a directory under the next free number, or to the one file that -o names."""

    def __init__(self, out: Path, *, files: int, force: bool, animate: bool = False) -> None:
        self.force = force
        if str(out) == "-":
            raise UsageError("-o - would be stdout, which gets the names of the pictures", hint="Give a directory")
        suffix = out.suffix.lower()
        self.file = out if is_file(out) else None
        self.suffix = ".png" if self.file is None else suffix
        if self.file is not None:
            if files > 1:
                raise UsageError(f"-o {out} is one file, but {files} pictures are to be written",
                                 hint="Give a directory")
            if suffix not in (ANIMATIONS if animate else STILLS):
                raise UsageError(f"-o {out} cannot be {'an animation' if animate else 'a still picture'}",
                                 hint=f"Give a directory, or one of {', '.join(ANIMATIONS if animate else STILLS)}")
            if os.path.lexists(out) and not force:
                raise self._taken()
        self.directory = out if self.file is None else out.absolute().parent
        if self.directory.exists() and not self.directory.is_dir():
            raise StorageError(f"{self.directory} is not a directory", hint="Choose another -o")
        durable.make_directory(self.directory, mode=0o755)
        self.number = self._next_free()

    def write(self, data: bytes, name: "Sample | str", *, suffix: str | None = None) -> Path:
        """Write a picture, or a sheet of that name, without replacing anything unasked. Returns its path."""
        if self.file is not None:
            try:
                durable.write(self.file, data, exclusive=not self.force, mode=0o644)
            except FileExistsError as error:                           # it came while the picture was drawn
                raise self._taken() from error
            return self.file
        if not isinstance(name, str):
            name = "-".join(filter(None, (str(name.seed), _slug(name.prompt))))
        while True:
            path = self.directory / f"{self.number:05d}-{name}{suffix or self.suffix}"
            self.number += 1
            try:
                durable.write(path, data, exclusive=True, mode=0o644)      # a program beside this one may have taken it
                return path
            except FileExistsError:
                continue

    def _next_free(self) -> int:
        try:
            names = [path.name for path in self.directory.iterdir()]
        except OSError as error:
            durable.fail(error, self.directory)
        return max((int(match[1]) for name in names if (match := _NUMBERED.match(name))), default=-1) + 1

    def _taken(self) -> UsageError:
        return UsageError(f"{self.file} exists already", hint="Use --force to replace it, or another name")


def is_file(out: Path) -> bool:
    """Whether -o names a file by its suffix, and not a directory."""
    return out.suffix.lower() in STILLS + ANIMATIONS + UNWRITTEN


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", registry.plain(prompt)).strip("-")[:48].strip("-")


def new_file(out: Path | None, *, default: str, suffixes: Sequence[str], outside: Path | None = None) -> Path:
    """The file named, which must not be there yet, else `default` or the first free name like it. Raises UsageError.

    `outside` is a folder of the user's pictures, where nothing is ever written.
    """
    if out is None:
        stem, suffix = Path(default).stem, Path(default).suffix
        names = (default, *(f"{stem}-{number}{suffix}" for number in range(2, 10_000)))
        out = next(path for name in names if not (path := Path(name)).exists())
    if out.suffix.lower() not in suffixes:
        raise UsageError(f"-o takes the name of a {' or '.join(suffixes)} file, not {out}")
    if out.exists():
        raise _taken(out)
    if outside is not None and outside.is_dir() and outside.resolve() in out.resolve().parents:
        raise UsageError(f"{out} would lie among the pictures, where nothing is ever written",
                         hint="Choose another place with -o")
    durable.make_directory(out.parent, mode=0o777)
    return out


def write_new(path: Path, data: bytes) -> None:
    """Write a file that nobody has made meanwhile. Raises UsageError, StorageError."""
    try:
        durable.write(path, data, exclusive=True, mode=0o666)
    except FileExistsError as error:
        raise _taken(path) from error


def tell(path: Path, record: dict[str, Any]) -> None:
    """The path on stdout; with --json, in a record of what was made."""
    if view.settings.json:
        view.out_json({"path": str(path), **record})
    else:
        view.out(str(path))


def _taken(path: Path) -> UsageError:
    return UsageError(f"{path} exists already", hint="Choose another name with -o")
