"""`diffuse models compare`: one page on which several models stand side by side, with pictures of the same seeds."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import config, hub
from ..checks import check_range
from ..config import Machine, Sampling
from ..errors import UsageError
from ..storage import registry
from ..storage.diffusers_config import is_folder
from . import options, output_files, processes
from .model_cost import warn_of_cost
from .terminal import progress, view

if TYPE_CHECKING:
    from ..reporting.comparison import Compared

PROMPTS, PICTURES = 4, 4                        # default number of prompts, and of pictures of each
MAX_PROMPTS, MAX_PICTURES = 16, 16


def compare(
    names: Annotated[list[str], typer.Argument(metavar="MODEL", autocompletion=options.complete_model,
                                               help="Two or more models, by name or path.")],
    prompts: Annotated[list[str] | None, typer.Option(
        "-p", "--prompt", metavar="TEXT", help="Prompt that every model draws; can be repeated. Default: those of the "
        "first model's previews.")] = None,
    num: Annotated[int, typer.Option("-n", "--num", help="Pictures of each prompt; 0 draws none. Default: "
                                     f"{PICTURES}.")] = PICTURES,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Seed of the first picture. Default: 0.")] = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="The page, a new .html file. Default: comparison.html "
                                             "in the working directory.")] = None,
    device: Annotated[str | None, options.device()] = None,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Compare models on one page: curves, evaluations, settings, and pictures of the same prompts and seeds.

    [bold]diffuse models compare cars-64 cars-64-2[/]

    [bold]diffuse models compare cars-64 cars-64-2 -p "a red car" -p "a bus" -n 8[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    check_range("--num", num, 0, MAX_PICTURES)
    check_range("--seed", seed, 0, config.SEED_RANGE[1] - num)
    check_range("the number of --prompt", len(prompts or []), 0, MAX_PROMPTS)
    paths = _paths(names)
    from ..reporting.comparison import MAX_MODELS, build, read_compared

    check_range("the number of models", len(paths), 2, MAX_MODELS)
    machine = Machine(**options.given({"device": device}))
    compared = [read_compared(name, path) for name, path in paths.items()]
    target = output_files.new_file(out, default="comparison.html", suffixes=(".html",))
    chosen = prompts or _default_prompts(compared, list(paths.values()))
    with processes.unwinding_on_signals():
        pictures = _draw(paths, chosen, num, seed, machine) if num else []
    page = build(compared, chosen, pictures, seed=seed)
    output_files.write_new(target, page)
    output_files.print_result(target, {"models": list(paths), "bytes": len(page)})


def _paths(names: Sequence[str]) -> dict[str, Path]:
    """What the page calls each model → its file. Raises UsageError if a model is named twice."""
    result: dict[str, Path] = {}
    for name in names:
        path = registry.resolve(name)
        generic = path.name == registry.MODEL_FILE or is_folder(path)
        label = path.absolute().parent.name if generic else path.stem
        if hub.parse_address(name) or label in result:                 # or models of one name in two places
            label = name
        if label in result or path in result.values():
            raise UsageError(f"{name} is named twice", hint="Name two or more different models")
        result[label] = path
    return result


def _default_prompts(compared: Sequence["Compared"], paths: Sequence[Path]) -> list[str]:
    """Prompts of the first model that takes prompts; [""] if none does."""
    from ..sampling.example_prompts import example_prompts

    first = next((index for index, model in enumerate(compared) if model.info.config.conditional), None)
    return [""] if first is None else example_prompts(compared[first].info.words, paths[first].parent, count=PROMPTS)


def _draw(
    paths: dict[str, Path], prompts: Sequence[str], num: int, seed: int, machine: Machine,
) -> list[list[list[bytes]]]:
    """PNGs of each model, for each prompt; a model is loaded when it is its turn."""
    with progress.stages() as tell:
        tell("loading", 0, 1)
        return [_draw_with(path, prompts, num, seed, machine, functools.partial(tell, f"drawing with {name}"))
                for name, path in paths.items()]


def _draw_with(
    path: Path, prompts: Sequence[str], num: int, seed: int, machine: Machine, tell: Callable[[int, int], None],
) -> list[list[bytes]]:
    from ..pictures import image_files
    from ..runtime import devices
    from ..sampling.generate import generate
    from ..sampling.request import SampleRequest
    from ..storage import checkpoint

    model = checkpoint.load_model(path, devices.choose_device(machine))
    sampling = Sampling.of(model.config)
    warn_of_cost(model, passes=2 * sampling.number_of_steps)
    requests = [SampleRequest(prompt=prompt, count=num, seed=seed, sampling=sampling) for prompt in prompts]
    total, drawn = len(prompts) * num, []
    tell(0, total)
    for sample in generate(model, requests):
        drawn.append(image_files.encode(sample.pixels))
        tell(len(drawn), total)
    return [drawn[start : start + num] for start in range(0, total, num)]
