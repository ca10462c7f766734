"""`diffuse export`: convert a model to a form that other programs load, and print the path of the result."""

import os
from pathlib import Path
from typing import Annotated

import typer

from .. import config, hub
from ..config import Export, Machine
from ..errors import UsageError
from ..storage import registry
from ..storage.model_info import read_model_info
from . import options, output_files, processes
from .model_cost import warn_of_cost
from .terminal import progress, view


def export(
    to: Annotated[str, options.choice("--to", of=config.EXPORT_FORMATS, help="Format")],
    model: Annotated[str | None, typer.Argument(
        metavar="MODEL", autocompletion=options.complete_model,
        help="Name or path. Default: the last trained model.")] = None,
    out: Annotated[Path | None, typer.Option(
        "-o", "--out",
        help="A new folder, or a new file. Default: named after model and format, in the working directory.")] = None,
    scheduler: Annotated[str | None, options.choice(
        "--scheduler", of=config.EXPORT_SCHEDULERS, help="Sampler of the pipeline, for diffusers", default="ddpm")
        ] = None,
    precision: Annotated[str | None, options.choice(
        "--precision", of=config.EXPORT_PRECISIONS, help="Precision of the weights, for safetensors", default="fp32")
        ] = None,
    push: Annotated[str | None, typer.Option(
        "--push", metavar="OWNER/NAME", help="Also upload it to this repository of the Hugging Face Hub, for "
        "diffusers.")] = None,
    private: Annotated[bool, typer.Option(
        "--private", help="With --push: only where the repository is private; a new one becomes so.")] = False,
    license: Annotated[str | None, typer.Option(
        "--license", metavar="NAME", help="Licence on the model card, such as mit or cc-by-4.0, for diffusers. --push "
        "needs it.")] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not compare the export with the model.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Convert a model to a form that other programs load, and verify that it gives the same answers. Prints the path.

    [bold]diffuse export cars --to diffusers[/]

    [bold]diffuse export cars --to diffusers --scheduler dpmpp-2m -o out/cars[/]

    [bold]diffuse export cars --to onnx[/]

    [bold]diffuse export cars --to safetensors --precision fp16[/]

    [bold]diffuse export cars --to web[/]

    [bold]diffuse export cars --to diffusers --push me/cars --license cc-by-4.0[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    choice = Export(format=to, scheduler=scheduler, precision=precision, verify=not no_verify,
                    license=license, push=push, private=private)
    path = registry.resolve(model)
    read_model_info(path)                       # one that is refused is refused before the slow import of torch
    target = out or Path(_base_name(model, path) + (choice.suffix or f"-{choice.format}"))
    _check_target(target, choice, source=path, force=force)
    with processes.unwinding_on_signals():
        _export(path, target, choice, force=force)


def _export(path: Path, target: Path, choice: Export, *, force: bool) -> None:
    from ..runtime import devices

    with progress.stages() as tell:
        tell("loading", 0, 1)
        from ..exporting import publishing
        from ..storage import checkpoint

        publishing.check(choice)
        model = checkpoint.load_model(path, devices.choose_device(Machine(device="cpu")))
        first, *others = model.config.network.sizes
        if others and (choice.format in ("onnx", "web") or (choice.format == "diffusers" and model.tokenizer is None)):
            view.warn(f"the export draws pictures of {first} px alone, not of {', '.join(map(str, others))}")
        if choice.verify:
            warn_of_cost(model, passes=20)
        report = publishing.export(model, target, choice, source=path, replace=force, progress=tell)
    if not choice.verify:
        view.warn("the export was not compared with the model")
    else:
        libraries = " and ".join(f"{name} {version}" for name, version in report["opened_by"].items())
        view.say("the export was compared with the model" + (f", also in {libraries}" if libraries else ""))
    if "pushed" in report:
        view.say(f"uploaded to {report['pushed']}")
    output_files.print_result(target, report)


def _base_name(model: str | None, path: Path) -> str:
    """The name of an export without suffix: that of the model's directory, or of a model file with its own name."""
    if model is not None and (address := hub.parse_address(model)):
        return address[0].partition("/")[2]
    from ..storage.diffusers_config import is_folder

    generic = path.name == registry.MODEL_FILE or is_folder(path)
    return Path(os.path.abspath(path)).parent.name if generic else path.stem


def _check_target(target: Path, choice: Export, *, source: Path, force: bool) -> None:
    """Raise UsageError unless the export may be written to `target`.

    With `force`, it may replace a file or the folder of an earlier export. A folder that holds any other file is never
    replaced, and neither is the model itself.
    """
    from ..storage.diffusers_folder import foreign_file

    choice.check_name(target)
    if not os.path.lexists(target):
        return
    if not force:
        raise UsageError(f"{target} exists already", hint="Use --force to replace an earlier export, or another -o")
    resolved_target, resolved_source = target.resolve(), source.resolve()
    if resolved_source == resolved_target or resolved_target in resolved_source.parents:
        raise UsageError(f"{target} is the model itself, or holds it", hint="Choose another place with -o")
    if choice.suffix and not target.is_file():
        raise UsageError(f"{target} is not a file, so it is not replaced", hint="Choose another name with -o")
    if not choice.suffix and (target.is_symlink() or not target.is_dir()):
        raise UsageError(f"{target} is not a folder, so it is not replaced", hint="Choose another place with -o")
    if not choice.suffix and (foreign := foreign_file(target)):
        raise UsageError(f"{target} holds {foreign}, which is not part of an earlier export, so it is not replaced",
                         hint="Move it away, or choose another place with -o")
