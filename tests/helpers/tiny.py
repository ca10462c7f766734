"""A data set and trainings that are small enough for tests: captioned squares of 8 pixels, a network below nano."""

import contextlib
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from diffuse_cli import config, events
from diffuse_cli.config import SAMPLER_STEPS, Machine, Recipe
from diffuse_cli.data.listing import Dataset
from diffuse_cli.network import presets
from diffuse_cli.reporting import page, results_picture
from diffuse_cli.storage.registry import MODEL_FILE
from diffuse_cli.training import loop, plan
from diffuse_cli.training.run import open_run

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}
RECIPE = Recipe(resolution=8, preset="nano", steps=8, batch_size=4)
UNCONDITIONAL = Recipe(resolution=8, preset="nano", steps=8, batch_size=4, captions="none")
BUCKETS = Recipe(resolution=16, preset="nano", steps=6, batch_size=4, fit="buckets")
OPTIONS = {"name": "tiny", "device": "cpu", "precision": "fp32", "save_every": "3", "preview_every": "100%"}


def draw_squares(folder: Path, count: int = 24) -> Path:
    """`count` pictures of 16 pixels, each a coloured square on grey, with captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        name = list(COLOURS)[index % 3]
        picture = Image.new("RGB", (16, 16), (20 + index % 200,) * 3)
        picture.paste(COLOURS[name], (index % 7, 3, index % 7 + 8, 11))
        picture.save(folder / f"{index:03d}.png")
        (folder / f"{index:03d}.txt").write_text(f"a {name} square")
    return folder


def draw_bars(folder: Path, count: int = 24) -> Path:
    """`count` pictures three times as wide as high, each a bar on a plain ground, with captions beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(count):
        name = list(COLOURS)[index % 3]
        picture = Image.new("RGB", (24, 8), (20 + 5 * index,) * 3)
        picture.paste(COLOURS[name], (1, 2, 23, 6))
        picture.save(folder / f"{index:03d}.png")
        (folder / f"{index:03d}.txt").write_text(f"a {name} bar")
    return folder


def draw_shapes(folder: Path, count: int = 40) -> Path:
    """`count` captioned pictures, in turn 16x16, 32x8, 16x16 and 8x32, each a bar on noise: three sizes with `BUCKETS`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0)
    for index in range(count):
        width, height = ((16, 16), (32, 8), (16, 16), (8, 32))[index % 4]
        name = list(COLOURS)[index % 3]
        picture = Image.fromarray(noise.integers(0, 60, (height, width, 3), np.uint8))
        picture.paste(COLOURS[name], (2, 2, width - 2, height - 2))
        picture.save(folder / f"{index:03d}.png")
        (folder / f"{index:03d}.txt").write_text(f"a {name} bar")
    return folder


def dataset(captions: list[tuple[str, ...]], *, size: int = 8, hashes: list[str] | None = None) -> Dataset:
    """A data set in memory with different pictures, one for each entry of `captions`."""
    count = len(captions)
    images = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
    images[:, 0, 0, :2] = np.stack(np.divmod(np.arange(count), 256), 1)         # by which it is recognised
    hashes = hashes or [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    return Dataset(images=images, captions=tuple(captions), names=tuple(f"{k}.png" for k in range(count)),
                   pixel_hashes=tuple(hashes), content_id="0" * 64, skipped=(), warnings=())


@contextlib.contextmanager
def at_home(directory: Path) -> Iterator[None]:
    """Keep models and caches in `directory`, for fixtures that outlive a test."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with mock.patch.dict(os.environ, DIFFUSE_HOME=str(directory)):
        yield


def train(folder: Path, recipe: Recipe = RECIPE, *, stop_at: int | None = None, drawn: bool = False,
          **options) -> list[events.Event]:
    """Start or resume a training. → its events. stop_at: stop after so many steps of this call."""
    machine = Machine(**{**OPTIONS, **options})
    with open_run(folder, recipe, machine) as run, scaled_down(drawn=drawn):
        return list(loop.train(run, should_stop=StopAfter(stop_at)))


@dataclass(frozen=True)
class Trained:
    """A home with the model `tiny`, the pictures that it was trained on, and the events of its training."""

    home: Path
    pictures: Path
    events: list[events.Event]

    @property
    def run(self) -> Path:
        return run_directory(self.home)

    @property
    def model(self) -> Path:
        return self.run / MODEL_FILE


def trained(folder: Path, home: Path, recipe: Recipe, **options) -> Trained:
    """As `train`, in a home of its own that outlives a test."""
    with at_home(home):
        return Trained(home, folder, train(folder, recipe, **options))


class StopAfter:
    """Asks for a stop when it is called the `count`-th time; the training calls it after every step."""

    def __init__(self, count: int | None) -> None:
        self.left = count

    def __call__(self) -> str | None:
        if self.left is not None:
            self.left -= 1
        return "SIGINT" if self.left == 0 else None


@contextlib.contextmanager
def without_curves() -> Iterator[None]:
    """Draw no curves in reports, nor beside them."""
    with mock.patch.object(page, "svg", return_value="<svg></svg>"), \
            mock.patch.object(results_picture, "build", return_value=b""):
        yield


@contextlib.contextmanager
def scaled_down(*, drawn: bool = False) -> Iterator[None]:
    """Make trainings cheap: a narrow network, 2 validations, previews of 2 pictures in 4 steps.

    A student has a discriminator from the first step on. The curves of the report are left out as well, unless `drawn`
    is set.
    """
    curves = contextlib.nullcontext() if drawn else without_curves()
    with mock.patch.dict(presets.LEVELS, nano={3: presets.Levels((16, 16, 32), (1, 1, 1), 16, 16, 32, 1)}), \
            mock.patch.dict(presets.TEXT, nano=(16, 1)), mock.patch.object(config, "VALIDATIONS", 2), \
            mock.patch.object(config, "PREVIEW_PICTURES", 2), mock.patch.dict(SAMPLER_STEPS, {"dpmpp-2m": 4}), \
            mock.patch.object(plan, "ADVERSARIAL_STEPS", 1), curves:
        yield


def run_directory(home: Path, name: str = "tiny") -> Path:
    return home / "models" / name


def of_kind(kind: type, stream: list[events.Event]) -> list:
    return [event for event in stream if isinstance(event, kind)]


def runner(command: Callable[..., tuple[int, str, str]], home: Path) -> Callable[..., str]:
    """A function that runs a command in this process, in `home` or another. → what it prints"""
    def run(*arguments: object, home: Path = home, expect: int = 0) -> str:
        with at_home(home), scaled_down():
            code, out, err = command(*arguments)
        assert code == expect, out + err
        return out + err

    return run


def size_of(path: Path | io.BytesIO) -> tuple[int, int]:
    """Width and height of a picture file."""
    with Image.open(path) as image:
        return image.size
