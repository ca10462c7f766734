"""Recipes in files: `train --config` reads TOML, or the config.json of a run; `train --save` writes TOML."""

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import config
from ..checks import from_dict, parse_duration, parse_size, to_dict
from ..config import Recipe
from ..errors import UsageError, system_reason
from ..files.input_files import read_input
from ..files.strict_json import MAX_JSON_BYTES, loads_strict
from ..files.strict_toml import TomlError, loads_toml
from ..picture_size import Size
from . import options, output_files

if TYPE_CHECKING:
    from ..config import Plan

SUFFIX = ".toml"
BUDGETS = ("steps", "images", "time")           # fields of `Recipe` of which a command gives one
_HEAD = """\
# A recipe of diffuse-cli. Train with it: diffuse train --config FILE
# Options that are typed replace its lines. Paths are found from the directory in which the command is run.
"""


def read(path: Path | None, folder: Path | None, typed: dict[str, Any]) -> tuple[Path, Recipe]:
    """Folder and recipe of the file at `path`, if there is one. What was typed replaces its settings.

    Settings may have their names of earlier versions. Raises UsageError.
    """
    recipe: dict[str, Any] = {}
    if path is not None:
        try:
            stored_folder, recipe = _read_toml(path) if path.suffix.lower() == SUFFIX else _read_config(path)
            folder = folder or stored_folder
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            reason = f": {system_reason(error)}" if isinstance(error, OSError) else \
                f": {error}" if isinstance(error, TomlError) else ""
            raise UsageError(f"--config cannot use {path}{reason}",
                             hint="Give the config.json of a run, or a .toml that `train --dry-run --save` wrote"
                             ) from error
    if folder is None:
        raise options.no_folder()
    recipe = {config.RENAMED_FIELDS.get(name, name): value for name, value in recipe.items()}
    if any(budget in typed for budget in BUDGETS):                     # a typed budget replaces the file's
        recipe = {name: value for name, value in recipe.items() if name not in BUDGETS}
    return folder, from_dict(Recipe, {**recipe, **typed}, where="--config" if path else "")


def _read_config(path: Path) -> tuple[Path | None, dict[str, Any]]:
    request = loads_strict(read_input(path, limit=MAX_JSON_BYTES))["request"]
    return Path(request["folder"]), dict(request["recipe"])


def _read_toml(path: Path) -> tuple[Path | None, dict[str, Any]]:
    """The folder, if the file names one, and the settings. Their names may have hyphens, as those of options."""
    content = loads_toml(read_input(path, limit=MAX_JSON_BYTES).decode())
    folder = content.pop("folder", None)
    recipe = {name.replace("-", "_"): value for name, value in content.items()}
    if twice := content.keys() & {name.replace("_", "-") for name in content if "_" in name}:
        raise TomlError(f"{min(twice)} is there twice")
    if isinstance(recipe.get("time"), str):
        recipe["time"] = parse_duration("--config: time", recipe["time"])
    if isinstance(recipe.get("resolution"), str):
        recipe["resolution"] = parse_size(recipe["resolution"])
    return None if folder is None else Path(folder), recipe


def check_new(path: Path) -> Path:
    """Check that a recipe may be written to this new file. Raises UsageError."""
    return output_files.new_file(path, default="", suffixes=(SUFFIX,), option="--save")


def write(path: Path, folder: Path, recipe: Recipe, plan: "Plan", resolution: Size) -> None:
    """Write a recipe with the choices that were made for it. Raises UsageError if the file exists, StorageError.

    resolution: the one that was chosen, if the recipe has none.
    """
    import tomli_w

    chosen = dataclasses.replace(
        recipe, resolution=recipe.resolution or resolution, preset=plan.preset, batch_size=plan.batch_size, lr=plan.lr,
        flip=plan.flip, steps=plan.steps if recipe.images is None and recipe.time is None else None)
    settings: dict[str, Any] = {name.replace("_", "-"): list(value) if isinstance(value, tuple) else value
                                for name, value in to_dict(chosen).items() if value not in (None, ())}
    if "time" in settings:
        settings["time"] = f"{settings['time']:g}s"
    text = tomli_w.dumps({"folder": os.fspath(folder), **settings})
    output_files.write_new(path, f"{_HEAD}\n{text}".encode(), option="--save")
