"""Model names ↔ files: which names are allowed, which model an option means. Does not read model files."""

import contextlib
import difflib
import os
import re
import unicodedata
from pathlib import Path

from .. import hub
from ..errors import InUseError, ModelError, StorageError, UsageError, system_reason
from ..files import durable, locks
from ..files.input_files import read_input
from . import home_directory

MODEL_FILE = "model.safetensors"
LOCK_FILE = "lock"
REPORT_FILE, RESULTS_FILE = "report.html", "results.png"
LAST, DEMO = "last", "demo"                     # names that no directory has
FAST = "demo-fast"                              # the student of `demo`; no directory has its name either
UPSCALER = "upscaler-x4"                        # the one that comes with the program
_FOUNDATION, _UPSCALER = "foundation-", "upscaler-x"        # no directory's name begins so
_SUFFIX = ".safetensors"

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DEVICES = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?")          # Windows opens a device for such a name
_BUNDLED = Path(__file__).parent.parent / "models"


# ── Names ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def check_name(name: str) -> None:
    """Raise UsageError unless a model may be called `name`."""
    if name == LAST or is_reserved(name):
        raise UsageError(f"the name {name!r} is reserved", hint="Choose another --name")
    if not _NAME.fullmatch(name) or _DEVICES.fullmatch(name) or name.endswith((".", ".safetensors")):
        raise UsageError(f"{name[:80]!r} cannot be the name of a model",
                         hint="Use 1 to 64 of a-z, 0-9, '.', '_' and '-', starting with a letter or a digit, and none "
                              "that is a device on Windows, such as con")


def model_directory(name: str) -> Path:
    """The directory of the model called `name`; it may not exist. Raises UsageError if no model can have the name."""
    check_name(name)
    return home_directory.models_directory() / name


def is_reserved(name: str) -> bool:
    """Whether a name is kept for models that come with the program."""
    return name in (DEMO, FAST) or name.startswith((_FOUNDATION, _UPSCALER))


def plain(text: str) -> str:
    """Text for names of files: in lower case and without accents."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return "".join(letter for letter in decomposed if not unicodedata.combining(letter))


def slug(text: str) -> str:
    """The valid model name that is nearest to a text, such as the name of a folder."""
    name = re.sub(r"[^a-z0-9._]+", "-", plain(text)).strip("-._")[:56].rstrip("-._")
    try:
        check_name(name)
    except UsageError:
        return f"model-{name}".rstrip("-").removesuffix(".safetensors")
    return name


def free_name(base: str) -> str:
    """The first of `base`, `base-2`, `base-3`, … that no model has, finished or in training."""
    name, number = base, 1
    while os.path.lexists(model_directory(name)):
        number += 1
        suffix = f"-{number}"
        name = base[: 64 - len(suffix)] + suffix
    return name


def upscaler_name(path: Path, factor: int) -> str:
    """The name under which an upscaler for the model in the file `path` is kept, and found."""
    label = path.stem if path.suffix == _SUFFIX and path.name != MODEL_FILE else path.parent.name
    return slug(f"{label}-x{factor}")


def upscaler_for(path: Path, factor: int) -> Path | None:
    """The file of the upscaler for the model in the file `path`: its own, else that which comes with the program."""
    name = upscaler_name(path, factor)
    own = home_directory.models_directory() / name / MODEL_FILE
    return own if own.is_file() else bundled_upscaler(factor)


def model_names() -> list[str]:
    """The names of all models of the user that have a file, in alphabetical order. Raises StorageError."""
    return sorted(path.name for path in directories() if (path / MODEL_FILE).is_file())


def directories() -> list[Path]:
    """The directories that a model or a run may have, by their names. Raises StorageError."""
    try:
        return [path for path in home_directory.models_directory().iterdir() if _NAME.fullmatch(path.name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StorageError(f"cannot read {home_directory.models_directory()}: {system_reason(error)}") from error


def model_files() -> dict[str, Path]:
    """The name → the file of each model that has one. Those that come with the program are the last."""
    models = home_directory.models_directory()
    return {**{name: models / name / MODEL_FILE for name in model_names()}, **bundled_files()}


# ── The model that an option means ──────────────────────────────────────────────────────────────────────────────────


def resolve(model: str | None) -> Path:
    """The model file that `-m MODEL` means. `model` is a path, a name, an address, or None.

    It is a path if it contains a separator, starts with `.` or `~`, or ends in `.safetensors`. A directory stands for
    the model in it, a directory in diffusers' form for its `model_index.json`. None means $DIFFUSE_MODEL, else the
    model that was trained last, else `demo`. Only an address of the Hub, `hf://owner/name`, downloads anything.

    Raises ModelError, with the nearest names, and UsageError for an empty name, which a script passes when a variable
    is not set.
    """
    if model == "":
        raise UsageError("which model? Its name is empty", hint="`diffuse models ls` shows the names")
    if model is None and (model := os.environ.get("DIFFUSE_MODEL") or None) is not None:
        try:
            return resolve(model)
        except (ModelError, UsageError) as error:
            raise type(error)(f"DIFFUSE_MODEL: {error.what}", hint=error.hint) from error
    if model is None:
        model = LAST if last() else DEMO
        if model == DEMO and bundled() is None:
            raise ModelError("there is no model yet", hint="Train one first: diffuse train ./images")
    if hub.parse_address(model):
        from .hub_models import fetch

        return fetch(model)
    if model.startswith("hf://"):
        raise ModelError(f"{model} is no address of a model", hint="Write hf://owner/name")
    if is_path(model):
        path = Path(os.path.expanduser(model))
        if path.is_dir():
            from .diffusers_config import INDEX_FILE

            index = path / INDEX_FILE
            path = index if index.exists() and not (path / MODEL_FILE).exists() else path / MODEL_FILE
            if not path.exists():
                raise ModelError(f"the folder {path.parent} holds no model",
                                 hint=f"That would be {MODEL_FILE}, or {INDEX_FILE} of diffusers")
        if not path.exists():
            raise ModelError(f"there is no file {path}", hint="`diffuse models ls` lists the models that have a name")
        return path
    if path_of_bundled := bundled(model):
        return path_of_bundled
    names = model_names()
    name = last() if model == LAST else model
    if name not in names:
        if name is not None and _NAME.fullmatch(name) and (home_directory.models_directory() / name).is_dir():
            raise ModelError(f"the model {name!r} is in training or was interrupted, and has not been saved yet",
                             hint="Wait for its first save, or resume its training")
        if os.path.exists(model):
            raise ModelError(f"there is no model {model[:80]!r}", hint="For the "
                             f"{'folder' if os.path.isdir(model) else 'file'} of that name, write .{os.sep}{model}")
        raise _unknown_model(model, names)
    return home_directory.models_directory() / name / MODEL_FILE


def name_of(path: Path) -> str | None:
    """The name under which `resolve` finds this file; None if it finds it by its path alone."""
    path = path.absolute()
    if path in bundled_files().values():
        return path.stem
    with contextlib.suppress(StorageError):                            # then no name leads anywhere
        if path.name == MODEL_FILE and path.parent.parent == home_directory.models_directory():
            return path.parent.name
    return None


def lasting_name(model: str) -> str:
    """`model` in a form that means the same when a command is given again. Raises ModelError, UsageError."""
    if model == LAST:
        return last() or DEMO
    return str(resolve(model).absolute()) if Path(model).exists() and is_path(model) else model


def bundled(name: str = DEMO) -> Path | None:
    """The file of a model that comes with the program; None if no such model does."""
    path = _BUNDLED / f"{name}{_SUFFIX}"
    return path if is_reserved(name) and path.is_file() else None


def foundations(preset: str) -> dict[int, str]:
    """The side of pictures → the name of each bundled model from which trainings of this preset can start."""
    begin = f"{_FOUNDATION}{preset}-"
    return {int(name.removeprefix(begin)): name for name in bundled_files() if name.startswith(begin)}


def bundled_upscaler(factor: int) -> Path | None:
    """The file of the upscaler that comes with the program, if there is one of this factor."""
    return bundled(f"{_UPSCALER}{factor}")


def bundled_files() -> dict[str, Path]:
    """The name → the file of each model that comes with the program, in alphabetical order."""
    names = sorted(path.stem for path in _BUNDLED.glob(f"*{_SUFFIX}"))
    return {name: path for name in names if (path := bundled(name))}


def last() -> str | None:
    """The name of the model whose training finished last; None if it was removed."""
    try:
        name = read_input(home_directory.root() / LAST, limit=1024).decode(errors="replace").strip()
    except OSError:
        return None
    return name if name in model_names() else None


def set_last(name: str) -> None:
    """Make `name` the model that is used when none is named, durably. Raises StorageError."""
    check_name(name)
    durable.make_directory(home_directory.root())
    durable.write(home_directory.root() / LAST, f"{name}\n".encode())


def existing_directory(name: str) -> Path:
    """The directory of a model that can be removed, whether or not its training is finished.

    Raises ModelError if there is none, UsageError for one that comes with the program.
    """
    if bundled(name):
        raise UsageError(f"the model {name!r} is part of the program and cannot be removed")
    path = home_directory.models_directory() / name
    if not _NAME.fullmatch(name) or not path.is_dir():
        raise _unknown_model(name, model_names())
    return path


def remove(name: str) -> None:
    """Delete a model and the files of its training.

    Raises InUseError while it is trained, ModelError if there is none, StorageError.
    """
    path = existing_directory(name)
    was_last = last() == name
    try:
        locks.remove_locked_tree(path, LOCK_FILE)
    except InUseError as error:
        raise InUseError(error.what, hint="Wait for it to end, or stop it first") from error
    if was_last:
        with contextlib.suppress(OSError):                         # if it stays, `last` ignores it
            (home_directory.root() / LAST).unlink()


def is_path(model: str) -> bool:
    separators = {os.sep, os.altsep or os.sep}
    return model.startswith((".", "~")) or model.endswith(".safetensors") or any(mark in model for mark in separators)


def _unknown_model(model: str, names: list[str]) -> ModelError:
    near = difflib.get_close_matches(model.lower(), [*names, *bundled_files()], 3, 0.5)
    if near:
        return ModelError(f"there is no model {model[:80]!r}", hint=f"Did you mean {' or '.join(near)}?")
    if not names and not bundled():
        return ModelError(f"there is no model {model[:80]!r}", hint="Train one first: diffuse train ./images")
    return ModelError(f"there is no model {model[:80]!r}", hint="`diffuse models ls` lists them")
