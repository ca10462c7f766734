"""The directory of a training run: which files it holds, what they say, and how an old run is moved aside.

Uses the standard library only, so that a run is found and locked before torch is imported.

    models/<name>/lock  config.json  tokenizer.json  events.jsonl  skipped.jsonl  trained-pictures.bin  previews/
                  step-00001000.safetensors  HEAD-0  HEAD-1      training states, and which of them are whole
                  model.safetensors  best.safetensors            averaged weights: of the newest save, and the best
"""

import contextlib
import json
from pathlib import Path
from typing import Any

from .. import hub
from ..checks import from_dict, to_dict
from ..config import RENAMED_FIELDS, Recipe
from ..errors import DataError, StorageError, UsageError, system_reason
from ..files import durable, temporaries
from ..files.input_files import read_input
from ..files.strict_json import MAX_JSON_BYTES, JsonError, loads_strict
from . import registry, training_states
from .event_log import LOG_FILE

CONFIG_FILE = "config.json"


# ── Configuration ───────────────────────────────────────────────────────────────────────────────────────────────────


def write_config(directory: Path, *, request: dict[str, Any], plan: dict[str, Any]) -> None:
    """Write a run's request and its plan durably: from now on the run exists. Raises StorageError."""
    durable.write(directory / CONFIG_FILE, (json.dumps({"request": request, "plan": plan}, indent=2) + "\n").encode())


def read_config(directory: Path) -> dict[str, Any] | None:
    """Read the {"request", "plan"} of the run in `directory`. → None if no run exists there

    The request holds a folder, and a recipe that `Recipe` admits; the plan may hold anything. Fields that had another
    name in an earlier version get today's name, and options that it did not have get their defaults. Raises
    StorageError when the file is damaged.
    """
    try:
        raw = read_input(directory / CONFIG_FILE, limit=MAX_JSON_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"cannot read {directory / CONFIG_FILE}: {system_reason(error)}") from error
    try:
        content = loads_strict(raw)
        request, plan = content["request"], content["plan"]
        if not (isinstance(request["folder"], str) and isinstance(request["recipe"], dict) and isinstance(plan, dict)):
            raise TypeError
        recipe = _without_idle_options({**json.loads(json.dumps(to_dict(Recipe()))),
                                        **_with_new_names(request["recipe"])})
        known = {**recipe, "init": recipe["init"] or "none"}        # null where a run is older than foundations
        from_dict(Recipe, known, where="recipe")
    except (JsonError, TypeError, KeyError, UsageError) as error:
        reason = f": {error.what}" if isinstance(error, UsageError) else ""
        raise StorageError(f"{directory / CONFIG_FILE} is damaged{reason}",
                           hint=f"To start anew: --name {directory.name} --fresh") from error
    return {"request": {**request, "recipe": recipe}, "plan": _with_new_names(plan)}


def check_was_typed(directory: Path, request: dict[str, Any]) -> None:
    """Raise DataError if the request of the run in `directory` names pictures of the Hub that nobody typed here.

    A folder with a model may come from anywhere, and would have its pictures downloaded.
    """
    places = (request["folder"], *request["recipe"]["more_folders"])
    if registry.name_of(directory / registry.MODEL_FILE) is None and any(map(hub.parse_address, places)):
        raise DataError(f"the model in {directory} was trained on pictures of the Hub, which are not downloaded unless "
                        "you name them", hint="Copy the model's file alone, and name a folder")


def _without_idle_options(recipe: dict[str, Any]) -> dict[str, Any]:
    """A recipe without options that did nothing beside others, and that earlier versions did not refuse there."""
    if recipe["caption"] is not None:
        return {**recipe, "captions": "auto"}
    return {**recipe, "shuffle_tags": False, "tag_dropout": 0.0} if recipe["captions"] == "none" else recipe


def _with_new_names(fields: dict[str, Any]) -> dict[str, Any]:
    return {RENAMED_FIELDS.get(name, name): value for name, value in fields.items()}


# ── Files of a run ──────────────────────────────────────────────────────────────────────────────────────────────────


def holds_foreign_model(directory: Path) -> bool:
    """Whether the directory holds a model that was not trained there."""
    model_alone = (directory / registry.MODEL_FILE).exists() and not (directory / CONFIG_FILE).exists()
    return model_alone and not is_half_moved(directory)


def is_half_moved(directory: Path) -> bool:
    """Whether the directory holds a log or states, but no plan: then `move_aside` was killed before it ended."""
    return not (directory / CONFIG_FILE).exists() and any(map(_belongs_to_a_plan, directory.iterdir()))


def _belongs_to_a_plan(path: Path) -> bool:
    """Whether a file is only written after the plan of its run."""
    return path.name == LOG_FILE or training_states.is_state_or_head(path.name)


def move_aside(directory: Path) -> str | None:
    """Move an old run's files to a directory with another name. → that name, or None if there are no files

    `directory` itself stays, because its lock is held. The plan is moved first: without it there is no run. The log and
    the states are moved last: wherever the process is killed, `is_half_moved` recognises it, and the next start
    completes the move. Raises StorageError.
    """
    old = [path for path in directory.iterdir() if path.name != registry.LOCK_FILE]
    if not old:
        return None
    aside = registry.model_directory(registry.free_name(f"{directory.name[:56]}-old"))
    durable.make_directory(aside)
    try:
        for group in ([path for path in old if path.name == CONFIG_FILE],
                     [path for path in old if path.name != CONFIG_FILE and not _belongs_to_a_plan(path)],
                     [path for path in old if _belongs_to_a_plan(path)]):
            for path in group:
                temporaries.replace(path, aside / path.name)
            durable.sync_directory(aside)
            durable.sync_directory(directory)
    except OSError as error:
        durable.fail(error, aside)
    return aside.name


def remove_if_empty(directory: Path) -> None:
    """Remove the directory of a run that was never started. Call it only while its lock is held."""
    with contextlib.suppress(OSError, StorageError):                   # Windows does not remove an open file
        if [path.name for path in directory.iterdir()] == [registry.LOCK_FILE]:
            durable.remove_tree(directory)
