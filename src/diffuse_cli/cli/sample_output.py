"""What becomes of pictures as they are drawn: files, sheets, animations, records, a look at them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import output_files
from .output_files import Target
from .terminal import progress, view

if TYPE_CHECKING:
    from ..pictures.sheets import Row
    from ..sampling.request import Sample
    from ..storage.checkpoint import Model


@dataclass(frozen=True, kw_only=True)
class Show:
    """What is written and shown besides a file for each picture."""

    grid: bool
    sheet: bool
    animate: bool
    preview: bool
    metadata: bool


def write(
    generate: Callable[..., "Iterator[Sample]"], target: Target, model: "Model", count: int, show: Show,
) -> None:
    """Every picture of `generate(progress=…)` as it comes, its path on stdout; then, if wanted, the sheets of all."""
    from ..pictures import image_files, sheets
    from ..sampling import png_metadata

    kept: list[Sample] = []
    with progress.of("drawing", count) as advance_to:
        for drawn in generate(progress=advance_to):
            made = png_metadata.metadata_of(drawn, model)
            record = {"index": drawn.index, "seconds": drawn.seconds, **made.record()}
            if target.file is None or not show.animate:
                texts = png_metadata.texts(made) if show.metadata else {}
                data = image_files.encode(drawn.pixels, suffix=target.suffix, texts=texts)
                output_files.tell(target.write(data, drawn), record)
            if show.animate and not show.grid:
                _write_animation(target, [drawn], drawn, record)
            if show.preview:
                view.picture(drawn.pixels)
            if show.grid or show.sheet:
                kept.append(drawn)
    if show.grid:
        _write_grid(target, kept, show)
    if show.sheet:
        labelled = sheets.labelled(_rows(kept))
        output_files.tell(target.write(image_files.encode(labelled, suffix=target.suffix), "sheet"), {"sheet": True})


def _write_grid(target: Target, kept: "list[Sample]", show: Show) -> None:
    import numpy as np

    from ..pictures import image_files, sheets

    if target.file is None or not show.animate:
        grid = sheets.sheet(np.stack([drawn.pixels for drawn in kept]), columns=_columns(kept))
        output_files.tell(target.write(image_files.encode(grid, suffix=target.suffix), "grid"), {"grid": True})
    if show.animate:
        _write_animation(target, kept, "grid", {"grid": True})


def _write_animation(target: Target, kept: "list[Sample]", name: "Sample | str", record: dict[str, Any]) -> None:
    from ..pictures import image_files, sheets

    suffix = ".webp" if target.file is None else target.suffix
    frames = sheets.film([drawn.frames for drawn in kept if drawn.frames is not None], columns=_columns(kept))
    data = image_files.encode_animation(frames, suffix=suffix, milliseconds=sheets.FRAME_MILLISECONDS)
    output_files.tell(target.write(data, name, suffix=suffix), {"animation": True, **record})


def _columns(kept: "list[Sample]") -> int | None:
    """A row for each prompt, if all have the same number of pictures; None: nearly a square."""
    counts = {drawn.request.count for drawn in kept}
    return counts.pop() if len(counts) == 1 and len({id(drawn.request) for drawn in kept}) > 1 else None


def _rows(kept: "list[Sample]") -> "list[Row]":
    """A row for each prompt: its seeds side by side; its guidances, where each has a single picture."""
    from ..pictures.sheets import Row

    by_guidance = all(drawn.request.count == 1 for drawn in kept)
    groups: dict[tuple[str, str, float], list[Sample]] = {}
    for drawn in kept:
        wanted = drawn.request
        groups.setdefault((wanted.prompt, wanted.negative, 0 if by_guidance else wanted.sampling.guidance), []
                          ).append(drawn)
    rows = []
    for (prompt, negative, _), row in groups.items():
        title = prompt + (f" (not: {negative})" if negative else "")
        rows.append(Row(view.clean(title, limit=400), [drawn.pixels for drawn in row], [
            (f"seed {drawn.seed}", f"guidance {drawn.request.sampling.guidance:g}") for drawn in row]))
    return rows
