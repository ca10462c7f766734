"""`diffuse export`: a model becomes what other programs load. Prints the path of what was made.

Knows what is asked for, where it goes and what people are told; what is written and compared is `engine.exporting`.
"""

import os
from pathlib import Path
from typing import Annotated

import typer

from .. import config
from ..checks import choices
from ..config import Export, Machine
from ..errors import UsageError
from ..storage import registry
from . import options, output_files, processes
from .terminal import progress, view


def export(
    to: Annotated[str, typer.Option("--to", metavar="FORMAT", help=f"{choices(config.EXPORT_FORMATS)}.")],
    model: Annotated[str | None, typer.Argument(
        metavar="[MODEL]", show_default=False, autocompletion=options.complete_model,
        help="Name or path; the last trained one without it.")] = None,
    out: Annotated[Path | None, typer.Option(
        "-o", "--out", show_default=False,
        help="A new folder, or a new file. Default: named after model and format, here.")] = None,
    scheduler: Annotated[str | None, typer.Option(
        "--scheduler", help=f"How the pipeline draws, diffusers: {choices(config.EXPORT_SCHEDULERS, 'ddpm')}.",
        show_default=False)] = None,
    precision: Annotated[str | None, typer.Option(
        "--precision", help=f"Of the numbers, safetensors: {choices(config.EXPORT_PRECISIONS, 'fp32')}.",
        show_default=False)] = None,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Do not compare it with the model.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier export.")] = False,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Give a model the form that other programs load, and check that it is still the same. Prints the path.

    [bold]diffuse export cars --to diffusers[/]

    [bold]diffuse export cars --to diffusers --scheduler dpmpp-2m -o out/cars[/]

    [bold]diffuse export cars --to onnx[/]

    [bold]diffuse export cars --to safetensors --precision fp16[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    how = Export(**options.given({"format": to, "scheduler": scheduler, "precision": precision}), verify=not no_verify)
    path = registry.resolve(model)
    target = out or Path(_name(path) + (how.suffix or f"-{how.format}"))
    _check_place(target, how, source=path, force=force)
    with processes.tidied():
        _export(path, target, how, force=force)


def _export(path: Path, target: Path, how: Export, *, force: bool) -> None:
    from ..runtime import devices

    with progress.stages() as tell:
        tell("loading", 0, 1)
        from ..exporting import publishing
        from ..storage import checkpoint

        publishing.check(how)
        loaded = checkpoint.load_model(path, devices.choose_device(Machine(device="cpu")))
        report = publishing.export(loaded, target, how, source=path, replace=force, tell=tell)
    if not how.verify:
        view.warn("it was not compared with the model")
    else:
        by = " and ".join(f"{name} {version}" for name, version in report["opened_by"].items())
        view.say("compared with the model" + (f", also by {by}" if by else ""))
    output_files.tell(target, report)


def _name(path: Path) -> str:
    """What an export is called: after the model's directory, or after the file that is named by itself."""
    from ..storage.diffusers_config import is_folder

    generic = path.name == registry.MODEL_FILE or is_folder(path)
    return Path(os.path.abspath(path)).parent.name if generic else path.stem


def _check_place(target: Path, how: Export, *, source: Path, force: bool) -> None:
    """Raise UsageError unless the export may come to lie there. Of folders only an earlier export gives way."""
    from ..storage.diffusers_folder import foreign_file

    how.check_name(target)
    if not os.path.lexists(target):
        return
    if not force:
        raise UsageError(f"{target} exists already", hint="Use --force to replace an earlier export, or another -o")
    place, original = target.resolve(), source.resolve()
    if original == place or place in original.parents:
        raise UsageError(f"{target} is the model itself, or holds it", hint="Choose another place with -o")
    if how.suffix and not target.is_file():
        raise UsageError(f"{target} is not a file, so it is not replaced", hint="Choose another name with -o")
    if not how.suffix and (target.is_symlink() or not target.is_dir()):
        raise UsageError(f"{target} is not a folder, so it is not replaced", hint="Choose another place with -o")
    if not how.suffix and (foreign := foreign_file(target)):
        raise UsageError(f"{target} holds {foreign}, which is not part of an earlier export, so it is not replaced",
                         hint="Move it away, or choose another place with -o")
