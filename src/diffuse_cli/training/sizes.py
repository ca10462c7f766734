"""The sizes of a run's pictures, and how pictures of another shape get them: choices that need no torch."""

import shutil
import sys
from pathlib import Path

from ..checks import from_dict
from ..config import CROP, FACTOR, Machine, Plan, Recipe
from ..data import bucket_choice, fit_choice
from ..data.colours import Rendering
from ..data.file_types import remedies
from ..data.images import read_size, reason_in_header
from ..data.listing import PictureListing
from ..errors import DataError, UsageError
from ..model_config import SIDE_MULTIPLE, Upscaling
from ..network.presets import map_sizes
from ..picture_size import Size
from ..sampling.request import rendering_of
from ..storage import registry, run_directory
from ..storage.model_info import ModelInfo, read_model_info

RESOLUTIONS = (16, 32, 64)                      # sides of squares to choose from if the user gives none, in pixels
GPU_DEVICES = ("nvidia0", "kfd", "dxg")         # names in /dev: of NVIDIA, of AMD, and of both in WSL
PROBED_PICTURES = 500                           # rough number of pictures whose size decides on the resolution


def choose_resolution(found: PictureListing, recipe: Recipe, machine: Machine) -> tuple[Size, str]:
    """The resolution, and the reason: that of --resolution, otherwise of --init, otherwise one of `RESOLUTIONS`.

    The largest is chosen that the median picture fills, up to 64 on a GPU and 32 on a CPU. Raises DataError if no
    picture can be read.
    """
    if recipe.resolution is not None:
        return recipe.resolution, "as asked"
    if recipe.upscaler_for is not None:
        return _choose_crop(recipe)
    if recipe.init not in ("auto", "none"):
        return read_model_info(registry.resolve(recipe.init)).config.network.resolution, recipe.why_as_init
    every = max(1, len(found.pictures) // PROBED_PICTURES)
    sides = sorted(min(size) for picture in found.pictures[::every] if (size := read_size(picture.path)) is not None)
    if not sides:
        first = found.pictures[0]
        reason = reason_in_header(first.path)
        raise DataError(f"none of the {len(found.pictures):,} pictures in {found.folder} can be read, for example "
                        f"{first.name} ({reason})",
                        hint="; ".join((*remedies([reason]), f"{found.check_command} lists them")))
    median = sides[len(sides) // 2]
    largest, where = (64, "on a GPU") if _has_accelerator(machine) else (32, "on a CPU")
    side = max((size for size in RESOLUTIONS if size <= min(largest, median)), default=min(RESOLUTIONS))
    return Size(side, side), f"for pictures of about {median} px {where}"


def choose_upscaling(recipe: Recipe) -> Upscaling | None:
    """What the upscaler of a recipe enlarges, or the teacher of its student; None for any other recipe.

    Raises UsageError if that is impossible, ModelError.
    """
    if recipe.evaluations is not None:
        return read_model_info(registry.resolve(recipe.init)).config.network.upscaling
    if recipe.upscaler_for is None:
        return None
    config = _enlarged_model(recipe).config
    config.check_can_be_enlarged()
    return Upscaling(factor=recipe.factor or FACTOR, small=config.network.resolution)


def _enlarged_model(recipe: Recipe) -> ModelInfo:
    """The model whose pictures the upscaler of a recipe enlarges. Raises ModelError."""
    return read_model_info(registry.resolve(recipe.upscaler_for))


def _choose_crop(recipe: Recipe) -> tuple[Size, str]:
    """The size of the crops on which an upscaler is trained, and the reason."""
    if recipe.init not in ("auto", "none"):
        return read_model_info(registry.resolve(recipe.init)).config.network.resolution, "crops, as those of --init"
    factor = recipe.factor or FACTOR
    network = _enlarged_model(recipe).config.network
    side = min(CROP, *(factor * side for size in network.sizes for side in size))
    return Size(side, side), f"crops of the pictures of {network.resolution.scaled(factor)} px that it will draw"


def choose_fit(found: PictureListing, recipe: Recipe, resolution: Size) -> tuple[str, str]:
    """How pictures get the shape of `resolution`, and the reason.

    It is that of --fit, that of a student's teacher, buckets if the model of --init has several sizes, or what the data
    need. Raises DataError, ModelError.
    """
    if recipe.fit != "auto":
        return recipe.fit, "as asked"
    if recipe.upscaler_for is not None:
        first = _enlarged_model(recipe)
        return rendering_of(first.config, first.training).fit, "that of the model whose pictures are enlarged"
    if recipe.evaluations is not None:
        info = read_model_info(registry.resolve(recipe.init))
        return rendering_of(info.config, info.training).fit, "that of its teacher"
    if len(_sizes_of_start(recipe)) > 1:
        return "buckets", "that of --init"
    return fit_choice.choose_fit(found, Rendering(**recipe.colour_options), resolution)


def choose_sizes(found: PictureListing, recipe: Recipe, resolution: Size, fit: str) -> tuple[tuple[Size, ...], str]:
    """The sizes of the pictures, the commonest first, and how well they fit: one, or with buckets those of a student's
    teacher, or of the model of --init if it has several, otherwise what the pictures need.

    Raises UsageError, ModelError.
    """
    if (upscaling := choose_upscaling(recipe)) is not None:
        sizes = _enlarged_sizes(recipe, upscaling)
        if any(crop > side for size in sizes for crop, side in zip(resolution, size, strict=True)):
            raise UsageError(f"crops of {resolution} px are larger than the pictures of {upscaling.large} px",
                             hint="Leave --resolution out")
        return sizes, f"enlarged from {upscaling.small} px"
    if fit != "buckets":
        return (resolution,), ""
    of_start = _sizes_of_start(recipe)
    if len(of_start) > 1 or recipe.evaluations is not None:
        return of_start, f"{len(of_start)} shape{'' if len(of_start) == 1 else 's'}"
    return bucket_choice.choose_sizes(found, resolution, multiple=max(
        SIDE_MULTIPLE, 2 ** (len(map_sizes(resolution)) - 1)))


def _enlarged_sizes(recipe: Recipe, upscaling: Upscaling) -> tuple[Size, ...]:
    """The sizes of the pictures on whose crops an upscaler is trained: those of a student are its teacher's."""
    if recipe.evaluations is None:
        return tuple(size.scaled(upscaling.factor) for size in _enlarged_model(recipe).config.network.sizes)
    run = run_directory.read_config(registry.resolve(recipe.init).parent)
    plan = None if run is None else from_dict(Plan, run["plan"], where=f"{run_directory.CONFIG_FILE}: plan")
    return (upscaling.large,) if plan is None else plan.crop_of


def _sizes_of_start(recipe: Recipe) -> tuple[Size, ...]:
    """The sizes of the model of --init; () if the recipe names none."""
    if recipe.init in ("auto", "none"):
        return ()
    return read_model_info(registry.resolve(recipe.init)).config.network.sizes


def _has_accelerator(machine: Machine) -> bool:
    """Whether training will probably run on a GPU, as far as that can be known without torch."""
    if machine.device is not None:
        return not machine.device.startswith("cpu")
    if machine.gpus is not None:
        return machine.gpus != "0"
    if sys.platform == "win32":
        return shutil.which("nvidia-smi") is not None
    return sys.platform == "darwin" or any(Path("/dev", name).exists() for name in GPU_DEVICES)
