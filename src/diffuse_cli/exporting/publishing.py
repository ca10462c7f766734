"""Publishes an export: writes it beside its target, compares it with the model, and moves it there if it is the same.

Whatever fails before that last move, the target stays as it was.
"""

import dataclasses
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Export
from ..errors import UsageError
from ..events import ProgressCallback
from ..files import durable
from ..sampling.example_prompts import example_prompts
from ..storage.checkpoint import Model
from ..storage.diffusers_config import REPORT_FILE
from ..version import __version__
from . import (
    diffusers_comparison,
    diffusers_export,
    hub_upload,
    model_card,
    onnx_comparison,
    onnx_folder,
    onnx_graphs,
    single_file,
    web_page,
)
from .model_comparison import compare_read_back
from .verification import Comparison, require_agreement

SCHEMA = 1                                      # version of the content of export.json
LIBRARIES = ("torch", "tokenizers", "numpy")     # whose versions are in export.json


@dataclass(frozen=True)
class Format:
    """The functions of one format: each `comparisons` function compares the model with the export that `write` made."""

    write: Callable[[Model, Path, Export], None]
    comparisons: Sequence[Callable[[Model, Path, Export], list[Comparison]]]
    opened_by: Callable[[], dict[str, str]] = dict      # versions of the libraries that took part in the comparisons
    check: Callable[[], None] = lambda: None    # raises UsageError if a library is missing
    enlarges: bool = False                      # whether it has a place for upscalers


FORMATS = {
    "diffusers": Format(diffusers_export.write, [compare_read_back, diffusers_comparison.compare],
                        diffusers_comparison.versions, enlarges=True),
    "onnx": Format(onnx_folder.write, [onnx_comparison.compare], onnx_comparison.versions, onnx_graphs.check_extra),
    "safetensors": Format(single_file.write, [compare_read_back], enlarges=True),
    "web": Format(web_page.write, [web_page.compare]),
}


def check(settings: Export) -> None:
    """Raise UsageError, with the command that installs it, if a library that the export needs is missing."""
    FORMATS[settings.format].check()
    if settings.push is not None:
        hub_upload.check(settings.push)


def export(
    model: Model, target: Path, settings: Export, *, source: Path, replace: bool = False,
    progress: ProgressCallback = lambda what, done, total: None,
) -> dict[str, Any]:
    """Export the model to `target` in another format. → the report, ready for JSON.

    source: the file of the model; a model card and a web page use what the training left beside it. replace: whether an
    earlier export at `target` may be replaced. Raises ExportError if the export differs from the model, UsageError if
    the target exists or the format has no place for the model, and StorageError; then nothing was changed. Raises
    UploadError if the Hub did not take it.
    """
    form, started = FORMATS[settings.format], time.monotonic()
    if model.config.is_upscaler and not form.enlarges:
        raise UsageError(f"--to {settings.format} has no place for an upscaler",
                         hint="Use --to " + " or ".join(name for name, one in FORMATS.items() if one.enlarges))
    with durable.staging(target) as staging:
        staged = staging / target.name
        progress("writing", 0, 1)
        if not settings.suffix:
            durable.make_directory(staged, mode=0o777)
        form.write(model, staged, settings)
        if settings.format == "diffusers":
            model_card.write(model, staged, source=source, place=settings.push or target.name,
                             license=settings.license, progress=progress)
        comparisons: list[Comparison] = []
        if settings.verify:
            progress("comparing", 0, 1)
            comparisons = [comparison for compare in form.comparisons
                           for comparison in compare(model, staged, settings)]
            require_agreement(comparisons)
        report = _report(model, settings, comparisons, opened_by=form.opened_by() if settings.verify else {})
        if staged.is_dir():
            report["files"] = sorted([REPORT_FILE, *(path.relative_to(staged).as_posix() for path in staged.rglob("*")
                                                     if path.is_file())])
            model_card.write_report(staged / REPORT_FILE, model, report)
        elif settings.format == "web":
            prompts = example_prompts(model.words, source.parent, count=web_page.PROMPTS)
            web_page.write(model, staged, settings, prompts=prompts, report=report)
        else:
            single_file.write(model, staged, settings, report=report)
        try:
            durable.publish(staged, target, replace=replace)
        except FileExistsError as error:
            raise UsageError(f"{target} exists already", hint="Use --force to replace it, or another name") from error
    if settings.push is not None:
        progress("uploading", 0, 1)
        report["pushed"] = hub_upload.upload(target, report["files"], settings.push, private=settings.private)
    return {**report, "seconds": time.monotonic() - started}


def _report(
    model: Model, settings: Export, comparisons: list[Comparison], *, opened_by: dict[str, str],
) -> dict[str, Any]:
    """Return the content of `export.json`: settings, comparisons, versions of libraries, and the model's hash."""
    chosen = {key: value for key, value in dataclasses.asdict(settings).items()
              if key != "verify" and value is not None}
    sizes = model.config.network.buckets        # no stock file can hold them
    if sizes and settings.format == "diffusers":
        chosen["sizes"] = [size.to_json() for size in sizes]
    return {
        "schema": SCHEMA, "version": __version__, **chosen, "verified": settings.verify,
        "comparisons": [dataclasses.asdict(comparison) for comparison in comparisons], "opened_by": opened_by,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "model_sha256": model.sha256}
