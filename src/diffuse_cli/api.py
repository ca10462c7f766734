"""The commands as Python functions: sample PIL pictures, train with a stream of events, export with a report.

Nothing is printed. Every error that a user can cause is a `DiffuseError`.
"""

import base64
import contextlib
import dataclasses
import html
import inspect
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict, Unpack

import numpy as np
import torch
from PIL import Image

from . import installing
from .checks import check_choice, from_dict, parse_duration, size_of_json, to_dict
from .config import RENAMED_FIELDS, Export, Machine, Recipe, Sampling
from .data import images
from .data.colours import Rendering, to_rgb
from .data.fitting import fitted_pixels
from .errors import UsageError
from .events import Event
from .picture_size import Size, nearest
from .pictures import image_files, sheets
from .runtime import devices, launch_environment
from .runtime.distributed import World
from .sampling import generate as generation
from .sampling import png_metadata, request, upscale
from .sampling.request import InitImage, SampleRequest, make_init_image, open_fitted, rendering_of
from .storage import checkpoint, registry

Picture = Image.Image | Path | str
_SHOWN_WORDS = 40                               # of the captions, the most frequent, in a notebook
_SAMPLE_PARAMETERS = ("prompt", "n", "seed", "size", "negative", "init", "strength", "mask", "sampling", "upscaler",
                      "progress")


def load(model: str | Path | None = None, *, device: str | None = None) -> "LoadedModel":
    """Load the model that `diffuse sample -m MODEL` would use: a name or a path; None is the last trained one.

    device: cpu, cuda or mps; None chooses the fastest. Raises ModelError, UsageError.
    """
    path = registry.resolve(None if model is None else str(model))
    return LoadedModel(checkpoint.load_model(path, devices.choose_device(Machine(device=device))), path)


class Pictures(list[Image.Image]):
    """A list of PIL pictures that a notebook shows side by side, enlarged if they are small."""

    def _repr_png_(self) -> bytes | None:
        if not self:
            return None
        pixels = np.stack([np.asarray(picture) for picture in self])
        return image_files.encode(sheets.grid(pixels if pixels.ndim == 4 else pixels[..., None]))


@dataclasses.dataclass(frozen=True, repr=False)
class LoadedModel:
    """A model in memory.

    Its attribute `model` holds the configuration, the words of the training captions, and how it was trained. `path` is
    its file.
    """

    model: checkpoint.Model
    path: Path | None = None

    @property
    def resolution(self) -> int | str:
        """The size of the pictures as `train` takes it: 64, or "96x64" if they are no squares."""
        return self.size.to_json()

    @property
    def size(self) -> Size:
        """Width and height of the pictures, in pixels; the first of `sizes`."""
        return self.model.config.network.resolution

    @property
    def sizes(self) -> tuple[Size, ...]:
        """All sizes of pictures that `sample` can draw. There are several if the training had `fit="buckets"`."""
        return self.model.config.network.sizes

    def __repr__(self) -> str:
        return f"<LoadedModel {self.model.training.name or 'without name'}, {self.resolution} px>"

    def _repr_html_(self) -> str:
        """What notebooks show: what the model is, how it was trained, and the pictures of its newest preview if any."""
        config, training = self.model.config, self.model.training
        words = sorted(self.model.words, key=lambda word: -self.model.words[word])[:_SHOWN_WORDS]
        facts = {
            "pictures": ", ".join("{} x {} pixels".format(*size) for size in self.sizes), "schedule": config.schedule,
            "prediction": config.prediction, "trained on": training.train_images, "steps": training.step,
            "validation loss": training.noise_mse and f"{training.noise_mse:.4f}", "words": ", ".join(words)}
        rows = "".join(f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>"
                       for name, value in facts.items() if value not in (None, ""))
        return f"<h4>{html.escape(training.name or 'model')}</h4><table>{rows}</table>{self._preview()}"

    def _preview(self) -> str:
        """The newest preview of the training as an image of HTML; empty if there is none."""
        found = sorted(self.path.parent.glob("previews/step-*.png")) if self.path else []
        try:
            pictures = sheets.grid(sheets.read_strip(found[-1]))
        except (IndexError, OSError, ValueError):
            return ""
        return f'<img src="data:image/png;base64,{base64.b64encode(image_files.encode(pictures)).decode()}">'

    def sample(
        self, prompt: str = "", n: int = 1, *, seed: int | None = None, size: Size | int | str | None = None,
        negative: str = "", init: Picture | None = None, strength: float | None = None, mask: Picture | None = None,
        sampling: Sampling | None = None, upscaler: "LoadedModel | None" = None, progress: bool = False, **options: Any,
    ) -> "Pictures":
        """Generate `n` pictures of a prompt. A picture's `info` holds the texts of its PNG.

        Their mode is RGB, or that of the model's channels: L, LA or RGBA. The list that is returned shows itself in a
        notebook. progress: show a bar (tqdm).

        seed: picture k has seed + k, and is the same whatever is generated beside it; None chooses a random seed.
        size: one of `sizes`, 64 or "96x64"; None is the first, or the one nearest to `init`.
        upscaler: the loaded model that enlarges the pictures.
        init, mask, strength: as the options of `diffuse sample`; pictures get its shape as in training.
        options: fields of `Sampling` (sampler, steps, guidance, guidance_interval, batch_size, precision). They
        replace those of `sampling`. Raises UsageError, DataError, OutOfMemoryError.
        """
        device = next(self.model.network.parameters()).device
        defaults = to_dict(sampling or Sampling.of(
            self.model.config, precision=devices.choose_sampling_precision(device)))
        chosen = from_dict(
            Sampling, {**defaults, **_known(options, Sampling, also=_SAMPLE_PARAMETERS)}, where="sample")
        asked = size if size is None or isinstance(size, Size) else size_of_json(size, "size")
        self.model.config.network.checked_size(asked)
        sample_request = SampleRequest(
            prompt=prompt, negative=negative, count=n, init=self._init_image(init, strength, mask, asked), size=asked,
            seed=secrets.randbelow(2**32) if seed is None else seed, sampling=chosen)
        with _bar("sampling", n) if progress else contextlib.nullcontext(lambda done: None) as advance_to:
            samples = self.generate([sample_request], progress=advance_to, upscaler=upscaler)
            return Pictures(self._to_pil(sample, upscaler) for sample in samples)

    def generate(
        self, requests: Sequence[SampleRequest], *, frames: bool = False, world: World | None = None,
        progress: Callable[[float], None] = lambda done: None, upscaler: "LoadedModel | None" = None,
    ) -> Iterator[request.Sample]:
        """Yield the pictures of several requests as arrays, as they are finished: see `sampling.generate.generate`.

        world: the processes that share the work; None means this process alone. progress: called after every step with
        the number of finished pictures, where an unfinished one counts in part. upscaler: enlarges the pictures; then
        there are no frames.
        """
        enlarge = None
        if upscaler is not None:
            self.model.config.check_can_be_enlarged()
            upscaler.model.config.checked_upscaling()
            enlarge = upscale.enlarger(upscaler.model)
        return generation.generate(
            self.model, requests, enlarge=enlarge, frames=frames, world=world, progress=progress)

    def _init_image(
        self, init: Picture | None, strength: float | None, mask: Picture | None, size: Size | None,
    ) -> InitImage | None:
        if init is None:
            if mask is not None or strength is not None:
                raise UsageError("strength and mask need a picture to start from", hint="Give init")
            return None
        rendering = rendering_of(self.model.config, self.model.training)
        pixels = _fitted(init, self.sizes if size is None else (size,), rendering)
        height, width, _ = pixels.shape
        mask_pixels = None if mask is None else _fitted(mask, (Size(width, height),), Rendering(fit=rendering.fit))
        return make_init_image(pixels, mask_pixels, strength)

    def _to_pil(self, sample: request.Sample, upscaler: "LoadedModel | None") -> Image.Image:
        image = image_files.to_pil(sample.pixels)
        image.info.update(png_metadata.png_texts(png_metadata.collect_metadata(
            sample, self.model, None if upscaler is None else upscaler.model)))
        return image


def _fitted(picture: Picture, sizes: Sequence[Size], rendering: Rendering) -> np.ndarray:
    """A picture from memory or a file as a model with these sizes sees it, (H, W, C) uint8."""
    if not isinstance(picture, Image.Image):
        return open_fitted(Path(picture), sizes, rendering)
    rgb = to_rgb(images.upright(picture), rendering)
    return fitted_pixels(rgb, nearest(sizes, rgb.size), rendering)


class TrainingOptions(TypedDict, total=False):
    """The options of `train`, for editors and type checkers. A test compares them with `Recipe` and `Machine`."""

    resolution: int | str | None                # 64, or "96x64": width x height
    preset: str | None
    steps: int | None
    images: int | None
    time: float | str | None
    batch_size: int | None
    lr: float | None
    more_folders: Sequence[str]
    captions: str
    caption: str | None
    caption_column: str | None
    caption_ext: str | None
    caption_template: str
    join_lines: bool
    shuffle_tags: bool
    tag_dropout: float
    held_out: str | None
    background: str
    white_level: float | None
    fit: str
    loss_weighting: str
    prediction: str
    schedule: str
    variance: str
    variance_grad: str
    times: str
    optimizer: str
    flip: bool | None
    seed: int
    init: str
    evaluations: int | None
    guidance: float | None
    upscaler_for: str | None
    factor: int | None
    name: str | None
    out: str | None
    gpus: int | str | None
    procs: int | None
    device: str | None
    precision: str
    compile: bool | None
    deterministic: bool
    micro_batch: int | None
    shard: bool
    save_every: str
    preview_every: str
    preview_prompt: Sequence[str]
    strict: bool
    accept_changes: bool
    fresh: bool
    objective: str                              # the former name of loss_weighting


def train(
    folder: str | Path, *, should_stop: Callable[[], str | None] = lambda: None, **options: Unpack[TrainingOptions],
) -> Iterator[Event]:
    """Train on a folder of pictures, or resume the same training, and yield an event for everything that happens.

    options: those of `diffuse train --help` with _ for -, which are the fields of `Recipe` and `Machine`. should_stop:
    called after every step; if it returns the name of a signal, such as "SIGINT", the training saves and ends.

    The run is locked from the first event to the last. If the iterator is closed, or interrupted by an exception such
    as Ctrl-C, the last save remains. This function handles no signal. It joins several processes where the environment
    names them (torchrun, srun), but never starts any. Raises every kind of DiffuseError, at the first event or later.
    """
    given: dict[str, Any] = {RENAMED_FIELDS.get(name, name): value for name, value in options.items()}
    if isinstance(given.get("time"), str):
        given["time"] = parse_duration("--time", given["time"])
    if type(given.get("gpus")) is int:
        given["gpus"] = str(given["gpus"])
    if given.get("log") is not None:
        raise UsageError("only the command line writes --log", hint="Log the events that `train` yields")
    recipe_fields = {field.name for field in dataclasses.fields(Recipe)}
    of_recipe = {name: value for name, value in given.items() if name in recipe_fields}
    of_machine = {name: value for name, value in given.items() if name not in recipe_fields}
    recipe = from_dict(Recipe, of_recipe, where="train")
    machine = from_dict(Machine, _known(of_machine, Machine, Recipe), where="train")
    if devices.count_processes(machine) > launch_environment.process_rank().world_size:
        raise UsageError("several processes are started by the command line, not from Python",
                         hint="Use `diffuse train --gpus N`, or start this program with torchrun")
    from .training import loop
    from .training.run import join_run, open_run

    with contextlib.ExitStack() as stack:
        if launch_environment.process_rank().is_main:
            run = stack.enter_context(open_run(Path(folder), recipe, machine))
        else:
            run = join_run(Path(folder), recipe, machine)
        yield from loop.train(run, should_stop=should_stop)


def _with_options(function: Callable[..., Any]) -> inspect.Signature:
    """The signature of `train` with every option, its type and its default, in place of **options."""
    signature = inspect.signature(function)
    defaults = {**vars(Recipe()), **vars(Machine())}
    named = [parameter for parameter in signature.parameters.values() if parameter.name != "options"]
    options = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=defaults[name], annotation=annotation)
               for name, annotation in TrainingOptions.__annotations__.items() if name in defaults]
    return signature.replace(parameters=[*named, *options])


train.__signature__ = _with_options(train)      # type: ignore[attr-defined]     # for `help` and notebooks


def export(
    model: str | Path | None, out: str | Path, *, to: str, scheduler: str | None = None, precision: str | None = None,
    verify: bool = True, license: str | None = None, push: str | None = None, private: bool = False,
) -> dict[str, Any]:
    """Write a model in another form to the new path `out`, as `diffuse export` does, and return the report.

    model: a name or a path, as for `load`. to, scheduler, precision, license, push, private: as the options of the
    command. verify: whether the outputs of the exported model are compared with those of the original; the report lists
    each comparison.

    Raises UsageError, ModelError, StorageError. Raises ExportError if the outputs differ by more than a comparison
    allows; then nothing was written. Raises UploadError if the Hub did not take what is to be pushed.
    """
    from .exporting import publishing

    target = Path(out)
    chosen = Export(format=to, scheduler=scheduler, precision=precision, verify=verify, license=license, push=push,
                    private=private)
    chosen.check_name(target)
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already", hint="Choose another place")
    publishing.check(chosen)
    path = registry.resolve(None if model is None else str(model))
    return publishing.export(checkpoint.load_model(path, torch.device("cpu")), target, chosen, source=path)


@contextlib.contextmanager
def _bar(description: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar of tqdm, in a terminal or a notebook. Yields `advance_to(done)`. Raises UsageError without tqdm."""
    try:
        from tqdm.auto import tqdm
    except ImportError as error:
        raise UsageError("progress=True needs tqdm", hint=installing.command("tqdm")) from error
    with tqdm(total=total, desc=description, bar_format="{l_bar}{bar}| {elapsed}<{remaining}") as bar:
        yield lambda done: bar.update(done - bar.n) and None


def _known(options: dict[str, Any], *configs: type, also: Sequence[str] = ()) -> dict[str, Any]:
    """Return `options` if every name is in `also` or a field of one of the configs. Raises UsageError otherwise."""
    names = (*also, *(field.name for config in configs for field in dataclasses.fields(config)))
    for name in options:
        check_choice("this function", name, names)
    return options
