"""What real pictures are, and a judge of drawn ones: a classifier trained on pictures that no contender was trained on.

Its features, and the pictures' own principal components, are what Fréchet distances are measured in; each beside the
distance of real pictures from other real ones, which no contender can be expected to beat.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from sklearn.datasets import load_digits
from torch import Tensor

from benchmarks.judging.digits import NAMES, enlarged
from benchmarks.studies.prompt_accuracy import (
    COLOURS,
    OBJECTS,
    RENDERS_SEED,
    TEST_SEED,
    Classifier,
    agreement,
    prompts_of,
    render,
    train_classifier,
)
from diffuse_cli.evaluation.distances import frechet_distance
from diffuse_cli.pictures.pixels import from_pixels

COMPONENTS = 32                                 # of the pixels


@dataclass(frozen=True)
class Labelled:
    """Pictures (N, R, R, 3) uint8, captions, and what the judge should see: colours (all 0 for digits) and objects."""

    pixels: np.ndarray
    captions: list[str]
    colours: Tensor
    objects: Tensor


def scenes_of(seed: int, count: int, *, resolution: int = 32) -> Labelled:
    """The demo data: scenes of all pairs."""
    images, colours, objects = render(seed, count, resolution)
    captions = [caption(COLOURS[colour], OBJECTS[thing])
                for colour, thing in zip(colours.tolist(), objects.tolist(), strict=True)]
    return Labelled(images.numpy(), captions, colours, objects)


def caption(colour: str, thing: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {thing}"


def digits_of(half: int) -> Labelled:
    """One half of scikit-learn's digits, 16 px; both have every class."""
    digits = load_digits()
    chosen = np.arange(half, len(digits.images), 2)
    pixels = np.stack([enlarged(digits.images[k]) for k in chosen])[..., None].repeat(3, axis=3)
    objects = torch.from_numpy(digits.target[chosen]).long()
    return Labelled(pixels, [NAMES[k] for k in objects.tolist()], torch.zeros_like(objects), objects)


@dataclass(frozen=True)
class Judge:
    """`ask` of drawn pixels and what they should show: distances and shares, ready for JSON."""

    classifier: Classifier
    real: Labelled

    @functools.cached_property
    def components(self) -> Callable[[np.ndarray], Tensor]:
        """Projection to the first principal components of the real pictures' pixels."""
        flat = from_pixels(self.real.pixels).flatten(1).double()
        mean = flat.mean(0)
        directions = torch.linalg.eigh((flat - mean).T @ (flat - mean)).eigenvectors[:, -COMPONENTS:]
        return lambda other: (from_pixels(other).flatten(1).double() - mean) @ directions

    @torch.no_grad()
    def features(self, pixels: np.ndarray) -> Tensor:
        return torch.cat([self.classifier.embed(part) for part in from_pixels(pixels).split(256)])

    def ask(self, drawn: Labelled) -> dict[str, float]:
        """Everything in float; the reference is as many real pictures as were drawn, or all there are."""
        reference, project = self.real.pixels[: len(drawn.pixels)], self.components
        shares = agreement(self.classifier, from_pixels(drawn.pixels), drawn.colours, drawn.objects)
        return {**shares, "features": frechet_distance(self.features(reference), self.features(drawn.pixels)),
                "pixels": frechet_distance(project(reference), project(drawn.pixels))}


def judge_of(
    data: str, count: int, *, quick: bool = False, resolution: int = 32, kept: Path | None = None,
) -> tuple[Judge, dict[str, Any]]:
    """A judge of "scenes" or "digits", and what it says of `count` other real pictures: the floor.

    `kept`: a .safetensors file for the classifier, from one time to the next.
    """
    torch.manual_seed(0)
    if data == "digits":
        known, other = digits_of(0), digits_of(1)
        classifier, epochs = Classifier(1, len(NAMES)), 30
    else:
        known = scenes_of(RENDERS_SEED, 3_000 if quick else 24_000, resolution=resolution)
        other = scenes_of(TEST_SEED, count, resolution=resolution)
        classifier, epochs = Classifier(), 5 if quick else 8
    if kept is not None and kept.exists():
        classifier.load_state_dict(load_file(kept))
    else:
        train_classifier(classifier, (torch.from_numpy(known.pixels), known.colours, known.objects), epochs=epochs)
        if kept is not None:
            save_file(classifier.state_dict(), kept)
    classifier.eval()
    judge = Judge(classifier, known)
    some = Labelled(other.pixels[:count], other.captions[:count], other.colours[:count], other.objects[:count])
    return judge, judge.ask(some)


def wanted(data: str, count: int) -> Labelled:
    """What to draw: prompts with the answers, without pictures."""
    if data == "digits":
        objects = torch.arange(count) % len(NAMES)
        return Labelled(np.empty(0), [NAMES[k] for k in objects.tolist()], torch.zeros_like(objects), objects)
    prompts, colours, objects = prompts_of("seen", count)
    return Labelled(np.empty(0), prompts, colours, objects)


def said(name: str, found: dict[str, Any]) -> dict[str, Any]:
    """What was found of one contender, told in one line."""
    figures = ", ".join(f"{key} {value:.3f}" for key, value in found.items() if isinstance(value, float))
    print(f"{name}: {figures}", flush=True)
    return {"what": name, **found}
