"""On a device without float64, whose tensors do not mix with the CPU's: the same results, except for rounding."""

import itertools
from unittest import mock

import elsewhere
import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from diffuse_cli import events
from diffuse_cli.api import LoadedModel
from diffuse_cli.config import SAMPLERS, Sampling
from diffuse_cli.evaluation import encoder
from diffuse_cli.evaluation.evaluate import evaluate
from diffuse_cli.evaluation.held_out import open_held_out
from diffuse_cli.storage import checkpoint
from diffuse_cli.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("decoded")

HOW = Sampling(steps=3, batch_size=2, guidance_interval=(0.0, 1e9))
PICTURE = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def ended(steps):
    """The value that a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_the_imitated_device_refuses_float64_and_tensors_of_the_cpu():
    with elsewhere.chosen():
        there = torch.ones(3).to(elsewhere.DEVICE)
        assert (there + 1).sum().item() == 6
        with pytest.raises(TypeError, match="float64"):
            there.double()
        with pytest.raises(RuntimeError, match="two devices"):
            there + torch.ones(3)


def test_training_takes_the_first_step_of_the_cpu_and_goes_on(squares, home):
    """Only the first step: Adam divides gradients by their size, and a gradient that is only rounding has any sign."""
    norms, step = [], Trainer.step

    def told(self):
        measured = step(self)
        norms.append(measured.gradient_norm.item())
        return measured

    with mock.patch.object(Trainer, "step", told):
        tiny.train(squares, stop_at=1, name="here")
        with elsewhere.chosen():
            tiny.train(squares, stop_at=5)
            stream = tiny.train(squares)
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert tiny.of_kind(events.Started, stream)[0].step == 5
    assert tiny.of_kind(events.Validated, stream)
    assert tiny.of_kind(events.Previewed, stream)
    assert stream[-1].complete


@pytest.mark.parametrize(("sampler", "start"), [*itertools.product(SAMPLERS, [()]), ("dpmpp-2m", ("init",)),
                                                ("ddpm", ("init", "mask"))])
def test_drawing_gives_the_pictures_of_the_cpu(trained, sampler, start):
    path, drawn = trained[0] / "model.safetensors", []
    options = {"sampler": sampler, "seed": 1, "sampling": HOW}
    if "init" in start:
        options |= {"init": Image.fromarray(PICTURE), "strength": 0.7}
    if "mask" in start:
        options |= {"mask": Image.fromarray((PICTURE > 99).astype(np.uint8)[..., 0] * 255)}
    for device in (elsewhere.DEVICE, torch.device("cpu")):
        with elsewhere.chosen():
            loaded = LoadedModel(checkpoint.load_model(path, device))
            drawn += [np.asarray(picture) for picture in loaded.sample("a red square", 2, **options)]
    assert np.abs(np.stack(drawn[:2]).astype(int) - np.stack(drawn[2:])).max() <= 1
    assert not np.array_equal(drawn[0], drawn[1])


@pytest.mark.slow
def test_an_evaluation_finds_what_it_finds_on_the_cpu(trained, squares, tmp_path, monkeypatch):
    monkeypatch.setattr(encoder, "STEPS", 20)                          # each device trains an encoder of its own
    path, found = trained[0] / "model.safetensors", []
    for device in (elsewhere.DEVICE, torch.device("cpu")):
        with elsewhere.chosen():
            pictures = ended(open_held_out(path, squares, resolution=8))
            found.append(evaluate(checkpoint.load_model(path, device), pictures, num=4, seed=0, limit=4, batch_size=2,
                                  precision="fp32", cache=tmp_path))
    assert found[0].likelihood.bound.value == pytest.approx(found[1].likelihood.bound.value, rel=1e-4)
    assert found[0].distances.drawn.frechet == pytest.approx(found[1].distances.drawn.frechet, rel=1e-4)
