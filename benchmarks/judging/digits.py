"""Handwritten digits: scikit-learn's 1,797 pictures of 8×8 pixels as class folders, and a judge of what was drawn.

    python -m benchmarks.judging.digits folder digits                 zero/ one/ … of 16×16 pictures
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
    digits = load_digits()
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = directory / NAMES[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(enlarged(image)).save(folder / f"{index:04d}.png")


def judge(name: str, *, each: int, seed: int, sheet: Path | None, report: Path | None) -> None:
    """An SVM trained on half of the real digits looks at `each` drawn ones of every class."""
    digits = load_digits()
    pixels = np.stack([enlarged(image) for image in digits.images]).reshape(len(digits.images), -1) / 255.0
    train_x, test_x, train_y, test_y = train_test_split(pixels, digits.target, test_size=0.5, random_state=0)
    svm = SVC(C=10).fit(train_x, train_y)
    model = checkpoint.load_model(registry.resolve(name), torch.device("cpu"))
    drawn = [picture.pixels for picture in generate.generate(
        model, [SampleRequest(prompt=name, count=each, seed=seed, sampling=Sampling(batch_size=40)) for name in NAMES])]
    grey = np.stack(drawn).mean(3).reshape(len(drawn), -1) / 255.0
    wanted = np.repeat(np.arange(10), each)
    answers = svm.predict(grey)
    figures = {"date": time.strftime("%Y-%m-%d"), "model": model.training, "count": len(drawn), "seed": seed,
               "real": float(svm.score(test_x, test_y)), "drawn": float((answers == wanted).mean()),
               "by_class": {name: float((answers == wanted)[wanted == k].mean()) for k, name in enumerate(NAMES)}}
    print(json.dumps(figures, indent=2))
    if report:
        report.write_text(json.dumps(figures, indent=2) + "\n")
    if sheet:
        sheet.parent.mkdir(parents=True, exist_ok=True)
        shown = np.stack([drawn[k * each + i] for k in range(10) for i in range(10)])
        sheet.write_bytes(image_files.encode(sheets.sheet(shown, columns=10)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("folder", "judge"))
    parser.add_argument("target", help="the directory to write, or the model to judge")
    parser.add_argument("--each", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.action == "folder":
        write_folder(Path(options.target))
    else:
        judge(options.target, each=options.each, seed=options.seed, sheet=options.sheet, report=options.json)


if __name__ == "__main__":
    main()
