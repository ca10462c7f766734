"""`diffuse models`: list, show, locate, remove and verify trained models, from their headers alone, without torch."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..checks import to_dict
from ..errors import ModelError, UsageError
from ..files import durable
from ..storage import registry
from . import options, output_files
from .terminal import view

if TYPE_CHECKING:
    from ..storage.model_info import ModelInfo

_LABELS = {"images_seen": "pictures seen", "train_images": "learnt from", "noise_mse": "validation loss",
           "delivered": "weights", "data_id": "data set", "init_id": "began as"}
FREQUENT_WORDS = 100                            # shown of the captions: all that the demo model knows

app = typer.Typer(no_args_is_help=True, help="List, show, locate, remove and verify models.")

Model = Annotated[str | None, typer.Argument(metavar="[NAME]", show_default=False,
                                             autocompletion=options.complete_model,
                                             help="Name or path; the last trained one without it.")]


@app.command("ls")
def list_models(
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List the models, the newest first.

    [bold]diffuse models ls[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    from ..storage.model_info import read_model_info

    last, rows = registry.last(), []
    for name, path in sorted(registry.model_files().items(), key=lambda item: item[1].stat().st_mtime, reverse=True):
        try:
            card = read_model_info(path)
        except ModelError as error:
            view.warn(str(error))
            continue
        if view.settings.json:
            view.out_json({"name": name, "path": str(path), "last": name == last, "changed": path.stat().st_mtime,
                           "resolution": card.config.network.resolution, "parameters": card.parameters,
                           "bytes": card.bytes, "training": card.training.to_json()})
        rows.append(_row(name, card, path))
    if not rows:
        view.say("there is no model yet; train one: diffuse train ./images")
    elif not view.settings.json:
        view.table(("NAME", "PIXELS", "PARAMETERS", "PICTURES", "STEPS", "SIZE", "CHANGED"), rows,
                   right=("PIXELS", "PARAMETERS", "PICTURES", "STEPS", "SIZE"))


@app.command()
def show(
    model: Model = None,
    html: Annotated[bool, typer.Option("--html", help="Write the report of its training as a page.")] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where to, with --html: a new .html file. Default: "
                                             "report.html beside the model.", show_default=False)] = None,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show what a model is and how it was trained.

    [bold]diffuse models show cars-64[/]

    [bold]diffuse models show cars-64 --html[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    path = registry.resolve(model)
    if html:
        _write_report(path.parent, out)
        return
    if out is not None:
        raise UsageError("-o names a page, which is written with --html", hint="Add --html")
    from ..storage.model_info import read_model_info

    card = read_model_info(path)
    if view.settings.json:
        view.out_json({"path": str(path), "config": to_dict(card.config), "training": card.training.to_json(),
                       "words": card.words, "parameters": card.parameters, "bytes": card.bytes})
        return
    lines = _lines(path, card)
    width = max(len(label) for label, _ in lines)
    for label, text in lines:
        view.out(f"{view.clean(label, limit=40):<{width}}  {text}")


@app.command("path")
def print_path(
    model: Model = None,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Print where a model's file is.

    [bold]cp "$(diffuse models path cars-64)" cars.safetensors[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    path = registry.resolve(model)
    if view.settings.json:
        view.out_json({"path": str(path)})
    else:
        view.out(str(path))


@app.command("rm")
def remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Models to remove.", show_default=False,
                                             autocompletion=options.complete_trained)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Remove models with their checkpoints and previews.

    [bold]diffuse models rm cars-64 cars-64-2[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    for name in names:                                             # all or nothing
        registry.existing_directory(name)
    shown = ", ".join(view.clean(name, limit=64) for name in names)
    if not yes:
        if not view.interactive():
            raise UsageError("there is nobody to ask whether to remove models", hint="Add --yes")
        if not view.confirm(f"Remove {shown} with all checkpoints?"):
            view.say("nothing was removed")
            return
    for name in dict.fromkeys(names):
        registry.remove(name)
        if view.settings.json:
            view.out_json({"removed": name})
        view.say(f"removed {name}")


@app.command()
def verify(
    model: Model = None,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Check that no bit of a model has changed since it was made, and that its description makes sense.

    [bold]diffuse models verify cars-64[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    path = registry.resolve(model)
    from ..storage import diffusers_folder, safetensors_file
    from ..storage.model_info import read_model_info

    if not all(safetensors_file.verify_seal(part) for part in diffusers_folder.sealed_files(path)):
        raise ModelError(f"cannot verify {path}: it has no seal", hint="It was not made by diffuse")
    card = read_model_info(path)
    if view.settings.json:
        view.out_json({"path": str(path), "sealed": True, "bytes": card.bytes, "parameters": card.parameters})
    else:
        view.out(f"{path}: all {card.bytes:,} bytes are those that were sealed; header and configuration are sound")


# ── Small parts ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _write_report(directory: Path, out: Path | None) -> None:
    target = None if out is None else output_files.new_file(out, default="", suffixes=(".html",))
    from ..reporting import report

    page = report.build(directory)
    if target is None:
        target = directory / registry.REPORT_FILE
        durable.write(target, page)
    else:
        output_files.write_new(target, page)
    output_files.tell(target, {"bytes": len(page)})


def _row(name: str, card: "ModelInfo", path: Path) -> tuple[str, ...]:
    changed = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
    return (name, str(card.config.network.resolution), f"{card.parameters:,}", _count(card.training.train_images),
            _count(card.training.step), f"{card.bytes / 1e6:.1f} MB", changed)


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _lines(path: Path, card: "ModelInfo") -> list[tuple[str, str]]:
    """(label, text) of everything a person may want to know."""
    network = card.config.network
    text = network.text
    lines = [
        ("file", str(path)),
        ("size", f"{card.bytes / 1e6:.1f} MB, {card.parameters:,} parameters"),
        ("pictures", f"{network.resolution} x {network.resolution} pixels, {network.channels} channels"),
        ("network", f"widths {_joined(network.widths)}; depths {_joined(network.depths)}; "
                    f"attention {_joined(network.attention)}"),
        ("text", "none: unconditional" if text is None else
         f"{text.layers} layers of width {text.width}, {text.vocabulary:,} tokens"),
        ("prediction", f"{card.config.prediction}, {'learned' if card.config.learned_variance else 'fixed'} variance"),
        ("schedule", card.config.schedule),
    ]
    lines += [(_LABELS.get(key, key.replace("_", " ")), _value(value)) for key, value in card.training.to_json().items()
              if value is not None]
    if card.words:
        frequent = sorted(card.words.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT_WORDS]
        lines.append(("words", ", ".join(view.clean(word, limit=40) for word, _ in frequent)))
    return lines


def _joined(values: tuple[int, ...] | tuple[str, ...]) -> str:
    return " ".join(map(str, values))


def _value(value: Any) -> str:
    return view.clean(f"{value:,}" if type(value) is int else f"{value:.4g}" if type(value) is float else str(value))
