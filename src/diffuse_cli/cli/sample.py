"""`diffuse sample`: generate pictures from prompts, and print the path of each as soon as its file is written.

The options are checked, and the defaults of all prompts settled, before a model is loaded or torch is imported.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import config
from ..checks import check_range, from_dict, to_dict
from ..config import Machine, Sampling
from ..errors import UsageError
from ..picture_size import Size
from ..runtime import launch_environment
from ..storage import registry
from ..storage.model_info import read_model_info
from . import options, stages
from .model_cost import warn_of_cost
from .output_files import SampleTarget, names_a_file
from .processes import launch, process_duties, processes_to_start
from .prompt_files import PromptLine, read_prompts, warn_of_ignored
from .sample_output import OutputOptions, write_samples
from .terminal import progress, view
from .terminal.plain_text import clean

if TYPE_CHECKING:
    from ..sampling.png_metadata import SampleMetadata
    from ..sampling.request import InitImage, SampleRequest
    from ..storage.checkpoint import Model

# Panels of the help.
CONTENT, SAMPLING, EDITING = "What is generated", "How it is sampled", "Start from a picture"
FILES, MACHINE = "Files and previews", "Machine: where and how fast"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Defaults:
    """The settings of every prompt that has none of its own."""

    sampling: Sampling
    guidances: list[float]                      # each prompt is sampled with each of them
    negative: str
    count: int
    seed: int | None                            # None: random, but the same for all prompts
    init: "InitImage | None"
    size: Size | None                           # None: the first of the model's, or that of `init`

    def with_precision(self, precision: str) -> "_Defaults":
        """The same in that precision."""
        return dataclasses.replace(self, sampling=options.override(self.sampling, precision=precision))

    def requests(self, prompts: Sequence[PromptLine], seed: int) -> "list[SampleRequest]":
        """A request for each prompt and guidance, in an order that lets them share batches.

        seed: that of the prompts that have none of their own.
        """
        from ..sampling.request import SampleRequest

        return [SampleRequest(
            prompt=line.prompt, negative=self.negative if line.negative is None else line.negative,
            count=line.n or self.count, seed=seed if line.seed is None else line.seed, init=self.init, size=self.size,
            sampling=line.sampling(options.override(self.sampling, guidance=guidance)))
            for guidance in self.guidances for line in prompts]


def _option(panel: str, *names: str, help: str, **others: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, **others)


def sample(
    prompts: Annotated[list[str] | None, typer.Argument(
        metavar="PROMPT", help="What the pictures show, each prompt in quotes. Default: no prompt.")] = None,
    num: Annotated[int, _option(CONTENT, "-n", "--num", help="Pictures of each prompt. Default: 1.")] = 1,
    model: Annotated[str | None, _option(
        CONTENT, "-m", "--model", "--checkpoint", autocompletion=options.complete_model,
        help="Name or path. Default: the last trained model.")] = None,
    seed: Annotated[int | None, _option(
        CONTENT, "-s", "--seed", help="Seed of the first picture; each further one adds 1. Default: random.")] = None,
    size: Annotated[Size | None, options.size(
        "Size of the pictures: one of the model's, 96x64, or one to which an upscaler enlarges them. Default: the "
        "commonest of the model's, or the nearest to --init.", CONTENT)] = None,
    upscaler: Annotated[str | None, _option(
        CONTENT, "--upscaler", metavar="MODEL", autocompletion=options.complete_model,
        help="The upscaler that enlarges the pictures. Default: with a larger --size, the one trained for the model.")
        ] = None,
    negative: Annotated[str | None, _option(
        CONTENT, "--negative", "--negative-prompt", help="What guidance leads away from.")] = None,
    prompt_file: Annotated[str | None, _option(
        CONTENT, "--prompts", metavar="FILE", help="A file of prompts, one on each line, or a table or list of other "
        "programs; - is stdin.")] = None,
    from_png: Annotated[Path | None, _option(
        CONTENT, "--from", help="Generate this PNG again; options given besides replace its settings.")] = None,
    sampler: Annotated[str | None, options.choice(
        "--sampler", "--scheduler", of=config.SAMPLERS, help="Sampler", default=Sampling.sampler, panel=SAMPLING)
        ] = None,
    steps: Annotated[int | None, _option(SAMPLING, "--steps", help="Steps of the sampler. Default: " + ", ".join(
        f"{count} for {name}" for name, count in config.SAMPLER_STEPS.items()) + ".")] = None,
    guidance: Annotated[list[float] | None, _option(
        SAMPLING, "--guidance", "--cfg-scale", metavar="X", help="Strength of the prompt; 1 is no guidance. Give it "
        f"several times to sample each prompt with each. Default: {Sampling.guidance:g}.")] = None,
    guidance_interval: Annotated[tuple[float, float] | None, _option(
        SAMPLING, "--guidance-interval", metavar="LOW HIGH", help="Apply guidance only where LOW < sigma/alpha <= HIGH."
        )] = None,
    init: Annotated[Path | None, _option(EDITING, "--init", help="The picture to start from.")] = None,
    strength: Annotated[float | None, _option(
        EDITING, "--strength",
        help=f"How much of it may change, from 0 to 1. Default: {config.STRENGTH}, with a mask 1.")] = None,
    mask: Annotated[Path | None, _option(EDITING, "--mask", help="Change only where this picture is white.")] = None,
    out: Annotated[Path, _option(
        FILES, "-o", "--out", help="A directory, or a file for a single picture. Default: samples.")] = Path("samples"),
    grid: Annotated[bool, _option(FILES, "--grid", help="Also write one sheet of all pictures.")] = False,
    sheet: Annotated[bool, _option(
        FILES, "--sheet", help="Also write one labelled sheet: prompts by seeds, or prompts by guidances.")] = False,
    animate: Annotated[bool, _option(
        FILES, "--animate", help="Also write an animation of the sampling of each picture; with --grid, one of all "
        "together.")] = False,
    preview: Annotated[bool, _option(FILES, "--preview", help="Show the pictures in the terminal.")] = False,
    force: Annotated[bool, _option(FILES, "--force", help="Replace the file that -o names.")] = False,
    no_metadata: Annotated[bool, _option(
        FILES, "--no-metadata", help="Do not write into the pictures how they were generated.")] = False,
    batch_size: Annotated[int | None, _option(
        MACHINE, "--batch-size", help=f"Pictures generated at once. Default: {Sampling.batch_size}.")] = None,
    gpus: Annotated[str | None, _option(MACHINE, "--gpus", help="Number of GPUs, or all; 0 means the CPU.")] = None,
    procs: Annotated[int | None, typer.Option("--procs", hidden=True)] = None,
    device: Annotated[str | None, options.device(MACHINE)] = None,
    precision: Annotated[str | None, options.choice(
        "--precision", of=config.PRECISIONS[1:], help="Precision", default=options.PRECISION, panel=MACHINE)] = None,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Generate pictures with a trained model. Prints the path of each.

    [bold]diffuse sample "a red car" -n 8 --grid[/]

    [bold]diffuse sample "a red car" "a blue fish" -m cars --seed 1 -o pictures[/]

    [bold]diffuse sample --from samples/00000-7-a-red-car.png --guidance 5[/]

    [bold]diffuse sample "a blue car" --init photo.jpg --mask sky.png[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)

    # Options that contradict each other or are out of range.
    if init is None and (mask or (strength is not None and from_png is None)):
        raise UsageError(f"{'--mask' if mask else '--strength'} needs a picture to start from", hint="Add --init")
    if from_png is not None and prompt_file is not None:
        raise UsageError("--from and --prompts exclude each other", hint="Leave out one of them")
    settings = options.given({"sampler": sampler, "steps": steps, "guidance_interval": guidance_interval,
                              "batch_size": batch_size, "precision": precision})
    sampling = Sampling(**settings)
    for scale in guidance or ():
        options.override(sampling, guidance=scale)
    check_range("--num", num, 1, 1_000_000)
    check_range("--seed", seed or 0, 0, config.SEED_RANGE[1] - num)
    machine = Machine(**options.given({"gpus": gpus, "procs": procs, "device": device}))

    # The defaults of all prompts. Options go before the settings of --from.
    metadata = None
    if from_png is not None:
        from ..sampling import png_metadata

        found = png_metadata.read_settings(from_png)
        seed, prompts = found.seed if seed is None else seed, prompts or [found.prompt]
        negative = found.negative if negative is None else negative
        if isinstance(found, png_metadata.SampleMetadata):
            metadata = found
        else:
            settings = {**found.sampling, **settings}
            view.say(f"{from_png} was made by another program; its settings are used with this model")
            warn_of_ignored(str(from_png), found.ignored)
    path = _model_file(model, metadata)
    config_of_model = read_model_info(path).config         # refused before torch and before any directory
    sampling = Sampling.of(config_of_model, **settings) if metadata is None else \
        _sampling_of_png(metadata, path, settings)
    for scale in guidance or [sampling.guidance]:
        options.override(sampling, guidance=scale).check_fits(config_of_model)
    second, size = stages.find_upscaler(path, config_of_model, size, upscaler, metadata, animate=animate)
    defaults = _Defaults(sampling=sampling, guidances=guidance or [sampling.guidance], negative=negative or "",
                         count=num, seed=seed, init=_init_image(path, size, init, mask, strength, metadata), size=size)

    # The prompts and the files to write, in the main process only, because stdin can be read only once.
    if (count := processes_to_start(machine)) > 1:
        raise typer.Exit(launch(count))
    output = OutputOptions(grid=grid, sheet=sheet, animate=animate, preview=preview, metadata=not no_metadata)
    lines, target = [], None
    if launch_environment.process_rank().is_main:
        lines = _prompt_lines(prompts or [], prompt_file)
        pictures = sum(line.n or num for line in lines) * len(defaults.guidances)
        target = SampleTarget(out, files=_count_files(out, pictures, output), force=force, animate=animate)
    _sample(path, second, lines, defaults, target, output, machine, precise=bool(precision or metadata))


def _prompt_lines(prompts: list[str], prompt_file: str | None) -> list[PromptLine]:
    """The prompts of the command line and of a file, or one without words. Warns of a prompt that lacks its quotes."""
    if len(prompts) > 1 and not any(" " in prompt for prompt in prompts):
        view.warn(f"these are {len(prompts)} prompts of one word each; one prompt of several words needs quotes: "
                  f'diffuse sample "{clean(" ".join(prompts))}"')
    lines = [PromptLine(prompt=prompt) for prompt in prompts or ([""] if prompt_file is None else [])]
    return lines + ([] if prompt_file is None else read_prompts(prompt_file))


def _model_file(model: str | None, metadata: "SampleMetadata | None") -> Path:
    """The file of the model to sample; without -m, that of the model which generated the PNG. Raises ModelError."""
    if metadata is None:
        return registry.resolve(model)
    from ..sampling import png_metadata

    if model is None:
        return png_metadata.find_model(metadata.model, metadata.model_sha256)
    path = registry.resolve(model)
    if png_metadata.sha256_of(path) not in ("", metadata.model_sha256):
        view.warn(f"the picture was generated by another model, {metadata.model}; this model generates another picture")
    return path


def _sampling_of_png(metadata: "SampleMetadata", path: Path, settings: dict[str, Any]) -> Sampling:
    """The settings of a PNG, with others in their place, for the model at `path`. Raises UsageError.

    Sampler, steps and guidance of a distilled model suit that model alone: another has its own.
    """
    model = read_model_info(path)
    if metadata.student == model.config.student or metadata.model_sha256 == model.sha256:
        return options.override(metadata.sampling, **settings)
    view.say("sampler, steps and guidance are this model's own: those of a distilled model suit that model alone")
    return Sampling.of(
        model.config, **{"batch_size": metadata.batch_size, "precision": metadata.precision, **settings})


def _init_image(
    path: Path, size: Size | None, init: Path | None, mask: Path | None, strength: float | None,
    metadata: "SampleMetadata | None",
) -> "InitImage | None":
    """The picture to start from, fitted to `size`, or to the nearest of the sizes of the model at `path`.

    Raises DataError, UsageError.
    """
    if init is None:
        if metadata is not None and metadata.init_sha256:
            raise UsageError("the picture was generated from another one, which must be given again",
                             hint="Add --init and --mask" if metadata.mask_sha256 else "Add --init")
        if strength is not None:
            raise UsageError("--strength needs a picture to start from", hint="Add --init")
        return None
    from ..sampling.request import open_init_image, rendering_of

    if metadata is not None and metadata.mask_sha256 and mask is None:
        raise UsageError("the picture was generated with a mask, which must be given again", hint="Add --mask")
    if strength is None and metadata is not None:
        strength = metadata.strength
    model = read_model_info(path)
    sizes = model.config.network.sizes if size is None else (size,)
    opened = open_init_image(init, mask, sizes, strength, rendering_of(model.config, model.training))
    if metadata is not None and metadata.init_sha256 and (opened.image_sha256, opened.mask_sha256) != (
            metadata.init_sha256, metadata.mask_sha256):
        view.warn("--init or --mask is not the one that the picture was generated from, so the result will differ")
    return opened


def _count_files(out: Path, pictures: int, output: OutputOptions) -> int:
    """The number of files to write for so many pictures. If `out` names a file, --animate writes no stills."""
    stills = 0 if output.animate and names_a_file(out) else pictures + output.grid
    animations = (1 if output.grid else pictures) if output.animate else 0
    return stills + animations + output.sheet


def _sample(
    path: Path, second: Path | None, lines: Sequence[PromptLine], defaults: _Defaults, target: SampleTarget | None,
    output: OutputOptions, machine: Machine, *, precise: bool,
) -> None:
    """Load the models, generate the pictures, together with the other processes if there are any, and write them.

    second: the file of the upscaler, if there is one. lines, target: given in the main process only. precise: the
    precision was asked for, or is that of the PNG.
    """
    from ..runtime import devices

    with contextlib.ExitStack() as stack:
        rank = stack.enter_context(process_duties())
        with progress.of("loading", 1):
            import secrets

            from .. import api
            from ..runtime.distributed import join
            from ..sampling.remarks import remarks_on
            from ..sampling.upscale import sampling_of

            device = devices.choose_device(machine)
            if not precise:
                defaults = defaults.with_precision(devices.choose_sampling_precision(device))
            world = stack.enter_context(join(device))
            loaded = api.load(path, device=str(device))
            model = loaded.model
            upscaler = None if second is None else api.load(second, device=str(device))
            # A training may have replaced a file between two loads, so all processes take the same weights.
            for one in filter(None, (loaded, upscaler)):
                world.broadcast_(one.model.network.state_dict().values())
        shared = world.broadcast_json({"lines": [to_dict(line) for line in lines], "seed": secrets.randbelow(2**32)})
        seed = int(shared["seed"]) if defaults.seed is None else defaults.seed
        requests = defaults.requests([from_dict(PromptLine, line) for line in shared["lines"]], seed)
        if target is not None:
            for remark in remarks_on(requests, model):
                view.warn(remark)
            warn_of_cost(model, passes=2 * max(request.sampling.number_of_steps for request in requests))
            if upscaler is not None:
                warn_of_cost(upscaler.model, passes=sampling_of(upscaler.model.config).number_of_steps,
                             size=upscaler.model.config.network.checked_size(None))
            view.say(", ".join(filter(None, (
                f"model {_display_name(path, model)}",
                f"upscaler {_display_name(second, upscaler.model)}" if second and upscaler else "",
                f"seed {seed}" if defaults.seed is None else ""))))
        generate = functools.partial(loaded.generate, requests, frames=output.animate, world=world, upscaler=upscaler)
        if rank.is_main and target is not None:
            write_samples(generate, target, model, sum(request.count for request in requests), output,
                          upscaler=None if upscaler is None else upscaler.model)
        else:
            list(generate())


def _display_name(path: Path, model: "Model") -> str:
    """The name under which users know the model."""
    name, student = model.training.name or path.name, model.config.student
    if path in registry.bundled_files().values():
        name = f"{path.stem}, which comes with the program (`diffuse models show {path.stem}` lists its words)"
    if student is None:
        return name
    return f"{name}, distilled to {student.steps} with a guidance of {student.guidance:g} built in"
