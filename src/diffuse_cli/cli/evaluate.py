"""`diffuse evaluate`: measure a model on pictures that it has not seen, and print each figure with how to read it."""

import contextlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import config
from ..checks import check_choice, check_range
from ..config import Machine
from ..errors import DataError, UsageError
from ..model_config import ModelConfig
from ..picture_size import Size
from ..storage import home_directory, registry
from ..storage.model_info import read_model_info
from . import options
from .terminal import progress, view
from .terminal.plain_text import clean, duration

if TYPE_CHECKING:
    from ..evaluation.held_out import HeldOutPictures
    from ..evaluation.likelihood import Estimate, Likelihood
    from ..evaluation.result import CaptionEffect, Evaluation

GENERATED_PICTURES = 256                        # default of --num: a minute or two on a CPU at 32 pixels
MAX_PICTURES = 2048                             # default of --images: the most that a training holds out
QUICK_PICTURES = 8                              # the same with --quick, which generates none
DEMO_SCENES, DEMO_SEED = 512, 1                 # that the demo model is measured on; its own have the seed 0


def evaluate(
    model: Annotated[str | None, typer.Argument(
        metavar="MODEL", autocompletion=options.complete_model,
        help="Name or path. Default: the last trained model.")] = None,
    folder: Annotated[Path | None, typer.Argument(
        metavar="DIR", parser=options.path,
        help="Pictures that the model has not seen. Default: those that its training held out; for the demo model, new "
             "scenes.")] = None,
    num: Annotated[int | None, typer.Option(
        "-n", "--num", help="Pictures to generate, for distances and memorisation. 0 skips both. Default: "
                            f"{GENERATED_PICTURES}.")] = None,
    size: Annotated[Size | None, options.size(
        "Measure the pictures of this size, of a model with several. Default: the commonest.")] = None,
    images: Annotated[int | None, typer.Option(
        "--images", help=f"Pictures to measure on, at most. Default: {MAX_PICTURES}.")] = None,
    quick: Annotated[bool, typer.Option(
        "--quick", help=f"A rough look in seconds: --images {QUICK_PICTURES} -n 0, and nothing is kept.")] = False,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Seed of the noise, the shuffled captions and the generated "
                                      "pictures. Default: 0.")] = 0,
    features: Annotated[Path | None, typer.Option(
        "--features",
        help="An ONNX file whose features compare pictures. Default: an encoder trained on the pictures."
        )] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Pictures measured at once.")] = None,
    device: Annotated[str | None, options.device()] = None,
    precision: Annotated[str | None, options.choice(
        "--precision", of=config.PRECISIONS[1:], help="Precision", default=options.PRECISION)] = None,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure how good a model is: likelihood, noise loss, use of captions, distances to real pictures, memorisation.

    [bold]diffuse evaluate cars[/]

    [bold]diffuse evaluate cars --quick[/]

    [bold]diffuse evaluate cars ./heldout -n 1000[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    path = registry.resolve(model)
    model_config = read_model_info(path).config         # refused before the slow import of torch, if it must be
    if model_config.is_upscaler:
        _check_upscaler(model_config, generates=bool(num), chooses=size is not None)
    if num is None:
        num = 0 if quick or model_config.is_upscaler else GENERATED_PICTURES
    if images is None:
        images = QUICK_PICTURES if quick else MAX_PICTURES
    check_range("--num", num, 0, 100_000)
    check_range("--images", images, 1, 1_000_000)
    check_range("--seed", seed, 0, config.SEED_RANGE[1] - num)
    if precision is not None:
        check_choice("--precision", precision, config.PRECISIONS[1:])
    if batch_size is not None:
        check_range("--batch-size", batch_size, 1, 4_096)
    if features is not None and num == 0:
        raise UsageError("--features compares generated pictures, and --num 0 generates none",
                         hint="Leave out one of them")
    network = model_config.network
    size = network.resolution if model_config.is_upscaler else network.checked_size(size)
    from ..storage import run_directory

    is_of_a_run = run_directory.read_config(path.parent) is not None
    is_demo = folder is None and path == registry.bundled()
    if folder is None and not is_of_a_run and not is_demo:
        raise UsageError("it is not known which pictures this model has not seen",
                         hint="Name a folder of such pictures: diffuse evaluate MODEL DIR")
    from ..data.hub import is_address

    if folder is not None and not folder.exists() and not is_address(folder):
        raise DataError(f"{folder} does not exist", hint="Give a folder of pictures")
    machine = Machine(**options.given({"device": device, "micro_batch": batch_size}))
    if is_demo:
        folder = _demo_scenes(min(images, DEMO_SCENES), network.resolution.width)
    evaluation = _evaluate(path, folder, size, num, images, seed, features, machine, precision)
    if view.settings.json:
        view.out_json(evaluation.to_dict())
    else:
        _print(evaluation, is_demo=is_demo)
    if quick:
        view.say("a rough look, which is not kept; leave out --quick for figures to compare models by")
    elif is_of_a_run and evaluation.held_out_by_run and size == network.resolution:     # a folder may hold pictures
        #                                         that the model was trained on
        from ..evaluation.result import save_evaluation

        save_evaluation(path.parent, evaluation)


def _check_upscaler(model: ModelConfig, *, generates: bool, chooses: bool) -> None:
    """Raise UsageError for what cannot be measured of an upscaler."""
    if model.student is not None:
        raise UsageError("a distilled upscaler cannot be measured: it knows only the noise levels of its own steps",
                         hint="Measure its teacher")
    if generates or chooses:
        raise UsageError("an upscaler is measured on crops, and generates no pictures to compare",
                         hint="Leave out --num and --size")


def _demo_scenes(count: int, resolution: int) -> Path:
    """A folder of demo scenes that the demo model was not trained on. They are drawn once, and kept with the caches."""
    from ..data.demo_scenes.scenes import write_demo_folder
    from ..files import durable

    durable.make_directory(home_directory.cache_directory())
    folder = home_directory.cache_directory() / f"demo-scenes-{count}-{resolution}"
    if folder.is_dir():
        if len(list(folder.iterdir())) == count + 1:                   # the pictures and their captions
            return folder
        durable.remove_tree(folder)                                    # somebody was killed while they were moved there
    with progress.of("drawing scenes", count) as advance_to, contextlib.closing(
            write_demo_folder(folder, count=count, resolution=resolution, seed=DEMO_SEED)) as drawing:
        for done in drawing:
            advance_to(done)
    return folder


def _announce_encoder(seconds: float) -> None:
    view.say(f"distances need an encoder of these pictures: it is trained now, in about {duration(seconds)}, and kept "
             "for later evaluations; -n 0 does without")


def _evaluate(
    path: Path, folder: Path | None, size: Size, num: int, images: int, seed: int, features: Path | None,
    machine: Machine, precision: str | None,
) -> "Evaluation":
    from ..runtime import devices

    with progress.stages() as tell:
        tell("loading", 0, 1)
        from ..evaluation.evaluate import evaluate as measure
        from ..evaluation.features_file import load_features
        from ..storage import checkpoint

        device = devices.choose_device(machine)
        model = checkpoint.load_model(path, device)
        network = model.config.network
        sizes = network.sizes if network.upscaling is None else (network.upscaling.large,)
        chosen = None if features is None else load_features(features)
        pictures = _open_pictures(path, folder, sizes, tell)
        if len(sizes) > 1:
            count = len(pictures.positions)
            pictures = pictures.of_size(size)
            view.say(f"the {len(pictures.positions):,} of {count:,} pictures that are of {size} px are measured")
        batch_size = devices.choose_micro_batch(machine, device, batch_size=MAX_PICTURES, resolution=size.side)
        return measure(
            model, pictures, num=num, seed=seed, limit=images, batch_size=batch_size,
            precision=precision or devices.choose_sampling_precision(device), features=chosen,
            cache=home_directory.cache_directory(), progress=tell, announce=_announce_encoder)


def _open_pictures(
    path: Path, folder: Path | None, sizes: tuple[Size, ...], tell: Callable[[str, int, int], None],
) -> "HeldOutPictures":
    """Open the pictures to measure on, and show the progress: those in `folder`, or those that the run held out."""
    from ..evaluation.held_out import open_held_out
    from ..events import Scanned

    opening = open_held_out(path, folder, resolution=sizes)
    while True:
        try:
            event = next(opening)
        except StopIteration as end:
            pictures: HeldOutPictures = end.value
            return pictures
        if isinstance(event, Scanned):
            tell("reading pictures", event.done, event.total)
        elif event.level == "warning":
            view.warn(event.message)
        else:
            view.say(event.message)


# ── For people ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _print(evaluation: "Evaluation", *, is_demo: bool) -> None:
    lines = list(_lines(evaluation, is_demo=is_demo))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        view.out(f"{label:<{width}}  {clean(text, limit=300)}")
    if evaluation.likelihood is not None:
        view.out("")
        columns, rows = _levels(evaluation.likelihood, evaluation.prompts)
        view.table(columns, rows, right=columns)


def _lines(evaluation: "Evaluation", *, is_demo: bool) -> Iterator[tuple[str, str]]:
    """A (label, text) for every figure: its value, and which values are good."""
    from ..evaluation.result import OF_A_STUDENT

    after = "" if evaluation.step is None else f", after {evaluation.step:,} steps"
    yield "model", f"{evaluation.model_sha256[:10]}{after}"
    source = "held out by its training" if evaluation.held_out_by_run else \
        "of new demo scenes" if is_demo else "in the given folder"
    yield "measured on", f"{evaluation.held_out:,} picture{'' if evaluation.held_out == 1 else 's'} {source}" + (
        "" if evaluation.train is None else f"; trained on {evaluation.train:,}")
    if evaluation.likelihood is None:
        yield "noise loss", f"none, and no bits/dim: {OF_A_STUDENT}"
    else:
        yield from _likelihood_lines(evaluation.likelihood)
        yield "captions", "none: unconditional" if evaluation.prompts is None else _prompts_text(evaluation.prompts)
    yield from _distance_lines(evaluation)
    if evaluation.memorisation is not None:
        yield "memorisation", evaluation.memorisation.sentence


def _likelihood_lines(likelihood: "Likelihood") -> Iterator[tuple[str, str]]:
    yield "noise loss", f"{_text(likelihood.noise_mse)}; lower is better, on the model's own schedule"
    yield "reference", f"{_text(likelihood.noise_mse_ref)} on the cosine schedule: comparable between any two models"
    yield "bits/dim", f"{_text(likelihood.bound)} by the bound of 1000 steps; lower is better, 8 means it knows nothing"
    yield "", f"{_text(likelihood.area)} by the area under the noise loss: infinitely many steps"
    if likelihood.variance_gain is not None and likelihood.variance_calibration is not None:
        yield "variance", (f"{_text(likelihood.variance_gain)} bits/dim gained over the best fixed variance; above 0 "
                           "is better")
        yield "", f"the squared error is {_text(likelihood.variance_calibration)} times the expected one; 1 is right"


def _prompts_text(prompts: "CaptionEffect") -> str:
    parts = [f"noise loss {_percent(prompts.empty_rise)} without them"]
    if prompts.shuffled_rise is not None:
        parts.append(f"{_percent(prompts.shuffled_rise)} with wrong ones")
    return ", ".join(parts) + "; near 0 means that captions are ignored"


def _distance_lines(evaluation: "Evaluation") -> Iterator[tuple[str, str]]:
    if evaluation.distances is None:
        return
    drawn, floor = evaluation.distances.drawn, evaluation.distances.floor
    error = drawn.kernel_standard_error                                # NaN of two pictures
    of_error = f" ± {_rounded(error, error)}" if math.isfinite(error) else ""
    yield "kernel distance", (f"{drawn.kernel:.4g}{of_error}, {floor.kernel:.4g} between real pictures; "
                              f"{drawn.samples:,} pictures each")
    few = "; too few pictures to mean much" if drawn.has_singular_covariance else ""
    yield "Fréchet distance", f"{drawn.frechet:.4g}, {floor.frechet:.4g} between real pictures{few}"
    yield "precision", (f"{drawn.precision:.3f} of generated pictures look real; {floor.precision:.3f} of real ones "
                        f"do{few}")
    yield "recall", f"{drawn.recall:.3f} of the variety is covered; {floor.recall:.3f} by real pictures{few}"
    yield "features", f"{evaluation.features}"


def _levels(likelihood: "Likelihood", prompts: "CaptionEffect | None") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return a table of the noise loss: the column headings, and one row of texts for each noise level.

    The level with the least noise comes first. A model with captions has further columns, for no and wrong captions.
    """
    columns = {"LOG-SNR": [f"{value:+.2f}" for value in likelihood.log_snr],
               "NOISE LOSS": [_text(figure) for figure in likelihood.noise_mse_at]}
    if prompts is not None:
        columns["NO CAPTION"] = [_text(figure) for figure in prompts.empty_at]
        if prompts.shuffled_at is not None:
            columns["WRONG CAPTION"] = [_text(figure) for figure in prompts.shuffled_at]
    return tuple(columns), list(zip(*columns.values(), strict=True))


def _text(figure: "Estimate") -> str:
    """A figure with its standard error, such as '0.0412 ± 0.0003'."""
    value, error = figure.value, figure.standard_error
    return f"{value:.4g}" if error is None else f"{_rounded(value, error)} ± {_rounded(error, error)}"


def _percent(figure: "Estimate") -> str:
    error = "" if figure.standard_error is None else f" ± {100 * figure.standard_error:.2f}"
    return f"{100 * figure.value:+.2f}{error} %"


def _rounded(value: float, error: float) -> str:
    """`value` with as many decimals as show two digits of its standard error."""
    decimals = 4
    if 0 < error < math.inf:
        decimals = min(max(1 - math.floor(math.log10(error)), 0), 12)
    return f"{value:.{decimals}f}"
