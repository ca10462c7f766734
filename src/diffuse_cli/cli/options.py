"""Options that several commands share, and helpers that turn a command's arguments into configs.

A command passes the four options of its output to `view.configure`.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import config
from ..checks import parse_size
from ..config import Recipe, Sampling
from ..data.hub import lasting_place
from ..errors import DiffuseError, UsageError
from ..picture_size import Size
from ..storage import registry

# ── Declarations ────────────────────────────────────────────────────────────────────────────────────────────────────

OUTPUT_PANEL = "Output and help"

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print results and errors only.",
                                     rich_help_panel=OUTPUT_PANEL)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Print more messages.", rich_help_panel=OUTPUT_PANEL)]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON Lines.", rich_help_panel=OUTPUT_PANEL)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT_PANEL)]


DATA_SET = "A folder of pictures, an archive, or a table that lists them; several are one data set."


PRECISION = "fp32, on a GPU bf16"               # the default of sampling and of evaluations


def choice(*names: str, of: Iterable[str], help: str, default: str | None = None, panel: str | None = None) -> Any:
    """Declare an option that takes one of the words `of`, which shells complete.

    The parser does not check it: the configs do, also for Python, and their message suggests the nearest word.
    """
    words = tuple(of)
    text = f"{help}: {', '.join(words)}." + ("" if default is None else f" Default: {default}.")
    return typer.Option(*names, metavar="NAME", help=text, rich_help_panel=panel,
                        autocompletion=lambda incomplete: [word for word in words if word.startswith(incomplete)])


def resolution(help: str, panel: str | None = None) -> Any:
    """Declare --resolution."""
    return typer.Option("--resolution", metavar="SIZE", parser=parse_size, help=help, rich_help_panel=panel)


def size(help: str, panel: str | None = None) -> Any:
    """Declare --size, which chooses one of a model's sizes."""
    return typer.Option("--size", metavar="SIZE", parser=_one_size, help=help, rich_help_panel=panel)


def _one_size(text: str) -> Size:               # older versions of Typer print the parser's name in the help
    return parse_size(text, "--size")


def device(panel: str | None = None) -> Any:
    """Declare --device."""
    return choice("--device", of=config.DEVICES, help="Device", default="the fastest", panel=panel)


def folder(help: str) -> Any:
    """Declare the argument DIR."""
    return typer.Argument(metavar="DIR", help=help, parser=path)


def folders() -> Any:
    """Declare the argument DIR..., the places of a data set."""
    return typer.Argument(metavar="DIR", help=DATA_SET, parser=path)


def path(text: str) -> Path:                    # older versions of Typer print the parser's name in the help
    """Parse the name of a folder. An unset variable of a script is empty, and must not mean the current directory."""
    if not text:
        raise no_folder()
    return Path(text)


def no_folder() -> UsageError:
    """The error of commands that cannot work without a folder."""
    return UsageError("no folder of pictures was given", hint="For example: diffuse train ./images")


CAPTIONS_PANEL = "Captions: where the text of a picture comes from"


def _caption(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel=CAPTIONS_PANEL)


Captions = Annotated[str | None, choice(
    "--captions", of=config.CAPTION_SOURCES, help="Path of a table of captions, or their source",
    default=Recipe.captions, panel=CAPTIONS_PANEL)]
Caption = Annotated[str | None, _caption("--caption", "One caption for all pictures.")]
CaptionColumn = Annotated[str | None, _caption("--caption-column", "Column of the metadata that holds the captions.")]
CaptionExt = Annotated[str | None, _caption("--caption-ext", "Suffix of caption files.")]
JoinLines = Annotated[bool | None, typer.Option(
    "--join-lines/--no-join-lines", help="All lines of a caption file are one caption, not one caption a line.",
    rich_help_panel=CAPTIONS_PANEL)]
CaptionTemplate = Annotated[str | None, _caption(
    "--caption-template", "Caption made of the names of a picture: {folder}, {name}, or both as {label}. "
                           f"Default: {Recipe.caption_template}.")]


PICTURES_PANEL = "Pictures: how a file becomes what the model sees"

Background = Annotated[str | None, typer.Option(
    "--background", help=f"Colour behind transparent pictures, a name or #rrggbb; none keeps them transparent, and the "
    f"model draws such. Default: {Recipe.background}.",
    rich_help_panel=PICTURES_PANEL)]
WhiteLevel = Annotated[float | None, typer.Option(
    "--white-level", help="Value that is white in pictures of 16 bits, 4095 for those of 12, or of real numbers.",
    rich_help_panel=PICTURES_PANEL)]


Fit = Annotated[str | None, choice(
    "--fit", of=config.FITS, help="How pictures of another shape get that of the model: auto pads those on a plain "
    "ground and crops others, and buckets gives the model several shapes", default=Recipe.fit, panel=PICTURES_PANEL)]


# ── From arguments to configs ───────────────────────────────────────────────────────────────────────────────────────


def given(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments that were given on the command line. The others are None and keep the default of their config."""
    return {name: value for name, value in arguments.items() if value is not None}


def fields_of(config_class: type, arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of a command's arguments that were given and are fields of the dataclass `config_class`.

    An argument with the former name of a field counts as that field.
    """
    names = {field.name for field in dataclasses.fields(config_class)}
    renamed = {config.RENAMED_FIELDS.get(name, name): value for name, value in given(arguments).items()}
    return {name: value for name, value in renamed.items() if name in names}


def absolute_paths(arguments: dict[str, Any], more: Sequence[Path]) -> dict[str, Any]:
    """The arguments with `more_folders` and a table of captions as absolute paths, which are found from anywhere."""
    captions = arguments.get("captions")
    absolute = {"captions": os.path.abspath(captions)} if captions and config.is_table(captions) else {}
    folders = {"more_folders": tuple(str(lasting_place(path)) for path in more)} if more else {}
    return {**arguments, **absolute, **folders}


def data_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those of a command's arguments that were given and decide on captions, colours or the fit."""
    _, *more = arguments["folders"]
    arguments = {**absolute_paths(arguments, more), "folders": None}
    names = (*Recipe().caption_options, *Recipe().colour_options, "fit")
    return {name: value for name, value in given(arguments).items() if name in names}


def override(sampling: Sampling, **arguments: Any) -> Sampling:
    """A copy of `sampling` with the arguments that were given. Raises UsageError."""
    return dataclasses.replace(sampling, **given(arguments))


# ── Completion by the shell ─────────────────────────────────────────────────────────────────────────────────────────


def complete_model(incomplete: str) -> list[str]:
    """Complete the name of a model. Reads only names of directories, and which model is the last."""
    return _complete(incomplete, lambda: [*registry.model_files(), *((registry.LAST,) if registry.last() else ())])


def complete_trained(incomplete: str) -> list[str]:
    """Complete the name of a model that can be removed."""
    return _complete(incomplete, registry.model_names)


def _complete(incomplete: str, names: Callable[[], list[str]]) -> list[str]:
    """The names that begin with `incomplete`; none if the home directory cannot be read."""
    try:
        return [name for name in names() if name.startswith(incomplete)]
    except DiffuseError:
        return []
