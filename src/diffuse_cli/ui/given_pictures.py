"""Pictures that are given to the page: fitted to a model, as one to start from, and read for the settings in them.

Each goes through the same door as a file that a command names: it is written to a temporary directory of this process,
and decoded in a process of its own.
"""

import base64
import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..checks import to_dict
from ..data.colours import Rendering
from ..errors import DataError, ModelError, UsageError
from ..files import durable, temporaries
from ..pictures import image_files
from ..sampling import png_metadata
from ..sampling.png_metadata import SampleMetadata
from ..sampling.request import InitImage, open_fitted, open_init_image, rendering_of
from ..storage.model_info import ModelInfo
from .choices import Models

_FIELDS = ("sampler", "steps", "guidance", "guidance_interval", "batch_size", "precision")


def fitted(picture: bytes, model: ModelInfo, *, is_mask: bool) -> bytes:
    """A picture, or a mask, as `diffuse sample` fits it to the model: the bytes of a PNG. Raises DataError."""
    rendering = rendering_of(model.config, model.training)
    with _files(picture) as (path,):
        pixels = open_fitted(path, model.config.network.resolution,
                             Rendering(fit=rendering.fit) if is_mask else rendering)
    return image_files.encode(pixels)


def init_image(picture: str, mask: str, strength: float | None, model: ModelInfo) -> InitImage:
    """The picture to start from, and its mask if there is one, each a file in base64.

    Raises UsageError, and DataError for a file that is no picture.
    """
    try:
        given = [base64.b64decode(text, validate=True) for text in (picture, mask) if text]
    except ValueError as error:                 # no base64, or letters beyond ASCII
        raise UsageError("the picture to start from cannot be read") from error
    with _files(*given) as (path, *masks):
        return open_init_image(path, masks[0] if masks else None, model.config.network.resolution, strength,
                               rendering_of(model.config, model.training))


def recorded_settings(picture: bytes, models: Models) -> dict[str, Any]:
    """The settings in a PNG: `values` of the form, as far as they are known, and `notes` for people. Raises DataError.
    """
    with _files(picture) as (path,):
        found = png_metadata.read_settings(path)
    values: dict[str, Any] = {"prompt": found.prompt, "negative": found.negative, "count": 1}
    if found.seed is not None:
        values["seed"] = str(found.seed)
    if not isinstance(found, SampleMetadata):
        notes = ["The picture was made by another program; this model draws another one."]
        if found.ignored:
            notes.append(f"Without counterpart here: {', '.join(found.ignored[:8])}.")
        return {"values": values | found.sampling, "notes": notes}
    notes = []
    values |= {name: value for name, value in to_dict(found).items() if name in _FIELDS}
    try:
        values["model"] = models.name_of(png_metadata.find_model(found.model, found.model_sha256))
    except (ModelError, StopIteration):
        notes.append(f"The model that drew it, {found.model!r}, is not here; another one draws another picture.")
    if found.upscaler is not None:
        values["size"] = "{}x{}".format(*found.size)
    if found.init_sha256 is not None:
        values["strength"] = found.strength
        notes.append("It was drawn from another picture" + (" and a mask, which" if found.mask_sha256 else ", which")
                     + " must be given again.")
    return {"values": values, "notes": notes}


@contextlib.contextmanager
def _files(*contents: bytes) -> Iterator[list[Path]]:
    """Yield a temporary file for each of the contents. An error about one of them names it "the picture"."""
    with temporaries.directory_in(durable.scratch_directory(), 0o700) as directory:
        paths = [directory / str(number) for number in range(len(contents))]
        try:
            for path, content in zip(paths, contents, strict=True):
                durable.write(path, content)
            yield paths
        except DataError as error:
            what = error.what
            for path in paths:
                what = what.replace(str(path), "the picture")
            raise DataError(what, hint=error.hint) from error
