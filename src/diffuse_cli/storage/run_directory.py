"""The directory of a training run: its name, its lock, and what was asked for.

Standard library (and the picture headers) only, so that a run is found and locked before torch is imported. Its states
are those of `state_files`.

    models/<name>/lock  config.json  tokenizer.json  events.jsonl  skipped.jsonl  previews/
                  step-00001000.safetensors  HEAD-0  HEAD-1      training states, and which are whole
                  model.safetensors  best.safetensors            averaged weights of the newest save; the best kept
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import from_dict, to_dict
from ..config import Machine, Plan, Recipe
from ..data.captions import Found, find_pictures
from ..data.images import short_side
from ..errors import DataError, ModelError, StorageError, UsageError
from ..files import durable
from ..files.strict_json import loads_strict
from . import registry, training_states
from .event_log import LOG_FILE
from .model_info import read_card

BUDGET = ("steps", "images", "time")            # of a recipe: what may grow
_CONFIG = "config.json"


@dataclass(frozen=True)
class Run:
    """A run directory and what was asked for. `plan` is None for a new run.

    The main process of a training holds the directory's lock and is the only one that reads or writes there.
    """

    name: str
    directory: Path
    folder: Path                                # absolute; or the manifest
    found: Found
    recipe: Recipe
    machine: Machine
    resolution: int                             # 0 until the main process has told it
    why_resolution: str
    plan: Plan | None
    extended: bool = False                      # the plan is of a budget that is to be replaced by a longer one
    moved_from: Path | None = None              # the folder it was begun with, where that was another
    aside: str | None = None                    # the name that an old run has from now on
    is_main: bool = True

    def write_plan(self, plan: Plan) -> None:
        """Record request and plan durably, before step 0."""
        content = {"request": _request(self.folder, self.recipe), "plan": to_dict(plan)}
        durable.write(self.directory / _CONFIG, (json.dumps(content, indent=2) + "\n").encode())


# ── Finding and locking ─────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def open_run(folder: Path, recipe: Recipe, machine: Machine, *, rehearsal: bool = False) -> Iterator[Run]:
    """Find the pictures, choose or find the run's directory and hold its lock.

    The same request finds the same run again. A named run that was asked for otherwise raises UsageError with the
    difference, unless that is the budget or the folder, of which the pictures decide; without a name, the next free
    one is taken. A run that was not begun, such as a rehearsed one, leaves no directory. Raises DataError, InUseError,
    StorageError.
    """
    found = find_pictures(folder, **recipe.caption_options, strict=machine.strict)
    folder = Path(os.path.abspath(folder))                             # the same from wherever it is asked for
    request, chosen, name = _request(folder, recipe), None, machine.name
    if not name:
        chosen = choose_resolution(found, recipe, machine)
        label = folder.name if folder.is_dir() else folder.stem
        name = _name_for(registry.slug(f"{label}-{chosen[0]}"), request)
    directory = registry.model_directory(name)
    aside = None
    with contextlib.ExitStack() as stack:
        durable.make_directory(directory)
        stack.enter_context(durable.lock(directory / registry.LOCK_FILE, doing="being trained"))
        stack.callback(_remove_if_empty, directory)
        stored, extended, moved_from = None if machine.fresh else read_config(directory), False, None
        plan = None if stored is None else from_dict(Plan, stored["plan"], where=f"{directory / _CONFIG}: plan")
        if plan is not None:                                           # whatever pictures or machine are today's
            chosen = plan.model.network.resolution, "that of the run"
        resolution, why = chosen or choose_resolution(found, recipe, machine)
        if (machine.fresh or _is_half_moved(directory)) and not rehearsal:         # once nothing is left to refuse
            aside = _move_aside(directory)
        durable.remove_temporaries(directory)
        if stored is not None:
            extended = _check_same(stored["request"], request, name)
            if stored["request"].get("folder") != request["folder"]:
                moved_from = Path(str(stored["request"].get("folder")))
        elif _is_foreign(directory) and not machine.fresh:
            raise UsageError(f"{name!r} is a model that was not trained here",
                             hint="Choose another --name, or move it aside with --fresh")
        yield Run(
            name, directory, folder, found, recipe, machine, resolution, why, plan, extended=extended,
            moved_from=moved_from, aside=aside)


def join_run(folder: Path, recipe: Recipe, machine: Machine) -> Run:
    """What a process knows that trains together with the one that opened the run. Touches nothing. Raises DataError."""
    found = find_pictures(folder, **recipe.caption_options, strict=machine.strict)
    return Run(machine.name or "", Path(), Path(os.path.abspath(folder)), found, recipe, machine, 0, "", None,
               is_main=False)


def choose_resolution(found: Found, recipe: Recipe, machine: Machine) -> tuple[int, str]:
    """The resolution asked for, or that of --init.

    Else the largest of 16, 32, 64 that the pictures fill and the machine is fit for.
    """
    if recipe.resolution is not None:
        return recipe.resolution, "as asked"
    if recipe.init is not None:
        return read_card(registry.resolve(recipe.init)).config.network.resolution, "that of --init"
    sides = sorted(side for picture in found.pictures[:: max(1, len(found.pictures) // 500)]
                   if (side := short_side(picture.path)) is not None)
    if not sides:
        raise DataError(f"none of the {len(found.pictures)} pictures in {found.folder} can be read",
                        hint="See `diffuse data check` for the reasons")
    typical = sides[len(sides) // 2]
    best = 64 if _has_accelerator(machine) else 32
    resolution = max((size for size in (16, 32, 64) if size <= min(best, typical)), default=16)
    where = "on a GPU" if best == 64 else "on a CPU"
    return resolution, f"for pictures of about {typical} px {where}"


def _has_accelerator(machine: Machine) -> bool:
    """Without torch: whether training will probably run on something faster than a CPU."""
    if machine.device is not None:
        return not machine.device.startswith("cpu")
    if machine.gpus is not None:
        return machine.gpus != "0"
    return sys.platform == "darwin" or Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()


def _name_for(base: str, request: dict[str, Any]) -> str:
    """The run of this very request, whatever its budget, or the first name that is free."""
    name, number = base, 1
    while not _may_have(registry.model_directory(name), request):
        number += 1
        name = f"{base[:60]}-{number}"
    return name


def _may_have(directory: Path, request: dict[str, Any]) -> bool:
    stored = read_config(directory)
    if stored is None:
        return not _is_foreign(directory)
    return _but_for_budget(stored["request"]) == _but_for_budget(request)


def _is_foreign(directory: Path) -> bool:
    """Whether a model lies there that no run has made."""
    lone = (directory / registry.MODEL_FILE).exists() and not (directory / _CONFIG).exists()
    return lone and not _is_half_moved(directory)


def _remove_if_empty(directory: Path) -> None:
    """Remove the directory of a run that was not begun. Call only while holding its lock."""
    with contextlib.suppress(OSError, StorageError):                   # Windows keeps what is open
        if [path.name for path in directory.iterdir()] == [registry.LOCK_FILE]:
            durable.remove_tree(directory)


def _is_half_moved(directory: Path) -> bool:
    """Whether a log or states lie there that no plan goes with: `_move_aside` was killed."""
    return not (directory / _CONFIG).exists() and any(map(_is_of_a_run, directory.iterdir()))


def _is_of_a_run(path: Path) -> bool:
    """Whether it is a file that only a run that has begun can have."""
    return path.name == LOG_FILE or training_states.is_of_states(path.name)


def _move_aside(directory: Path) -> str | None:
    """Give an old run's files another name, and return it; the directory stays, for its lock is held.

    The plan first: without it there is no run. What tells that there was one last: wherever this is killed, the next
    start ends it.
    """
    old = [path for path in directory.iterdir() if path.name != registry.LOCK_FILE]
    if not old:
        return None
    aside = registry.model_directory(registry.free_name(f"{directory.name[:56]}-old"))
    durable.make_directory(aside)
    try:
        for some in ([path for path in old if path.name == _CONFIG],
                     [path for path in old if path.name != _CONFIG and not _is_of_a_run(path)],
                     [path for path in old if _is_of_a_run(path)]):
            for path in some:
                os.replace(path, aside / path.name)
            durable.sync_directory(aside)
            durable.sync_directory(directory)
    except OSError as error:
        durable.fail(error, aside)
    return aside.name


# ── Requests ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _request(folder: Path, recipe: Recipe) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps({"folder": str(folder), "recipe": to_dict(recipe)}))
    return plain


def _but_for_budget(request: dict[str, Any]) -> dict[str, Any]:
    recipe = {key: value for key, value in request["recipe"].items() if key not in BUDGET}
    return {**request, "recipe": recipe}


def read_config(directory: Path) -> dict[str, Any] | None:
    """Request and plan of a run, or None where none was begun. Raises StorageError when the file is damaged."""
    try:
        raw = (directory / _CONFIG).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {directory / _CONFIG}: {(error.strerror or '').lower()}") from error
    try:
        content = loads_strict(raw)
        request, plan = content["request"], content["plan"]
        if not all(isinstance(part, dict) for part in (request, request["recipe"], plan)):
            raise TypeError
    except (ModelError, TypeError, KeyError) as error:
        raise StorageError(f"{directory / _CONFIG} is damaged",
                           hint=f"To start anew: --name {directory.name} --fresh") from error
    return {"request": request, "plan": plan}


def _check_same(stored: dict[str, Any], request: dict[str, Any], name: str) -> bool:
    """Whether two recipes differ, in their budget. Raises UsageError with the other differences where there are any."""
    before, now = stored["recipe"], request["recipe"]
    differ = [key for key in now if before.get(key) != now[key]]
    if changed := [f"{key}: {_named(before.get(key))} → {_named(now[key])}" for key in differ if key not in BUDGET]:
        raise UsageError(f"the run {name!r} was begun with another recipe ({'; '.join(changed)})",
                         hint="Use the same options to go on, --fresh to start anew, or another --name")
    return bool(differ)


def _named(value: Any) -> str:
    return "not given" if value is None else str(value)
