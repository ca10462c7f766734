"""The noise loss of validation: exact for a network whose outputs are known, the same in any batch."""

from unittest import mock

import pytest
import torch
from random_models import disturbed
from torch import nn

from diffuse_cli.config import VALIDATION_LEVELS
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.evaluation.noise_curve import noise_curve, validation_times
from diffuse_cli.network.tokenizer import encode
from diffuse_cli.runtime import randomness
from diffuse_cli.storage import checkpoint

CPU = torch.device("cpu")
IMAGES = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture(scope="module")
def model(trained):
    """The trained model, changed at random so that its outputs depend on captions: after 8 steps they hardly do."""
    return disturbed(checkpoint.load_model(trained[0] / "model.safetensors", CPU))


@pytest.fixture(scope="module")
def without_text(unconditional):
    return checkpoint.load_model(unconditional[0] / "model.safetensors", CPU)


def curve(model, network=None, *, images=IMAGES, tokens=None, micro_batch=4):
    if tokens is None and model.config.conditional:
        tokens = encode(model.tokenizer, ["a red square"] * len(images))
    return noise_curve(network or model.network, config=model.config, images=images, tokens=tokens, device=CPU,
                       schedule=make_schedule(model.config.schedule, 8), micro_batch=micro_batch, precision="fp32")


class Silent(nn.Module):
    """A network that outputs 0."""

    def forward(self, noisy, time, text=None, **_):
        return torch.zeros(len(noisy), 6, 8, 8)


def test_a_silent_network_has_the_error_of_the_closed_form(without_text):
    """v = alpha·noise - sigma·image, and the noise's error is alpha²·v²: its mean, over known noise and pictures."""
    schedule = make_schedule("interpolated", 8)
    found = curve(without_text, Silent())
    for level, (time, value) in enumerate(zip(validation_times(), found, strict=True)):
        alpha, sigma = schedule.alpha_sigma(time)
        noise = randomness.normal(randomness.keys(0, "validation", level, torch.arange(6)), (3, 8, 8))
        v = alpha * noise - sigma * IMAGES
        assert value == pytest.approx((alpha**2 * v.square().mean()).item(), rel=1e-5)


def test_levels_are_the_middles_of_equal_intervals():
    times = validation_times()
    assert len(times) == VALIDATION_LEVELS == 8
    assert times.diff().tolist() == pytest.approx([0.999 / 8] * 7)
    assert times.mean() == pytest.approx((0.001 + 1) / 2)


def test_measuring_twice_gives_the_same_numbers_and_smaller_batches_only_round(model):
    whole = curve(model, micro_batch=6)
    assert curve(model, micro_batch=6) == whole
    for micro_batch in (1, 4, 100):
        assert curve(model, micro_batch=micro_batch) == pytest.approx(whole, rel=1e-5)


def test_each_picture_is_measured_with_its_own_caption(model):
    captions = ["a red square", "a blue square", "a red square", "", "a green square", "a blue square"]
    mixed = curve(model, tokens=encode(model.tokenizer, captions))
    with mock.patch.object(model.network, "encode", wraps=model.network.encode) as encoded:
        assert curve(model, tokens=encode(model.tokenizer, captions), micro_batch=6) == pytest.approx(mixed, rel=1e-5)
        assert all(len(call.args[0]) == 4 for call in encoded.call_args_list)          # each distinct caption once
    swapped = curve(model, tokens=encode(model.tokenizer, captions[::-1]))
    assert swapped != pytest.approx(mixed, rel=1e-5)
