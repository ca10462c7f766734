"""A small classifier of demo scenes, trained on scenes that no model was trained on: does a picture show its prompt?

The scenes that it is trained on and tested on have seeds of their own, and all pairs of colour and object.
"""

import itertools
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.pictures import pixels

COLOURS = tuple(scenes.COLOURS)
OBJECTS = scenes.OBJECTS
RENDERS_SEED, TEST_SEED, PROMPTS_SEED = 1_000, 2_000, 3_000          # none of them a seed of training data
RENDERS, EPOCHS = 24_000, 12                                         # scenes of its training, and how often each
TEST_RENDERS = 2_000                                                 # scenes that the classifier is tested on


class Classifier(nn.Module):
    """(N, 3, R, R) in [-1, 1] → logits of the colour (N, 12) and of the object (N, 24)."""

    def __init__(self, colours: int = len(COLOURS), objects: int = len(OBJECTS)) -> None:
        super().__init__()
        widths = (3, 32, 64, 128)
        self.features = nn.Sequential(*(
            layer for i, o in itertools.pairwise(widths)
            for layer in (nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU(), nn.MaxPool2d(2))))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(2048, 256), nn.ReLU())
        self.colour, self.object = nn.Linear(256, colours), nn.Linear(256, objects)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        features = self.embed(image)
        return self.colour(features), self.object(features)

    def embed(self, image: Tensor) -> Tensor:
        """The features before the two output layers, (N, 256)."""
        features: Tensor = self.pool(self.features(image))
        return features


def render_scenes(seed: int, count: int, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scenes of all pairs. → pictures uint8 (N, R, R, 3), colours (N,), objects (N,)"""
    chosen = [scenes.random_scene(seed, index, pairs="all") for index in range(count)]
    images = np.stack([np.asarray(scenes.draw(scene, resolution)) for scene in chosen])
    return (torch.from_numpy(images), torch.tensor([COLOURS.index(scene.colour) for scene in chosen]),
            torch.tensor([OBJECTS.index(scene.object) for scene in chosen]))


def make_classifier(resolution: int, *, file: Path | None) -> tuple[Classifier, dict[str, float]]:
    """Load the classifier from `file` if it exists; else train it on RENDERS scenes, and save it there if given.

    → the classifier, and its `agreement` on TEST_RENDERS other scenes
    """
    torch.manual_seed(0)
    classifier = Classifier()
    if file is not None and file.exists():
        classifier.load_state_dict(load_file(file))
    else:
        train_classifier(classifier, render_scenes(RENDERS_SEED, RENDERS, resolution), epochs=EPOCHS)
        if file is not None:
            save_file(classifier.state_dict(), file)
    classifier.eval()
    images, colours, objects = render_scenes(TEST_SEED, TEST_RENDERS, resolution)
    return classifier, agreement(classifier, pixels.from_pixels(images.numpy()), colours, objects)


def train_classifier(classifier: Classifier, data: tuple[Tensor, Tensor, Tensor], *, epochs: int) -> None:
    """Train with AdamW and one cycle of the learning rate, on pictures with some noise: generated ones have some too.

    data: pictures uint8 (N, R, R, 3), colours (N,), objects (N,), as `render_scenes` returns them.
    """
    images, colours, objects = data
    renders = len(images)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * (renders // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=2e-3, total_steps=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(renders)[: renders // 128 * 128].split(128):
            batch = pixels.from_pixels(images[chosen].numpy())
            batch = batch + 0.05 * torch.randn_like(batch)
            colour, thing = classifier(batch)
            loss = F.cross_entropy(colour, colours[chosen]) + F.cross_entropy(thing, objects[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def agreement(classifier: Classifier, images: Tensor, colours: Tensor, objects: Tensor) -> dict[str, float]:
    """Compare the classifier's answers with the labels of images (N, 3, R, R) in [-1, 1].

    → shares of pictures with the right colour, the right object and both, and the mean probability of the right object
    """
    answers = [classifier(part) for part in images.split(256)]
    colour = torch.cat([answer[0] for answer in answers]).argmax(1) == colours
    logits = torch.cat([answer[1] for answer in answers])
    thing = logits.argmax(1) == objects
    confidence = logits.softmax(1)[torch.arange(len(objects)), objects]
    return {"colour": colour.float().mean().item(), "object": thing.float().mean().item(),
            "both": (colour & thing).float().mean().item(), "confidence": confidence.mean().item()}


def make_prompts(pairs: str, count: int) -> tuple[list[str], Tensor, Tensor]:
    """`count` prompts such as "a red car", spread evenly over the pairs. → prompts, colours (N,), objects (N,)

    pairs: "seen" (those of the demo data) or "held-out".
    """
    choices = sorted(pair for pair in scenes.PAIRS if (pair in scenes.HELD_OUT) == (pairs == "held-out"))
    order = np.random.default_rng(PROMPTS_SEED).permutation(len(choices))
    chosen = [choices[order[index % len(choices)]] for index in range(count)]
    return ([caption(colour, thing) for colour, thing in chosen],
            torch.tensor([COLOURS.index(colour) for colour, _ in chosen]),
            torch.tensor([OBJECTS.index(thing) for _, thing in chosen]))


def caption(colour: str, thing: str) -> str:
    """The shortest caption: "a red car"."""
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {thing}"
