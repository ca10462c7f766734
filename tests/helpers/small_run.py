"""The real training, from opening the run to delivering the model, with a trainer that costs next to nothing.

It trains one vector, which every step rotates and moves by the learning rate. So each state depends on all earlier
ones, and the result shows any step that was lost, repeated, or taken from another state or plan.
"""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import tiny
import torch

from diffuse_cli import events
from diffuse_cli.config import Machine, Recipe
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.dataset import open_dataset
from diffuse_cli.files import durable
from diffuse_cli.storage import home_directory, training_states
from diffuse_cli.training import loop, plan, prepare, previews
from diffuse_cli.training.optimizer import learning_rate_at
from diffuse_cli.training.run import open_run
from diffuse_cli.training.trainer import StepResult

STEPS = 3
RECIPE = Recipe(resolution=8, preset="nano", steps=STEPS, batch_size=2, captions="none")
MACHINE = Machine(name="small", device="cpu", precision="fp32", save_every="1", preview_every="100%")
PICTURES = 3                                    # too few for any to be held out


class Walker:
    """Replaces `Trainer`: the same attributes and methods, but no network."""

    micro_batch, precision, skipped, parameters, compiled = 2, "fp32", 0, 8, None
    state, has_values = SimpleNamespace(sharded=False), True
    network = SimpleNamespace(unet=SimpleNamespace(recompute=False))
    verdicts = SimpleNamespace(hear=lambda: None)

    def __init__(self, plan, batches, *, world=None, **_):
        self.plan, self.batches, self.world, self.global_step = plan, batches, world, 0
        self.weights = torch.ones(8)
        self.optimizer = SimpleNamespace(lr=plan.lr)
        self.averaged = SimpleNamespace(state_dict=lambda: {"w": self.weights / 2})

    def broadcast_state(self):
        """There is no other process."""

    def whole(self, **_):
        return contextlib.nullcontext()

    def step(self):
        self.global_step += 1
        self.weights = torch.roll(self.weights, 1) * 0.9 + learning_rate_at(self.plan, self.global_step)
        return StepResult(torch.zeros(3), torch.ones(()))

    def tensors(self):
        return {"weights.w": self.weights, "average.w": self.weights / 2}

    def record(self):
        return {"step": self.global_step}

    def restore(self, tensors, record):
        self.global_step, self.weights = record["step"], tensors["weights.w"].clone()


@contextlib.contextmanager
def cheap() -> Iterator[None]:
    """Train without a network, and without generating pictures or drawing curves."""
    blank = [SimpleNamespace(prompt="", pixels=np.zeros((8, 8, 3), np.uint8))]
    with mock.patch.object(prepare, "Trainer", Walker), mock.patch.object(previews, "generate", return_value=blank), \
            mock.patch.object(plan, "parameter_count", return_value=Walker.parameters), \
            tiny.without_curves():
        yield


def draw_pictures(directory: Path) -> Path:
    return tiny.draw_squares(directory / "pictures", PICTURES)


def decode(folder: Path) -> None:
    """Decode the pictures in advance: that happens in other processes, which no watcher sees."""
    list(open_dataset(find_pictures(folder), resolution=RECIPE.resolution, directory=home_directory.cache_directory()))


def train(folder: Path, recipe: Recipe = RECIPE) -> Iterator[events.Event]:
    """Start or resume the run, and train to its end."""
    with cheap(), open_run(folder, recipe, MACHINE) as run:
        yield from loop.train(run)


def forget(home: Path) -> None:
    """Remove everything but the decoded pictures."""
    shutil.rmtree(home / "models", ignore_errors=True)
    for path in (home / "last", *home.glob(f"{durable.TEMPORARY}*")):
        path.unlink(missing_ok=True)


def results(home: Path) -> dict[str, bytes]:
    """The bytes of the files that must not depend on interruptions."""
    directory = tiny.run_directory(home, "small")
    names = ("model.safetensors", training_states.state_path(directory, STEPS).name)
    return {name: path.read_bytes() if (path := directory / name).exists() else b"" for name in names}


def temporaries(home: Path) -> list[Path]:
    """Temporary files in the directories of runs, which a start must have removed.

    Elsewhere they stay: only the lock of a run tells whose they are.
    """
    return list((home / "models").rglob(f"{durable.TEMPORARY}*"))
