"""Files that a command makes besides samples: a new name, never in the place of another file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..files import durable
from .terminal import view


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
