"""Upscalers are measured on crops of pictures, and are given the small pictures of these places."""

import dataclasses
import json

import consistent_models
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from diffuse_cli import api
from diffuse_cli.data.fitting import fitted_pixels
from diffuse_cli.diffusion import upscaling
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.diffusion.upscaling import LowRes
from diffuse_cli.evaluation.crops import crops_of
from diffuse_cli.evaluation.evaluate import measure
from diffuse_cli.model_config import Upscaling
from diffuse_cli.network.presets import upscaler_config
from diffuse_cli.picture_size import Size
from diffuse_cli.pictures.pixels import from_pixels


@pytest.fixture
def diffuse(command, cascade):
    return tiny.runner(command, cascade.home)


def test_an_upscaler_is_measured_on_crops_of_the_pictures_that_it_has_not_seen(diffuse, cascade):
    figures = json.loads(diffuse("evaluate", "tiny-x2", "--images", "2", "--json", "--quiet"))
    assert figures["pictures"] == {"held_out": 2, "train": 22, "own": True}
    assert figures["bits_per_dim"]["bound"]["value"] > 0
    assert (figures["distances"], figures["memorisation"]) == (None, None)
    assert "in the given folder" in diffuse("evaluate", "tiny-x2", cascade.pictures, "--images", "2")


def test_the_crops_that_are_measured_have_their_small_pictures():
    data = tiny.dataset([("a", "b")] * 7, size=32)
    network = upscaler_config("nano", Size(16, 16), Upscaling(factor=4, small=Size(8, 8)), text=None,
                              learned_variance=True)
    crops, enlarged = crops_of(network, data, np.arange(7), seed=3)
    assert (crops.shape, enlarged.shape) == ((7, 16, 16, 3), (7, 3, 16, 16))
    for picture, crop, given in zip(data.images, crops, enlarged, strict=True):
        whole = upscaling.enlarge(from_pixels(fitted_pixels(Image.fromarray(picture), 8)[None]), 4)[0]
        places = [(row, column) for row in range(0, 17, 4) for column in range(0, 17, 4)
                  if np.array_equal(picture[row : row + 16, column : column + 16], crop)]
        assert any(torch.equal(given[:, 2:-2, 2:-2], whole[:, row : row + 16, column : column + 16][:, 2:-2, 2:-2])
                   for row, column in places)


def test_crops_of_odd_sides_are_of_whole_small_pixels():
    network = consistent_models.configuration(**consistent_models.UPSCALERS["crops of odd sides"]).network
    crops, enlarged = crops_of(network, tiny.dataset([("a",)] * 3, size=16), np.arange(3), seed=0)
    assert (crops.shape, enlarged.shape) == ((3, 8, 14, 3), (3, 3, 8, 14))


def test_a_measured_upscaler_knows_its_small_picture(cascade):
    """A network that answers with what it is given has hardly any loss if that is the picture, and much if not."""
    with tiny.at_home(cascade.home):
        model = api.load("tiny-x2", device="cpu").model
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
    images = from_pixels(pixels)
    low_res = LowRes(images, torch.zeros(4))

    class Copying(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.anywhere = torch.nn.Parameter(torch.zeros(1))

        def encode(self, tokens):
            return model.network.encode(tokens)

        def forward(self, noisy, time, text, *, low_res, **_):
            alpha, sigma = make_schedule("interpolated", 64).alpha_sigma((time.double() + 1) / 1000)
            alpha, sigma = (value.float()[:, None, None, None] for value in (alpha, sigma))
            v = (alpha * noisy - low_res[0]) / sigma
            return torch.cat([v, torch.zeros_like(v)], dim=1)

    known = dataclasses.replace(model, network=Copying())
    exact, _ = measure(known, pixels, [""] * 4, seed=0, batch_size=3, precision="fp32", low_res=low_res)
    wrong, _ = measure(known, pixels, [""] * 4, seed=0, batch_size=3, precision="fp32", low_res=LowRes(
        images.flip(0), torch.zeros(4)))
    assert exact.noise_mse.value < 1e-2 < 1e-1 < wrong.noise_mse.value
