"""What becomes of pictures as they are drawn: files, sheets, animations, records, a look at them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from . import files, progress, view
from .target import Target

if TYPE_CHECKING:
    from ..engine.checkpoint import Model
    from ..engine.generation import Drawn
    from ..engine.pictures import Row


@dataclass(frozen=True, kw_only=True)
class Show:
    """What is written and shown besides a file for each picture."""

    grid: bool
    sheet: bool
    animate: bool
    preview: bool
    metadata: bool


def write(
    draw: Callable[..., "Iterator[Drawn]"], target: Target, model: "Model", count: int, show: Show,
) -> None:
    """Every picture of `draw(advance=…)` as it comes, its path on stdout; then, if wanted, the sheets of all."""
    from ..engine import pictures, provenance

    kept: list[Drawn] = []
    with progress.of("drawing", count) as advance_to:
        for drawn in draw(advance=advance_to):
            made = provenance.made_of(drawn, model)
            record = {"index": drawn.index, "seconds": drawn.seconds, **made.record()}
            if target.file is None or not show.animate:
                texts = provenance.texts(made) if show.metadata else {}
                data = pictures.encode(drawn.pixels, suffix=target.suffix, texts=texts)
                files.tell(target.write(data, drawn), record)
            if show.animate and not show.grid:
                _write_animation(target, [drawn], drawn, record)
            if show.preview:
                view.picture(drawn.pixels)
            if show.grid or show.sheet:
                kept.append(drawn)
    if show.grid:
        _write_grid(target, kept, show)
    if show.sheet:
        labelled = pictures.labelled(_rows(kept))
        files.tell(target.write(pictures.encode(labelled, suffix=target.suffix), "sheet"), {"sheet": True})


def _write_grid(target: Target, kept: "list[Drawn]", show: Show) -> None:
    import numpy as np

    from ..engine import pictures

    if target.file is None or not show.animate:
        grid = pictures.sheet(np.stack([drawn.pixels for drawn in kept]), columns=_columns(kept))
        files.tell(target.write(pictures.encode(grid, suffix=target.suffix), "grid"), {"grid": True})
    if show.animate:
        _write_animation(target, kept, "grid", {"grid": True})


def _write_animation(target: Target, kept: "list[Drawn]", name: "Drawn | str", record: dict[str, Any]) -> None:
    from ..engine import pictures

    suffix = ".webp" if target.file is None else target.suffix
    frames = pictures.film([drawn.frames for drawn in kept if drawn.frames is not None], columns=_columns(kept))
    data = pictures.encode_animation(frames, suffix=suffix, milliseconds=pictures.FRAME_MILLISECONDS)
    files.tell(target.write(data, name, suffix=suffix), {"animation": True, **record})


def _columns(kept: "list[Drawn]") -> int | None:
    """A row for each prompt, if all have the same number of pictures; None: nearly a square."""
    counts = {drawn.wanted.count for drawn in kept}
    return counts.pop() if len(counts) == 1 and len({id(drawn.wanted) for drawn in kept}) > 1 else None


def _rows(kept: "list[Drawn]") -> "list[Row]":
    """A row for each prompt: its seeds side by side; its guidances, where each has a single picture."""
    from ..engine.pictures import Row

    by_guidance = all(drawn.wanted.count == 1 for drawn in kept)
    groups: dict[tuple[str, str, float], list[Drawn]] = {}
    for drawn in kept:
        wanted = drawn.wanted
        groups.setdefault((wanted.prompt, wanted.negative, 0 if by_guidance else wanted.sampling.guidance), []
                          ).append(drawn)
    rows = []
    for (prompt, negative, _), row in groups.items():
        title = prompt + (f" (not: {negative})" if negative else "")
        rows.append(Row(view.clean(title, limit=400), [drawn.pixels for drawn in row], [
            (f"seed {drawn.seed}", f"guidance {drawn.wanted.sampling.guidance:g}") for drawn in row]))
    return rows
