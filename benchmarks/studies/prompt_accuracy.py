"""Are prompts obeyed? Ask a model for colours and objects of the demo data, and let a classifier look at the pictures.

The classifier is a small convolutional network trained here, on freshly drawn scenes that no model was trained on
(another seed, all pairs of colour and object), and tested on others; its own accuracy is the ceiling of the figures.

    python -m benchmarks.studies.prompt_accuracy demo32 --count 400 --sheet docs/pictures/demo32.png
"""

import argparse
import itertools
import json
import platform
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diffuse_cli import __version__
from diffuse_cli.config import Sampling
from diffuse_cli.data.demo_scenes import scenes
from diffuse_cli.pictures import image_files, pixels, sheets
from diffuse_cli.sampling import generate
from diffuse_cli.storage import checkpoint, registry

COLOURS = tuple(scenes.COLOURS)
OBJECTS = scenes.OBJECTS
RENDERS_SEED, TEST_SEED, PROMPTS_SEED = 1_000, 2_000, 3_000          # none of them a seed of training data


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
        """The last features before the answers, (N, 256)."""
        features: Tensor = self.pool(self.features(image))
        return features


def render(seed: int, count: int, resolution: int) -> tuple[Tensor, Tensor, Tensor]:
    """(pictures uint8 (N, R, R, 3), colours (N,), objects (N,)) of all pairs."""
    chosen = [scenes.scene(seed, index, pairs="all") for index in range(count)]
    images = np.stack([np.asarray(scenes.draw(scene, resolution)) for scene in chosen])
    return (torch.from_numpy(images), torch.tensor([COLOURS.index(scene.colour) for scene in chosen]),
            torch.tensor([OBJECTS.index(scene.object) for scene in chosen]))


def make_classifier(
    resolution: int, *, renders: int, epochs: int, kept: Path | None
) -> tuple[Classifier, dict[str, float]]:
    """Train on `renders` scenes, or load the one `kept` from last time; → it and its accuracy on 2,000 others."""
    torch.manual_seed(0)
    classifier = Classifier()
    if kept is not None and kept.exists():
        classifier.load_state_dict(load_file(kept))
    else:
        train_classifier(classifier, render(RENDERS_SEED, renders, resolution), epochs=epochs)
        if kept is not None:
            save_file(classifier.state_dict(), kept)
    classifier.eval()
    images, colours, objects = render(TEST_SEED, 2_000, resolution)
    return classifier, agreement(classifier, pixels.from_pixels(images.numpy()), colours, objects)


def train_classifier(classifier: Classifier, data: tuple[Tensor, Tensor, Tensor], *, epochs: int) -> None:
    """AdamW with one cycle of the learning rate, on noised pictures: a sampler's are not quite clean."""
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
    """Shares of pictures whose colour, object, and both are seen as wanted; mean confidence in the wanted object."""
    answers = [classifier(part) for part in images.split(256)]
    colour = torch.cat([answer[0] for answer in answers]).argmax(1) == colours
    logits = torch.cat([answer[1] for answer in answers])
    thing = logits.argmax(1) == objects
    confidence = logits.softmax(1)[torch.arange(len(objects)), objects]
    return {"colour": colour.float().mean().item(), "object": thing.float().mean().item(),
            "both": (colour & thing).float().mean().item(), "confidence": confidence.mean().item()}


def prompts_of(pairs: str, count: int) -> tuple[list[str], Tensor, Tensor]:
    """`count` prompts "a red car" over the seen or the held-out pairs, evenly."""
    wanted = sorted(pair for pair in scenes.PAIRS if (pair in scenes.HELD_OUT) == (pairs == "held-out"))
    order = np.random.default_rng(PROMPTS_SEED).permutation(len(wanted))
    chosen = [wanted[order[index % len(wanted)]] for index in range(count)]
    texts = [f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} {thing}" for colour, thing in chosen]
    return (texts, torch.tensor([COLOURS.index(colour) for colour, _ in chosen]),
            torch.tensor([OBJECTS.index(thing) for _, thing in chosen]))


def draw(model: checkpoint.Model, prompts: list[str], seed: int, sampling: Sampling) -> list[np.ndarray]:
    """One picture of each prompt, each with a seed of its own."""
    text, null = generate.encode_prompts(model, prompts)
    assert text is not None
    result: list[np.ndarray] = []
    for start in range(0, len(prompts), sampling.batch_size):
        part = text[start : start + sampling.batch_size]
        seeds = [seed + start + k for k in range(len(part))]
        *_, last = generate.reverse_diffusion(model.network, model.config, text=part, null=null, seeds=seeds,
                                              sampling=sampling)
        result.extend(pixels.to_pixels(last.noisy))
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=400, help="pictures of each kind of pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sampler", default="dpmpp-2m")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--guidance", type=float, nargs="*", default=[Sampling.guidance])
    parser.add_argument("--renders", type=int, default=24_000)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--classifier", type=Path, help="keep the classifier in this .safetensors file")
    parser.add_argument("--sheet", type=Path, help="write the first 64 pictures of seen pairs here")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    model = checkpoint.load_model(registry.resolve(options.model), torch.device("cpu"))
    begun = time.monotonic()
    classifier, ceiling = make_classifier(
        model.config.network.resolution, renders=options.renders, epochs=options.epochs, kept=options.classifier)
    results = [{"pairs": "real scenes", **ceiling}]
    print(f"classifier ready after {time.monotonic() - begun:.0f} s: {results[0]}", flush=True)
    for guidance in options.guidance:
        sampling = Sampling(sampler=options.sampler, steps=options.steps, guidance=guidance, batch_size=32)
        for pairs in ("seen", "held-out"):
            prompts, colours, objects = prompts_of(pairs, options.count)
            images = np.stack(draw(model, prompts, options.seed, sampling))
            figures = agreement(classifier, pixels.from_pixels(images), colours, objects)
            results.append({"pairs": pairs, "guidance": guidance, "sampler": options.sampler,
                            "steps": sampling.number_of_steps, "count": options.count, **figures})
            print(results[-1], flush=True)
            if options.sheet and pairs == "seen":
                options.sheet.parent.mkdir(parents=True, exist_ok=True)
                options.sheet.write_bytes(image_files.encode(sheets.sheet(images[:64])))
    report = {"date": time.strftime("%Y-%m-%d"), "model": model.training, "sha256": model.sha256, "seed": options.seed,
              "version": __version__, "torch": torch.__version__, "machine": platform.machine(), "results": results}
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
