"""A training run: its name, its lock, and the comparison of the request with an earlier one of that name.

Needs no torch, so that a request is refused at once. The files of a run are known to `storage.run_directory`.
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
from ..errors import DataError, UsageError
from ..files import durable
from ..storage import registry, run_directory
from ..storage.model_info import read_model_info

BUDGET = ("steps", "images", "time")            # the fields of a recipe that may grow when a run is resumed
RESOLUTIONS = (16, 32, 64)                      # those chosen from when none is asked for, in pixels
PROBED_PICTURES = 500                           # whose size decides on the resolution, at most


@dataclass(frozen=True)
class Run:
    """A run's directory, and the request. `plan` is None for a new run.

    The main process of a training holds the directory's lock. No other process reads or writes there.
    """

    name: str
    directory: Path
    folder: Path                                # of the pictures, or their manifest; absolute
    found: Found
    recipe: Recipe
    machine: Machine
    resolution: int                             # 0 until the main process has broadcast it
    why_resolution: str
    plan: Plan | None
    extended: bool = False                      # a longer budget is asked for than that of `plan`
    moved_from: Path | None = None              # the folder of the run so far, if it was another
    aside: str | None = None                    # the name of the old run that was moved aside
    is_main: bool = True

    def write_plan(self, plan: Plan) -> None:
        """Record request and plan durably, before step 0. Raises StorageError."""
        run_directory.write_config(self.directory, request=_request(self.folder, self.recipe), plan=to_dict(plan))


# ── Finding and locking ─────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def open_run(folder: Path, recipe: Recipe, machine: Machine, *, rehearsal: bool = False) -> Iterator[Run]:
    """Find the pictures and the run of this request, or name a new one, and hold its lock while the context is open.

    The same request finds the same run again. With a name, a run whose recipe differs raises UsageError with the
    differences; only a longer budget and another folder are accepted (the pictures are compared later). Without a
    name, the next free name is taken. A run that was not begun leaves no directory; a rehearsal moves nothing aside.
    Raises DataError, InUseError, StorageError.
    """
    found = find_pictures(folder, **recipe.caption_options, strict=machine.strict)
    folder = Path(os.path.abspath(folder))                             # the same from any current directory
    request, chosen, name = _request(folder, recipe), None, machine.name
    if not name:
        chosen = choose_resolution(found, recipe, machine)
        name = _choose_name(folder, chosen[0], request)
    directory = registry.model_directory(name)
    with _locked(directory):
        durable.remove_temporaries(directory)
        plan, extended, moved_from = None, False, None
        stored = None if machine.fresh else run_directory.read_config(directory)
        if stored is not None:
            plan = from_dict(Plan, stored["plan"], where=f"{directory / run_directory.CONFIG_FILE}: plan")
            chosen = plan.model.network.resolution, "that of the run"
            extended, moved_from = _compare(stored["request"], request, name)
        elif run_directory.holds_foreign_model(directory) and not machine.fresh:
            raise UsageError(f"{name!r} is a model that was not trained here",
                             hint="Choose another --name, or move it aside with --fresh")
        resolution, why = chosen or choose_resolution(found, recipe, machine)
        aside = None
        if (machine.fresh or run_directory.is_half_moved(directory)) and not rehearsal:
            aside = run_directory.move_aside(directory)                # last: from here on nothing is refused
        yield Run(
            name, directory, folder, found, recipe, machine, resolution, why, plan, extended=extended,
            moved_from=moved_from, aside=aside)


def join_run(folder: Path, recipe: Recipe, machine: Machine) -> Run:
    """The run as the other processes of a training know it. Touches no file of the run. Raises DataError."""
    found = find_pictures(folder, **recipe.caption_options, strict=machine.strict)
    return Run(machine.name or "", Path(), Path(os.path.abspath(folder)), found, recipe, machine, 0, "", None,
               is_main=False)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a run's directory, which is made for it, and removed again if no run was begun."""
    durable.make_directory(directory)
    with durable.lock(directory / registry.LOCK_FILE, doing="being trained"):
        try:
            yield
        finally:
            run_directory.remove_if_empty(directory)


def _choose_name(folder: Path, resolution: int, request: dict[str, Any]) -> str:
    """The name of the run with this request, whatever its budget, or the first free name like the folder's."""
    label = folder.name if folder.is_dir() else folder.stem
    base = name = registry.slug(f"{label}-{resolution}")
    number = 1
    while not _is_free_for(registry.model_directory(name), request):
        number += 1
        name = f"{base[:60]}-{number}"
    return name


def _is_free_for(directory: Path, request: dict[str, Any]) -> bool:
    stored = run_directory.read_config(directory)
    if stored is None:
        return not run_directory.holds_foreign_model(directory)
    return _without_budget(stored["request"]) == _without_budget(request)


# ── Requests ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _request(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """What makes two commands the same: folder and recipe, in JSON's types."""
    plain: dict[str, Any] = json.loads(json.dumps({"folder": str(folder), "recipe": to_dict(recipe)}))
    return plain


def _without_budget(request: dict[str, Any]) -> dict[str, Any]:
    recipe = {key: value for key, value in request["recipe"].items() if key not in BUDGET}
    return {**request, "recipe": recipe}


def _compare(before: dict[str, Any], now: dict[str, Any], name: str) -> tuple[bool, Path | None]:
    """→ whether the budgets differ; the earlier request's folder, if that differs. Raises UsageError for the rest."""
    old, new = before["recipe"], now["recipe"]
    differing = [key for key in new if old.get(key) != new[key]]
    if changed := [f"{key}: {_shown(old.get(key))} → {_shown(new[key])}" for key in differing if key not in BUDGET]:
        raise UsageError(f"the run {name!r} was begun with another recipe ({'; '.join(changed)})",
                         hint="Use the same options to go on, --fresh to start anew, or another --name")
    moved = before.get("folder") != now["folder"]
    return bool(differing), Path(str(before.get("folder"))) if moved else None


def _shown(value: Any) -> str:
    return "not given" if value is None else str(value)


# ── Resolution ──────────────────────────────────────────────────────────────────────────────────────────────────────


def choose_resolution(found: Found, recipe: Recipe, machine: Machine) -> tuple[int, str]:
    """→ the resolution, and why: the one asked for, else that of --init, else chosen from `RESOLUTIONS`.

    The largest is chosen that the median picture fills, 64 on a GPU and 32 on a CPU at most. Raises DataError when no
    picture can be read.
    """
    if recipe.resolution is not None:
        return recipe.resolution, "as asked"
    if recipe.init is not None:
        return read_model_info(registry.resolve(recipe.init)).config.network.resolution, "that of --init"
    every = max(1, len(found.pictures) // PROBED_PICTURES)
    sides = sorted(side for picture in found.pictures[::every] if (side := short_side(picture.path)) is not None)
    if not sides:
        raise DataError(f"none of the {len(found.pictures)} pictures in {found.folder} can be read",
                        hint="See `diffuse data check` for the reasons")
    typical = sides[len(sides) // 2]
    best, where = (64, "on a GPU") if _has_accelerator(machine) else (32, "on a CPU")
    resolution = max((size for size in RESOLUTIONS if size <= min(best, typical)), default=min(RESOLUTIONS))
    return resolution, f"for pictures of about {typical} px {where}"


def _has_accelerator(machine: Machine) -> bool:
    """Whether training will probably run on a GPU, judged without torch."""
    if machine.device is not None:
        return not machine.device.startswith("cpu")
    if machine.gpus is not None:
        return machine.gpus != "0"
    return sys.platform == "darwin" or Path("/dev/nvidia0").exists() or Path("/dev/kfd").exists()
