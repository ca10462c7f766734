"""`diffuse distill`: a training whose teacher is a model, and whose result samples in few evaluations."""

from pathlib import Path
from typing import Annotated, Any

import typer

from ..checks import from_dict, parse_duration
from ..config import Machine, Recipe, Sampling, teacher_guidance
from ..errors import DataError, UsageError
from ..model_config import EVALUATIONS, UPSCALER_EVALUATIONS
from ..runtime import launch_environment
from ..storage import registry, run_directory
from ..storage.model_info import read_model_info
from . import drawn_pictures, options, train
from .terminal import view

_DRAWN = "diffuse distill {} ./drawn --prompts captions.txt"


def distill(
    model: Annotated[str, typer.Argument(help="The teacher: name or file of a model.", metavar="MODEL",
                                         autocompletion=options.complete_model)],
    folders: Annotated[list[Path] | None, options.folders()] = None,
    evaluations: Annotated[int | None, typer.Option(
        "--evaluations", help="Steps in which the student samples, each of one evaluation of the network: 1 to 8. "
                              f"Default: {EVALUATIONS}, of an upscaler {UPSCALER_EVALUATIONS}.",
        rich_help_panel=train.RECIPE)] = None,
    guidance: Annotated[float | None, typer.Option(
        "--guidance", help="Guidance of the teacher, which becomes a part of the student. "
                           f"Default: {Sampling.guidance:g}, of an upscaler 1, which is none.",
        rich_help_panel=train.RECIPE)] = None,
    prompts: Annotated[str | None, typer.Option(
        "--prompts", metavar="FILE", help="Let the teacher draw the pictures: of the prompts in this file, into DIR.",
        rich_help_panel=train.RECIPE)] = None,
    steps: train.Steps = None, images: train.Images = None, time: train.Time = None,
    batch_size: train.BatchSize = None, lr: train.LearningRate = None, seed: train.Seed = None,
    name: Annotated[str | None, typer.Option(
        "--name", help="Name of the student. Default: MODEL-N-steps.", rich_help_panel=train.MACHINE)] = None,
    out: train.Out = None, gpus: train.Gpus = None, procs: train.Procs = None,
    device: train.Device = None, precision: train.Precision = None,
    deterministic: train.Deterministic = False, micro_batch: train.MicroBatch = None,
    save_every: train.SaveEvery = None, preview_every: train.PreviewEvery = None,
    preview_prompt: train.PreviewPrompt = None, log: train.Log = None, strict: train.Strict = False,
    accept_changes: train.AcceptChanges = False, fresh: train.Fresh = False, dry_run: train.DryRun = False,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Teach a new model to sample in few steps what a trained model samples in many. The same command resumes.

    The pictures are those on which the teacher was trained, unless a folder is given. If they are gone, the teacher
    fills a new folder with its own.

    [bold]diffuse distill cars[/]

    [bold]diffuse distill cars --evaluations 2 --time 20m[/]

    [bold]diffuse distill demo ./scenes[/]

    [bold]diffuse distill cars ./drawn --prompts captions.txt[/]
    """
    arguments = options.given(locals())                                # before there are other local variables
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    if time is not None:
        arguments["time"] = parse_duration("--time", time)
    arguments = options.absolute_paths(arguments, (folders or [])[1:])
    teacher = registry.lasting_name(model)
    path = registry.resolve(teacher)
    config = read_model_info(path).config
    if config.student is not None:                                     # before a folder is asked for in vain
        raise UsageError(f"{teacher} is distilled already, from {config.student.teacher}", hint="Distil that one")
    if guidance is not None and not config.conditional:
        raise UsageError(f"{teacher} was trained without captions and knows no guidance", hint="Leave --guidance out")
    if evaluations is None:
        evaluations = UPSCALER_EVALUATIONS if config.is_upscaler else EVALUATIONS
    if guidance is None:
        guidance = teacher_guidance(config)
    folder, recipe = _data_of(teacher, path, folders[0] if folders else None, drawn=prompts is not None)
    typed = {**options.fields_of(Recipe, arguments), "init": teacher, "evaluations": evaluations, "guidance": guidance}
    label = path.stem if path.suffix == ".safetensors" and path.name != registry.MODEL_FILE else path.parent.name
    machine = {"name": registry.slug(f"{label}-{evaluations}-steps"),
               **options.fields_of(Machine, arguments)}
    student, on_machine = from_dict(Recipe, {**recipe, **typed}, where=""), from_dict(Machine, machine, where="")
    train.check_out(out)
    if prompts is not None and not launch_environment.is_launched():   # the process that started this one has drawn
        registry.check_name(machine["name"])                           # before an hour of drawing
        drawn_pictures.draw(path, prompts, folder, on_machine, dry_run=dry_run)
    train.run_training(folder, student, on_machine, dry_run=dry_run)


def _data_of(teacher: str, path: Path, folder: Path | None, *, drawn: bool) -> tuple[Path, dict[str, Any]]:
    """The folder of the teacher's pictures, and how their captions and colours were read.

    folder: one that was given; it takes the place of the teacher's own. drawn: whether the teacher fills it. Raises
    DataError if there is none.
    """
    from ..sampling.request import rendering_of  # imports NumPy

    if drawn and folder is None:
        raise DataError("--prompts needs a folder, which the teacher fills", hint=_DRAWN.format(teacher))
    stored = run_directory.read_config(path.parent)
    if stored is None:
        if folder is None:
            raise DataError(f"{teacher} does not know the pictures on which it was trained",
                            hint=f"Give a folder: diffuse distill {teacher} ./images")
        info = read_model_info(path)
        rendering = rendering_of(info.config, info.training)
        return folder, {name: getattr(rendering, name) for name in (*Recipe().colour_options, "fit")}
    recipe = stored["request"]["recipe"]
    options_of_captions = () if drawn else (*Recipe().caption_options, "held_out")          # a PNG holds its prompt
    data = {name: recipe[name] for name in (*options_of_captions, *Recipe().colour_options)}
    if folder is not None:
        return folder, {**data, "more_folders": ()}
    run_directory.check_was_typed(path.parent, stored["request"])
    own = Path(stored["request"]["folder"])
    if not own.exists():
        upscaling = read_model_info(path).config.network.upscaling
        raise DataError(f"the pictures on which {teacher} was trained are no longer in {own}",
                        hint=f"Give another folder, or let the teacher fill one: {_DRAWN.format(teacher)}"
                        if upscaling is None else f"Give another folder, of pictures of at least {upscaling.large} px")
    return own, data
