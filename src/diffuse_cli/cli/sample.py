"""`diffuse sample`: prompts become pictures in files. One path on stdout for each, as it is finished.

Knows names of files and what people are told; what is drawn is `engine.generation`.
"""

import contextlib
import difflib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..engine import config, durable, registry
from ..engine.config import Machine, Sampling, check_range, choices
from ..engine.errors import StorageError, UsageError
from . import options, view
from .launch import launch, processes_to_start, taking_part

if TYPE_CHECKING:
    from ..engine.checkpoint import Model
    from ..engine.generation import Drawn

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_WARNINGS = 5                                # about words
_NUMBERED = re.compile(r"(\d{5,})-")


def sample(
    prompts: Annotated[list[str] | None, typer.Argument(
        metavar="[PROMPT]...", help="What to draw; several are drawn one after another. None: without a prompt.",
        show_default=False)] = None,
    num: Annotated[int, typer.Option("-n", "--num", help="Pictures of each prompt.")] = 1,
    model: Annotated[str | None, typer.Option("-m", "--model", "--checkpoint", show_default=False,
                                              help="Name or path. Default: the last trained.")] = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="A directory, or a file for one picture.")
                   ] = Path("samples"),
    seed: Annotated[int | None, typer.Option("-s", "--seed", help="Picture k has seed S + k. Default: random.",
                                             show_default=False)] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Default: " + ", ".join(
        f"{count} for {name}" for name, count in config.SAMPLER_STEPS.items()) + ".", show_default=False)] = None,
    sampler: Annotated[str, typer.Option("--sampler", "--scheduler", help=f"{choices(config.SAMPLERS)}.")
                       ] = Sampling.sampler,
    guidance: Annotated[float, typer.Option("--guidance", "--cfg-scale", help="1 is none.")] = Sampling.guidance,
    guidance_interval: Annotated[tuple[float, float] | None, typer.Option(
        "--guidance-interval", help="Guide where LOW < sigma/alpha <= HIGH.", show_default=False)] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", help="Pictures at once.")] = Sampling.batch_size,
    gpus: Annotated[str | None, typer.Option("--gpus", help="Number of GPUs, or all; 0 is the CPU.",
                                             show_default=False)] = None,
    procs: Annotated[int | None, typer.Option("--procs", hidden=True)] = None,
    device: Annotated[str | None, typer.Option("--device", help="cpu, cuda or mps.", show_default=False)] = None,
    precision: Annotated[str, typer.Option("--precision", help="fp32 or bf16.")] = Sampling.precision,
    grid: Annotated[bool, typer.Option("--grid", help="Also one sheet of all pictures.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file that -o names.")] = False,
    no_metadata: Annotated[bool, typer.Option("--no-metadata", help="Leave out how the pictures were made.")] = False,
    quiet: options.Quiet = False, verbose: options.Verbose = False, json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """Draw pictures with a trained model. Prints the path of each.

    [bold]diffuse sample "a red car" -n 8 --grid[/]

    [bold]diffuse sample "a red car" "a blue fish" -m cars --seed 1 -o pictures[/]
    """
    view.configure(quiet=quiet, verbose=verbose, json=json, debug=debug)
    check_range("--num", num, 1, 1_000_000)
    if seed is not None:
        check_range("--seed", seed, 0, config.SEED_RANGE[1] - num)
    sampling = Sampling(sampler=sampler, steps=steps, guidance=guidance, guidance_interval=guidance_interval,
                        batch_size=batch_size, precision=precision)
    wanted = tuple(prompts or [""])
    machine = Machine(**options.given({"gpus": gpus, "procs": procs, "device": device}))
    path = registry.resolve(model)
    target = _Target(out, pictures=num * len(wanted), force=force, grid=grid)
    if (count := processes_to_start(machine)) > 1:
        raise typer.Exit(launch(count))
    _draw(path, wanted, num, seed, sampling, target, machine, metadata=not no_metadata)


def _draw(
    path: Path, prompts: tuple[str, ...], num: int, seed: int | None, sampling: Sampling, target: "_Target",
    machine: Machine, *, metadata: bool,
) -> None:
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(taking_part())
        with view.progress("loading", 1):
            from ..engine import checkpoint, generation, planning
            from ..engine.distributed import join

            device = planning.choose_device(machine)
            world = stack.enter_context(join(device))
            model = checkpoint.load_model(path, device)
            world.align(model.network.state_dict().values())           # another save may have come between two loads
        chosen = int(world.told(secrets.randbelow(2**32))) if seed is None else seed
        if place.is_main:
            _warn_about(prompts, model)
            view.say(f"model {model.training.get('name', path.name)}" + (f", seed {chosen}" if seed is None else ""))
        drawings = generation.draw(model, prompts, count=num, seed=chosen, sampling=sampling, world=world)
        if place.is_main:
            _write(drawings, target, model, sampling, prompts, num, metadata=metadata)
        else:
            list(drawings)


def _write(
    drawings: Iterator["Drawn"], target: "_Target", model: "Model", sampling: Sampling, prompts: tuple[str, ...],
    num: int, *, metadata: bool,
) -> None:
    """Every picture as it comes, its path on stdout; then, if wanted, the sheet of all."""
    import numpy as np

    from ..engine import pictures, provenance

    kept = []
    with view.progress("drawing", num * len(prompts)) as advance_to:
        for done, drawn in enumerate(drawings, 1):
            made = provenance.settings(drawn, model, sampling)
            texts = provenance.texts(made) if metadata else {}
            written = target.write(pictures.encode(drawn.pixels, suffix=target.suffix, texts=texts), drawn)
            if target.grid:
                kept.append(drawn.pixels)
            advance_to(done)
            _tell(written, {"index": drawn.index, "seconds": drawn.seconds, **made})
    if target.grid:
        sheet = pictures.sheet(np.stack(kept), columns=num if len(prompts) > 1 else None)
        _tell(target.write(pictures.encode(sheet, suffix=target.suffix), None), {"grid": True})


def _tell(written: Path, made: dict[str, Any]) -> None:
    if view.settings.json:
        view.out_json({"path": str(written), **made})
    else:
        view.out(str(written))


class _Target:
    """Where pictures go: into a directory under the next free number, or to the one file that -o names."""

    def __init__(self, out: Path, *, pictures: int, force: bool, grid: bool) -> None:
        self.grid, self.force = grid, force
        self.file = out if out.suffix.lower() in SUFFIXES else None
        self.suffix = ".png" if self.file is None else self.file.suffix.lower()
        if self.file is not None:
            if pictures > 1 or grid:
                raise UsageError(f"-o {out} is one file, but {pictures + grid} pictures are to be written",
                                 hint="Give a directory")
            if os.path.lexists(out) and not force:
                raise self._taken()
        self.directory = out if self.file is None else out.absolute().parent
        if self.directory.exists() and not self.directory.is_dir():
            raise StorageError(f"{self.directory} is not a directory", hint="Choose another -o")
        durable.make_directory(self.directory, mode=0o755)
        self.number = self._next_free()

    def write(self, data: bytes, drawn: "Drawn | None") -> Path:
        """Write a picture (None: the sheet) without replacing anything unasked. Returns its path."""
        if self.file is not None:
            try:
                durable.write(self.file, data, exclusive=not self.force, mode=0o644)
            except FileExistsError as error:                           # it came while the picture was drawn
                raise self._taken() from error
            return self.file
        name = "grid" if drawn is None else "-".join(filter(None, (str(drawn.seed), _slug(drawn.prompt))))
        while True:
            path = self.directory / f"{self.number:05d}-{name}{self.suffix}"
            self.number += 1
            try:
                durable.write(path, data, exclusive=True, mode=0o644)      # a program beside this one may have taken it
                return path
            except FileExistsError:
                continue

    def _next_free(self) -> int:
        try:
            names = [path.name for path in self.directory.iterdir()]
        except OSError as error:
            durable.fail(error, self.directory)
        return max((int(match[1]) for name in names if (match := _NUMBERED.match(name))), default=-1) + 1

    def _taken(self) -> UsageError:
        return UsageError(f"{self.file} exists already", hint="Use --force to replace it, or another name")


def _slug(prompt: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")[:48].strip("-")


def _warn_about(prompts: tuple[str, ...], model: "Model") -> None:
    """Tell when a prompt cannot mean anything to the model, or not all of it."""
    from ..engine.checkpoint import split_words
    from ..engine.network.text import is_truncated

    if model.tokenizer is None:
        if any(prompts):
            view.warn("this model was trained without captions and ignores prompts")
        return
    words = dict.fromkeys(word for prompt in prompts for word in split_words(prompt))
    unknown = [word for word in words if word not in model.words]
    for word in unknown[:MAX_WARNINGS]:
        near = difflib.get_close_matches(word, model.words, 3)
        meant = f"; it knows {', '.join(near)}" if near else ""
        view.warn(f"the model has never seen the word {word!r}{meant}")
    if len(unknown) > MAX_WARNINGS:
        view.warn(f"the model has never seen {len(unknown) - MAX_WARNINGS} more of the words")
    for prompt in prompts:
        if is_truncated(model.tokenizer, prompt):
            view.warn(f"the prompt is longer than the model reads, its end is ignored: {view.clean(prompt, limit=60)}")
