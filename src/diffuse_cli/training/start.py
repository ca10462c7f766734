"""Which model a training starts from: a foundation that comes with the program, one that the user names, or none."""

from dataclasses import dataclass

import torch

from ..errors import ModelError
from ..network.presets import have_same_shape
from ..picture_size import Size
from ..storage import checkpoint, registry
from ..storage.model_info import read_model_info
from .plan import choose_preset
from .run import Run

_LESS_TO_LEARN = "it has seen other pictures, so less is left to learn; --init none starts from nothing"


@dataclass(frozen=True)
class Start:
    """The model whose weights a training starts from, and the reason. name: None for a new network."""

    name: str | None
    why: str


def choose_start(run: Run, device: torch.device, *, train_images: int) -> Start:
    """The model that --init names; with "auto" a foundation of the same layers, if the recipe leaves it its form.

    A run that has begun keeps its start.
    """
    recipe = run.recipe
    if recipe.upscaler_for is not None and recipe.init == "auto":
        return _start_of_upscaler(run, recipe.upscaler_for, device, train_images)
    if recipe.init == "none" or (run.plan is not None and run.plan.init_id is None):
        return Start(None, "as asked" if recipe.init == "none" else "as the run was begun")
    if recipe.init != "auto":
        return Start(recipe.init, "as asked")
    if not run.found.conditional:
        return Start(None, "a foundation reads captions, and there are none")
    if (recipe.prediction, recipe.variance, recipe.schedule) != ("v", "learned", "interpolated"):
        return Start(None, "the foundations have the default --prediction, --variance and --schedule")
    preset = choose_preset(recipe, device, train_images)[0] if run.plan is None else run.plan.preset
    name = _foundation(preset, run.resolution)
    if name is None:
        return Start(None, f"there is no foundation for {preset} at {run.resolution} px")
    return Start(name, _LESS_TO_LEARN)


def _foundation(preset: str, resolution: Size) -> str | None:
    """The name of the foundation whose layers are those of a network for this size, the nearest in size; else None."""
    fitting = {abs(side - resolution.side): name for side, name in registry.foundations(preset).items()
               if have_same_shape(preset, side, resolution)}
    return fitting[min(fitting)] if fitting else None


def _start_of_upscaler(run: Run, enlarged: str, device: torch.device, train_images: int) -> Start:
    """The upscaler that comes with the program, if it has the form of the new one; else the words of the model whose
    pictures are to be enlarged."""
    recipe, upscaling = run.recipe, run.upscaling
    assert upscaling is not None
    path, alone = registry.bundled_upscaler(upscaling.factor), Start(enlarged, "for its words; all else is new")
    if path is None or not run.found.conditional:
        return alone
    info = read_model_info(path)
    if run.plan is not None:
        fits = run.plan.init_id == info.sha256
    else:
        wanted = (choose_preset(recipe, device, train_images)[0],
                  recipe.prediction, recipe.variance == "learned", recipe.schedule)
        fits = wanted == (info.training.preset,
                          info.config.prediction, info.config.learned_variance, info.config.schedule)
    return Start(path.stem, _LESS_TO_LEARN) if fits else alone


def load_start(run: Run, name: str, device: torch.device) -> checkpoint.Model:
    """The model of --init. Raises ModelError if the run was begun from another model of that name."""
    init = checkpoint.load_model(registry.resolve(name), device)
    if run.recipe.upscaler_for is not None and init.config.conditional != run.found.conditional:
        raise ModelError(f"{name} {'reads' if init.config.conditional else 'knows no'} captions, and the pictures in "
                         f"{run.found.folder} have {'none' if init.config.conditional else 'some'}",
                         hint="Choose other --captions, or give an upscaler words of its own: --init none")
    if run.plan is not None and init.sha256 != run.plan.init_id:
        raise ModelError(f"{name} is no longer the model that the run {run.name!r} was begun from",
                         hint="Start anew with --fresh")
    return init
