"""`diffuse noise-demo`: show forward diffusion on one picture, as a labelled strip, an animation or curves."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import config, model_config
from ..checks import MAX_SIDE, check_choice, check_range, check_size
from ..config import Machine
from ..errors import DataError, UsageError
from ..picture_size import Size
from ..storage import registry
from ..storage.model_info import read_model_info
from . import options, output_files
from .model_cost import warn_of_cost
from .terminal import progress, view

if TYPE_CHECKING:
    import numpy as np

    from ..diffusion.schedule import Schedule
    from ..pictures.sheets import Row
    from ..sampling.forward_demo import Level
    from ..storage.checkpoint import Model

RESOLUTION = 64                                 # default of --resolution, in pixels
FRAMES = 40                                     # noise levels of an animation
FRAME_MILLISECONDS = 80                         # for which an animation shows each level


def noise_demo(
    image: Annotated[Path | None, typer.Argument(metavar="IMAGE", help="A picture. Default: a demo scene.")] = None,
    schedule: Annotated[list[str] | None, options.choice(
        "--schedule", of=model_config.SCHEDULES, help="Noise schedule, or several to compare them",
        default=config.Recipe.schedule)] = None,
    resolution: Annotated[Size | None, options.resolution(
        f"Size of the picture: 64, or width x height, 96x64. Default: {RESOLUTION}, or the model's.")] = None,
    num: Annotated[int, typer.Option("-n", "--num", help="Number of noise levels. Default: 8.")] = 8,
    model: Annotated[str | None, typer.Option(
        "-m", "--model", help="Also show how this model restores the picture from each level.",
        autocompletion=options.complete_model)] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A new file. Default: noise-demo.png.")] = None,
    animate: Annotated[bool, typer.Option("--animate", help="Write an animation, .webp or .gif, instead of a strip.")
                       ] = False,
    plot: Annotated[bool, typer.Option("--plot", help="Plot the curves of the schedules instead of a strip.")] = False,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Seed of the noise. Default: 0.")] = 0,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show how noise gradually destroys a picture. Prints the path of the file.

    [bold]diffuse noise-demo photo.jpg[/]

    [bold]diffuse noise-demo --schedule cosine --schedule linear --plot[/]

    [bold]diffuse noise-demo photo.jpg -m cars[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    check_range("--num", num, 2, 64)
    check_range("--seed", seed, *config.SEED_RANGE)
    if resolution is not None:
        check_size("--resolution", resolution)
    for name in schedule or ():
        check_choice("--schedule", name, model_config.SCHEDULES)
    if animate and plot:
        raise UsageError("--animate and --plot write two different files", hint="Give one of them")
    if model is not None and (schedule or plot):
        raise UsageError(f"{'--plot' if plot else '--schedule'} and -m exclude each other: a model is shown on the "
                         "schedule that it was trained with", hint="Leave out one of them")
    if image is not None and plot:
        raise UsageError("--plot shows schedules and needs no picture", hint="Leave out one of them")
    if image is not None and not image.exists():
        raise DataError(f"there is no picture {image}", hint="Give another picture, or none for a demo scene")
    target = output_files.new_file(out, default="noise-demo.webp" if animate else "noise-demo.png",
                                   suffixes=(".webp", ".gif") if animate else (".png",))
    names = list(dict.fromkeys(schedule or (model_config.SCHEDULES if plot else (config.Recipe.schedule,))))
    path = registry.resolve(model) if model is not None else None
    if path is not None:
        read_model_info(path).config.check_draws_alone()               # refused before the slow import of torch
    _demonstrate(image, names, resolution, num, path, target, animate=animate, plot=plot, seed=seed)


def _demonstrate(
    image: Path | None, names: list[str], resolution: Size | None, num: int, path: Path | None, target: Path, *,
    animate: bool, plot: bool, seed: int,
) -> None:
    from ..pictures import sheets
    from ..runtime import devices

    with progress.of("loading", 1):
        from ..diffusion.schedule import make_schedule
        from ..pictures import image_files
        from ..sampling import forward_demo
        from ..storage import checkpoint

        model = None if path is None else checkpoint.load_model(path, devices.choose_device(Machine()))
    if model is not None:
        network = model.config.network
        if resolution not in (None, *network.sizes):
            raise UsageError(f"the model generates pictures of {', '.join(map(str, network.sizes))} pixels, not "
                             f"{resolution}", hint="Leave out --resolution")
        resolution, names = resolution or network.resolution, [model.config.schedule]
        warn_of_cost(model, passes=FRAMES if animate else num)
    size = resolution or Size.of(RESOLUTION)
    area = size if model is None else model.config.network.resolution        # whose schedule all its sizes have
    schedules = [make_schedule(name, area.side) for name in names]
    for schedule in schedules:
        _warn_about_leak(schedule, size)
    if plot:
        from ..reporting import schedule_plot

        output_files.write_new(target, schedule_plot.plot_schedules(schedules))
        output_files.print_result(target, {"schedules": names})
        return
    pixels, caption = _open_picture(image, size, model)
    times = forward_demo.evenly_spaced_times(FRAMES if animate else num)
    levels_of = {schedule.name: list(forward_demo.forward_diffusion(
        pixels, schedule, times, seed=seed, model=model, caption=caption)) for schedule in schedules}
    if animate:
        rows = [_frame(levels_of, index) for index in range(FRAMES)]
        cell = max(map(sheets.column_width, rows))                       # so that all frames have the same size
        frames = [sheets.labelled_rows(frame, cell=cell) for frame in rows]
        output_files.write_new(target, image_files.encode_animation(
            frames + frames[::-1], suffix=target.suffix.lower(), milliseconds=FRAME_MILLISECONDS))
    else:
        strip = sheets.labelled_rows(_rows(levels_of))
        output_files.write_new(target, image_files.encode(strip))
        places = view.pictures_in_a_row(num)
        for levels in levels_of.values():
            for start in range(0, num, places):
                view.pictures([level.noisy for level in levels[start : start + places]], of=places)
    records = [_record(name, level) for name, levels in levels_of.items() for level in levels]
    output_files.print_result(target, {"levels": records})


def _open_picture(image: Path | None, size: Size, model: "Model | None") -> "tuple[np.ndarray, str]":
    """The picture as the model sees it, (H, W, C) uint8, and its caption, empty if unknown. Raises DataError."""
    from ..data.demo_scenes import scenes
    from ..data.fitting import fitted_pixels
    from ..sampling.request import open_fitted, rendering_of

    if image is None:
        scene = scenes.scene_with("red", "car", seed=0, index=0)
        return fitted_pixels(scenes.draw(scene, min(MAX_SIDE, max(size))), size), scene.caption
    rendering = None if model is None else rendering_of(model.config, model.training)
    try:
        return open_fitted(image, size, rendering), ""
    except DataError as error:
        raise DataError(error.what, hint="Give another picture, or none for a demo scene") from error


def _rows(levels_of: "dict[str, list[Level]]") -> "list[Row]":
    """The rows of a strip: one for each schedule, and below it one for the estimates of a model."""
    from ..pictures.sheets import Row

    rows = []
    for name, levels in levels_of.items():
        rows.append(Row(f"schedule: {name}", [level.noisy for level in levels], [_lines(level) for level in levels]))
        estimates = [level.estimate for level in levels if level.estimate is not None]
        if estimates:
            rows.append(Row("what the model takes the picture to be, in one step", estimates,
                            [(f"noise loss {level.noise_mse:.4f}",) for level in levels]))
    return rows


def _frame(levels_of: "dict[str, list[Level]]", index: int) -> "list[Row]":
    """The rows of one frame: the schedules side by side at one level, and below them the estimates of a model."""
    from ..pictures.sheets import Row

    levels = [levels[index] for levels in levels_of.values()]
    rows = [Row("", [level.noisy for level in levels],
                [(name, *_lines(level)) for name, level in zip(levels_of, levels, strict=True)])]
    estimates = [level.estimate for level in levels if level.estimate is not None]
    if estimates:
        rows.append(Row("", estimates, [(f"noise loss {level.noise_mse:.4f}",) for level in levels]))
    return rows


def _lines(level: "Level") -> tuple[str, ...]:
    return (f"t = {level.t:.3f}", f"alpha {level.alpha:.3f}", f"sigma {level.sigma:.3f}",
            f"log-SNR {level.log_snr:+.2f}", f"SNR {level.snr:.3g} ({level.snr_db:+.1f} dB)")


def _record(name: str, level: "Level") -> dict[str, Any]:
    return {"schedule": name, "t": level.t, "alpha": level.alpha, "sigma": level.sigma, "log_snr": level.log_snr,
            "snr": level.snr, "snr_db": level.snr_db, "noise_mse": level.noise_mse}


def _warn_about_leak(schedule: "Schedule", size: Size) -> None:
    from ..sampling.forward_demo import brightness_decibels, leaks_brightness

    if leaks_brightness(schedule, size.side):
        view.warn(f"{schedule.name} leaks at {size} px: its last level still shows the brightness of a picture "
                  f"(its mean has an SNR of {brightness_decibels(schedule, size.side):+.1f} dB), but sampling starts "
                  "from pure noise; choose another schedule for pictures of this size")
