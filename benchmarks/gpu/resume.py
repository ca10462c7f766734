"""The same training twice, and once interrupted and resumed: with --deterministic the same weights, bit for bit."""

import functools
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from benchmarks.gpu import Settings, Units
from benchmarks.gpu.scenes import folder
from diffuse_cli.config import Machine, Recipe
from diffuse_cli.picture_size import Size
from diffuse_cli.storage import registry
from diffuse_cli.training import loop
from diffuse_cli.training.run import open_run

STEPS, STOP_AT = 60, 23


def units(settings: Settings) -> Units:
    trained = functools.cache(functools.partial(train, settings))

    def against_straight(name: str, *, stop_at: int | None, deterministic: bool = True) -> dict[str, Any]:
        moved = distance(trained("straight"), trained(name, stop_at=stop_at, deterministic=deterministic))
        return {"largest difference": moved, **({"passed": moved == 0} if deterministic else {})}

    return [("straight", lambda: {"tensors": len(trained("straight"))}),
            ("straight again", lambda: against_straight("again", stop_at=None)),
            ("interrupted", lambda: against_straight("interrupted", stop_at=2 if settings.tiny else STOP_AT)),
            *([] if settings.tiny else [
                ("without --deterministic", lambda: against_straight("free", stop_at=None, deterministic=False))])]


def train(settings: Settings, name: str, *, stop_at: int | None = None, deterministic: bool = True,
          ) -> dict[str, Tensor]:
    """Train a model, in two calls if it stops at a step. → its weights"""
    pictures = folder(settings, resolution=32, count=64 if settings.tiny else 512)
    recipe = Recipe(resolution=Size.of(16 if settings.tiny else 32), preset="nano", init="none", batch_size=4,
                    flip=True, steps=4 if settings.tiny else STEPS)
    machine = Machine(name=name, device=settings.device, deterministic=deterministic, preview_every="100%")
    left = [stop_at or 0]

    def should_stop() -> str | None:
        left[0] -= 1
        return "SIGINT" if left[0] == 0 else None

    for _ in range(1 if stop_at is None else 2):
        with open_run(pictures, recipe, machine) as run:
            for _event in loop.train(run, should_stop=should_stop):
                pass
    return load_file(registry.model_directory(name) / registry.MODEL_FILE)


def distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """The largest difference of two models' weights."""
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in one)
