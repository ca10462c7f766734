"""`diffuse evaluate`: how good a model is, measured on pictures that it has not seen, as lines with a word on each.

Knows what people are told; what is measured is `engine.evaluation`.
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .. import config
from ..checks import check_choice, check_range
from ..config import Machine, Sampling
from ..errors import DataError, UsageError
from ..storage import registry
from . import options
from .terminal import progress, view

if TYPE_CHECKING:
    from ..evaluation.evaluate import Evaluation, Prompts
    from ..evaluation.held_out import HeldOut
    from ..evaluation.likelihood import Estimate

DRAWN = 256                                     # a minute or two of a CPU at 32 pixels
MEASURED = 2048                                 # all that a training ever holds out


def evaluate(
    model: Annotated[str | None, typer.Argument(
        metavar="[MODEL]", show_default=False, autocompletion=options.complete_model,
        help="Name or path; the last trained one without it.")] = None,
    folder: Annotated[Path | None, typer.Argument(
        metavar="[DIR]", show_default=False, parser=options.path,
        help="Pictures that the model has not seen. Default: those that its training held out.")] = None,
    num: Annotated[int, typer.Option("-n", "--num", help="Pictures to draw, for distances and memorisation; 0: none.")
                   ] = DRAWN,
    images: Annotated[int, typer.Option("--images", help="Pictures to measure on, at most.")] = MEASURED,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Of noise, shuffled captions and drawings.")] = 0,
    features: Annotated[Path | None, typer.Option(
        "--features", show_default=False,
        help="A TorchScript file to compare pictures in. Default: an encoder trained on the pictures.")] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", help="Pictures at once.",
                                                      show_default=False)] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or mps.", show_default=False)] = None,
    precision: Annotated[str, typer.Option("--precision", help="fp32 or bf16.")] = Sampling.precision,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Measure how good a model is: likelihood, noise loss by level, captions, distances, memorisation.

    [bold]diffuse evaluate cars[/]

    [bold]diffuse evaluate cars ./heldout -n 1000[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    check_range("--num", num, 0, 100_000)
    check_range("--images", images, 1, 1_000_000)
    check_range("--seed", seed, 0, config.SEED_RANGE[1] - num)
    check_choice("--precision", precision, config.PRECISIONS[1:])
    if batch_size is not None:
        check_range("--batch-size", batch_size, 1, 4_096)
    if features is not None and num == 0:
        raise UsageError("--features compares pictures that are drawn, and --num 0 draws none",
                         hint="Leave out one of them")
    path = registry.resolve(model)
    from ..storage import run_directory

    of_a_run = run_directory.read_config(path.parent) is not None
    if folder is None and not of_a_run:
        raise UsageError("nothing beside this model says which pictures it has not seen",
                         hint="Name a folder of such pictures: diffuse evaluate MODEL DIR")
    if folder is not None and not folder.exists():
        raise DataError(f"{folder} does not exist", hint="Give a folder of pictures")
    found = _evaluate(path, folder, num, images, seed, features,
                      Machine(**options.given({"device": device, "micro_batch": batch_size})), precision)
    record = found.to_dict()
    if view.settings.json:
        view.out_json(record)
    else:
        _print(found)
    if of_a_run and found.own:                  # a folder may hold pictures that the model learnt from
        from ..evaluation import evaluate as evaluation

        evaluation.keep(path.parent, found)


def _evaluate(
    path: Path, folder: Path | None, num: int, images: int, seed: int, features: Path | None, machine: Machine,
    precision: str,
) -> "Evaluation":
    from ..runtime import devices

    with progress.stages() as tell:
        tell("loading", 0, 1)
        from ..evaluation import evaluate as evaluation
        from ..evaluation.features import load_features
        from ..storage import checkpoint

        device = devices.choose_device(machine)
        model = checkpoint.load_model(path, device)
        resolution = model.config.network.resolution
        chosen = None if features is None else load_features(features, device)
        pictures = _open(path, folder, resolution, tell)
        batch_size = devices.choose_micro_batch(machine, device, batch_size=MEASURED, resolution=resolution)
        return evaluation.evaluate(
            model, pictures, num=num, seed=seed, limit=images, batch_size=batch_size, precision=precision,
            features=chosen, cache=registry.cache_directory(), tell=tell)


def _open(path: Path, folder: Path | None, resolution: int, tell: Callable[[str, int, int], None]) -> "HeldOut":
    from ..evaluation.held_out import open_held_out
    from ..events import Scanned

    steps = open_held_out(path, folder, resolution=resolution)
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            pictures: HeldOut = end.value
            return pictures
        if isinstance(event, Scanned):
            tell("reading pictures", event.done, event.total)
        elif event.level == "warning":
            view.warn(event.message)
        else:
            view.say(event.message)


# ── For people ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _print(found: "Evaluation") -> None:
    lines = list(_lines(found))
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        view.out(f"{label:<{width}}  {view.clean(text, limit=300)}")
    view.out("")
    columns, rows = _levels(found)
    view.table(columns, rows, right=columns)


def _lines(found: "Evaluation") -> Iterator[tuple[str, str]]:
    """(label, figures and what is good) of everything that was measured."""
    likelihood = found.likelihood
    yield "model", f"{found.model_sha256[:10]}" + ("" if found.step is None else f", after {found.step:,} steps")
    source = "held out by its training" if found.own else "of the folder named"
    yield "measured on", f"{found.held_out:,} picture{'' if found.held_out == 1 else 's'} {source}" + (
        "" if found.train is None else f"; learnt from {found.train:,}")
    yield "noise loss", f"{_text(likelihood.noise_mse)}; lower is better, on the model's own schedule"
    yield "reference", f"{_text(likelihood.noise_mse_ref)} on the cosine schedule: comparable between any two models"
    yield "bits/dim", f"{_text(likelihood.bound)} by the bound of 1000 steps; lower is better, 8 is knowing nothing"
    yield "", f"{_text(likelihood.area)} by the area under the noise loss: infinitely many steps"
    if likelihood.variance_gain is not None and likelihood.variance_calibration is not None:
        yield "variance", (f"{_text(likelihood.variance_gain)} bits/dim better than the best fixed one; below 0 it is "
                           "worse")
        yield "", f"{_text(likelihood.variance_calibration)} times the error that it expects; 1 is right"
    yield "captions", "none: unconditional" if found.prompts is None else _prompts_text(found.prompts)
    yield from _distance_lines(found)
    if found.memorisation is not None:
        yield "memorisation", found.memorisation.sentence


def _prompts_text(prompts: "Prompts") -> str:
    parts = [f"{_percent(prompts.empty_rise)} more noise loss without them"]
    if prompts.shuffled_rise is not None:
        parts.append(f"{_percent(prompts.shuffled_rise)} more with wrong ones")
    return ", ".join(parts) + "; near 0 they are ignored"


def _distance_lines(found: "Evaluation") -> Iterator[tuple[str, str]]:
    if found.distances is None:
        return
    drawn, floor = found.distances.drawn, found.distances.floor
    yield "kernel distance", (f"{drawn.kernel:.4g} ± {_two(drawn.kernel_standard_error)}, {floor.kernel:.4g} between "
                              f"real pictures; {drawn.samples:,} pictures each")
    yield "Fréchet distance", (f"{drawn.frechet:.4g}, {floor.frechet:.4g} between real pictures"
                               + ("; too few pictures for more than a comparison" if drawn.few else ""))
    yield "precision", f"{drawn.precision:.3f} look real, {floor.precision:.3f} of real ones do"
    yield "recall", f"{drawn.recall:.3f} of the variety, {floor.recall:.3f} between real pictures"
    yield "features", f"{found.features}"


def _levels(found: "Evaluation") -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The curve as a table: one row for each noise level, the cleanest first."""
    columns = {"LOG-SNR": [f"{value:+.2f}" for value in found.likelihood.log_snr],
               "NOISE LOSS": [_text(figure) for figure in found.likelihood.noise_mse_at]}
    if found.prompts is not None:
        columns["NO CAPTION"] = [_text(figure) for figure in found.prompts.empty_at]
        if found.prompts.shuffled_at is not None:
            columns["WRONG CAPTION"] = [_text(figure) for figure in found.prompts.shuffled_at]
    return tuple(columns), list(zip(*columns.values(), strict=True))


def _text(figure: "Estimate") -> str:
    """'0.0412 ± 0.0003': as many digits as the standard error gives sense to."""
    if figure.standard_error is None:
        return f"{figure.value:.4g}"
    return f"{_rounded(figure.value, figure.standard_error)} ± {_two(figure.standard_error)}"


def _percent(figure: "Estimate") -> str:
    error = "" if figure.standard_error is None else f" ± {100 * figure.standard_error:.2f}"
    return f"{100 * figure.value:+.2f}{error} %"


def _rounded(value: float, error: float) -> str:
    return f"{value:.{_decimals(error)}f}"


def _two(error: float) -> str:
    return f"{error:.{_decimals(error)}f}"


def _decimals(error: float) -> int:
    """Places after the point that show two digits of a standard error."""
    if not 0 < error < math.inf:
        return 4
    return min(max(1 - math.floor(math.log10(error)), 0), 12)
