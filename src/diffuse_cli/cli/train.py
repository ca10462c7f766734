"""`diffuse train`: train a model on a folder of pictures, show the events, and print the path of the model.

Also handles the signals that stop a training or ask for a save.
"""

import contextlib
import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import config, model_config
from ..checks import from_dict, parse_duration
from ..config import Machine, Recipe
from ..errors import StorageError, UsageError
from ..picture_size import Size
from ..storage import registry
from . import options, output_files, recipe_file
from .processes import SIGNALS, handle_signals, launch, process_duties, processes_to_start
from .terminal import view

if TYPE_CHECKING:
    from ..events import Event, Finished
    from ..training.run import Run

RECIPE, MACHINE = "Recipe: what is trained (saved; must match to resume)", "Machine: where and how fast"     # panels
STOPPING = "\nstopping after this step and saving; a second Ctrl-C stops at once"


def _recipe(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=RECIPE)


def _recipe_choice(name: str, of: tuple[str, ...], help: str, default: str | None = None) -> Any:
    return options.choice(name, of=of, help=help, default=default, panel=RECIPE)


def _machine(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=MACHINE)


# Options that `distill` has as well
Steps = Annotated[int | None, _recipe("--steps", help="Budget: the number of steps.")]
Images = Annotated[int | None, _recipe("--images", help="Budget: the number of pictures seen.")]
Time = Annotated[str | None, _recipe("--time", help="Budget: the duration, such as 30m or 2h.")]
BatchSize = Annotated[int | None, _recipe("--batch-size", help="Pictures in a step, on all devices together.")]
LearningRate = Annotated[float | None, _recipe("--lr", help="Learning rate.")]
Seed = Annotated[int | None, _recipe("--seed", help=f"Seed of all random numbers. Default: {Recipe.seed}.")]
Out = Annotated[str | None, _machine("-o", "--out", help="Copy the finished model to this file.")]
Gpus = Annotated[str | None, _machine("--gpus", help="Number of GPUs, or all; 0 means the CPU.")]
Procs = Annotated[int | None, typer.Option("--procs", hidden=True)]
Device = Annotated[str | None, options.device(MACHINE)]
Precision = Annotated[str | None, options.choice(
    "--precision", of=config.PRECISIONS, help="Precision", default=Machine.precision, panel=MACHINE)]
Deterministic = Annotated[bool, _machine("--deterministic", help="Slower kernels that give equal bits on a GPU, too.")]
MicroBatch = Annotated[int | None, _machine("--micro-batch", help="Pictures that a device processes at once.")]
SaveEvery = Annotated[str | None, _machine(
    "--save-every", help=f"Interval between saves, such as 500 (steps), 5m or 10%. Default: {Machine.save_every}.")]
PreviewEvery = Annotated[str | None, _machine(
    "--preview-every", help=f"Interval between previews. Default: {Machine.preview_every}.")]
PreviewPrompt = Annotated[list[str] | None, typer.Option(
    "--preview-prompt", metavar="TEXT", help="Prompt of the previews; can be repeated.", rich_help_panel=MACHINE)]
Log = Annotated[str | None, options.choice(
    "--log", of=config.LOGS, help="Also log to one of these programs", panel=MACHINE)]
Strict = Annotated[bool, _machine("--strict", help="Stop at the first problem with the data.")]
AcceptChanges = Annotated[bool, _machine("--accept-changes", help="Resume although pictures have changed.")]
Fresh = Annotated[bool, _machine("--fresh", help="Move an old run of this name aside, and start anew.")]
DryRun = Annotated[bool, _machine("--dry-run", help="Print the plan and stop.")]


def train(
    folders: Annotated[list[Path] | None, options.folders()] = None,
    resolution: Annotated[Size | None, options.resolution(
        "Size of the pictures: 64 for squares, or width x height, 96x64; multiples of 8.", panel=RECIPE)] = None,
    preset: Annotated[str | None, _recipe_choice("--preset", config.PRESETS, "Size of the network")] = None,
    steps: Steps = None,
    images: Images = None,
    time: Time = None,
    batch_size: BatchSize = None,
    lr: LearningRate = None,
    captions: options.Captions = None, caption: options.Caption = None, caption_column: options.CaptionColumn = None,
    caption_ext: options.CaptionExt = None, caption_template: options.CaptionTemplate = None,
    join_lines: options.JoinLines = None,
    shuffle_tags: Annotated[bool | None, _recipe("--shuffle-tags/--no-shuffle-tags", help="Change the order of tags "
                                                 "between commas, anew each time.")] = None,
    tag_dropout: Annotated[float | None, _recipe("--tag-dropout", help="Probability of each tag between commas to be "
                                                 "left out, anew each time.")] = None,
    held_out: Annotated[str | None, _recipe("--held-out", help="Hold out the pictures in this folder of the data set, "
                                            "for example test, test,val or 'test*'. Default: some at random.")] = None,
    background: options.Background = None, white_level: options.WhiteLevel = None, fit: options.Fit = None,
    loss_weighting: Annotated[str | None, _recipe_choice(
        "--loss-weighting", config.LOSS_WEIGHTINGS, "Weight of the noise loss", Recipe.loss_weighting)] = None,
    objective: Annotated[str | None, typer.Option("--objective", hidden=True)] = None,             # its former name
    prediction: Annotated[str | None, _recipe_choice(
        "--prediction", model_config.PREDICTIONS, "What the network predicts", Recipe.prediction)] = None,
    schedule: Annotated[str | None, _recipe_choice(
        "--schedule", model_config.SCHEDULES, "Noise schedule", Recipe.schedule)] = None,
    variance: Annotated[str | None, _recipe_choice(
        "--variance", config.VARIANCES, "Variance of the reverse process", Recipe.variance)] = None,
    variance_grad: Annotated[str | None, _recipe_choice(
        "--variance-grad", config.VARIANCE_GRADS, "What the variance loss trains", Recipe.variance_grad)] = None,
    times: Annotated[str | None, _recipe_choice(
        "--times", config.TIMES, "Diffusion times in training", Recipe.times)] = None,
    optimizer: Annotated[str | None, _recipe_choice(
        "--optimizer", config.OPTIMIZERS, "Optimizer", Recipe.optimizer)] = None,
    flip: Annotated[bool | None, _recipe("--flip/--no-flip", help="Mirror pictures at random. Default: only without "
                                         "captions.")] = None,
    seed: Seed = None,
    init: Annotated[str | None, _recipe("--init", help="The model to start from; none; or auto: a foundation that "
                                        f"comes with the program, if one fits. Default: {Recipe.init}.")] = None,
    upscaler_for: Annotated[str | None, typer.Option(
        "--upscaler-for", metavar="MODEL", help="Train an upscaler instead, which enlarges the pictures of this model.",
        rich_help_panel=RECIPE, autocompletion=options.complete_model)] = None,
    factor: Annotated[int | None, _recipe("--factor", help="By which an upscaler enlarges: "
                                          f"{' or '.join(map(str, model_config.FACTORS))}. Default: {config.FACTOR}."
                                          )] = None,
    name: Annotated[str | None, _machine("--name", help="Name of the model. Default: that of the folder.")] = None,
    out: Out = None,
    gpus: Gpus = None,
    procs: Procs = None,
    device: Device = None,
    precision: Precision = None,
    compile: Annotated[bool | None, _machine("--compile/--no-compile", help="Compile the network: a slow start, then "
                                             "faster steps. Default: in long runs on a GPU.")] = None,
    deterministic: Deterministic = False,
    micro_batch: MicroBatch = None,
    shard: Annotated[bool, _machine("--shard", help="Divide the weights among the processes. Default: where a GPU has "
                                    "no room for all.")] = False,
    save_every: SaveEvery = None,
    preview_every: PreviewEvery = None,
    preview_prompt: PreviewPrompt = None,
    log: Log = None,
    strict: Strict = False,
    accept_changes: AcceptChanges = False,
    fresh: Fresh = False,
    config_file: Annotated[Path | None, _machine("--config", help="Take folder and recipe from a .toml that --save "
                                                 "wrote, or from a run's config.json.")] = None,
    dry_run: DryRun = False,
    save: Annotated[Path | None, _machine("--save", help="With --dry-run: write the recipe, with all that the plan "
                                          "chose, to this new .toml file.")] = None,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Train a text-conditional diffusion model on a folder of pictures. The same command resumes a stopped training.

    [bold]diffuse train ./images[/]

    [bold]diffuse train ./images --resolution 64 --time 2h --name cars[/]

    [bold]diffuse train ./images --upscaler-for cars[/]

    [bold]diffuse train ./images --dry-run[/]
    """
    arguments = options.given(locals())                                # before there are other local variables
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    if time is not None:
        arguments["time"] = parse_duration("--time", time)
    if upscaler_for is not None:
        arguments["upscaler_for"] = registry.lasting_name(upscaler_for)
    arguments = options.absolute_paths(arguments, (folders or [])[1:])
    folder, recipe = recipe_file.read(
        config_file, folders[0] if folders else None, options.fields_of(Recipe, arguments))
    machine = from_dict(Machine, options.fields_of(Machine, arguments), where="")
    check_out(machine.out)
    if save is not None:
        if not dry_run:
            raise UsageError("--save writes the recipe of a plan", hint="Add --dry-run; a run keeps a config.json")
        recipe_file.check_new(save)
    run_training(folder, recipe, machine, dry_run=dry_run, save=save)


def run_training(folder: Path, recipe: Recipe, machine: Machine, *, dry_run: bool, save: Path | None = None) -> None:
    from ..events import Finished, Scanned
    from ..reporting import loggers
    from ..training.run import join_run, open_run
    from .terminal.dashboard import TrainingView

    if machine.log is not None:
        loggers.check_log(machine.log)

    # With several processes, each runs this function again.
    if not dry_run and (count := processes_to_start(machine)) > 1:
        with open_run(folder, recipe, machine, rehearsal=True):
            pass                                                       # an error is reported once, and at once
        raise typer.Exit(launch(count))

    finished: Finished | None = None
    with contextlib.ExitStack() as stack:
        # The main process locks the run. A dry run needs no other process.
        rank = stack.enter_context(process_duties(waits=not dry_run))
        if dry_run and not rank.is_main:
            return
        run = join_run(folder, recipe, machine) if not rank.is_main else \
            stack.enter_context(open_run(folder, recipe, machine, rehearsal=dry_run))

        # The readers of the events, and the signals. A signal ends a dry run at once, as it ends any other program.
        should_stop = (lambda: None) if dry_run else stack.enter_context(_catch_signals(announce=rank.is_main))
        display = stack.enter_context(TrainingView())
        from ..training import loop

        log = stack.enter_context(loggers.open_log(
            machine.log if rank.is_main and not dry_run else None, run.directory, warn=view.warn))

        # The training. A signal to stop while pictures are read ends it at once, because there is nothing to save.
        for event in _rehearse(run, save) if dry_run else loop.train(run, should_stop=should_stop):
            if rank.is_main:
                display.show(event)
            log(event)
            finished = event if isinstance(event, Finished) else None
            if isinstance(event, Scanned) and (signal_name := should_stop()) and signal_name != loop.SAVE_SIGNAL:
                if rank.is_main:
                    view.say("stopped while pictures were read: nothing was trained or saved")
                raise typer.Exit(_exit_code(signal_name))
    if finished is not None:
        _conclude(finished, machine, is_main=rank.is_main)


def _rehearse(run: "Run", save: Path | None) -> Iterator["Event"]:
    """The events of a dry run. At its end, the recipe is written to the file `save`, and its path is printed."""
    from ..training import loop

    plan = yield from loop.rehearse(run)
    if save is not None:
        recipe_file.write(save, run.folder, run.recipe, plan, run.resolution)
        output_files.print_result(save, {})


def _conclude(finished: "Finished", machine: Machine, *, is_main: bool) -> None:
    """Print the path of the model. If a signal stopped the training, say how to resume, and end by that signal."""
    if not finished.complete:
        _say_how_to_resume(is_main=is_main)
        raise typer.Exit(_exit_code(finished.reason))
    if is_main and not view.settings.json:
        view.out(machine.out or finished.path)


def _say_how_to_resume(*, is_main: bool) -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--fresh"]           # which would start anew
    if is_main:
        view.say(f"resume with: {shlex.join(['diffuse', *arguments])}")


def _exit_code(signal_name: str) -> int:
    return 128 + int(getattr(signal, signal_name))


# ── Checks of the options ───────────────────────────────────────────────────────────────────────────────────────────


def check_out(out: str | None) -> None:
    """Raise UsageError or StorageError unless the finished model can be copied to `out`."""
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
        raise StorageError(f"cannot write {out}: you have no permission to write into {directory}",
                           hint="Choose another place with -o")


# ── Signals ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def _catch_signals(*, announce: bool) -> Iterator[Callable[[], str | None]]:
    """Yield a function that returns the name of the signal which the training has to obey, or None.

    The first SIGINT, SIGTERM or SIGHUP asks the training to stop, and is returned from then on. A second one ends the
    program at once. SIGUSR1 asks for a save, and is returned once.

    announce: tell the user that the training will stop.
    """
    stops: list[str] = []
    saves: list[str] = []
    unannounced: list[str] = []

    def handler(number: int, _: FrameType | None) -> None:
        if signal.Signals(number).name == "SIGUSR1":
            saves[:] = ["SIGUSR1"]
            return
        if stops:
            view.leave()
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stops.append(signal.Signals(number).name)
        if announce:
            try:
                view.say(STOPPING)
            except RuntimeError:                                       # the signal interrupted another message
                unannounced.append(STOPPING)

    def should_stop() -> str | None:
        if unannounced:
            view.say(unannounced.pop())
        return stops[0] if stops else saves.pop() if saves else None

    with handle_signals(SIGNALS, handler):
        yield should_stop
