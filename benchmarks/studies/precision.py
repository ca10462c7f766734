"""What does `--precision bf16` do to pictures? The same prompts and seeds drawn in float32 and in bf16.

How far pixels move, and what a classifier sees in both (that of prompt_accuracy.py, which it must know).

    python -m benchmarks.studies.precision demo --classifier classifier.safetensors --count 256
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.studies.prompt_accuracy import agreement, draw, make_classifier, prompts_of
from diffuse_cli import __version__
from diffuse_cli.config import Sampling
from diffuse_cli.pictures import pixels
from diffuse_cli.storage import checkpoint, registry


def moved(exact: np.ndarray, rounded: np.ndarray) -> dict[str, float]:
    """Two stacks of pictures, uint8 → the mean difference, that of the picture that moved most, and that of two
    different pictures, all in levels of 255."""
    difference = np.abs(exact.astype(int) - rounded.astype(int)).reshape(len(exact), -1).mean(1)
    others = np.abs(exact.astype(int) - np.roll(exact, 1, axis=0).astype(int)).mean()
    return {"mean": float(difference.mean()), "median": float(np.median(difference)),
            "largest": float(difference.max()), "between_pictures": float(others)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=256)
    parser.add_argument("--classifier", type=Path, required=True, help="kept by prompt_accuracy.py, or made and kept")
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()

    model = checkpoint.load_model(registry.resolve(options.model), torch.device("cpu"))
    classifier, _ = make_classifier(model.config.network.resolution, renders=24_000, epochs=12, kept=options.classifier)
    prompts, colours, objects = prompts_of("seen", options.count)
    drawn, report = {}, {"date": time.strftime("%Y-%m-%d"), "version": __version__, "torch": torch.__version__,
                         "sha256": model.sha256, "count": options.count}
    for precision in ("fp32", "bf16"):
        begun = time.process_time()
        drawn[precision] = np.stack(draw(model, prompts, 0, Sampling(batch_size=32, precision=precision)))
        report[precision] = {"cpu_seconds": time.process_time() - begun, **agreement(
            classifier, pixels.from_pixels(drawn[precision]), colours, objects)}
    report["moved"] = moved(drawn["fp32"], drawn["bf16"])
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
