"""Does a new network learn more per second if it sees its pictures at half the side first?

Trainings with different shares of such steps get the same time: each whole step that is left out leaves time for more
of the reduced ones. Seconds are of the CPU. Every validation is of whole pictures.

    python -m benchmarks.studies.half_side FOLDER --resolution 64 --steps 400 --shares 0 0.6 --seeds 0 1 2
"""

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.judging.judges import print_result
from diffuse_cli import train
from diffuse_cli.events import Validated
from diffuse_cli.training import half_side


def train_one(name: str, share: float, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train with this share of steps at half the side. → its losses and CPU seconds"""
    steps = round(options.steps / (1 - share * (1 - half_side.COST)))
    begun, losses = time.process_time(), []
    with mock.patch.multiple(half_side, SHARE=share, MIN_SIDE=options.resolution):
        for event in train(options.folder, name=name, resolution=options.resolution, preset=options.preset, steps=steps,
                           seed=seed, init="none", device="cpu", preview_every="100%", batch_size=16):
            if isinstance(event, Validated):
                losses.append(round(event.noise_mse, 5))
    return {"name": name, "share": share, "steps": steps, "noise_mse": losses[-1], "losses": losses,
            "cpu_seconds": round(time.process_time() - begun)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--steps", type=int, default=400, help="of the training with whole pictures alone")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, half_side.SHARE], help="of steps")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("half-side-work"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["DIFFUSE_HOME"] = str(options.work.absolute() / "home")
    options.work.mkdir(mode=0o700, parents=True, exist_ok=True)
    results = [print_result(f"{share:.0%} at half the side, seed {seed}", train_one(
        f"{options.folder.name}-{options.resolution}-{round(100 * share)}-{seed}", share, seed, options))
        for seed in options.seeds for share in options.shares]
    (options.work / "results.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
