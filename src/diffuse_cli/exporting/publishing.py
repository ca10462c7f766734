"""Giving a model away: written beside its place, compared with the original, and put there only if it is the same.

Knows the formats by name, and of each how to write it and how to compare. Whatever happens before the last moment, the
place is as it was.
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
from ..storage.checkpoint import Model
from ..storage.diffusers_folder import REPORT_FILE
from ..version import __version__
from . import diffusers_comparison, diffusers_export, model_card, onnx_comparison, onnx_folder, onnx_graphs, single_file
from .model_comparison import compare_read_back
from .verification import Comparison, judge

SCHEMA = 1                                      # of export.json
LIBRARIES = ("torch", "tokenizers", "numpy")


@dataclass(frozen=True)
class Format:
    """How one form of a model is written to a place that is not there yet, and compared with the original there."""

    write: Callable[[Model, Path, Export], None]
    comparisons: Sequence[Callable[[Model, Path, Export], list[Comparison]]]
    opened_by: Callable[[], dict[str, str]]     # versions of the stock libraries that took part in the comparison
    check: Callable[[], None] = lambda: None    # raises UsageError where a library is missing


FORMATS = {
    "diffusers": Format(diffusers_export.write, [compare_read_back, diffusers_comparison.compare],
                        diffusers_comparison.versions),
    "onnx": Format(onnx_folder.write, [onnx_comparison.compare], onnx_comparison.versions, onnx_graphs.check_extra),
    "safetensors": Format(single_file.write, [compare_read_back], dict),
}


def check(how: Export) -> None:
    """Raise UsageError, with the command that helps, where a library of an extra is missing."""
    FORMATS[how.format].check()


def export(
    model: Model, target: Path, how: Export, *, source: Path, replace: bool = False,
    tell: ProgressCallback = lambda what, done, total: None,
) -> dict[str, Any]:
    """Put the model at `target` in another form. → the report of it, ready for JSON.

    source: the file that the model came from; what its training left beside it is told in the model card. With
    `replace` an earlier export may give way. Raises ExportError when the two do not agree, UsageError when the place is
    taken, StorageError; then nothing was changed.
    """
    form, begun = FORMATS[how.format], time.monotonic()
    with durable.staging(target) as staging:
        staged = staging / target.name
        tell("writing", 0, 1)
        if not how.suffix:
            durable.make_directory(staged, mode=0o777)
        form.write(model, staged, how)
        if how.format == "diffusers":
            model_card.write(model, staged, source=source, tell=tell)
        comparisons: list[Comparison] = []
        if how.verify:
            tell("comparing", 0, 1)
            comparisons = [found for compare in form.comparisons for found in compare(model, staged, how)]
            judge(comparisons)
        report = _report(model, how, comparisons, opened_by=form.opened_by() if how.verify else {})
        if staged.is_dir():
            report["files"] = sorted([REPORT_FILE, *(path.relative_to(staged).as_posix() for path in staged.rglob("*")
                                                     if path.is_file())])
            model_card.write_report(staged / REPORT_FILE, model, report)
        else:
            single_file.write(model, staged, how, report=report)
        try:
            durable.publish(staged, target, replace=replace)
        except FileExistsError as error:
            raise UsageError(f"{target} exists already", hint="Use --force to replace it, or another name") from error
    return {**report, "seconds": time.monotonic() - begun}


def _report(model: Model, how: Export, comparisons: list[Comparison], *, opened_by: dict[str, str]) -> dict[str, Any]:
    """`export.json`: what it is, what was compared, and with which versions."""
    asked = {key: value for key, value in dataclasses.asdict(how).items() if key != "verify" and value is not None}
    return {
        "schema": SCHEMA, "version": __version__, **asked, "verified": how.verify,
        "comparisons": [dataclasses.asdict(comparison) for comparison in comparisons], "opened_by": opened_by,
        "libraries": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "model_sha256": model.sha256}
