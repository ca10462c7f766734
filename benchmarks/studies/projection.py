"""How would a step divide among more GPUs than anybody here has measured? Arithmetic on counts.

    python -m benchmarks.studies.projection

Counted are the FLOPs of the network (forward, and twice as many backward), the bytes that a picture keeps for the
backward pass, the FLOPs of Muon, and the launches of a step (docs/scaling.md). A GPU computes its share of the batch in
the time of its FLOPs or of its memory traffic, whichever is longer; then it computes the steps of the matrices of Muon
that it owns, and reads and writes the weights, their average and the moments. It waits where the launches take longer
than that. Meanwhile a ring all-reduce moves every gradient (4 bytes) twice; the GPU waits for the part of it that does
not hide behind the backward pass (2/3 of the computing), and for Muon's steps (2 bytes, once). The options are the
assumptions.
"""

import argparse
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffuse_cli.model_config import NetworkConfig
from diffuse_cli.network.network import activation_bytes, flops, parameter_count, parameter_shapes
from diffuse_cli.network.presets import network_config
from diffuse_cli.training.muon import orthogonal_steps
from diffuse_cli.training.muon_shares import cost, owners
from diffuse_cli.training.optimizer import FIRST_AND_LAST_LAYERS, TEXT_LAYERS

VOCABULARY = 4096                               # tokens
LAUNCHES = {"small": 4500, "base": 5327, "large": 5947, "huge": 7345}      # of a training step that is not compiled
PASSES = 4                                      # times that a kept byte moves: written, read, and so is its gradient
UPDATE_BYTES = 36                               # for each parameter: all of its numbers read and written by an update


@dataclass(frozen=True)
class Counts:
    """What was counted of a network: FLOPs and bytes of a picture, FLOPs of Muon, parameters, launches."""

    picture: float
    traffic: float
    muon: float
    parameters: int
    launches: int
    matrices: tuple[torch.Size, ...] = ()       # those of Muon

    def muon_share(self, gpus: int) -> float:
        """The largest share of Muon's arithmetic that one of so many GPUs has."""
        costs = [0] * gpus
        for shape, owner in zip(self.matrices, owners(self.matrices, gpus), strict=True):
            costs[owner] += cost(shape)
        return max(costs) / max(1, sum(costs))


def count(preset: str, config: NetworkConfig) -> Counts:
    return Counts(3 * flops(config), PASSES * activation_bytes(config), muon_flops(config), parameter_count(config),
                  LAUNCHES[preset], tuple(muon_shapes(config)))


def muon_shapes(config: NetworkConfig) -> list[torch.Size]:
    """The shapes of the matrices and kernels that Muon trains."""
    return [torch.Size(shape) for name, shape in parameter_shapes(config).items()
            if len(shape) >= 2 and not name.startswith((*FIRST_AND_LAST_LAYERS, *TEXT_LAYERS))]


def muon_flops(config: NetworkConfig) -> int:
    """FLOPs of Muon in one step, on the meta device."""
    matrices = [torch.empty(shape, device="meta") for shape in muon_shapes(config)]
    with FlopCounterMode(display=False) as counter:
        orthogonal_steps(matrices, torch.bfloat16)
    return counter.get_total_flops()


def step(counts: Counts, pictures: float, *, gpus: int, options: argparse.Namespace) -> tuple[float, float]:
    """The time of a step with so many pictures on each GPU. → (seconds, share of them spent on pictures)"""
    rate, memory = options.teraflops * 1e12, options.memory * 1e9
    compute = pictures * max(counts.picture / rate, counts.traffic / memory)
    update = counts.muon * counts.muon_share(gpus) / rate + UPDATE_BYTES * counts.parameters / memory
    bandwidth = options.inside if gpus <= 8 else options.between
    exchange = 2 * (gpus - 1) / gpus * 4 * counts.parameters / (bandwidth * 1e9)
    waiting = max(0.0, exchange - compute * 2 / 3) + exchange / 4
    total = max(compute + update, counts.launches * options.launch / 1e6) + waiting
    return total, compute / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teraflops", type=float, default=150.0, help="TFLOP/s that one GPU sustains")
    parser.add_argument("--memory", type=float, default=2000.0, help="GB/s between a GPU and its memory")
    parser.add_argument("--launch", type=float, default=5.0, help="microseconds to begin an operation")
    parser.add_argument("--inside", type=float, default=300.0, help="GB/s from one GPU to the others of its machine")
    parser.add_argument("--between", type=float, default=40.0, help="GB/s from one GPU to those of other machines")
    options = parser.parse_args()
    print("| preset | px | million parameters | GFLOP/picture | MB moved/picture | TFLOP of Muon | batch | 1 GPU "
          "| 8 GPUs | 64 GPUs | 512 GPUs |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for preset, resolution in (("small", 64), ("base", 64), ("large", 64), ("large", 128), ("huge", 64)):
        counts = count(preset, network_config(preset, resolution, vocabulary=VOCABULARY, learned_variance=True))
        for batch in (512, 4096):
            cells = []
            for gpus in (1, 8, 64, 512):
                seconds, busy = step(counts, batch / gpus, gpus=gpus, options=options)
                cells.append(f"{batch / seconds:,.0f} pictures/s, {busy:.0%}")
            print(f"| {preset} | {resolution} | {counts.parameters / 1e6:.0f} | {counts.picture / 1e9:.0f} | "
                  f"{counts.traffic / 1e6:,.0f} | {counts.muon / 1e12:.1f} | {batch:,} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
