"""The demonstration of forward diffusion: the equation at every level, and a model measured as training measures it."""

import math

import numpy as np
import pytest
import torch

from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.model_config import SCHEDULES
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.pictures.pixels import from_pixels
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling import forward_demo
from diffuse_cli.sampling.forward_demo import (
    brightness_decibels,
    evenly_spaced_times,
    forward_diffusion,
    leaks_brightness,
)
from diffuse_cli.storage import checkpoint
from diffuse_cli.training.loss import Batch, compute_losses

CPU = torch.device("cpu")
PIXELS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_level_is_alpha_image_plus_sigma_noise_of_one_noise(name):
    schedule = make_schedule(name, 8)
    image = from_pixels(PIXELS[None])[0]
    noise = randomness.normal(torch.tensor([randomness.key(3, "noise-demo")]), (3, 8, 8))[0]
    levels = list(forward_diffusion(PIXELS, schedule, evenly_spaced_times(5), seed=3))
    assert [level.t for level in levels] == pytest.approx([0.001, 0.25075, 0.5005, 0.75025, 1])
    for level in levels:
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1)
        assert math.log(level.alpha**2 / level.sigma**2) == pytest.approx(level.log_snr, abs=1e-6)
        assert level.snr == pytest.approx(10 ** (level.snr_db / 10))
        expected = ((level.alpha * image + level.sigma * noise).clamp(-1, 1) + 1) * 127.5
        assert np.abs(level.noisy - expected.permute(1, 2, 0).numpy()).max() <= 0.501


def test_a_model_is_measured_as_training_measures_it(trained):
    model = checkpoint.load_model(trained[0] / "model.safetensors", CPU)
    schedule = make_schedule(model.config.schedule, 8)
    (level,) = forward_diffusion(PIXELS, schedule, torch.tensor([0.4], dtype=torch.float64), seed=1, model=model,
                                 caption="a red square")
    image = from_pixels(PIXELS[None])
    noise = randomness.normal(torch.tensor([randomness.key(1, "noise-demo")]), (3, 8, 8))
    batch = Batch(image, noise, torch.tensor([0.4], dtype=torch.float64), encode(model.tokenizer, ["a red square"]),
                  torch.tensor([0]))
    with torch.no_grad():
        losses = compute_losses(model.network, batch, config=model.config, schedule=schedule, loss_weighting="simple")
    assert level.noise_mse == pytest.approx(losses.noise_mse.item(), rel=1e-4)
    assert level.estimate.shape == (8, 8, 3)


def test_the_mean_of_all_pixels_keeps_more_signal_than_each():
    """Measured on pictures of one brightness each, which get the noise of the last level and are averaged."""
    schedule, side = make_schedule("linear", 32), 32
    brightness = torch.linspace(-1, 1, 400, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    alpha, sigma = schedule.alpha_sigma(torch.ones(1, dtype=torch.float64))
    noise = torch.randn(400, side * side, generator=generator, dtype=torch.float64)
    means = (alpha * brightness[:, None] + sigma * noise).mean(1)
    signal = (alpha**2).item()                                        # of brightness with variance 1
    measured = 10 * math.log10(signal / (means - alpha * brightness).var().item())
    assert measured == pytest.approx(brightness_decibels(schedule, side), abs=0.5)


def test_the_default_schedule_never_leaks_brightness_and_linear_does_where_pictures_are_large():
    for side in (8, 32, 64, 128, 256, 512):
        assert not leaks_brightness(make_schedule("interpolated", side), side)
        assert leaks_brightness(make_schedule("linear", side), side) == (side >= 64)


def test_the_limit_is_what_the_default_schedule_ends_with():
    assert forward_demo.MAX_BRIGHTNESS_LOG_SNR * 10 / math.log(10) == pytest.approx(
        brightness_decibels(make_schedule("interpolated", 64), 64), abs=0.01)
