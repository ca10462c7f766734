"""`diffuse data`: check a folder of pictures before training, preview it, draw a demo data set, empty the caches.

Reports for people go to stderr. stdout gets only what a program may want: the problems, a path, or JSON.
"""

import contextlib
import itertools
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError
from ..model_config import CHANNELS
from ..picture_size import Size
from ..storage import home_directory
from . import options, output_files
from .terminal import progress, view
from .terminal.plain_text import clean

if TYPE_CHECKING:
    from ..data.listing import Dataset, PictureListing

MAX_PREVIEW_PICTURES = 48                       # on one sheet
RESOLUTION = 64                                 # default of --resolution, in pixels

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Look at pictures and captions before training.")

Folders = Annotated[list[Path], options.folders()]
_SIZE = "Size of the pictures that the model sees: 64, or width x height, 96x64. Default:"


@app.command()
def check(folders: Folders, captions: options.Captions = None, caption: options.Caption = None,
          caption_column: options.CaptionColumn = None, caption_ext: options.CaptionExt = None,
          caption_template: options.CaptionTemplate = None, join_lines: options.JoinLines = None,
          background: options.Background = None, white_level: options.WhiteLevel = None, fit: options.Fit = None,
          resolution: Annotated[Size | None, options.resolution(f"{_SIZE} what training would choose.")] = None,
          quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
          debug: options.Debug = False) -> None:
    """Read every picture and caption, and report the problems that training would meet. If any, the exit code is 3.

    [bold]diffuse data check ./images[/]
    """
    data_options = options.data_options(locals())
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    folder = folders[0]
    found, dataset, (fit, why_fit) = _read(folder, resolution, data_options)
    problems = (*dataset.skipped, *found.caption_problems)
    warnings = [*found.warnings, *dataset.warnings, *_warn_of_long_captions(dataset)]
    from ..data.file_types import remedies
    from ..data.remarks import describe_litter, pictures_in_words

    # For people.
    view.say(f"{pictures_in_words(len(dataset.names))} in {', '.join(map(str, folders))}")
    choices, _ = _say_choices(dataset, fit, why_fit)
    view.say(f"captions: {found.caption_summary}")
    for example in found.caption_examples:
        view.say(f"  {clean(example)}")
    if dataset.skipped:
        view.say(_skipped_line(dataset))
    for remedy in remedies(reason for _, reason in problems):
        view.say(f"  {remedy}")
    if found.litter:
        view.say(clean(describe_litter(found.litter)))
    _say_remarks(found.notes, warnings)

    # For programs.
    if view.settings.json:
        view.out_json({"folder": str(folder), "images": len(dataset.names), "id": dataset.content_id,
                       **choices, "source": found.caption_source,
                       "captions": found.caption_summary, "captioned": sum(map(bool, dataset.captions)),
                       "examples": found.caption_examples, "notes": found.notes, "warnings": warnings,
                       "problems": [{"name": name, "reason": reason} for name, reason in problems]})
    else:
        for name, reason in problems:
            view.out(f"{name}: {reason}")
    if problems:
        raise typer.Exit(DataError.exit_code)
    noted = "warning" if len(warnings) == 1 else f"{len(warnings)} warnings"
    view.say("no problems" if not warnings else f"every file can be read; see the {noted} above")


@app.command()
def preview(folders: Folders, captions: options.Captions = None, caption: options.Caption = None,
            caption_column: options.CaptionColumn = None, caption_ext: options.CaptionExt = None,
            caption_template: options.CaptionTemplate = None, join_lines: options.JoinLines = None,
            background: options.Background = None, white_level: options.WhiteLevel = None, fit: options.Fit = None,
            resolution: Annotated[Size | None, options.resolution(f"{_SIZE} {RESOLUTION}.")] = None,
            out: Annotated[Path | None, typer.Option("--out", "-o", help="The sheet, a new PNG. Default: preview.png.")
                           ] = None,
            quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
            debug: options.Debug = False) -> None:
    """Write a sheet of pictures as the model will see them, each with its caption. Prints the path of the sheet.

    [bold]diffuse data preview ./images -o sheet.png[/]
    """
    data_options = options.data_options(locals())
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    folder = folders[0]
    target = output_files.new_file(out, default="preview.png", suffixes=(".png",), outside=folder)
    found, dataset, (fit, why_fit) = _read(folder, resolution or Size.of(RESOLUTION), data_options)
    if not dataset.names:
        raise DataError(_skipped_line(dataset), hint=f"{found.check_command} lists them")

    import numpy as np

    from ..pictures.fonts import missing_letters
    from ..pictures.sheets import CAPTION_LETTERS, captioned_sheet, on_one_size

    count = min(MAX_PREVIEW_PICTURES, len(dataset.names))
    chosen = np.arange(count) * len(dataset.names) // count            # evenly spaced over the data set
    _, channels = _say_choices(dataset, fit, why_fit)
    dataset = dataset.with_channels(channels)
    groups = [group for group in dataset.by_size(chosen) if len(group)]
    pictures = on_one_size([dataset.pixels(group) for group in groups])
    captions_of = [dataset.captions[index] for index in np.concatenate(groups).tolist()]
    output_files.write_new(target, captioned_sheet(pictures, captions_of))
    if missing := missing_letters(alternatives[0][:CAPTION_LETTERS] for alternatives in captions_of if alternatives):
        view.warn(f"on the sheet, “?” stands for letters that no font of this computer has ({' '.join(missing[:8])}"
                  f"{' …' if len(missing) > 8 else ''}); a font such as Noto Sans CJK has most of them")
    _say_remarks(found.notes, [*found.warnings, *dataset.warnings, *_warn_of_long_captions(dataset)])
    view.say(f"{count} of {len(dataset.names):,} pictures, captions: {found.caption_summary}")
    output_files.print_result(target, {})


@app.command()
def demo(folder: Annotated[Path, options.folder("A new or empty folder.")],
         num: Annotated[int, typer.Option("--num", "-n", help="Number of pictures. Default: 2000.")] = 2000,
         resolution: Annotated[int, typer.Option(
             help=f"Side of each picture, a square, in pixels. Default: {RESOLUTION}.")] = RESOLUTION,
         seed: Annotated[int, typer.Option("--seed", "-s", help="The same seed draws the same pictures. Default: 0."
                                            )] = 0,
         quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
         debug: options.Debug = False) -> None:
    """Draw a captioned data set for first experiments. Nothing is downloaded.

    [bold]diffuse data demo ./scenes -n 2000[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)

    from ..data.demo_scenes.scenes import write_demo_folder

    with progress.of("drawing pictures", num) as advance_to, \
            contextlib.closing(write_demo_folder(folder, count=num, resolution=resolution, seed=seed)) as drawing:
        for done in drawing:
            advance_to(done)
    view.say(f"{num:,} picture{'' if num == 1 else 's'} with captions. Next: "
             f"{shlex.join(['diffuse', 'train', str(folder)])}")
    output_files.print_result(folder, {})


@app.command()
def clear(quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
          debug: options.Debug = False) -> None:
    """Empty the caches of decoded pictures. Your own pictures are not touched.

    [bold]diffuse data clear[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)

    from ..data import dataset as cache

    freed_bytes = cache.clear_cache(home_directory.cache_directory())
    view.say(f"freed {freed_bytes / 1e6:,.1f} MB")
    if view.settings.json:
        view.out_json({"freed": freed_bytes})


def _read(folder: Path, resolution: Size | None, data_options: dict[str, Any],
          ) -> "tuple[PictureListing, Dataset, tuple[str, str]]":
    """Find and decode the pictures of a folder, and show the progress. Pictures that cannot be used are skipped.

    resolution: None is the one that training would choose. → the pictures as found and as decoded; the fit,
    and the reason for it. Raises DataError, UsageError.
    """
    from ..checks import check_size
    from ..config import Machine, Recipe
    from ..data import dataset as cache
    from ..data.captions import find_pictures
    from ..data.colours import Rendering
    from ..events import Scanned
    from ..training.sizes import choose_fit, choose_resolution, choose_sizes

    if resolution is not None:
        check_size("--resolution", resolution)
    recipe = Recipe(**data_options)
    found = find_pictures(folder, **recipe.caption_options, checking=True)
    if resolution is None:
        try:
            resolution, _ = choose_resolution(found, recipe, Machine())
        except DataError:                                              # no picture can be read: all will be listed
            resolution = Size.of(RESOLUTION)
    fit, why_fit = choose_fit(found, recipe, resolution)
    sizes, why_sizes = choose_sizes(found, recipe, resolution, fit)
    why_fit = "; ".join(filter(None, (why_fit, why_sizes)))
    with progress.of("reading pictures", len(found.pictures)) as advance_to:
        scan = cache.decode_pictures(found, resolution=sizes, directory=home_directory.cache_directory(),
                                     rendering=Rendering(**recipe.colour_options, fit=fit))
        while True:
            try:
                event = next(scan)
            except StopIteration as end:
                return found, end.value, (fit, why_fit)
            if isinstance(event, Scanned):
                advance_to(event.done)
            else:
                view.say(event.message)


def _say_choices(dataset: "Dataset", fit: str, why_fit: str) -> tuple[dict[str, str | None], int]:
    """Say what a training would choose from the pictures. → the same as JSON, and the channels of a picture"""
    from ..data.bucket_choice import describe_sizes
    from ..data.channel_choice import choose_channels

    shapes = describe_sizes(dataset) if fit == "buckets" else None
    channels, why = choose_channels(dataset)
    view.say(f"fit: {fit} — {why_fit}")
    if shapes is not None:
        view.say(f"shapes: {shapes}")
    view.say(f"colours: {CHANNELS[channels]} — {why}")
    return {"fit": fit, "fit_reason": why_fit, "shapes": shapes, "colours": CHANNELS[channels],
            "colours_reason": why}, channels


def _say_remarks(notes: Iterable[str], warnings: Iterable[str]) -> None:
    for note in notes:
        view.say(f"note: {note}")
    for warning in warnings:
        view.warn(warning)


def _warn_of_long_captions(dataset: "Dataset") -> list[str]:
    """A warning if captions are too long for the tokenizer that a training on them would make."""
    from ..network.tokenizer import LENGTH, train_tokenizer, truncation_warning

    def captions() -> Iterator[str]:
        return itertools.chain.from_iterable(dataset.captions)

    if all(len(caption) < LENGTH // 4 for caption in captions()):      # at most four bytes a character
        return []
    warning = truncation_warning(train_tokenizer(captions()), captions())
    return [warning] if warning else []


def _skipped_line(dataset: "Dataset") -> str:
    from ..data.dataset import describe_skipped

    return describe_skipped(dataset.skipped, len(dataset.names) + len(dataset.skipped))
