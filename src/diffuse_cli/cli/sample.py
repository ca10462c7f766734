"""`diffuse sample`: prompts become pictures in files. One path on stdout for each, as it is finished.

Knows what is asked for and what people are told; what is drawn is `engine.generation`, where it goes is `target`.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import config
from ..checks import check_range, choices, from_dict, to_dict
from ..config import Machine, Sampling
from ..errors import UsageError
from ..runtime import launch_environment
from ..storage import registry
from . import options
from .output_files import Target, is_file
from .processes import launch, processes_to_start, taking_part
from .prompt_files import PromptLine, read_prompts, warn_about
from .sample_output import Show, write
from .terminal import progress, view

if TYPE_CHECKING:
    from ..sampling.png_metadata import SampleMetadata
    from ..sampling.request import InitImage, SampleRequest
    from ..storage.checkpoint import Model

EDITING, SHOWING = "From a picture", "Showing"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Order:
    """All that was asked for, before any model is loaded."""

    usual: Sampling                             # of prompts that ask for nothing else
    guidances: list[float]
    negative: str
    num: int
    seed: int | None
    init: "InitImage | None"

    def requests(self, asked: Sequence[PromptLine], seed: int) -> "list[SampleRequest]":
        """A request for each prompt and guidance; those that can share batches stand together.

        seed: of the prompts that have none of their own.
        """
        from ..sampling.request import SampleRequest

        return [SampleRequest(
            prompt=one.prompt, negative=self.negative if one.negative is None else one.negative,
            count=one.n or self.num, seed=seed if one.seed is None else one.seed, init=self.init,
            sampling=one.sampling(options.changed(self.usual, guidance=guidance)))
            for guidance in self.guidances for one in asked]


def sample(
    prompts: Annotated[list[str] | None, typer.Argument(
        metavar="[PROMPT]...", help="What to draw; several are drawn one after another. None: without a prompt.",
        show_default=False)] = None,
    num: Annotated[int, typer.Option("-n", "--num", help="Pictures of each prompt.")] = 1,
    model: Annotated[str | None, typer.Option(
        "-m", "--model", "--checkpoint", show_default=False, autocompletion=options.complete_model,
        help="Name or path. Default: the last trained.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="A directory, or a file for one picture.")
                   ] = Path("samples"),
    seed: Annotated[int | None, typer.Option("-s", "--seed", help="Picture k has seed S + k. Default: random.",
                                             show_default=False)] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Default: " + ", ".join(
        f"{count} for {name}" for name, count in config.SAMPLER_STEPS.items()) + ".", show_default=False)] = None,
    sampler: Annotated[str | None, typer.Option(
        "--sampler", "--scheduler", help=f"{choices(config.SAMPLERS, Sampling.sampler)}.", show_default=False)] = None,
    guidance: Annotated[list[float] | None, typer.Option(
        "--guidance", "--cfg-scale", help=f"1 is none. Default {Sampling.guidance:g}. Several: each prompt with each.",
        show_default=False)] = None,
    guidance_interval: Annotated[tuple[float, float] | None, typer.Option(
        "--guidance-interval", help="Guide where LOW < sigma/alpha <= HIGH.", show_default=False)] = None,
    negative: Annotated[str | None, typer.Option("--negative", "--negative-prompt", help="What to lead away from.",
                                                 show_default=False)] = None,
    source: Annotated[str | None, typer.Option(
        "--prompts", metavar="FILE", help="A prompt a line, or a JSON object with settings; - is stdin.",
        show_default=False)] = None,
    old: Annotated[Path | None, typer.Option("--from", help="Draw this PNG again, but for what else is given.",
                                             show_default=False)] = None,
    init: Annotated[Path | None, typer.Option("--init", help="Start from this picture.", show_default=False,
                                              rich_help_panel=EDITING)] = None,
    strength: Annotated[float | None, typer.Option(
        "--strength", help="How much of it may change, 0 to 1. Default 0.75, with a mask 1.", show_default=False,
        rich_help_panel=EDITING)] = None,
    mask: Annotated[Path | None, typer.Option("--mask", help="Change only where this picture is white.",
                                              show_default=False, rich_help_panel=EDITING)] = None,
    batch_size: Annotated[int | None, typer.Option(
        "--batch-size", help=f"Pictures at once. Default {Sampling.batch_size}.", show_default=False)] = None,
    gpus: Annotated[str | None, typer.Option("--gpus", help="Number of GPUs, or all; 0 is the CPU.",
                                             show_default=False)] = None,
    procs: Annotated[int | None, typer.Option("--procs", hidden=True)] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or mps.", show_default=False)] = None,
    precision: Annotated[str | None, typer.Option("--precision", help="fp32 (default) or bf16.", show_default=False)
                         ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Also one sheet of all pictures.", rich_help_panel=SHOWING)
                    ] = False,
    sheet: Annotated[bool, typer.Option("--sheet", help="Also one labelled sheet: prompts by seeds, or by guidances.",
                                        rich_help_panel=SHOWING)] = False,
    animate: Annotated[bool, typer.Option("--animate", help="Also how each came about; with --grid, all in one.",
                                          rich_help_panel=SHOWING)] = False,
    preview: Annotated[bool, typer.Option("--preview", help="Show the pictures in the terminal.",
                                          rich_help_panel=SHOWING)] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that -o names.")] = False,
    no_metadata: Annotated[bool, typer.Option("--no-metadata", help="Leave out how the pictures were made.")] = False,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Draw pictures with a trained model. Prints the path of each.

    [bold]diffuse sample "a red car" -n 8 --grid[/]

    [bold]diffuse sample "a red car" "a blue fish" -m cars --seed 1 -o pictures[/]

    [bold]diffuse sample --from samples/00000-7-a-red-car.png --guidance 5[/]

    [bold]diffuse sample "a blue car" --init photo.jpg --mask sky.png[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    if init is None and (mask or (strength is not None and old is None)):
        raise UsageError(f"{'--mask' if mask else '--strength'} needs a picture to start from", hint="Add --init")
    if old is not None and source is not None:
        raise UsageError("--from and --prompts exclude each other", hint="Leave out one of them")
    usual = options.changed(Sampling(), sampler=sampler, steps=steps, guidance_interval=guidance_interval,
                            batch_size=batch_size, precision=precision)
    for number in guidance or ():
        options.changed(usual, guidance=number)
    check_range("--num", num, 1, 1_000_000)
    if seed is not None:
        check_range("--seed", seed, 0, config.SEED_RANGE[1] - num)
    machine = Machine(**options.given({"gpus": gpus, "procs": procs, "device": device}))
    made = _made(old)
    if made is not None:
        usual = options.changed(made.sampling, sampler=sampler, steps=steps, guidance_interval=guidance_interval,
                                batch_size=batch_size, precision=precision)
        seed, prompts = made.seed if seed is None else seed, prompts or [made.prompt]
        negative = made.negative if negative is None else negative
    path = _model(model, made)
    order = _Order(usual=usual, guidances=guidance or [usual.guidance], negative=negative or "", num=num, seed=seed,
                   init=_init_image(path, init, mask, strength, made))
    show = Show(grid=grid, sheet=sheet, animate=animate, preview=preview, metadata=not no_metadata)
    if (count := processes_to_start(machine)) > 1:
        raise typer.Exit(launch(count))
    asked, target = [], None
    if launch_environment.place().is_main:                                          # stdin can be read only once
        asked = [PromptLine(prompt=prompt) for prompt in prompts or ([""] if source is None else [])]
        asked += [] if source is None else read_prompts(source)
        pictures = sum(one.n or num for one in asked) * len(order.guidances)
        alone = animate and is_file(out)                               # a file can hold the animation alone
        stills, films = 0 if alone else pictures + grid, animate * (1 if grid else pictures)
        target = Target(out, files=stills + films + sheet, force=force, animate=animate)
    _generate(path, asked, order, target, show, machine)


def _made(old: Path | None) -> "SampleMetadata | None":
    if old is None:
        return None
    from ..sampling import png_metadata

    return png_metadata.read_sample_metadata(old)


def _model(model: str | None, made: "SampleMetadata | None") -> Path:
    """The file of the model to draw with. Raises ModelError."""
    if made is None:
        return registry.resolve(model)
    from ..sampling import png_metadata

    if model is None:
        return png_metadata.find_model(made)
    path = registry.resolve(model)
    if png_metadata.sha256_of(path) not in ("", made.model_sha256):
        view.warn(f"the picture was drawn by another model, {made.model}; this one draws another picture")
    return path


def _init_image(path: Path, init: Path | None, mask: Path | None, strength: float | None, made: "SampleMetadata | None",
           ) -> "InitImage | None":
    """The picture to start from, as large as the model's. Raises DataError, UsageError."""
    if init is None:
        if made is not None and made.init_sha256:
            raise UsageError("it was made from another picture, which has to be given again",
                             hint="Add --init and --mask" if made.mask_sha256 else "Add --init")
        if strength is not None:
            raise UsageError("--strength needs a picture to start from", hint="Add --init")
        return None
    from ..sampling.request import open_init_image
    from ..storage.model_info import read_model_info

    if made is not None and made.mask_sha256 and mask is None:
        raise UsageError("it was made with a mask, which has to be given again", hint="Add --mask")
    given = made.strength if strength is None and made is not None and made.strength is not None else strength
    opened = open_init_image(init, mask, read_model_info(path).config.network.resolution, given)
    if made is not None and made.init_sha256 and (opened.image_sha256, opened.mask_sha256) != (
            made.init_sha256, made.mask_sha256):
        view.warn("this is not the picture, or not the mask, that it was made from; the result will differ")
    return opened


def _generate(
    path: Path, asked: Sequence[PromptLine], order: _Order, target: Target | None, show: Show, machine: Machine,
) -> None:
    from ..runtime import devices

    with contextlib.ExitStack() as stack:
        place = stack.enter_context(taking_part())
        with progress.of("loading", 1):
            import secrets

            from .. import api
            from ..runtime.distributed import join

            device = devices.choose_device(machine)
            world = stack.enter_context(join(device))
            loaded = api.load(path, device=str(device))
            model = loaded.model
            world.broadcast_(model.network.state_dict().values())      # another save may have come between two loads
        told = world.broadcast_json({"asked": [to_dict(one) for one in asked], "seed": secrets.randbelow(2**32)})
        seed = int(told["seed"]) if order.seed is None else order.seed
        requests = order.requests([from_dict(PromptLine, one) for one in told["asked"]], seed)
        if target is not None:
            warn_about(requests, model)
            view.say(f"model {_called(path, model)}" + (f", seed {seed}" if order.seed is None else ""))
        generate = functools.partial(loaded.generate, requests, frames=show.animate, world=world)
        if place.is_main and target is not None:
            write(generate, target, model, sum(one.count for one in requests), show)
        else:
            list(generate())


def _called(path: Path, model: "Model") -> str:
    """What people know the model as."""
    if path == registry.bundled():
        return f"{registry.DEMO}, which comes with the program (`diffuse models show {registry.DEMO}` lists its words)"
    return model.training.name or path.name
