"""The options that several commands take, declared once. Those of output go to `view.configure`."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import config
from ..checks import choices
from ..config import Recipe, Sampling
from ..errors import DiffuseError, UsageError
from ..storage import registry

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but errors.", rich_help_panel="Output")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more.", rich_help_panel="Output")]
Json = Annotated[bool, typer.Option("--json", help="Print data as JSON Lines.", rich_help_panel="Output")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output")]


def folder(help: str) -> Any:
    """The argument DIR."""
    return typer.Argument(metavar="DIR", help=help, show_default=False, parser=path)


def path(text: str) -> Path:                    # older Typers show its name in the help
    """What was typed, which is empty where a script's variable was: that is not the current directory."""
    if not text:
        raise no_folder()
    return Path(text)


def no_folder() -> UsageError:
    """For commands that cannot do without one."""
    return UsageError("which pictures? No folder was given", hint="For example: diffuse train ./images")


def _caption(name: str, help: str) -> Any:
    return typer.Option(name, help=help, rich_help_panel="Captions: what is said of the pictures", show_default=False)


Captions = Annotated[str | None, _caption(
    "--captions", f"Where captions come from: {choices(config.CAPTION_SOURCES, Recipe.captions)}.")]
Caption = Annotated[str | None, _caption("--caption", "One caption for all pictures.")]
CaptionColumn = Annotated[str | None, _caption("--caption-column", "Column of the metadata.")]
CaptionExt = Annotated[str | None, _caption("--caption-ext", "Suffix of caption files.")]
CaptionTemplate = Annotated[str | None, _caption(
    "--caption-template", f"Caption of a class folder. Default {Recipe.caption_template}")]


def given(options: dict[str, Any]) -> dict[str, Any]:
    """What was asked for: the rest keeps the default that it has inside."""
    return {key: value for key, value in options.items() if value is not None}


def changed(sampling: Sampling, **options: Any) -> Sampling:
    """With what was asked for. Raises UsageError."""
    return dataclasses.replace(sampling, **given(options))


def complete_model(incomplete: str) -> list[str]:
    """For the shell: names of models. Reads the names of directories, nothing else."""
    return _beginning(incomplete, lambda: [*registry.model_files(), *((registry.LAST,) if registry.last() else ())])


def complete_trained(incomplete: str) -> list[str]:
    """For the shell: names of models that can be removed."""
    return _beginning(incomplete, registry.model_names)


def _beginning(incomplete: str, names: Callable[[], list[str]]) -> list[str]:
    """Those that begin so; none where the home cannot be read."""
    try:
        return [name for name in names() if name.startswith(incomplete)]
    except DiffuseError:
        return []
