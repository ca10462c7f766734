"""A training run: finding or naming it, locking its directory, and comparing the request with the run's earlier one.

It needs no torch, so that a request can be refused at once. The files of a run are those of `storage.run_directory`.
"""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checks import from_dict, to_dict
from ..config import FACTOR, Machine, Plan, Recipe
from ..data.captions import find_pictures
from ..data.colours import Rendering, background_colour
from ..data.hub import is_address, lasting_place
from ..data.listing import PictureListing
from ..errors import UsageError
from ..files import durable, locks
from ..model_config import Upscaling
from ..picture_size import Size
from ..storage import registry, run_directory
from .sizes import choose_fit, choose_resolution, choose_sizes, choose_upscaling

BUDGET_FIELDS = ("steps", "images", "time")     # fields of a recipe whose values may grow when a run is resumed


@dataclass(frozen=True)
class Run:
    """A run's directory, and the request to train it.

    The main process of a training holds the lock of the directory. No other process reads or writes there.
    """

    name: str
    directory: Path
    folder: Path                                # absolute path of the pictures' folder, or of their manifest
    found: PictureListing                                # the pictures and captions in it
    recipe: Recipe
    machine: Machine
    resolution: Size                            # of the pictures, or with --fit buckets of a picture of their area
    why_resolution: str                         # the reason for it
    fit: str                                    # how pictures get its shape; "" until the main process has told it
    why_fit: str                                # the reason for it
    sizes: tuple[Size, ...]                     # of the pictures, the commonest first; () until the main process has
    #                                             told them
    plan: Plan | None                           # None for a new run
    upscaling: Upscaling | None = None          # of an upscaler: it learns from crops of the resolution, of pictures
    #                                             of these sizes; None until the main process has told it
    extended: bool = False                      # whether the request has another budget than the earlier one
    moved_from: Path | None = None              # the folder in the earlier request, if it was another
    aside: str | None = None                    # the new name of an old run that was moved aside
    is_main: bool = True                        # whether this process is the main one

    @property
    def rendering(self) -> Rendering:
        """How the files of its pictures become pixels."""
        return Rendering(**self.recipe.colour_options, fit=self.fit, enlarge=self.upscaling is None)

    def write_plan(self, plan: Plan) -> None:
        """Record the request and the plan durably. Raises StorageError."""
        run_directory.write_config(self.directory, request=_request(self.folder, self.recipe), plan=to_dict(plan))


# ── Finding and locking ─────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def open_run(folder: Path, recipe: Recipe, machine: Machine, *, rehearsal: bool = False) -> Iterator[Run]:
    """Find the pictures and the run of a request, or name a new run, and hold its lock while the context is open.

    The same request finds the same run again. Without --name, the next free name is taken. With --name, a run of that
    name must have the same recipe; only another budget and another folder are accepted, and checked later. A rehearsal
    moves no old run aside. A run that was never begun leaves no directory.

    Raises UsageError, which names the differences between the recipes or an unknown colour, DataError, InUseError,
    StorageError.
    """
    # The pictures, and the name of the run
    background_colour(Rendering(**recipe.colour_options))              # an unknown colour is refused first
    found = find_pictures(folder, **recipe.caption_options, tag_options=recipe.tag_options, strict=machine.strict)
    folder = lasting_place(folder)
    request, choice, name = _request(folder, recipe), None, machine.name
    if not name:
        choice = choose_resolution(found, recipe, machine)
        name = _choose_name(folder, choice[0], recipe, request)

    directory = registry.model_directory(name)
    with _locked(directory):
        # The run of that name, if there is one
        durable.remove_temporaries(directory)
        plan, fit_of_run, sizes, extended, moved_from = None, None, None, False, None
        stored = None if machine.fresh else run_directory.read_config(directory)
        if stored is not None:
            plan = from_dict(Plan, stored["plan"], where=f"{directory / run_directory.CONFIG_FILE}: plan")
            choice, fit_of_run = (plan.model.network.resolution, "that of the run"), (plan.fit, "that of the run")
            sizes = plan.crop_of or plan.model.network.sizes
            extended, moved_from = _compare(stored["request"], request, name)
        elif run_directory.holds_foreign_model(directory) and not machine.fresh:
            raise UsageError(f"{name!r} is a model that was not trained here",
                             hint="Choose another --name, or move it aside with --fresh")
        upscaling = choose_upscaling(recipe) if plan is None else plan.model.network.upscaling
        resolution, why = choice or choose_resolution(found, recipe, machine)
        fit, why_fit = fit_of_run or choose_fit(found, recipe, resolution)
        if sizes is None:
            sizes, why_sizes = choose_sizes(found, recipe, resolution, fit)
            why_fit = "; ".join(filter(None, (why_fit, why_sizes)))

        # Move an old run aside: last, because nothing is refused any more
        aside = None
        if (machine.fresh or run_directory.is_half_moved(directory)) and not rehearsal:
            aside = run_directory.move_aside(directory)
        yield Run(
            name, directory, folder, found, recipe, machine, resolution, why, fit, why_fit, sizes, plan, upscaling,
            extended=extended, moved_from=moved_from, aside=aside)


def join_run(folder: Path, recipe: Recipe, machine: Machine) -> Run:
    """The run for all processes but the main one: without its directory, plan, sizes and fit. Raises DataError."""
    found = find_pictures(folder, **recipe.caption_options, strict=machine.strict)
    return Run(machine.name or "", Path(), lasting_place(folder), found, recipe, machine, Size(0, 0), "", "", "",
               (), None, is_main=False)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the lock of a run's directory. The directory is created, and removed again if it then holds no run."""
    durable.make_directory(directory)
    with locks.lock(directory / registry.LOCK_FILE, doing="being trained"):
        try:
            yield
        finally:
            run_directory.remove_if_empty(directory)


def _choose_name(folder: Path, resolution: Size, recipe: Recipe, request: dict[str, Any]) -> str:
    """The name of the run that has this request with any budget, otherwise the first free name.

    Names are FOLDER-RESOLUTION, then FOLDER-RESOLUTION-2, and so on. An upscaler has the name under which `sample`
    looks for that of its model.
    """
    label = folder.name if folder.is_dir() or is_address(folder) else folder.stem
    base = registry.slug(f"{label}-{resolution}")
    if recipe.upscaler_for is not None:
        base = registry.upscaler_name(registry.resolve(recipe.upscaler_for), recipe.factor or FACTOR)
    name = base
    number = 1
    while not _is_free_for(registry.model_directory(name), request):
        number += 1
        name = f"{base[:60]}-{number}"
    return name


def _is_free_for(directory: Path, request: dict[str, Any]) -> bool:
    """Whether a directory holds nothing, or the run of this request with any budget."""
    stored = run_directory.read_config(directory)
    if stored is None:
        return not run_directory.holds_foreign_model(directory)
    old, new = stored["request"], request
    return old.get("folder") == new["folder"] and not _changed(old["recipe"], new["recipe"]) - set(BUDGET_FIELDS)


# ── Requests ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _request(folder: Path, recipe: Recipe) -> dict[str, Any]:
    """The folder and the recipe, in JSON's types. Two commands with the same request train the same run."""
    request: dict[str, Any] = json.loads(json.dumps({"folder": str(folder), "recipe": to_dict(recipe)}))
    return request


def _compare(old: dict[str, Any], new: dict[str, Any], name: str) -> tuple[bool, Path | None]:
    """Compare two requests. → whether the budgets differ; the old folder, if the folders differ

    Raises UsageError if any other field of the recipes differs.
    """
    before, now = old["recipe"], new["recipe"]
    differing = [key for key in now if key in _changed(before, now)]
    if changes := [f"{key}: {_shown(before.get(key))} → {_shown(now[key])}"
                   for key in differing if key not in BUDGET_FIELDS]:
        raise UsageError(f"the run {name!r} was begun with another recipe ({'; '.join(changes)})",
                         hint="Use the same options to resume, --fresh to start anew, or another --name")
    moved = old.get("folder") != new["folder"]
    return bool(differing), Path(str(old.get("folder"))) if moved else None


def _changed(before: dict[str, Any], now: dict[str, Any]) -> set[str]:
    """The options of a recipe with another value. Runs begun before there were foundations have null for --init."""
    return {key for key in now if before.get(key) != now[key]
            and not (key == "init" and before.get(key) is None and now[key] in ("auto", "none"))}


def _shown(value: Any) -> str:
    """The value of an option in a message."""
    return "not given" if value is None else str(value)
