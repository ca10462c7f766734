"""k-diffusion as its training script uses it, restated: U-Net `image_v1`, Karras' preconditioning, AdamW, an EMA."""

import copy
import itertools
from typing import Any

import torch

from . import Contender, torchvision_operators, training_gflop  # noqa: F401  (before the next line)

import k_diffusion  # isort: skip

SIGMA_DATA = 0.5


def config_of(width: int, depth: int, resolution: int) -> dict[str, Any]:
    """Three levels, each twice as wide as the last, attention on the lower two: like the library's own configurations.
    """
    return k_diffusion.config.load_config({
        "model": {
            "type": "image_v1", "input_channels": 3, "input_size": [resolution, resolution], "mapping_out": 256,
            "depths": [depth] * 3, "channels": [width, 2 * width, 4 * width], "self_attn_depths": [False, True, True],
            "sigma_data": SIGMA_DATA, "sigma_min": 1e-2, "sigma_max": 80,
            "sigma_sample_density": {"type": "lognormal", "mean": -1.2, "std": 1.2}, "augment_wrapper": False},
        "dataset": {"type": "imagefolder", "location": ""}})


def network_of(parameters: int, resolution: int) -> tuple[torch.nn.Module, dict[str, Any]]:
    """The network whose width and depth bring it nearest to that many parameters, and its configuration."""
    by_difference = {}
    for width, depth in itertools.product((32, 64), (1, 2, 3, 4)):
        config = config_of(width, depth, resolution)
        network = k_diffusion.config.make_model(config)
        count = sum(one.numel() for one in network.parameters())
        by_difference[abs(count - parameters)] = network, config
    return by_difference[min(by_difference)]


def training(*, parameters: int, resolution: int, batch: int, seed: int = 0) -> Contender:
    """A unit is a training step, on pictures that lie ready in memory."""
    torch.manual_seed(seed)
    network, config = network_of(parameters, resolution)
    gflop = training_gflop(lambda: network(torch.zeros(1, 3, resolution, resolution), torch.ones(1)))
    denoiser = k_diffusion.config.make_denoiser_wrapper(config)(network)
    averaged = copy.deepcopy(denoiser)
    warm_up = k_diffusion.utils.EMAWarmup(power=0.6667, max_value=0.9999)
    optimizer = torch.optim.AdamW(network.param_groups(1e-4), lr=1e-4, betas=(0.95, 0.999), eps=1e-6,
                                  weight_decay=1e-3)
    sigmas = k_diffusion.config.make_sample_density(config["model"])
    images = torch.rand(batch, 3, resolution, resolution) * 2 - 1

    def work(steps: int) -> None:
        for _ in range(steps):
            loss = denoiser.loss(images, torch.randn_like(images), sigmas([batch])).mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                k_diffusion.utils.ema_update(denoiser, averaged, warm_up.get_value())
            warm_up.step()
            loss.item()

    return Contender(work, {
        "pictures": batch, "parameters": sum(one.numel() for one in network.parameters()), "precision": "fp32",
        "gflop": gflop})
