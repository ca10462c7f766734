"""`diffuse models`: list, show, compare, locate, remove and verify trained models, without torch.

All except `compare` and `verify` read only the headers of model files.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..checks import to_dict
from ..errors import ModelError, UsageError
from ..files import durable
from ..model_config import CHANNELS
from ..storage import registry
from . import options, output_files
from .compare import compare
from .terminal import view
from .terminal.plain_text import clean

if TYPE_CHECKING:
    from ..model_config import NetworkConfig
    from ..storage.model_info import ModelInfo

# Key of the training in a model's header → label for people.
_LABELS = {"images_seen": "pictures seen", "train_images": "trained on", "noise_mse": "validation loss",
           "delivered": "weights", "data_id": "data set", "init_id": "started from", "objective": "loss weighting",
           "lr": "learning rate"}
FREQUENT_WORDS = 100                            # words of the captions that are shown; enough for the demo model
HASH = 16                                       # characters of a hash that are shown; --json has all

app = typer.Typer(no_args_is_help=True, help="List, show, compare, locate, remove and verify models.")
app.command("compare")(compare)

Model = Annotated[str | None, typer.Argument(metavar="MODEL",
                                             autocompletion=options.complete_model,
                                             help="Name or path. Default: the last trained model.")]


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
            info = read_model_info(path)
        except ModelError as error:
            view.warn(str(error))
            continue
        if view.settings.json:
            view.out_json({"name": name, "path": str(path), "last": name == last, "changed": path.stat().st_mtime,
                           "resolution": info.config.network.resolution.to_json(), "parameters": info.parameters,
                           "bytes": info.bytes, "training": info.training.to_json()})
        rows.append(_row(name, info, path))
    if not rows:
        view.say("there is no model yet; train one: diffuse train ./images")
    elif not view.settings.json:
        view.table(("NAME", "PIXELS", "PARAMETERS", "PICTURES", "STEPS", "SIZE", "CHANGED"), rows,
                   right=("PIXELS", "PARAMETERS", "PICTURES", "STEPS", "SIZE"))


@app.command()
def show(
    model: Model = None,
    html: Annotated[bool, typer.Option("--html", help="Write the report of the training as an HTML page.")] = False,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="With --html: the page, a new .html file. Default: "
                                             "report.html beside the model.")] = None,
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
        raise UsageError("-o names the page that --html writes", hint="Add --html")
    from ..storage.model_info import read_model_info

    info = read_model_info(path)
    if view.settings.json:
        view.out_json({"path": str(path), "config": to_dict(info.config), "training": info.training.to_json(),
                       "words": info.words, "parameters": info.parameters, "bytes": info.bytes})
        return
    view.labelled(_lines(path, info))


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
    names: Annotated[list[str], typer.Argument(metavar="NAME", help="Models to remove.",
                                             autocompletion=options.complete_trained)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Remove them without asking.")] = False,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Remove models with their checkpoints and previews.

    [bold]diffuse models rm cars-64 cars-64-2[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    for name in names:                                             # one wrong name, and nothing is removed
        registry.existing_directory(name)
    shown = ", ".join(clean(name, limit=64) for name in names)
    if not yes:
        if not view.interactive():
            raise UsageError("removing models needs a confirmation, and there is no terminal", hint="Add --yes")
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
    """Check that no bit of a model has changed since it was written, and that its configuration is valid.

    [bold]diffuse models verify cars-64[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    path = registry.resolve(model)
    from ..storage import diffusers_folder, safetensors_file
    from ..storage.model_info import read_model_info

    if not all(safetensors_file.verify_seal(part) for part in diffusers_folder.weight_files(path)):
        raise ModelError(f"cannot verify {path}: it has no seal", hint="It was not written by diffuse")
    info = read_model_info(path)
    if view.settings.json:
        view.out_json({"path": str(path), "sealed": True, "bytes": info.bytes, "parameters": info.parameters})
    else:
        view.out(f"{path}: all {info.bytes:,} bytes match the seal; header and configuration are valid")


# ── Lines and files ─────────────────────────────────────────────────────────────────────────────────────────────────


def _write_report(directory: Path, out: Path | None) -> None:
    target = None if out is None else output_files.new_file(out, default="", suffixes=(".html",))
    from ..reporting import report, results_picture

    page = report.build(directory)
    if target is None:
        target = directory / registry.REPORT_FILE
        durable.write(target, page)
        results_picture.write(directory)
    else:
        output_files.write_new(target, page)
    output_files.print_result(target, {"bytes": len(page)})


def _row(name: str, info: "ModelInfo", path: Path) -> tuple[str, ...]:
    changed = time.strftime("%Y-%m-%d", time.localtime(path.stat().st_mtime))
    return (name, _size(info.config.network), f"{info.parameters:,}", _count(info.training.train_images),
            _count(info.training.step), f"{info.bytes / 1e6:.1f} MB", changed)


def _size(network: "NetworkConfig") -> str:
    """Pixels of the pictures, or of an upscaler the factor by which it enlarges them."""
    return str(network.resolution) if network.upscaling is None else f"x{network.upscaling.factor}"


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def _lines(path: Path, info: "ModelInfo") -> list[tuple[str, str]]:
    """(label, text) pairs that describe a model to a person."""
    network = info.config.network
    text = network.text
    lines = [
        ("file", str(path)),
        ("size", f"{info.bytes / 1e6:.1f} MB, {info.parameters:,} parameters"),
        ("pictures", "".join("{} x {} pixels, ".format(*size) for size in network.sizes)
         + CHANNELS[network.channels]),
        ("network", f"widths {_joined(network.widths)}; depths {_joined(network.depths)}; "
                    f"attention {_joined(network.attention)}"),
        ("text", "none: unconditional" if text is None else
         f"{text.layers} layers of width {text.width}, {text.vocabulary:,} tokens"),
        ("prediction", f"{info.config.prediction}, {'learned' if info.config.learned_variance else 'fixed'} variance"),
        ("schedule", info.config.schedule),
    ]
    if (upscaling := network.upscaling) is not None:
        lines[2] = ("enlarges", f"pictures {upscaling.factor} times, of {upscaling.small} to {upscaling.large} px; "
                                f"trained on crops of {network.resolution} px")
    entries = info.training.to_json()
    if (name := registry.name_of(path)) is not None:
        entries["name"] = name                  # as in all commands, whatever it was called in training
    if (student := info.config.student) is not None:
        entries["objective"] = None             # its loss has no weight of noise levels
        lines.append(("distilled", f"from {clean(student.teacher, limit=60)}, guided at {student.guidance:g}; samples "
                                   f"in {student.steps}"))
    lines += [(_LABELS.get(key, key.replace("_", " ")), _value(value)[:HASH] if key.endswith("_id") else _value(value))
              for key, value in entries.items() if value is not None]
    if info.words:
        frequent = sorted(info.words.items(), key=lambda item: (-item[1], item[0]))[:FREQUENT_WORDS]
        lines.append(("words", ", ".join(clean(word, limit=40) for word, _ in frequent)))
    return lines


def _joined(values: tuple[int, ...] | tuple[str, ...]) -> str:
    return " ".join(map(str, values))


def _value(value: Any) -> str:
    return clean(f"{value:,}" if type(value) is int else f"{value:.4g}" if type(value) is float else str(value))
