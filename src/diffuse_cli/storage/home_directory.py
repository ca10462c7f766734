"""Where everything is kept: under one root, `DIFFUSE_HOME`, else the user's cache directory.

    root/models/<name>/model.safetensors     with the other files of its training beside it
    root/last                                the name of the model whose training finished last
    root/images/                             decoded pictures
    root/compiled/                           networks that torch has compiled
    root/crashes/                            reports of unexpected errors
"""

import os
import stat
import sys
from pathlib import Path

from ..errors import StorageError, system_reason

_HINT = "Set DIFFUSE_HOME to the absolute path of a directory of your own"


def root() -> Path:
    """The directory of all that is kept; it may not exist yet. Raises StorageError if it cannot be trusted."""
    chosen = os.environ.get("DIFFUSE_HOME")
    path = Path(chosen) if chosen else _user_cache()
    if not path.is_absolute():
        raise StorageError(f"DIFFUSE_HOME is not an absolute path: {chosen}", hint=_HINT)
    _check_owner(path)
    return path


def models_directory() -> Path:
    """The directory of all models, each in a directory of its own."""
    return root() / "models"


def cache_directory() -> Path:
    """The directory of decoded pictures."""
    return root() / "images"


def compiled_directory() -> Path:
    """The directory of networks that torch has compiled, which is code: nobody else may write it."""
    return root() / "compiled"


def crash_directory() -> Path:
    """The directory of reports of unexpected errors."""
    return root() / "crashes"


def _user_cache() -> Path:
    import platformdirs

    try:
        path = Path(platformdirs.user_cache_dir("diffuse-cli", appauthor=False))
        if not path.is_absolute():                                 # the XDG standard: relative paths are ignored
            path = Path.home() / ".cache" / "diffuse-cli"
    except RuntimeError as error:                                  # no HOME, and the user is unknown to the system
        raise StorageError("cannot find your home directory", hint=_HINT) from error
    if not path.is_absolute():
        raise StorageError(f"your home directory is not an absolute path: {path}", hint=_HINT)
    return path


def _check_owner(path: Path) -> None:
    """Raise StorageError for a root that another user owns, can write into, or has replaced by a link."""
    if sys.platform == "win32":
        return
    try:
        owners = {path.lstat().st_uid, path.stat().st_uid}
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise StorageError(f"cannot use {path}: {system_reason(error)}", hint=_HINT) from error
    if not stat.S_ISDIR(mode):
        raise StorageError(f"{path} is not a directory", hint=_HINT)
    if owners != {os.geteuid()}:
        raise StorageError(f"{path} belongs to another user", hint=_HINT)
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise StorageError(f"other users may write into {path}", hint=f"Run `chmod go-w {path}`, or set DIFFUSE_HOME")
