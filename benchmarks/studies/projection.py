"""How would a step divide among more GPUs than anybody here has measured? Arithmetic on counted FLOPs.

    python -m benchmarks.studies.projection

A GPU computes the forward and the backward pass (3 times the forward FLOPs) for its share of the batch. Meanwhile a
ring all-reduce moves every gradient (4 bytes) twice. The GPU waits for the part of it that does not hide behind the
backward pass (2/3 of the computing). The options are the assumptions.
"""

import argparse

from diffuse_cli.network.network import flops, parameter_count
from diffuse_cli.network.presets import network_config

VOCABULARY = 4096                               # tokens


def step(
    fraction: float, *, work: float, gradients: float, gpus: int, options: argparse.Namespace,
) -> tuple[float, float]:
    """The time of a step. → (seconds, share of them spent computing)

    fraction: the share of the batch on one GPU; work: FLOPs of the whole batch; gradients: their size in bytes.
    """
    compute = work * fraction / (options.teraflops * 1e12)
    bandwidth = options.inside if gpus <= 8 else options.between
    exchange = 2 * (gpus - 1) / gpus * gradients / (bandwidth * 1e9)
    waiting = max(0.0, exchange - compute * 2 / 3)
    total = compute + waiting + options.overhead / 1e3
    return total, compute / total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teraflops", type=float, default=150.0, help="TFLOP/s that one GPU sustains")
    parser.add_argument("--inside", type=float, default=300.0, help="GB/s from one GPU to the others of its machine")
    parser.add_argument("--between", type=float, default=40.0, help="GB/s from one GPU to those of other machines")
    parser.add_argument("--overhead", type=float, default=10.0, help="ms of a step that more GPUs do not shorten")
    options = parser.parse_args()
    print("| preset | px | million parameters | GFLOP/picture | batch | 1 GPU | 8 GPUs | 64 GPUs | 512 GPUs |")
    print("|---|---|---|---|---|---|---|---|---|")
    for preset, resolution in (("small", 64), ("base", 64), ("large", 64), ("large", 128)):
        config = network_config(preset, resolution, vocabulary=VOCABULARY, learned_variance=True)
        picture, parameters = 3 * flops(config), parameter_count(config)
        for batch in (512, 4096):
            cells = []
            for gpus in (1, 8, 64, 512):
                seconds, busy = step(1 / gpus, work=picture * batch, gradients=4 * parameters, gpus=gpus,
                                     options=options)
                cells.append(f"{batch / seconds:,.0f} pictures/s, {busy:.0%}")
            print(f"| {preset} | {resolution} | {parameters / 1e6:.0f} | {picture / 1e9:.0f} | {batch:,} | "
                  + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
