"""How good drawn scenes are: obeyed prompts, and the distance from real scenes, as a classifier of scenes sees both.

The prompts are the captions of demo scenes that no model was trained on. The floor is the distance between two sets of
real ones. The classifier is that of `prompt_accuracy`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from prompt_accuracy import COLOURS, OBJECTS, agreement, make_classifier
from torch import Tensor

from diffuse_cli.engine import distances, pictures
from diffuse_cli.engine.data import scenes

SCENES_SEED = 4_000                             # none of training data, nor of the classifier


class Judge:
    """Looks at `count` pictures of a resolution; `floor` says what real ones get. `prompts` are what to draw."""

    def __init__(self, resolution: int, count: int, *, classifier: Path | None, renders: int, epochs: int) -> None:
        self.classifier, ceiling = make_classifier(resolution, renders=renders, epochs=epochs, kept=classifier)
        shown = [scenes.scene(SCENES_SEED, index) for index in range(3 * count)]
        self.prompts = [scene.caption for scene in shown[:count]]
        self.colours = torch.tensor([COLOURS.index(scene.colour) for scene in shown[:count]])
        self.objects = torch.tensor([OBJECTS.index(scene.object) for scene in shown[:count]])
        real = self._features(np.stack([np.asarray(scenes.draw(scene, resolution)) for scene in shown[count:]]))
        self.reference = real[:count]
        self.floor = {**ceiling, "frechet": distances.frechet_distance(real[:count].double(), real[count:].double())}

    def __call__(self, images: np.ndarray) -> dict[str, float]:
        """images: (count, R, R, 3) uint8, drawn from the prompts."""
        found = distances.compare(self.reference, self._features(images))
        return {"frechet": found.frechet, "precision": found.precision, "recall": found.recall,
                **agreement(self.classifier, pictures.from_pixels(images), self.colours, self.objects)}

    @torch.no_grad()
    def _features(self, images: np.ndarray) -> Tensor:
        parts = pictures.from_pixels(images).split(256)
        return torch.cat([self.classifier.pool(self.classifier.features(part)) for part in parts])


def judged(name: str, found: dict[str, Any], say: Callable[[str], None] = print) -> dict[str, Any]:
    """The same, said in one line."""
    say(f"{name}: " + ", ".join(f"{key} {value:.3f}" for key, value in found.items() if isinstance(value, float)))
    return {"what": name, **found}
