"""Writes the files of a sampling (pictures, sheets, animations), and shows pictures in the terminal if asked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .output_files import SampleTarget, print_result
from .terminal import progress, view
from .terminal.plain_text import clean

if TYPE_CHECKING:
    import numpy as np

    from ..pictures.sheets import Row
    from ..sampling.request import Sample
    from ..storage.checkpoint import Model


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is written and shown besides one file for each picture."""

    grid: bool
    sheet: bool
    animate: bool
    preview: bool
    metadata: bool                              # pictures say how they were generated


def write_samples(
    generate: Callable[..., "Iterator[Sample]"], target: SampleTarget, model: "Model", count: int,
    output: OutputOptions, *, upscaler: "Model | None" = None,
) -> None:
    """Write every sample that `generate(progress=…)` yields, and then the sheets of all.

    The path of each file is printed on stdout as soon as it is written. count: the number of samples. upscaler: the
    model that enlarged them.
    """
    from ..pictures import image_files
    from ..sampling import png_metadata

    samples: list[Sample] = []                  # kept for the sheets only
    row: list[np.ndarray] = []                  # pictures that wait until they fill a row of the terminal
    places = view.pictures_in_a_row(count)
    with progress.of("sampling", count) as advance_to:
        for sample in generate(progress=advance_to):
            metadata = png_metadata.collect_metadata(sample, model, upscaler)
            record = {"index": sample.index, "seconds": sample.seconds, **metadata.to_dict()}
            if target.file is None or not output.animate:
                texts = png_metadata.png_texts(metadata) if output.metadata else {}
                data = image_files.encode(sample.pixels, suffix=target.suffix, texts=texts)
                print_result(target.write(data, sample), record)
            if output.animate and not output.grid:
                _write_animation(target, [sample], sample, record)
            if output.preview:
                row.append(sample.pixels)
                if len(row) == places:
                    view.pictures(row, of=places)
                    row.clear()
            if output.grid or output.sheet:
                samples.append(sample)
        view.pictures(row, of=places)
    if output.grid:
        _write_grid(target, samples, output)
    if output.sheet:
        _write_sheet(target, samples)


def _write_grid(target: SampleTarget, samples: "list[Sample]", output: OutputOptions) -> None:
    import numpy as np

    from ..pictures import image_files, sheets

    if target.file is None or not output.animate:
        grid = sheets.grid(np.stack([sample.pixels for sample in samples]), columns=_columns(samples))
        print_result(target.write(image_files.encode(grid, suffix=target.suffix), "grid"), {"grid": True})
    if output.animate:
        _write_animation(target, samples, "grid", {"grid": True})


def _write_sheet(target: SampleTarget, samples: "list[Sample]") -> None:
    from ..pictures import image_files, sheets

    sheet = sheets.labelled_rows(_rows(samples))
    print_result(target.write(image_files.encode(sheet, suffix=target.suffix), "sheet"), {"sheet": True})


def _write_animation(
    target: SampleTarget, samples: "list[Sample]", name: "Sample | str", record: dict[str, Any],
) -> None:
    from ..pictures import image_files, sheets

    suffix = ".webp" if target.file is None else target.suffix
    frames = sheets.animation_frames([sample.frames for sample in samples if sample.frames is not None],
                                     columns=_columns(samples))
    data = image_files.encode_animation(frames, suffix=suffix, milliseconds=sheets.FRAME_MILLISECONDS)
    print_result(target.write(data, name, suffix=suffix), {"animation": True, **record})


def _columns(samples: "list[Sample]") -> int | None:
    """Columns for a row of each prompt, if all prompts have the same number of pictures; None: nearly a square."""
    counts = {sample.request.count for sample in samples}
    return counts.pop() if len(counts) == 1 and len({id(sample.request) for sample in samples}) > 1 else None


def _rows(samples: "list[Sample]") -> "list[Row]":
    """Rows of the labelled sheet, one for each prompt: its seeds, or its guidances if each of them has one picture."""
    from ..pictures.sheets import Row

    by_guidance = all(sample.request.count == 1 for sample in samples)
    groups: dict[tuple[str, str, float], list[Sample]] = {}
    for sample in samples:
        request = sample.request
        group = request.prompt, request.negative, 0 if by_guidance else request.sampling.guidance
        groups.setdefault(group, []).append(sample)
    rows = []
    for (prompt, negative, _), group_samples in groups.items():
        title = prompt + (f" (not: {negative})" if negative else "")
        rows.append(Row(clean(title, limit=400), [sample.pixels for sample in group_samples], [
            (f"seed {sample.seed}", f"guidance {sample.request.sampling.guidance:g}") for sample in group_samples]))
    return rows
