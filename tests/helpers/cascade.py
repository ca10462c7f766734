"""A model and its upscaler that are small enough for tests."""

import dataclasses
import shutil
from pathlib import Path

import tiny

from diffuse_cli import events
from diffuse_cli.config import Recipe

RECIPE = Recipe(upscaler_for="tiny", factor=2, resolution=8, preset="nano", steps=6, batch_size=4)


@dataclasses.dataclass(frozen=True)
class Cascade:
    """A home with the model `tiny`, which draws 8 pixels, and `tiny-x2`, which makes 16 of them."""

    home: Path
    pictures: Path
    events: list[events.Event]

    def copy(self, home: Path, *models: str) -> Path:
        """A home with some of the models, by default the first alone."""
        for name in models or ("tiny",):
            shutil.copytree(tiny.run_directory(self.home, name), tiny.run_directory(home, name))
        home.chmod(0o700)
        return home


def train(trained: Path, pictures: Path, home: Path) -> Cascade:
    """Train `tiny-x2` in a copy of the home of `trained`, the run directory of `tiny`."""
    shutil.copytree(trained.parent.parent, home)
    home.chmod(0o700)
    with tiny.at_home(home):
        return Cascade(home, pictures, tiny.train(pictures, RECIPE, name=None, save_every="2"))
