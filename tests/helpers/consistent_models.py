"""Model files that are sound and sealed, but of any configuration that is admitted: strangers may send such files.

`configurations` draws them from a seed; `sealed` writes a file with random weights for one. Not a test itself.
"""

import random
from pathlib import Path

import torch
from random_models import CAPTIONS

from diffuse_cli.errors import UsageError
from diffuse_cli.model_config import (
    ATTENTIONS,
    PREDICTIONS,
    SCHEDULES,
    ModelConfig,
    NetworkConfig,
    Student,
    TextConfig,
    Upscaling,
)
from diffuse_cli.network.network import parameter_shapes
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.picture_size import Size
from diffuse_cli.storage import checkpoint
from diffuse_cli.storage.model_info import TrainingSummary

VOCABULARY = 280
UNUSUAL = {                                     # configurations that no preset makes, near what the checks allow
    "a single level of 8 widths": {"widths": (8,), "depths": (1,), "attention": ("none",), "groups": 1, "head_dim": 8},
    "one group for each channel": {"groups": 8, "widths": (8, 8), "head_dim": 1},
    "one pixel at the lowest level": {"widths": (8, 8, 8, 8), "depths": (1,) * 4, "attention": ("none",) * 4},
    "heads of one feature, a time of odd width": {"head_dim": 1, "time_width": 9},
    "an odd resolution": {"resolution": 9, "widths": (8,), "depths": (1,), "attention": ("full",)},
    "attention to the text alone": {"attention": ("text", "text")},
    "a text of odd width": {"text": (17, 1)},
    "no text, an own depth for each level": {"text": None, "depths": (1, 2), "time_width": 32},
    "no text, a fixed variance": {"text": None, "out_channels": 3},
    "grey": {"channels": 1, "out_channels": 2},
    "grey with alpha, without text": {"channels": 2, "out_channels": 4, "text": None},
    "colours and alpha, a fixed variance": {"channels": 4, "out_channels": 4},
    "several sizes": {"buckets": (Size(8, 8), Size(16, 8), Size(8, 24))},
    "distilled, by a teacher of an odd name": {"student": Student(evaluations=1, guidance=0.0, teacher="../\x1b[2J")},
    "distilled, colours and alpha": {"channels": 4, "out_channels": 8,
                                     "student": Student(evaluations=8, guidance=100.0, teacher="")},
}
UPSCALERS = {                                   # the same of models that enlarge pictures of 8 pixels
    "twice": {"upscaling": Upscaling(factor=2, small=Size(8, 8))},
    "four times": {"upscaling": Upscaling(factor=4, small=Size(8, 8)), "resolution": 16},
    "without text, a fixed variance": {"upscaling": Upscaling(factor=2, small=Size(8, 8)), "text": None,
                                       "attention": ("none", "full"), "out_channels": 3},
    "crops of odd sides": {"upscaling": Upscaling(factor=2, small=Size(8, 8)), "resolution": Size(15, 9),
                           "widths": (8,), "depths": (1,), "attention": ("none",)},
    "one level for each halving": {"upscaling": Upscaling(factor=4, small=Size(8, 8)), "widths": (8,) * 4,
                                   "depths": (1,) * 4, "attention": ("text",) * 4},
    "distilled": {"upscaling": Upscaling(factor=2, small=Size(8, 8)),
                  "student": Student(evaluations=1, guidance=1.0, teacher="x" * 200, start=0.001)},
}
BASE = {"resolution": 8, "widths": (8, 8), "depths": (1, 1), "attention": ("none", "full"), "head_dim": 4, "groups": 4,
        "time_width": 16, "text": (16, 1), "out_channels": 6}


def tokenizer():
    return train_tokenizer(CAPTIONS, vocabulary=VOCABULARY)


def configuration(*, schedule: str = "interpolated", prediction: str = "v", student: Student | None = None, **changes,
                  ) -> ModelConfig:
    """A small configuration with some entries changed. Raises UsageError if it is not admitted."""
    entries = {**BASE, **changes}
    text = entries["text"] and TextConfig(vocabulary=VOCABULARY, width=entries["text"][0], layers=entries["text"][1])
    return ModelConfig(network=NetworkConfig(**{**entries, "text": text}), schedule=schedule, prediction=prediction,
                       student=student)


def configurations(rng: random.Random, count: int) -> list[ModelConfig]:
    """`count` small configurations that are admitted, of all kinds but students and upscalers."""
    found: list[ModelConfig] = []
    while len(found) < count:
        levels, channels = rng.randint(1, 4), rng.choice((1, 2, 3, 4))
        try:
            found.append(configuration(
                schedule=rng.choice(SCHEDULES), prediction=rng.choice(PREDICTIONS),
                resolution=rng.choice((8, 9, 10, 12, 15, 16, 24)), groups=rng.choice((1, 2, 3, 4, 8, 9, 16)),
                widths=tuple(rng.choice((8, 9, 10, 12, 15, 16, 18, 24)) for _ in range(levels)),
                depths=tuple(rng.choice((1, 1, 2)) for _ in range(levels)),
                attention=tuple(rng.choice(ATTENTIONS) for _ in range(levels)),
                head_dim=rng.choice((1, 2, 3, 4, 8)), time_width=rng.choice((8, 9, 11, 32, 33)),
                text=rng.choice((None, (16, 1), (17, 1), (19, 2), (64, 1), (128, 1), (130, 1))),
                channels=channels, out_channels=channels * rng.choice((1, 2))))
        except UsageError:
            continue
    return found


def sealed(path: Path, config: ModelConfig, *, training: TrainingSummary | None = None, seed: int = 0) -> Path:
    """Write a sound, sealed model of random weights."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: 0.1 * torch.randn(shape, generator=generator)
               for name, shape in parameter_shapes(config.network).items()}
    checkpoint.save_model(
        path, config=config, weights=weights, tokenizer=tokenizer() if config.conditional else None,
        words={"red": 3, "car": 2} if config.conditional else {}, training=training or TrainingSummary(name="made"))
    return path
