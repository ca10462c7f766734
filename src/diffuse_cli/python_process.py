"""Python processes that never run code from the current directory, which may be a folder of downloaded pictures.

`python -m`, `python -c` and an empty entry in PYTHONPATH put that directory first on the path: a `json.py` that lies
there would be imported in the place of the library. No other module starts Python. Imports only what Python itself has
imported before, because nothing is safe until `leave_current_directory` was called.
"""

import os
import sys

TYPE_CHECKING = False                           # type checkers take it for true; `typing` would be imported too early
if TYPE_CHECKING:
    from contextlib import AbstractContextManager

_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))        # the directory that holds this package
_BOOTSTRAP = "import sys; sys.path[:] = sys.argv.pop(1).split('\\n'); "


def leave_current_directory(*, run_by_m: bool) -> None:
    """Take the current directory off the path of this process, and off that of every Python started from it.

    run_by_m: whether `python -m` runs this process. Other absolute entries of the path stay, even if one of them is the
    current directory.
    """
    try:
        here = os.getcwd()
    except OSError:                             # it was deleted
        here = ""
    if run_by_m and not sys.flags.safe_path and sys.path[0] == here:
        del sys.path[0]
    if _safe_pythonpath() != os.environ.get("PYTHONPATH", "") and here in sys.path:
        sys.path.remove(here)
    os.environ.update(_safety())


def command(code: str, *arguments: str) -> list[str]:
    """The command line of a Python that runs `code` with these arguments.

    It looks for modules where this process does, but never in the current directory.
    """
    paths = [path for path in sys.path if os.path.isabs(path)]
    paths += [] if _PACKAGES in paths else [_PACKAGES]
    return [sys.executable, "-P", "-c", _BOOTSTRAP + code, "\n".join(paths), *arguments]


def environment(**more: str) -> dict[str, str]:
    """The environment for such a Python: that of this process, with `more`."""
    return {**os.environ, **_safety(), **more}


def elsewhere(directory: "str | os.PathLike[str]" = _PACKAGES) -> "AbstractContextManager[None]":
    """A context in which the current directory is this one, for libraries that obey files in the current directory.

    Use it where no other thread runs. A current directory that was deleted stays: nothing lies in it.
    """
    import contextlib

    try:
        os.getcwd()
    except OSError:
        return contextlib.nullcontext()
    return contextlib.chdir(directory)


def _safety() -> dict[str, str]:
    """Variables that keep the current directory off the path of a Python."""
    return {"PYTHONSAFEPATH": "1", "PYTHONPATH": _safe_pythonpath()}


def _safe_pythonpath() -> str:
    """PYTHONPATH without the entries that mean the current directory."""
    entries = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return os.pathsep.join(entry for entry in entries if os.path.normpath(entry) != os.curdir)
