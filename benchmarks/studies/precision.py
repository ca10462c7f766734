"""How much does `--precision bf16` change pictures? The same prompts and seeds are sampled in float32 and in bf16.

Reports how far the pixels move, and how often a classifier sees the right colour and object in each precision.

    python -m benchmarks.studies.precision demo --classifier classifier.safetensors --count 256
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.judging.classifier import agreement, make_classifier, make_prompts
from benchmarks.studies.prompt_accuracy import generate_pictures
from diffuse_cli import __version__
from diffuse_cli.config import Sampling
from diffuse_cli.pictures import pixels
from diffuse_cli.storage import checkpoint, registry


def differences(exact: np.ndarray, rounded: np.ndarray) -> dict[str, float]:
    """Mean absolute differences of two stacks of pictures, (N, R, R, 3) uint8, in levels of 255.

    → their mean, median and largest value over the pictures, and the mean difference of two different pictures
    """
    difference = np.abs(exact.astype(int) - rounded.astype(int)).reshape(len(exact), -1).mean(1)
    others = np.abs(exact.astype(int) - np.roll(exact, 1, axis=0).astype(int)).mean()
    return {"mean": float(difference.mean()), "median": float(np.median(difference)),
            "largest": float(difference.max()), "between_pictures": float(others)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=256, help="number of pictures")
    parser.add_argument("--classifier", type=Path, required=True,
                        help="the .safetensors file of prompt_accuracy's classifier; it is trained if there is none")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()

    model = checkpoint.load_model(registry.resolve(options.model), torch.device("cpu"))
    classifier, _ = make_classifier(model.config.network.resolution.width, file=options.classifier)
    prompts, colours, objects = make_prompts("seen", options.count)
    report: dict[str, Any] = {"date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__,
                              "sha256": model.sha256, "count": options.count}
    images = {}
    for precision in ("fp32", "bf16"):
        begun = time.process_time()
        images[precision] = generate_pictures(model, prompts, 0, Sampling(batch_size=32, precision=precision))
        report[precision] = {"cpu_seconds": time.process_time() - begun, **agreement(
            classifier, pixels.from_pixels(images[precision]), colours, objects)}
    report["moved"] = differences(images["fp32"], images["bf16"])
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
