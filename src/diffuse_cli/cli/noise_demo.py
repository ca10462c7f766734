"""`diffuse noise-demo`: forward diffusion on one picture, as a labelled strip, an animation or curves.

Knows names of files and what people are told; what is drawn is `engine.demonstration`.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import config
from ..checks import check_choice, check_range, choices
from ..config import Machine
from ..errors import DataError, UsageError
from ..storage import registry
from . import options, output_files
from .terminal import progress, view

if TYPE_CHECKING:
    import numpy as np

    from ..diffusion.schedule import Schedule
    from ..pictures.sheets import Row
    from ..sampling.forward_demo import Level

RESOLUTION = 64
FRAMES = 40                                     # of an animation
MILLISECONDS = 80                               # of each


def noise_demo(
    image: Annotated[Path | None, typer.Argument(metavar="[IMAGE]", help="A picture. None: a demo scene.",
                                                 show_default=False)] = None,
    schedule: Annotated[list[str] | None, typer.Option(
        "--schedule", help=f"{choices(config.SCHEDULES, config.Recipe.schedule)}. Give it several times to compare.",
        show_default=False)] = None,
    resolution: Annotated[int | None, typer.Option(
        "--resolution", help=f"Side of the square, in pixels. Default: {RESOLUTION}, or the model's.",
        show_default=False)] = None,
    num: Annotated[int, typer.Option("-n", "--num", help="Noise levels.")] = 8,
    model: Annotated[str | None, typer.Option(
        "-m", "--model", help="Show also what this model makes of each level.", show_default=False,
        autocompletion=options.complete_model)] = None,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="A new file. Default: noise-demo.png.",
                                             show_default=False)] = None,
    animate: Annotated[bool, typer.Option("--animate", help="An animation, .webp or .gif, not a strip.")] = False,
    plot: Annotated[bool, typer.Option("--plot", help="The curves of the schedules instead of a strip.")] = False,
    seed: Annotated[int, typer.Option("-s", "--seed", help="Of the noise.")] = 0,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Show how noise takes a picture away, level by level. Prints the path of the strip.

    [bold]diffuse noise-demo photo.jpg[/]

    [bold]diffuse noise-demo --schedule cosine --schedule linear --plot[/]

    [bold]diffuse noise-demo photo.jpg -m cars[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    check_range("--num", num, 2, 64)
    check_range("--seed", seed, *config.SEED_RANGE)
    if resolution is not None:
        check_range("--resolution", resolution, 8, 512)
    for name in schedule or ():
        check_choice("--schedule", name, config.SCHEDULES)
    if animate and plot:
        raise UsageError("--animate and --plot are two different files", hint="Give one of them")
    if model is not None and (schedule or plot):
        raise UsageError(f"{'--plot' if plot else '--schedule'} and -m exclude each other: a model is shown on the "
                         "schedule that it was trained with", hint="Leave out one of them")
    if image is not None and plot:
        raise UsageError("--plot shows schedules, and no picture", hint="Leave out one of them")
    if image is not None and not image.exists():
        raise DataError(f"there is no picture {image}", hint="Give another one, or none for a demo scene")
    target = output_files.new_file(out, default="noise-demo.webp" if animate else "noise-demo.png",
                            suffixes=(".webp", ".gif") if animate else (".png",))
    names = list(dict.fromkeys(schedule or (config.SCHEDULES if plot else (config.Recipe.schedule,))))
    path = registry.resolve(model) if model is not None else None
    _demonstrate(image, names, resolution, num, path, target, animate=animate, plot=plot, seed=seed)


def _demonstrate(
    image: Path | None, names: list[str], resolution: int | None, num: int, path: Path | None, target: Path, *,
    animate: bool, plot: bool, seed: int,
) -> None:
    from ..pictures import sheets
    from ..runtime import devices

    with progress.of("loading", 1):
        import numpy as np

        from ..diffusion.schedule import make_schedule
        from ..pictures import image_files
        from ..sampling import forward_demo
        from ..storage import checkpoint

        model = None if path is None else checkpoint.load_model(path, devices.choose_device(Machine()))
    if model is not None:
        if resolution not in (None, model.config.network.resolution):
            raise UsageError(f"the model draws pictures of {model.config.network.resolution} pixels, not {resolution}",
                             hint="Leave out --resolution")
        resolution, names = model.config.network.resolution, [model.config.schedule]
    side = resolution or RESOLUTION
    schedules = [make_schedule(name, side) for name in names]
    for schedule in schedules:
        _warn_of_a_leak(schedule, side)
    if plot:
        from ..reporting import schedule_plot

        output_files.write_new(target, schedule_plot.schedules(schedules))
        output_files.tell(target, {"schedules": names})
        return
    pixels, caption = _picture(image, side)
    times = forward_demo.even_times(FRAMES if animate else num)
    shown = {schedule.name: list(forward_demo.forward_diffusion(
        pixels, schedule, times, seed=seed, model=model, caption=caption)) for schedule in schedules}
    if animate:
        rows = [_frame(shown, index) for index in range(FRAMES)]
        cell = max(map(sheets.cell_width, rows))                     # every frame has the same size
        frames = [sheets.labelled(frame, cell=cell) for frame in rows]
        output_files.write_new(target, image_files.encode_animation(frames + frames[::-1], suffix=target.suffix.lower(),
                                                          milliseconds=MILLISECONDS))
    else:
        strip = sheets.labelled(_rows(shown))
        output_files.write_new(target, image_files.encode(strip))
        for levels in shown.values():
            view.picture(sheets.sheet(np.stack([level.noisy for level in levels]), columns=num))
    output_files.tell(target, {"levels": [_record(name, level) for name, levels in shown.items() for level in levels]})


def _picture(image: Path | None, side: int) -> "tuple[np.ndarray, str]":
    """The picture as the model would see it, and its caption if that is known. Raises DataError."""
    from ..data import images
    from ..data.demo_scenes import scenes

    if image is None:
        scene = scenes.scene_of("red", "car", seed=0, index=0)
        return images.fit(scenes.draw(scene, side), side), scene.caption
    try:
        return images.fit(images.open_rgb(image, target=side), side), ""
    except images.ImageRefused as error:
        reason = "it is a folder" if image.is_dir() else error.reason
        raise DataError(f"{image} cannot be used: {reason}", hint="Give another picture, or none for a demo scene"
                        ) from error


def _rows(shown: "dict[str, list[Level]]") -> "list[Row]":
    """A strip: the levels side by side, the schedules one below the other."""
    from ..pictures.sheets import Row

    rows = []
    for name, levels in shown.items():
        rows.append(Row(f"schedule: {name}", [level.noisy for level in levels], [_lines(level) for level in levels]))
        estimates = [level.estimate for level in levels if level.estimate is not None]
        if estimates:
            rows.append(Row("what the model takes the picture to be, in one step", estimates,
                            [(f"noise loss {level.noise_mse:.4f}",) for level in levels]))
    return rows


def _frame(shown: "dict[str, list[Level]]", index: int) -> "list[Row]":
    """One level: the schedules side by side, what a model makes of it below."""
    from ..pictures.sheets import Row

    levels = [levels[index] for levels in shown.values()]
    rows = [Row("", [level.noisy for level in levels],
                [(name, *_lines(level)) for name, level in zip(shown, levels, strict=True)])]
    estimates = [level.estimate for level in levels if level.estimate is not None]
    if estimates:
        rows.append(Row("", estimates, [(f"noise loss {level.noise_mse:.4f}",) for level in levels]))
    return rows


def _lines(level: "Level") -> tuple[str, ...]:
    return (f"t = {level.t:.3f}", f"alpha {level.alpha:.3f}", f"sigma {level.sigma:.3f}",
            f"log-SNR {level.log_snr:+.2f}", f"SNR {level.snr:.3g} ({level.decibels:+.1f} dB)")


def _record(name: str, level: "Level") -> dict[str, Any]:
    return {"schedule": name, "t": level.t, "alpha": level.alpha, "sigma": level.sigma, "log_snr": level.log_snr,
            "snr": level.snr, "snr_db": level.decibels, "noise_mse": level.noise_mse}


def _warn_of_a_leak(schedule: "Schedule", side: int) -> None:
    from ..sampling.forward_demo import brightness_decibels, leaks_brightness

    if leaks_brightness(schedule, side):
        view.warn(f"{schedule.name} leaks at {side} px: its last level still tells the brightness of a picture "
                  f"(its mean has an SNR of {brightness_decibels(schedule, side):+.1f} dB), but sampling starts from "
                  "noise that has none; choose another schedule for pictures of this size")
