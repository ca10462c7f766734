"""`diffuse train`: a folder of pictures becomes a model. Options in, events shown, one path out.

Knows how a training is asked for and interrupted; what is done is `engine.training`.
"""

import contextlib
import json as jsonlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import config
from ..checks import choices, from_dict, parse_duration
from ..config import Machine, Recipe
from ..errors import StorageError, UsageError
from . import options
from .processes import SIGNALS, answered, launch, processes_to_start, taking_part
from .terminal import view

if TYPE_CHECKING:
    from ..events import Finished

RECIPE, MACHINE = "Recipe: what is learnt (saved; must match to go on)", "Machine: where and how fast"
STOPPING = "\nstopping after this step and saving; once more leaves at once"


def _recipe(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=RECIPE, show_default=False)


def _machine(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=MACHINE, show_default=False)


def train(
    folder: Annotated[Path | None, options.folder("Pictures, or a .jsonl or .csv manifest.")] = None,
    resolution: Annotated[int | None, _recipe("--resolution", help="Pixels along a side, a multiple of 8.")] = None,
    preset: Annotated[str | None, _recipe("--preset", help=f"Size of the network: {choices(config.PRESETS)}.")] = None,
    steps: Annotated[int | None, _recipe("--steps", help="Budget in steps.")] = None,
    images: Annotated[int | None, _recipe("--images", help="Budget in pictures seen.")] = None,
    time: Annotated[str | None, _recipe("--time", help="Budget in time: 30m, 2h.")] = None,
    batch_size: Annotated[int | None, _recipe("--batch-size", help="Pictures in a step, on all devices.")] = None,
    lr: Annotated[float | None, _recipe("--lr", help="Learning rate.")] = None,
    captions: options.Captions = None, caption: options.Caption = None, caption_column: options.CaptionColumn = None,
    caption_ext: options.CaptionExt = None, caption_template: options.CaptionTemplate = None,
    loss_weighting: Annotated[str | None, _recipe("--loss-weighting", "--objective", help=f"Weight of the noise loss: "
                                             f"{choices(config.LOSS_WEIGHTINGS, Recipe.loss_weighting)}.")] = None,
    prediction: Annotated[str | None, _recipe("--prediction", help=f"What the network answers: "
                                              f"{choices(config.PREDICTIONS, Recipe.prediction)}.")] = None,
    schedule: Annotated[str | None, _recipe("--schedule", help=f"Noise schedule: "
                                            f"{choices(config.SCHEDULES, Recipe.schedule)}.")] = None,
    variance: Annotated[str | None, _recipe("--variance", help=f"Reverse variance: "
                                            f"{choices(config.VARIANCES, Recipe.variance)}.")] = None,
    variance_grad: Annotated[str | None, _recipe("--variance-grad", help=f"What the variance loss trains: "
                                                 f"{choices(config.VARIANCE_GRADS, Recipe.variance_grad)}.")] = None,
    times: Annotated[str | None, _recipe("--times", help=f"Times of training: "
                                         f"{choices(config.TIMES, Recipe.times)}.")] = None,
    optimizer: Annotated[str | None, _recipe("--optimizer", help=f"{choices(config.OPTIMIZERS, Recipe.optimizer)}."
                                             )] = None,
    flip: Annotated[bool | None, _recipe("--flip/--no-flip", help="Mirror pictures at random. Default: when there are "
                                         "no captions.")] = None,
    seed: Annotated[int | None, _recipe("--seed", help=f"Default {Recipe.seed}.")] = None,
    init: Annotated[str | None, _recipe("--init", help="Start from the weights of this model.")] = None,
    name: Annotated[str | None, _machine("--name", help="Name of the model. Default: the folder's.")] = None,
    out: Annotated[str | None, _machine("-o", "--out", help="Copy the finished model to this file.")] = None,
    gpus: Annotated[str | None, _machine("--gpus", help="Number of GPUs, or all; 0 is the CPU.")] = None,
    procs: Annotated[int | None, typer.Option("--procs", hidden=True)] = None,
    device: Annotated[str | None, _machine("--device", help="cpu, cuda or mps.")] = None,
    precision: Annotated[str | None, _machine("--precision", help=f"{choices(config.PRECISIONS, 'auto')}.")] = None,
    compile: Annotated[bool, _machine("--compile", help="Compile the network: slow to start, then faster.")] = False,
    micro_batch: Annotated[int | None, _machine("--micro-batch", help="Pictures at once on a device.")] = None,
    save_every: Annotated[str | None, _machine("--save-every", help=f"500, 5m or 10%. Default {Machine.save_every}."
                                               )] = None,
    preview_every: Annotated[str | None, _machine("--preview-every", help=f"Default {Machine.preview_every}.")] = None,
    preview_prompt: Annotated[list[str] | None, _machine("--preview-prompt", help="Give it once or more.")] = None,
    log: Annotated[str | None, _machine("--log", help=f"Also log to {choices(config.LOGS)}.")] = None,
    strict: Annotated[bool, _machine("--strict", help="Stop at the first problem with the data.")] = False,
    accept_changes: Annotated[bool, _machine("--accept-changes", help="Go on with changed pictures.")] = False,
    fresh: Annotated[bool, _machine("--fresh", help="Move an old run of this name aside.")] = False,
    config_file: Annotated[Path | None, _machine("--config", help="Take folder and recipe from a run's config.json.")
                           ] = None,
    dry_run: Annotated[bool, _machine("--dry-run", help="Print the plan and stop.")] = False,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a text-conditional diffusion model on a folder of pictures. The same command again goes on.

    [bold]diffuse train ./images[/]

    [bold]diffuse train ./images --resolution 64 --time 2h --name cars[/]

    [bold]diffuse train ./images --dry-run[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    seconds = None if time is None else parse_duration("--time", time)
    folder, recipe = _read_config(config_file, folder, {
        "resolution": resolution, "preset": preset, "steps": steps, "images": images, "time": seconds,
        "batch_size": batch_size, "lr": lr, "captions": captions, "caption": caption, "caption_column": caption_column,
        "caption_ext": caption_ext, "caption_template": caption_template, "loss_weighting": loss_weighting,
        "prediction": prediction, "schedule": schedule, "variance": variance, "variance_grad": variance_grad,
        "times": times, "optimizer": optimizer, "flip": flip, "seed": seed, "init": init})
    machine = Machine(**options.given({
        "name": name, "out": out, "gpus": gpus, "procs": procs, "device": device, "precision": precision,
        "compile": compile, "micro_batch": micro_batch, "save_every": save_every, "preview_every": preview_every,
        "preview_prompt": tuple(preview_prompt or ()), "log": log, "strict": strict, "accept_changes": accept_changes,
        "fresh": fresh}))
    _check_out(machine.out)
    _train(folder, recipe, machine, dry_run=dry_run)


def _train(folder: Path, recipe: Recipe, machine: Machine, *, dry_run: bool) -> None:
    from ..events import Finished, Scanned
    from ..reporting import loggers
    from ..training.run import join_run, open_run
    from .terminal.dashboard import TrainingView

    if machine.log is not None:
        loggers.check_log(machine.log)
    if not dry_run and (count := processes_to_start(machine)) > 1:
        with open_run(folder, recipe, machine, rehearsal=True):
            pass                                                       # what is wrong is said once, and at once
        raise typer.Exit(launch(count))
    finished: Finished | None = None
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(taking_part())
        if dry_run and not place.is_main:                              # the main one alone tells the plan
            return
        run = join_run(folder, recipe, machine) if not place.is_main else \
            stack.enter_context(open_run(folder, recipe, machine, rehearsal=dry_run))
        caught, shown = stack.enter_context(_signals(talk=place.is_main)), stack.enter_context(TrainingView())
        from ..training import loop

        log = stack.enter_context(loggers.open_log(
            machine.log if place.is_main and not dry_run else None, run.directory, complain=view.warn))
        for event in loop.rehearse(run) if dry_run else loop.train(run, should_stop=caught):
            if place.is_main:
                shown.show(event)
            log(event)
            finished = event if isinstance(event, Finished) else None
            if isinstance(event, Scanned) and (reason := caught()):        # nothing is begun that should be saved
                _say_how_to_go_on(is_main=place.is_main)
                raise typer.Exit(_exit_code(reason))
    if finished is not None:
        _end(finished, machine, is_main=place.is_main)


def _end(finished: "Finished", machine: Machine, *, is_main: bool) -> None:
    """The path of the model; or how to go on, and the signal that ended it."""
    if not finished.complete:
        _say_how_to_go_on(is_main=is_main)
        raise typer.Exit(_exit_code(finished.reason))
    if is_main and not view.settings.json:
        view.out(machine.out or finished.path)


def _say_how_to_go_on(*, is_main: bool) -> None:
    again = [argument for argument in sys.argv[1:] if argument != "--fresh"]
    if is_main:
        view.say(f"to go on: {shlex.join(['diffuse', *again])}")


def _exit_code(signal_name: str) -> int:
    return 128 + int(getattr(signal, signal_name))


def _read_config(path: Path | None, folder: Path | None, typed: dict[str, Any]) -> tuple[Path, Recipe]:
    """Folder and recipe of a run's config.json, overridden by what was typed."""
    recipe: dict[str, Any] = {}
    if path is not None:
        try:
            request = jsonlib.loads(path.read_text(encoding="utf-8"))["request"]
            folder, recipe = folder or Path(request["folder"]), dict(request["recipe"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(f"--config cannot use {path}", hint="Give the config.json of a run") from error
    if folder is None:
        raise options.no_folder()
    typed = options.given(typed)
    if {"steps", "images", "time"} & typed.keys():                     # a typed budget replaces the file's
        recipe = {key: value for key, value in recipe.items() if key not in ("steps", "images", "time")}
    return folder, from_dict(Recipe, {**recipe, **typed}, where="--config" if path else "")


def _check_out(out: str | None) -> None:
    if out is None:
        return
    if not out.endswith(".safetensors"):
        raise UsageError(f"-o {out} does not end in .safetensors")
    if Path(out).exists():
        raise UsageError(f"{out} exists already", hint="Move it away, or choose another name")
    directory = Path(out).absolute().parent
    if not directory.is_dir():
        raise UsageError(f"there is no directory {directory}")
    if not os.access(directory, os.W_OK):
        raise StorageError(f"cannot write {out}: {directory} is read-only for you", hint="Choose another place with -o")


@contextlib.contextmanager
def _signals(*, talk: bool) -> Iterator[Callable[[], str | None]]:
    """Catch the first SIGINT, SIGTERM or SIGHUP and say its name when asked; the second leaves at once.

    SIGUSR1, which asks for a save, is said once each time.
    """
    caught: list[str] = []
    saves: list[str] = []
    untold: list[str] = []

    def handler(number: int, _: FrameType | None) -> None:
        if signal.Signals(number).name == "SIGUSR1":
            saves[:] = ["SIGUSR1"]
            return
        if caught:
            view.leave()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        caught.append(signal.Signals(number).name)
        if talk:
            try:
                view.say(STOPPING)
            except RuntimeError:                                       # it came while something else was being said
                untold.append(STOPPING)

    def asked() -> str | None:
        if untold:
            view.say(untold.pop())
        return caught[0] if caught else saves.pop() if saves else None

    with answered(SIGNALS, handler):
        yield asked
