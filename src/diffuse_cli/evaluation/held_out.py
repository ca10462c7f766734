"""Which pictures a model is evaluated on: those that its run held out, or all pictures in a folder that the user names.

Finds and decodes these pictures, and the training pictures of the model where they are known.
"""

from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..checks import from_dict
from ..config import Plan, Recipe
from ..data.captions import find_pictures
from ..data.channel_choice import choose_channels
from ..data.colours import Rendering
from ..data.dataset import open_dataset
from ..data.hub import is_address
from ..data.listing import Dataset
from ..data.split import numbers_of, split_dataset
from ..errors import DataError, UsageError
from ..events import Noticed, Scanned
from ..picture_size import Resolution, Size
from ..sampling.request import rendering_of
from ..storage import home_directory, run_directory, trained_pictures
from ..storage.model_info import read_model_info

_HINT = "Name a folder of pictures that the model has not seen: diffuse evaluate MODEL DIR"


@dataclass(frozen=True)
class TrainingData:
    """The data set of a run, with the positions of its training pictures and of those held out."""

    dataset: Dataset
    train: np.ndarray                           # (…,) int64, as the next
    held_out: np.ndarray

    def of_size(self, size: Size) -> "TrainingData":
        """Those pictures alone that have the size."""
        number = self.dataset.sizes.index(size)
        return replace(self, train=self.dataset.by_size(self.train)[number],
                       held_out=self.dataset.by_size(self.held_out)[number])


@dataclass(frozen=True)
class HeldOutPictures:
    """The pictures at `positions` of `dataset`, on which a model is evaluated."""

    dataset: Dataset
    positions: np.ndarray                       # (…,) int64
    training: TrainingData | None               # of the model; None if it is unknown or no longer there
    held_out_by_run: bool                       # whether the pictures are those that the model's run held out

    def of_size(self, size: Size) -> "HeldOutPictures":
        """Those pictures alone that have the size. Raises DataError if there are none."""
        positions = self.dataset.by_size(self.positions)[self.dataset.sizes.index(size)]
        if not len(positions):
            raise DataError(f"none of the {len(self.positions):,} pictures to measure on is of {size} px",
                            hint="Choose another --size of the model")
        return replace(self, positions=positions, training=self.training and self.training.of_size(size))


def open_held_out(
    model: Path, folder: Path | None, *, resolution: Resolution
) -> Generator[Scanned | Noticed, None, HeldOutPictures]:
    """Find and decode the pictures on which the model in the file `model` is evaluated, in its size `resolution`.

    If the model has several sizes, the pictures have them too, and `HeldOutPictures.of_size` chooses those of one.

    Yields progress and warnings, returns the HeldOutPictures. A model in the directory of its run is evaluated on the
    pictures that the run held out. If a folder (or manifest) is named, its pictures are used instead, with captions as
    the run read them.

    Raises UsageError if there is neither a run nor a folder. Without a folder, raises DataError when the run's pictures
    are gone or changed, or when the run held none out. With a folder, only a warning says that the run's pictures are
    gone or changed.
    """
    stored = run_directory.read_config(model.parent)
    if folder is None:
        if stored is None:
            raise UsageError("nothing beside this model says which pictures it has not seen", hint=_HINT)
        training = yield from _open_training_data(stored, model.parent)
        if len(training.held_out) == 0:
            raise DataError(f"the run {model.parent.name!r} held nothing out: it had fewer than 20 pictures",
                            hint=_HINT)
        return HeldOutPictures(training.dataset, training.held_out, training, held_out_by_run=True)

    caption_options: dict[str, Any] = {}
    known = None
    if stored is not None:
        caption_options = {**_recipe(stored).caption_options, "more_folders": ()}
        try:
            known = yield from _open_training_data(stored, model.parent)
        except DataError as error:
            yield Noticed(message=f"memorisation cannot be measured: {error.what}", level="warning")
    info = read_model_info(model)
    dataset = yield from open_dataset(
        find_pictures(folder, **caption_options), resolution=resolution, directory=home_directory.cache_directory(),
        rendering=replace(rendering_of(info.config, info.training), enlarge=not info.config.is_upscaler))
    if info.config.network.channels < choose_channels(dataset)[0]:
        yield Noticed(level="warning", message=f"the model draws grey pictures, and those in {folder} have colours, of "
                                               "which it is measured on the green ones")
    dataset = dataset.with_channels(info.config.network.channels)
    if known is not None:
        seen = numbers_of(known.dataset.pixel_hashes)[known.train]
        copies = int(np.isin(numbers_of(dataset.pixel_hashes), seen).sum())
        if copies:
            yield Noticed(message=f"{copies:,} of the {len(dataset.pixel_hashes):,} pictures in {folder} are among "
                                  "those that the model was trained on", level="warning")
    return HeldOutPictures(dataset, np.arange(len(dataset.names)), known, held_out_by_run=False)


def _open_training_data(stored: dict[str, Any], run: Path) -> Generator[Scanned | Noticed, None, TrainingData]:
    """The data set of the run in the directory `run`, with the config `stored`.

    Raises DataError if it is gone or has changed.
    """
    name, folder, plan = run.name, Path(stored["request"]["folder"]), from_dict(Plan, stored["plan"], where="plan")
    if not folder.exists() and not is_address(folder):
        raise DataError(f"the pictures that {name!r} was trained on are gone: {folder}", hint=_HINT)
    run_directory.check_was_typed(run, stored["request"])
    dataset = yield from open_dataset(
        find_pictures(folder, **_recipe(stored).caption_options), resolution=plan.crop_of or plan.model.network.sizes,
        directory=home_directory.cache_directory(), rendering=Rendering(
            **_recipe(stored).colour_options, fit=plan.fit, enlarge=not plan.model.is_upscaler))
    if dataset.content_id != plan.data_id:
        raise DataError(f"the pictures or captions in {folder} changed since {name!r} was trained on them", hint=_HINT)
    split = split_dataset(dataset.pixel_hashes, names=dataset.names, folder=_recipe(stored).held_out,
                          limit=plan.held_out_limit)
    split = split.without(trained_pictures.once_trained(run, dataset.pixel_hashes, split.held_out))
    return TrainingData(dataset.with_channels(plan.model.network.channels), split.train, split.held_out)


def _recipe(stored: dict[str, Any]) -> Recipe:
    return from_dict(Recipe, stored["request"]["recipe"], where="recipe")
