"""Files that a command writes: their names, and the promise that no file is replaced unless the user asks for it."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StorageError, UsageError
from ..files import durable
from .terminal import view

if TYPE_CHECKING:
    from ..sampling.request import Sample

STILLS, ANIMATIONS = (".png", ".jpg", ".jpeg", ".webp"), (".webp", ".gif")     # suffixes that are written
# Other suffixes with which -o names a file and not a directory.
UNSUPPORTED = (".bmp", ".tif", ".tiff", ".avif", ".heic", ".jxl", ".svg", ".pdf", ".mp4", ".mov", ".avi", ".mkv",
               ".webm", ".apng", ".txt", ".json", ".csv", ".zip")
_NUMBERED = re.compile(r"(\d{5,})-")


# ── Samples: a directory, or one file ───────────────────────────────────────────────────────────────────────────────


class SampleTarget:
    """Where samples go: into a directory under the next free number, or into the one file that -o names.

    files: how many files are to be written. Raises UsageError if they cannot go there, StorageError if the directory
    cannot be created or read.
    """

    def __init__(self, out: Path, *, files: int, force: bool, animate: bool = False) -> None:
        self.force = force
        if str(out) == "-":
            raise UsageError("-o - would be stdout, which gets the names of the pictures", hint="Give a directory")
        suffix = out.suffix.lower()
        self.file = out if names_a_file(out) else None
        self.suffix = ".png" if self.file is None else suffix
        if self.file is not None:
            if files > 1:
                raise UsageError(f"-o {out} is one file, but {files} pictures are to be written",
                                 hint="Give a directory")
            suffixes = ANIMATIONS if animate else STILLS
            if suffix not in suffixes:
                raise UsageError(f"-o {out} cannot be {'an animation' if animate else 'a still picture'}",
                                 hint=f"Give a directory, or one of {', '.join(suffixes)}")
            if os.path.lexists(out) and not force:
                raise self._file_exists()
        self.directory = out if self.file is None else out.absolute().parent
        if self.directory.exists() and not self.directory.is_dir():
            raise StorageError(f"{self.directory} is not a directory", hint="Choose another -o")
        durable.make_directory(self.directory, mode=0o755)
        self.number = self._next_number()

    def write(self, data: bytes, name: "Sample | str", *, suffix: str | None = None) -> Path:
        """Write a picture named after its sample, or a sheet called `name`. → its path.

        Raises UsageError if the one file of -o has appeared meanwhile, and StorageError.
        """
        if self.file is not None:
            try:
                durable.write(self.file, data, exclusive=not self.force, mode=0o644)
            except FileExistsError as error:                           # it appeared while the picture was generated
                raise self._file_exists() from error
            return self.file
        if not isinstance(name, str):
            name = name.file_stem
        while True:
            path = self.directory / f"{self.number:05d}-{name}{suffix or self.suffix}"
            self.number += 1
            try:
                durable.write(path, data, exclusive=True, mode=0o644)
                return path
            except FileExistsError:                                    # another program has just taken this number
                continue

    def _next_number(self) -> int:
        try:
            names = [path.name for path in self.directory.iterdir()]
        except OSError as error:
            durable.fail(error, self.directory)
        return max((int(match[1]) for name in names if (match := _NUMBERED.match(name))), default=-1) + 1

    def _file_exists(self) -> UsageError:
        return UsageError(f"{self.file} exists already", hint="Use --force to replace it, or choose another name")


def names_a_file(out: Path) -> bool:
    """Whether -o names a picture, by its suffix, and not a directory."""
    return out.suffix.lower() in STILLS + ANIMATIONS + UNSUPPORTED


# ── One new file ────────────────────────────────────────────────────────────────────────────────────────────────────


def new_file(
    out: Path | None, *, default: str, suffixes: Sequence[str], outside: Path | None = None, option: str = "-o",
) -> Path:
    """Check that a new file may be written to `out`. → its path; without `out`, `default` or a free name like it.

    option: the one that names the file. outside: the user's folder of pictures, where nothing is ever written. Raises
    UsageError if the file exists, has another suffix, or lies in that folder. Creates the directory of the file.
    """
    if out is None:
        stem, suffix = Path(default).stem, Path(default).suffix
        names = (default, *(f"{stem}-{number}{suffix}" for number in range(2, 10_000)))
        out = next(path for name in names if not (path := Path(name)).exists())
    if out.suffix.lower() not in suffixes:
        raise UsageError(f"{option} takes the name of a {' or '.join(suffixes)} file, not {out}")
    if out.exists():
        raise _new_file_exists(out, option)
    if outside is not None and outside.is_dir() and outside.resolve() in out.resolve().parents:
        raise UsageError(f"{out} would lie among the pictures, where nothing is ever written",
                         hint=f"Choose another place with {option}")
    durable.make_directory(out.parent, mode=0o777)
    return out


def write_new(path: Path, data: bytes, *, option: str = "-o") -> None:
    """Write a new file. Raises UsageError if it has appeared meanwhile, and StorageError."""
    try:
        durable.write(path, data, exclusive=True, mode=0o666)
    except FileExistsError as error:
        raise _new_file_exists(path, option) from error


def _new_file_exists(path: Path, option: str) -> UsageError:
    return UsageError(f"{path} exists already", hint=f"Choose another name with {option}")


# ── What was written, on stdout ─────────────────────────────────────────────────────────────────────────────────────


def print_result(path: Path, record: dict[str, Any]) -> None:
    """Print the path of a new file on stdout; with --json, together with a record of how it was made."""
    if view.settings.json:
        view.out_json({"path": str(path), **record})
    else:
        view.out(str(path))
