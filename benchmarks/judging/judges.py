"""Real pictures, and a judge of generated ones: a classifier of pictures that no contender was trained on.

The judge measures Fréchet distances to real pictures in two spaces: the classifier's features, and the principal
components of the real pictures' pixels. The same distance between two sets of real pictures is the floor, which no
contender can be expected to beat.
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

from benchmarks.judging.classifier import (
    COLOURS,
    OBJECTS,
    RENDERS_SEED,
    TEST_SEED,
    Classifier,
    agreement,
    caption,
    make_prompts,
    render_scenes,
    train_classifier,
)
from benchmarks.judging.digits import NAMES, enlarged
from diffuse_cli.evaluation.distances import frechet_distance
from diffuse_cli.pictures.pixels import from_pixels

COMPONENTS = 32                                 # number of principal components of the pixels


@dataclass(frozen=True)
class Labelled:
    """Pictures with their captions and labels, or only captions and labels."""

    pixels: np.ndarray                          # (N, R, R, 3) uint8; empty where there are no pictures
    captions: list[str]
    colours: Tensor                             # (N,) that the judge should see; all 0 for digits
    objects: Tensor                             # (N,) that the judge should see


def labelled_scenes(seed: int, count: int, *, resolution: int = 32) -> Labelled:
    """Scenes of the demo data, of all pairs of colour and object."""
    images, colours, objects = render_scenes(seed, count, resolution)
    captions = [caption(COLOURS[colour], OBJECTS[thing])
                for colour, thing in zip(colours.tolist(), objects.tolist(), strict=True)]
    return Labelled(images.numpy(), captions, colours, objects)


def labelled_digits(half: int) -> Labelled:
    """Half 0 or 1 of scikit-learn's digits at 16×16 pixels; each has pictures of every class."""
    digits = load_digits()
    chosen = np.arange(half, len(digits.images), 2)
    pixels = np.stack([enlarged(digits.images[k]) for k in chosen])[..., None].repeat(3, axis=3)
    objects = torch.from_numpy(digits.target[chosen]).long()
    return Labelled(pixels, [NAMES[k] for k in objects.tolist()], torch.zeros_like(objects), objects)


def labelled_prompts(data: str, count: int) -> Labelled:
    """Prompts for `count` pictures of "scenes" or "digits", with the labels that the pictures should have."""
    if data == "digits":
        objects = torch.arange(count) % len(NAMES)
        return Labelled(np.empty(0), [NAMES[k] for k in objects.tolist()], torch.zeros_like(objects), objects)
    prompts, colours, objects = make_prompts("seen", count)
    return Labelled(np.empty(0), prompts, colours, objects)


@dataclass(frozen=True)
class Judge:
    """A classifier, and the real pictures that generated ones are compared with."""

    classifier: Classifier
    real: Labelled

    @functools.cached_property
    def components(self) -> Callable[[np.ndarray], Tensor]:
        """The projection of pictures onto the first principal components of the real pictures' pixels."""
        flat = from_pixels(self.real.pixels).flatten(1).double()
        mean = flat.mean(0)
        centred = flat - mean
        if len(flat) < flat.shape[1]:           # the same directions from the smaller of the two products
            directions = centred.T @ torch.linalg.eigh(centred @ centred.T).eigenvectors[:, -COMPONENTS:]
            directions /= directions.norm(dim=0)
        else:
            directions = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -COMPONENTS:]
        return lambda other: (from_pixels(other).flatten(1).double() - mean) @ directions

    @torch.no_grad()
    def features(self, pixels: np.ndarray) -> Tensor:
        return torch.cat([self.classifier.embed(part) for part in from_pixels(pixels).split(256)])

    def score(self, generated: Labelled) -> dict[str, float]:
        """`agreement` with the labels, and the distances "features" and "pixels", ready for JSON.

        The reference is as many real pictures as there are generated ones, or all if there are fewer.
        """
        reference, project = self.real.pixels[: len(generated.pixels)], self.components
        shares = agreement(self.classifier, from_pixels(generated.pixels), generated.colours, generated.objects)
        return {**shares, "features": frechet_distance(self.features(reference), self.features(generated.pixels)),
                "pixels": frechet_distance(project(reference), project(generated.pixels))}


def make_judge(
    data: str, count: int, *, quick: bool = False, resolution: int = 32, file: Path | None = None,
) -> tuple[Judge, dict[str, Any]]:
    """A judge of "scenes" or "digits". → the judge, and its score of `count` other real pictures: the floor

    quick: train the classifier on fewer scenes. file: the .safetensors file that keeps the classifier between runs.
    """
    torch.manual_seed(0)
    if data == "digits":
        known, other = labelled_digits(0), labelled_digits(1)
        classifier, epochs = Classifier(1, len(NAMES)), 30
    else:
        known = labelled_scenes(RENDERS_SEED, 3_000 if quick else 24_000, resolution=resolution)
        other = labelled_scenes(TEST_SEED, count, resolution=resolution)
        classifier, epochs = Classifier(), 5 if quick else 8
    if file is not None and file.exists():
        classifier.load_state_dict(load_file(file))
    else:
        train_classifier(classifier, (torch.from_numpy(known.pixels), known.colours, known.objects), epochs=epochs)
        if file is not None:
            save_file(classifier.state_dict(), file)
    classifier.eval()
    judge = Judge(classifier, known)
    some = Labelled(other.pixels[:count], other.captions[:count], other.colours[:count], other.objects[:count])
    return judge, judge.score(some)


def print_result(name: str, result: dict[str, Any]) -> dict[str, Any]:
    """Print the figures of one contender in a line. → the result with its name, ready for JSON"""
    figures = ", ".join(f"{key} {value:.3f}" for key, value in result.items() if isinstance(value, float))
    print(f"{name}: {figures}", flush=True)
    return {"what": name, **result}
