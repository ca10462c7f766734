"""Handwritten digits: scikit-learn's 1,797 pictures of 8×8 pixels as folders, and a judge of generated ones.

    python -m benchmarks.judging.digits folder digits         folders zero, one, … of pictures of 16×16 pixels
    diffuse train digits --time 6m --name digits
    python -m benchmarks.judging.digits judge digits --sheet docs/pictures/digits.png
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

from diffuse_cli.config import Sampling
from diffuse_cli.pictures import image_files, sheets
from diffuse_cli.sampling import generate
from diffuse_cli.sampling.request import SampleRequest
from diffuse_cli.storage import checkpoint, registry

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def enlarged(image: np.ndarray) -> np.ndarray:
    """(8, 8) in 0 … 16 → (16, 16) uint8."""
    small = Image.fromarray((image * 255 / 16).round().astype(np.uint8))
    return np.asarray(small.resize((16, 16), Image.Resampling.BICUBIC))


def write_folder(directory: Path) -> None:
    """A PNG of every digit, in the folder of its class."""
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = directory / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(enlarged(image)).save(folder / f"{index:04d}.png")


def judge(model_name: str, *, each: int, seed: int, sheet: Path | None, report: Path | None) -> None:
    """Generate `each` pictures of every class, and count how many an SVM trained on half of the real digits recognises.

    sheet: file for a picture of ten of each class; report: file for the figures as JSON. Needs a model of 16×16 pixels.
    """
    # An SVM, tested on the other half.
    digits = load_digits()
    pixels = np.stack([enlarged(image) for image in digits.images]).reshape(len(digits.images), -1) / 255.0
    train_x, test_x, train_y, test_y = train_test_split(pixels, digits.target, test_size=0.5, random_state=0)
    svm = SVC(C=10).fit(train_x, train_y)

    # Its answers to generated pictures.
    model = checkpoint.load_model(registry.resolve(model_name), torch.device("cpu"))
    generated = [sample.pixels for sample in generate.generate(
        model, [SampleRequest(prompt=name, count=each, seed=seed, sampling=Sampling(batch_size=40)) for name in NAMES])]
    grey = np.stack(generated).mean(3).reshape(len(generated), -1) / 255.0
    labels = np.repeat(np.arange(10), each)
    right = svm.predict(grey) == labels

    figures = {"date": time.strftime("%Y-%m-%d"), "model": model.training.to_json(), "count": len(generated),
               "seed": seed, "real": float(svm.score(test_x, test_y)), "drawn": float(right.mean()),
               "by_class": {name: float(right[labels == k].mean()) for k, name in enumerate(NAMES)}}
    print(json.dumps(figures, indent=2))
    if report:
        report.write_text(json.dumps(figures, indent=2) + "\n")
    if sheet:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        chosen = np.stack([generated[k * each + i] for k in range(10) for i in range(10)])
        sheet.write_bytes(image_files.encode(sheets.tile(chosen, columns=10)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("folder", "judge"))
    parser.add_argument("target", help="the directory to write, or the model to judge")
    parser.add_argument("--each", type=int, default=40, help="number of pictures of each class")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path, help="write ten pictures of each class to this file")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if options.action == "folder":
        write_folder(Path(options.target))
    else:
        judge(options.target, each=options.each, seed=options.seed, sheet=options.sheet, report=options.json)


if __name__ == "__main__":
    main()
