"""Untrained models of many configurations: every weight is random, none is zero, and the outputs are of about 1.

Not a test itself.
"""

import torch
from torch.nn import functional

from diffuse_cli.data.caption_words import count_words
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.model_config import ModelConfig, TextConfig, Upscaling
from diffuse_cli.network.network import Network
from diffuse_cli.network.presets import network_config, upscaler_config
from diffuse_cli.network.tokenizer import encode, train_tokenizer
from diffuse_cli.picture_size import Size
from diffuse_cli.storage.checkpoint import Model, _encoded, _tensors_sha256
from diffuse_cli.storage.model_info import TrainingSummary
from diffuse_cli.training.loss import Batch, compute_losses

CAPTIONS = [f"a {size} {colour} {thing}" for size in ("big", "small") for colour in ("red", "blue", "green")
            for thing in ("car", "fish", "star", "tree")]

# name → preset, pixels, prompts, prediction, schedule, learned variance
CONFIGURATIONS = {
    "the default": ("nano", 16, True, "v", "interpolated", True),
    "unconditional, fixed, v, sigmoid": ("nano", 16, False, "v", "sigmoid", False),
    "unconditional, fixed, epsilon, cosine": ("nano", 16, False, "epsilon", "cosine", False),
    "fixed, epsilon, cosine": ("nano", 16, True, "epsilon", "cosine", False),
    "unconditional": ("nano", 16, False, "v", "interpolated", True),
    "x0, linear": ("nano", 16, True, "x0", "linear", True),
    "micro at 32": ("micro", 32, True, "v", "cosine", True),
    "nano at 64": ("nano", 64, True, "v", "interpolated", False),
    "small at 16": ("small", 16, True, "v", "interpolated", True),
}
QUICK = list(CONFIGURATIONS)[:2]


def make_model(name: str, *, seed: int = 0) -> Model:
    preset, resolution, conditional, prediction, schedule, learned = CONFIGURATIONS[name]
    tokenizer = train_tokenizer(CAPTIONS, vocabulary=300) if conditional else None
    network = Network(network_config(preset, resolution, learned_variance=learned,
                                     vocabulary=None if tokenizer is None else tokenizer.get_vocab_size()))
    return _with_random_weights(ModelConfig(network=network.config, schedule=schedule, prediction=prediction), network,
                                tokenizer, seed)


def make_upscaler(*, factor: int = 2, seed: int = 0) -> Model:
    """An upscaler of pictures of 8 pixels, on crops of 16."""
    tokenizer = train_tokenizer(CAPTIONS, vocabulary=300)
    text = TextConfig(vocabulary=tokenizer.get_vocab_size(), width=64, layers=2)
    network = Network(upscaler_config("nano", Size(16, 16), Upscaling(factor=factor, small=Size(8, 8)), text=text,
                                      learned_variance=True))
    return _with_random_weights(ModelConfig(network=network.config, schedule="interpolated", prediction="v"), network,
                                tokenizer, seed)


def _with_random_weights(config: ModelConfig, network: Network, tokenizer, seed: int) -> Model:
    generator = torch.Generator().manual_seed(seed)
    network.initialise(generator)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = parameter.std() if parameter.numel() > 1 and parameter.any() else 0.0
            default = 0.3 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.05
            parameter += torch.randn(parameter.shape, generator=generator) * (0.1 * spread or default)
    network.place_on(torch.device("cpu"))
    if config.prediction == "epsilon":
        train_on_noise(network, config, tokenizer)
    network.eval().requires_grad_(False)
    sha256 = _tensors_sha256(_encoded(network.state_dict()))
    words = count_words(CAPTIONS) if config.conditional else {}
    return Model(config=config, network=network, tokenizer=tokenizer, sha256=sha256, words=words,
                 training=TrainingSummary(name="made", step=3))


def train_on_noise(network: Network, config: ModelConfig, tokenizer, steps: int = 150) -> None:
    """Train for some steps: without any idea of noise, pictures are only black and white, with little to compare."""
    side = config.network.resolution.width
    schedule = make_schedule(config.schedule, side)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    generator = torch.Generator().manual_seed(1)
    tokens = None if tokenizer is None else encode(tokenizer, CAPTIONS[:2])
    for _ in range(steps):
        coarse = torch.rand(8, 3, 2, 2, generator=generator) * 2 - 1
        batch = Batch(
            image=functional.interpolate(coarse, size=(side, side), mode="bilinear"), tokens=tokens,
            noise=torch.randn(8, 3, side, side, generator=generator),
            t=torch.rand(8, generator=generator, dtype=torch.float64) * 0.999 + 0.001,
            caption_of=None if tokens is None else torch.arange(8) % 2)
        losses = compute_losses(network, batch, config=config, schedule=schedule, loss_weighting="simple")
        optimizer.zero_grad()
        losses.weighted.mean().backward()
        optimizer.step()


@torch.no_grad()
def disturbed(model: Model) -> Model:
    """A trained model with every weight changed at random, so that each of its inputs matters to its outputs."""
    generator = torch.Generator().manual_seed(0)
    for parameter in model.network.parameters():
        parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model
