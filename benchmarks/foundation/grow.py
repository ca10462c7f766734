"""Makes the first weights of a network of twice the side: its inner levels are those of a trained network.

A picture of 2s × 2s pixels holds at half its side a picture of s × s with half the noise. So the levels of a network
trained at s pixels fit one step further inside, at the time whose sigma/alpha is half as large. The outermost level is
new. The text encoder is taken as it is.

    python -m benchmarks.foundation.grow trained-32.safetensors untrained-64.safetensors grown-64.safetensors
"""

import argparse
import math
import re
from pathlib import Path

import torch
from torch import Tensor

from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.network.blocks import sinusoids
from diffuse_cli.storage.checkpoint import Model, load_model, save_model

_STEPS = 1000
_RIDGE = 1.0


def inner_name(name: str) -> str:
    """The name in the smaller network of the parameter that has this name in the network of twice its side."""
    return re.sub(r"down_blocks\.(\d+)", lambda match: f"down_blocks.{int(match[1]) - 1}", name)


def time_layer(small: Model, large: Model) -> Tensor:
    """The first layer of the time's perceptron: that of the smaller network at the matched times, in sinusoids of t.

    → (E, width): the W for which W·sinusoids(t) = W_small·sinusoids(matched t) over all times, by ridge regression.
    Slow sinusoids are nearly equal: without the ridge their weights cancel each other in tens of thousands.
    """
    inner, outer = (make_schedule(config.schedule, config.network.schedule_side)
                    for config in (small.config, large.config))
    times = torch.arange(1, _STEPS + 1, dtype=torch.float64) / _STEPS
    matched = inner.time_of(outer.log_snr(times) + 2 * math.log(2))      # sigma/alpha halved: its log-SNR rises by ln 4
    weight = small.network.unet.time_embedding.linear_1.weight.detach().double()            # (E, small width)
    wanted = sinusoids(matched * _STEPS - 1, weight.shape[1]).double() @ weight.T            # (T, E)
    given = sinusoids(times * _STEPS - 1, large.config.network.widths[0]).double()           # (T, width)
    ridge = _RIDGE * torch.eye(given.shape[1], dtype=torch.float64)
    solution: Tensor = torch.linalg.solve(given.T @ given + ridge, given.T @ wanted)        # (width, E)
    return solution.T.float()


def grown(small: Model, large: Model) -> tuple[dict[str, Tensor], int]:
    """The weights of `large`, with those of `small` where name and shape fit. → also the number of those taken."""
    source, weights, taken = small.network.state_dict(), dict(large.network.state_dict()), 0
    for name, value in weights.items():
        found = source.get(inner_name(name))
        if found is not None and found.shape == value.shape:
            weights[name], taken = found, taken + 1
    weights["unet.time_embedding.linear_1.weight"] = time_layer(small, large)
    return weights, taken + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("small", type=Path, help="the trained model")
    parser.add_argument("large", type=Path, help="an untrained model of twice the side with the same tokenizer")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    cpu = torch.device("cpu")
    small, large = load_model(options.small, cpu), load_model(options.large, cpu)
    weights, taken = grown(small, large)
    print(f"{taken} of {len(weights)} parameters are those of {options.small}")
    save_model(options.out, config=large.config, weights=weights, tokenizer=large.tokenizer, words={},
               training=large.training)


if __name__ == "__main__":
    main()
