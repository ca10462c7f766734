"""`diffuse upscale`: enlarge any picture with an upscaler, and print the path of the result."""

from pathlib import Path
from typing import Annotated

import typer

from .. import config
from ..checks import check_range
from ..config import Machine
from ..errors import DataError, UsageError
from ..picture_size import Size
from ..storage import registry
from . import options, output_files, stages
from .model_cost import warn_of_cost
from .terminal import progress, view

MAX_PIXELS = 4096**2                            # of the result: with the smallest preset, it takes 4 GB of memory


def upscale(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="The picture to enlarge.")],
    model: Annotated[str | None, typer.Option(
        "-m", "--model", help="Name or path of the upscaler. Default: the one that comes with the program.",
        autocompletion=options.complete_model)] = None,
    prompt: Annotated[str, typer.Option("--prompt", help="What the picture shows. Default: no prompt.")] = "",
    seed: Annotated[int, typer.Option("-s", "--seed", help="Seed of the new details. Default: 0.")] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A new file. Default: PICTURE-x4.png.")] = None,
    device: Annotated[str | None, options.device()] = None,
    precision: Annotated[str | None, options.choice(
        "--precision", of=config.PRECISIONS[1:], help="Precision", default=options.PRECISION)] = None,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Enlarge a picture with an upscaler; `diffuse train --upscaler-for` trains another. Prints the path of the result.

    [bold]diffuse upscale cat.png[/]

    [bold]diffuse upscale cat.png -m cars-x4 --prompt "a black cat" -o large.png[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    check_range("--seed", seed, *config.SEED_RANGE)
    machine = Machine(**options.given({"device": device}))
    path = registry.resolve(model or registry.UPSCALER)
    factor = stages.upscaling_of(path).factor
    size = _size_of(picture)
    if size.scaled(factor).pixels > MAX_PIXELS:
        raise UsageError(f"{picture} would have {size.scaled(factor)} px, more than {MAX_PIXELS:,} pixels",
                         hint="Make it smaller first, or cut it into pieces")
    target = output_files.new_file(out, default=f"{picture.stem}-x{factor}.png", suffixes=output_files.STILLS)

    from ..runtime import devices

    with progress.of("enlarging", 1):
        from ..pictures import image_files
        from ..runtime import out_of_memory
        from ..sampling.request import open_fitted, rendering_of
        from ..sampling.upscale import enlarge, sampling_of
        from ..storage.checkpoint import load_model

        loaded = load_model(path, devices.choose_device(machine))
        warn_of_cost(loaded, passes=sampling_of(loaded.config).number_of_steps, size=size.scaled(factor))
        rendering = rendering_of(loaded.config, loaded.training)
        pixels = open_fitted(picture, (size, Size(size.height, size.width)), rendering)
        where = next(loaded.network.parameters()).device
        with out_of_memory.for_large_picture(), devices.arithmetic(where):
            (large,) = enlarge(loaded, pixels[None], [prompt], seeds=[seed],
                               precision=precision or devices.choose_sampling_precision(where))
    output_files.write_new(target, image_files.encode(large, suffix=target.suffix.lower()))
    output_files.print_result(target, {"seed": seed, "prompt": prompt, "factor": factor})


def _size_of(picture: Path) -> Size:
    """Width and height in the header of the file. Raises DataError."""
    from ..data.images import read_upright_size, reason_in_header

    size = read_upright_size(picture)
    if size is None:
        raise DataError(f"{picture} cannot be used: {reason_in_header(picture)}", hint="Give another picture")
    return Size(*size)
