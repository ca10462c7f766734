"""Does a network learn more per second if it sees its pictures at half the side first?

For the first part of a training, a picture and its noise are averaged over squares of two by two pixels. That leaves
half of the noise: sigma/alpha of the small noisy picture is half that of the large one, whose time the network is told.
The convolutions are the same at both sizes. The rest of the training sees whole pictures, and so does every validation.
Seconds are of the CPU, and of the training alone; `--steps` belongs to the training without small pictures, and the
other one gets as many steps more as its small ones are cheaper, by a measurement of both at the start.

    python -m benchmarks.studies.low_resolution_first FOLDER --resolution 64 --steps 600 --shares 0 0.5 --seeds 0 1 2
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.judging.judges import print_result
from diffuse_cli import train
from diffuse_cli.denoiser import network_time
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.events import Validated
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.loss import Batch, Coefficients

TRIED = 12                                      # steps of each size whose cost is measured


def halved(batch: Batch, batches: Batches) -> Batch:
    """A batch at half its side, with half its sigma/alpha."""
    model = batches.plan.model
    schedule = make_schedule(model.schedule, model.network.resolution.side)
    level = schedule.time_of(schedule.at(batch.t).log_snr + 2 * math.log(2))
    coefficients = Coefficients.of(schedule, level)._replace(time=network_time(batch.t).float())
    return Batch(image=F.avg_pool2d(batch.image, 2), noise=2 * F.avg_pool2d(batch.noise, 2), t=level,
                 tokens=batch.tokens, caption_of=batch.caption_of, coefficients=coefficients)


@contextlib.contextmanager
def small_until(last: int) -> Iterator[list[float]]:
    """The steps before `last` draw small pictures. → the CPU seconds at which batches were drawn"""
    draw, seconds = Batches.draw, []

    def patched(self: Batches, step: int, start: int, count: int) -> tuple[Batch, Tensor]:
        seconds.append(time.process_time())
        batch, keys = draw(self, step, start, count)
        return halved(batch, self) if step < last else batch, keys

    with mock.patch.object(Batches, "draw", patched):
        yield seconds


def train_one(name: str, small: int, steps: int, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Train with `small` steps of small pictures among `steps`. → its losses and CPU seconds"""
    begun, losses = time.process_time(), []
    with small_until(small):
        for event in train(options.folder, name=name, resolution=options.resolution, preset=options.preset, steps=steps,
                           seed=seed, init=options.init, device="cpu", preview_every="100%", batch_size=16):
            if isinstance(event, Validated):
                losses.append(round(event.noise_mse, 5))
    return {"name": name, "small": small, "steps": steps, "noise_mse": losses[-1], "losses": losses,
            "cpu_seconds": round(time.process_time() - begun)}


def relative_cost(options: argparse.Namespace) -> float:
    """CPU seconds of a step with small pictures, relative to those of a whole one."""
    costs = []
    for small in (0, 10**9):
        with small_until(small) as seconds:
            list(train(options.folder, name=f"tried-{small}", resolution=options.resolution, preset=options.preset,
                       steps=2 * TRIED, seed=0, init=options.init, device="cpu", preview_every="100%", batch_size=16))
        costs.append(statistics.median(after - before for before, after in itertools.pairwise(seconds[TRIED:])))
    return costs[1] / costs[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--preset", default="nano")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.5], help="of the time, for small pictures")
    parser.add_argument("--cost", type=float, help="of a step with small pictures, relative to a whole one")
    parser.add_argument("--init", default="none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, default=Path("low-resolution-work"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["DIFFUSE_HOME"] = str(options.work.absolute() / "home")
    options.work.mkdir(parents=True, exist_ok=True)
    cost = options.cost or relative_cost(options)
    print_result("cost of a small step", {"relative": round(cost, 3)})
    results = []
    for seed in options.seeds:
        for share in options.shares:
            small = round(share * options.steps / cost)
            steps = small + round((1 - share) * options.steps)
            results.append(print_result(f"{share:.0%} small, seed {seed}", train_one(
                f"{options.folder.name}-{options.init}-{round(100 * share)}-{seed}", small, steps, seed, options)))
    (options.work / "results.json").write_text(json.dumps({"cost": cost, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
