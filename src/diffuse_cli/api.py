"""The same from Python: a model draws PIL pictures, a training is a stream of events, an export is its report.

Thin over the engine, as the commands are: what is wanted is the same `Wanted`, what is asked the same `Recipe` and
`Machine`. Every error that a user can cause is a `DiffuseError`. Prints nothing.
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
from .config import Export, Machine, Recipe, Sampling
from .data import images
from .errors import UsageError
from .events import Event
from .exporting import publishing
from .runtime import devices, launch_environment
from .runtime.distributed import World
from .sampling import generate, png_metadata
from .sampling.request import Start, Wanted, open_picture, start_of
from .storage import checkpoint, registry
from .training import loop
from .training.run import join_run, open_run

Picture = Image.Image | Path | str
_ARGUMENTS = ("prompt", "n", "seed", "negative", "init", "strength", "mask", "sampling")       # of `sample` by name


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
        """`n` pictures (R×R pixels, RGB). Picture k has seed + k, and is the same in any company; None is random.

        init, mask, strength: as `diffuse sample` takes them. Pictures are fitted as training fits them. options: the
        fields of `Sampling` (sampler, steps, guidance, guidance_interval, batch_size, precision), over those of
        `sampling`. `info` of each picture has the texts that a PNG of it would have, among them its seed.
        Raises UsageError, DataError, OutOfMemoryError.
        """
        usual = to_dict(sampling or Sampling())
        how = from_dict(Sampling, {**usual, **_known(options, Sampling, also=_ARGUMENTS)}, where="sample")
        wanted = Wanted(prompt=prompt, negative=negative, count=n, start=self._start(init, strength, mask),
                        seed=secrets.randbelow(2**32) if seed is None else seed, sampling=how)
        return [self._image(drawn) for drawn in self.draw([wanted])]

    def draw(
        self, wanted: Sequence[Wanted], *, frames: bool = False, world: World | None = None,
        advance: Callable[[float], None] = lambda done: None,
    ) -> Iterator[generate.Drawn]:
        """Pictures of several prompts as they are finished, as arrays: what `diffuse sample` calls.

        See `generation.draw`. world: the processes that draw together; None is this one alone. advance: is told after
        every step how many pictures are done, parts included.
        """
        return generate.draw(self.model, wanted, frames=frames, world=world, advance=advance)

    def _start(self, init: Picture | None, strength: float | None, mask: Picture | None) -> Start | None:
        if init is None:
            if mask is not None or strength is not None:
                raise UsageError("strength and mask need a picture to start from", hint="Give init")
            return None
        return start_of(self._fitted(init), None if mask is None else self._fitted(mask), strength)

    def _fitted(self, picture: Picture) -> np.ndarray:
        if not isinstance(picture, Image.Image):
            return open_picture(Path(picture), self.resolution)
        return images.fit(images.to_rgb(images.upright(picture)), self.resolution)

    def _image(self, drawn: generate.Drawn) -> Image.Image:
        image = Image.fromarray(drawn.pixels)
        image.info.update(png_metadata.texts(png_metadata.made_of(drawn, self.model)))
        return image


def train(
    folder: str | Path, *, should_stop: Callable[[], str | None] = lambda: None, **options: Any,
) -> Iterator[Event]:
    """Train on a folder of pictures, or go on with the same training: an event for everything that happens.

    options: those of `diffuse train --help` with _ for -: the fields of `Recipe` and `Machine`. The run is locked from
    the first event to the last; an iterator that is closed, or interrupted by an exception such as Ctrl-C, leaves
    the last save. `should_stop` is asked after every step; the name of a signal, such as "SIGINT", saves and ends. No
    signal is caught here. Several processes are joined where the environment says so (torchrun, srun), never started.
    Raises DiffuseError of every kind, the first when the first event is asked for.
    """
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
    """Write the model, named as for `load`, to `out`, a new place, in another form: what `diffuse export` does.

    to, scheduler, precision: as its options take them. → the report, with what was compared. Raises UsageError,
    ModelError, ExportError when it is not the same model, StorageError; then nothing was written.
    """
    how, target = Export(format=to, scheduler=scheduler, precision=precision, verify=verify), Path(out)
    how.check_name(target)
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already", hint="Choose another place")
    publishing.check(how)
    path = registry.resolve(None if model is None else str(model))
    return publishing.export(checkpoint.load_model(path, torch.device("cpu")), target, how, source=path)


def _known(options: dict[str, Any], *kinds: type, also: Sequence[str] = ()) -> dict[str, Any]:
    """The options, if every name is a field of one of the kinds. Raises UsageError with the nearest, or all there are.
    """
    names = (*also, *(field.name for kind in kinds for field in dataclasses.fields(kind)))
    for name in options:
        check_choice("this function", name, names)
    return options
