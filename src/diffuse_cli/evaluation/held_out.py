"""Which pictures a model has not seen: those that its run held out, or all in a folder that the user names.

Finds and decodes them, and what the model learnt from. Knows no weights and no figures.
"""

from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import from_dict
from ..config import Plan, Recipe
from ..data.captions import find_pictures
from ..data.dataset import Dataset, open_dataset
from ..data.split import split_dataset
from ..errors import DataError, UsageError
from ..events import Noticed, Scanned
from ..storage import registry, run_directory

_HINT = "Name a folder of pictures that the model has not seen: diffuse evaluate MODEL DIR"


@dataclass(frozen=True)
class Learnt:
    """What a run was trained on: positions of the training pictures, and of those held out."""

    dataset: Dataset
    train: np.ndarray
    held_out: np.ndarray


@dataclass(frozen=True)
class HeldOut:
    """Pictures to measure a model with, at `positions` of `dataset`."""

    dataset: Dataset
    positions: np.ndarray
    learnt: Learnt | None                       # None where it is not known, or no longer there
    own: bool                                   # whether they are those that the run itself held out


def open_held_out(
    model: Path, folder: Path | None, *, resolution: int
) -> Generator[Scanned | Noticed, None, HeldOut]:
    """The pictures for the model in the file `model`: yields progress and remarks, returns them (`yield from` it).

    A model in the directory of its run is measured on what that run held out, unless a folder (or manifest) is named,
    whose captions are then read with the run's options. Raises UsageError when there is neither, DataError when the
    run's pictures are gone or changed, or none was held out.
    """
    stored = run_directory.read_config(model.parent)
    if folder is None:
        if stored is None:
            raise UsageError("nothing beside this model says which pictures it has not seen", hint=_HINT)
        learnt = yield from _open_learnt(stored, name=model.parent.name)
        if len(learnt.held_out) == 0:
            raise DataError(f"the run {model.parent.name!r} held nothing out: it had fewer than 20 pictures",
                            hint=_HINT)
        return HeldOut(learnt.dataset, learnt.held_out, learnt, own=True)

    options: dict[str, Any] = {}
    known = None
    if stored is not None:
        options = _recipe(stored).caption_options
        try:
            known = yield from _open_learnt(stored, name=model.parent.name)
        except DataError as error:
            yield Noticed(message=f"{error.what}: whether it memorises them cannot be told", level="warning")
    dataset = yield from open_dataset(
        find_pictures(folder, **options), resolution=resolution, directory=registry.cache_directory())
    if known is not None:
        seen = {known.dataset.hashes[position] for position in known.train.tolist()}
        copies = sum(digest in seen for digest in dataset.hashes)
        if copies:
            yield Noticed(message=f"{copies:,} of the {len(dataset.hashes):,} pictures in {folder} are among those "
                                  "that the model learnt from", level="warning")
    return HeldOut(dataset, np.arange(len(dataset.images)), known, own=False)


def _open_learnt(stored: dict[str, Any], *, name: str) -> Generator[Scanned | Noticed, None, Learnt]:
    """The data set of a run, as it was. Raises DataError when it is not."""
    folder, plan = Path(stored["request"]["folder"]), from_dict(Plan, stored["plan"], where="plan")
    if not folder.exists():
        raise DataError(f"the pictures that {name!r} learnt from are gone: {folder}", hint=_HINT)
    dataset = yield from open_dataset(
        find_pictures(folder, **_recipe(stored).caption_options), resolution=plan.model.network.resolution,
        directory=registry.cache_directory())
    if dataset.id != plan.data_id:
        raise DataError(f"the pictures or captions in {folder} changed since {name!r} learnt from them", hint=_HINT)
    split = split_dataset(dataset.hashes)
    return Learnt(dataset, split.train, split.held_out)


def _recipe(stored: dict[str, Any]) -> Recipe:
    return from_dict(Recipe, stored["request"]["recipe"], where="recipe")
