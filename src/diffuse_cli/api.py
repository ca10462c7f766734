"""The same from Python: a model draws PIL pictures, a training is a stream of events, an export is its report.

Prints nothing. Every error that a user can cause is a `DiffuseError`.
"""

import contextlib
import dataclasses
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .checks import check_choice, from_dict, parse_duration, to_dict
from .config import RENAMED_FIELDS, Export, Machine, Recipe, Sampling
from .data import images
from .errors import UsageError
from .events import Event
from .exporting import publishing
from .runtime import devices, launch_environment
from .runtime.distributed import World
from .sampling import generate as generation
from .sampling import png_metadata, request
from .sampling.request import InitImage, SampleRequest, init_image, open_picture
from .storage import checkpoint, registry
from .training import loop
from .training.run import join_run, open_run

Picture = Image.Image | Path | str
_ARGUMENTS = ("prompt", "n", "seed", "negative", "init", "strength", "mask", "sampling")       # of `sample`


def load(model: str | Path | None = None, *, device: str | None = None) -> "LoadedModel":
    """The model that `diffuse sample -m MODEL` would use: a name or a path; None is the last trained.

    device: cpu, cuda or mps; None is the fastest there is. Raises ModelError, UsageError.
    """
    path = registry.resolve(None if model is None else str(model))
    return LoadedModel(checkpoint.load_model(path, devices.choose_device(Machine(device=device))))


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model in memory. `model` holds its configuration, the words it has seen, and how it was trained."""

    model: checkpoint.Model

    @property
    def resolution(self) -> int:
        """Pixels along a side."""
        return self.model.config.network.resolution

    def sample(
        self, prompt: str = "", n: int = 1, *, seed: int | None = None, negative: str = "",
        init: Picture | None = None, strength: float | None = None, mask: Picture | None = None,
        sampling: Sampling | None = None, **options: Any,
    ) -> list[Image.Image]:
        """Draw `n` pictures (R×R pixels, RGB). Picture k has seed + k, whatever is drawn with it; None is random.

        init, mask, strength: as the options of `diffuse sample`; pictures are fitted as training fits them. options:
        fields of `Sampling` (sampler, steps, guidance, guidance_interval, batch_size, precision), which replace those
        of `sampling`. `info` of each picture has the texts that its PNG would have, among them its seed. Raises
        UsageError, DataError, OutOfMemoryError.
        """
        usual = to_dict(sampling or Sampling())
        chosen = from_dict(Sampling, {**usual, **_known(options, Sampling, also=_ARGUMENTS)}, where="sample")
        request = SampleRequest(
            prompt=prompt, negative=negative, count=n, init=self._init_image(init, strength, mask),
            seed=secrets.randbelow(2**32) if seed is None else seed, sampling=chosen)
        return [self._image(sample) for sample in self.generate([request])]

    def generate(
        self, requests: Sequence[SampleRequest], *, frames: bool = False, world: World | None = None,
        progress: Callable[[float], None] = lambda done: None,
    ) -> Iterator[request.Sample]:
        """The pictures of several requests as arrays, as they are finished: see `sampling.generate.generate`.

        world: the processes that draw together; None is this one alone. progress: called after every step with the
        number of pictures done, unfinished ones in part.
        """
        return generation.generate(self.model, requests, frames=frames, world=world, progress=progress)

    def _init_image(self, init: Picture | None, strength: float | None, mask: Picture | None) -> InitImage | None:
        if init is None:
            if mask is not None or strength is not None:
                raise UsageError("strength and mask need a picture to start from", hint="Give init")
            return None
        return init_image(self._fitted(init), None if mask is None else self._fitted(mask), strength)

    def _fitted(self, picture: Picture) -> np.ndarray:
        if not isinstance(picture, Image.Image):
            return open_picture(Path(picture), self.resolution)
        return images.fit(images.to_rgb(images.upright(picture)), self.resolution)

    def _image(self, sample: request.Sample) -> Image.Image:
        image = Image.fromarray(sample.pixels)
        image.info.update(png_metadata.texts(png_metadata.metadata_of(sample, self.model)))
        return image


def train(
    folder: str | Path, *, should_stop: Callable[[], str | None] = lambda: None, **options: Any,
) -> Iterator[Event]:
    """Train on a folder of pictures, or resume the same training: an event for everything that happens.

    options: those of `diffuse train --help` with _ for -: the fields of `Recipe` and `Machine`. The run is locked from
    the first event to the last. An iterator that is closed, or interrupted by an exception such as Ctrl-C, leaves the
    last save. should_stop: asked after every step; the name of a signal, such as "SIGINT", saves and ends. No signal is
    caught here. Several processes are joined where the environment says so (torchrun, srun), never started. Raises
    DiffuseError of every kind, when the first event is asked for or later.
    """
    options = {RENAMED_FIELDS.get(name, name): value for name, value in options.items()}
    if isinstance(options.get("time"), str):
        options["time"] = parse_duration("--time", options["time"])
    if type(options.get("gpus")) is int:
        options["gpus"] = str(options["gpus"])
    if options.get("log") is not None:
        raise UsageError("only the command line writes --log", hint="Log the events that `train` gives")
    known = {field.name for field in dataclasses.fields(Recipe)}
    recipe = from_dict(Recipe, {name: value for name, value in options.items() if name in known}, where="train")
    machine = from_dict(Machine, _known(
        {name: value for name, value in options.items() if name not in known}, Machine, Recipe), where="train")
    if devices.count_processes(machine) > launch_environment.place().size:
        raise UsageError("several processes are started by the command line, not from Python",
                         hint="Use `diffuse train --gpus N`, or start this program with torchrun")
    with contextlib.ExitStack() as stack:
        if launch_environment.place().is_main:
            run = stack.enter_context(open_run(Path(folder), recipe, machine))
        else:
            run = join_run(Path(folder), recipe, machine)
        yield from loop.train(run, should_stop=should_stop)


def export(
    model: str | Path | None, out: str | Path, *, to: str, scheduler: str | None = None, precision: str | None = None,
    verify: bool = True,
) -> dict[str, Any]:
    """Write a model, named as for `load`, to the new place `out` in another form, as `diffuse export` does.

    to, scheduler, precision: as its options. → the report, which says what was compared. Raises UsageError,
    ModelError, StorageError, and ExportError when the export does not give the model's answers; then nothing was
    written.
    """
    chosen, target = Export(format=to, scheduler=scheduler, precision=precision, verify=verify), Path(out)
    chosen.check_name(target)
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already", hint="Choose another place")
    publishing.check(chosen)
    path = registry.resolve(None if model is None else str(model))
    return publishing.export(checkpoint.load_model(path, torch.device("cpu")), target, chosen, source=path)


def _known(options: dict[str, Any], *kinds: type, also: Sequence[str] = ()) -> dict[str, Any]:
    """`options`, if every name is a field of one of the kinds. Raises UsageError, naming the nearest or all fields."""
    names = (*also, *(field.name for kind in kinds for field in dataclasses.fields(kind)))
    for name in options:
        check_choice("this function", name, names)
    return options
