"""The first steps of a new network see pictures at half their side, and nothing else about the training changes."""

import contextlib
import dataclasses
from unittest import mock

import pytest
import tiny
import torch

from diffuse_cli import events
from diffuse_cli.config import Recipe
from diffuse_cli.data.split import split_dataset
from diffuse_cli.denoiser import network_time
from diffuse_cli.diffusion.losses import noise_weight
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.model_config import Upscaling
from diffuse_cli.network.presets import network_config, upscaler_config
from diffuse_cli.picture_size import Size
from diffuse_cli.runtime.distributed import World
from diffuse_cli.storage import checkpoint, run_directory
from diffuse_cli.training import half_side, loop, monitor
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.loss import Coefficients
from diffuse_cli.training.plan import make_plan
from diffuse_cli.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("decoded")
CPU = torch.device("cpu")
NEW = Recipe(resolution=16, preset="nano", steps=10, batch_size=4, init="none")


@pytest.fixture
def at_16(monkeypatch):
    """Pictures of 16 pixels are halved, too."""
    monkeypatch.setattr(half_side, "MIN_SIDE", 16)


def batches(steps):
    data = tiny.dataset([("a red square",)] * 12, size=16)
    plan, _ = make_plan(NEW, data, split_dataset(data.pixel_hashes), resolution=16, fit="crop", tokenizer=None,
                        init=None, device=CPU)
    return Batches(dataclasses.replace(plan, flip=True, half_side_steps=steps), data, split_dataset(
        data.pixel_hashes).train, None, CPU)


@pytest.mark.parametrize("name", ["interpolated", "cosine", "linear", "sigmoid"])
def test_a_noisy_picture_at_half_its_side_is_one_with_half_the_noise(name):
    """Noise and average commute, up to the scale that keeps alpha² + sigma² = 1."""
    schedule, draws = make_schedule(name, 64), torch.Generator().manual_seed(0)
    image, noise = (torch.randn(5, 3, 8, 8, generator=draws, dtype=torch.float64) for _ in range(2))
    t = torch.tensor([0.2, 0.4, 0.6, 0.8, 0.9], dtype=torch.float64)
    level, coefficients = half_side.matched(schedule, t)
    reduced = schedule.add_noise(half_side.halved(image), 2 * half_side.halved(noise), level)
    alpha, sigma = schedule.alpha_sigma(t)
    scale = (alpha**2 + (sigma / 2) ** 2).sqrt()[:, None, None, None]
    assert torch.allclose(half_side.halved(schedule.add_noise(image, noise, t)) / scale, reduced, atol=1e-6)
    assert torch.equal(coefficients.time, network_time(t).float())              # the network is told the larger noise


def test_a_step_at_half_the_side_has_the_same_pictures_noise_and_captions():
    for step in (0, 3):
        whole, keys = batches(0).draw(step, 0, 4)
        half, half_keys = batches(4).draw(step, 0, 4)
        assert half.image.shape == (4, 3, 8, 8)
        image, noise = (values.unflatten(3, (8, 2)).unflatten(2, (8, 2)) for values in (whole.image, whole.noise))
        assert torch.allclose(half.image, image.mean((3, 5)), atol=1e-6)
        assert torch.allclose(half.noise, noise.sum((3, 5)) / 2, atol=1e-6)
        assert torch.equal(keys, half_keys)
        level = Coefficients.of(make_schedule("interpolated", 16), whole.t).level
        assert torch.allclose(half.coefficients.level.log_snr, level.log_snr + 2 * torch.tensor(2.0).log())
    assert torch.equal(batches(3).draw(3, 0, 4)[0].image, batches(0).draw(3, 0, 4)[0].image)


def test_the_noise_of_half_the_side_is_standard_normal():
    torch.manual_seed(0)
    noise = 2 * half_side.halved(torch.randn(64, 3, 32, 32))
    assert noise.mean().abs() < 0.01
    assert noise.std() == pytest.approx(1, abs=0.01)


def test_the_weight_of_a_loss_is_that_of_pictures_of_the_size():
    """The sigmoid weight shifts with the size as the noise does: its first factor is the same at both sides."""
    log_snr = torch.linspace(-6, 6, 13, dtype=torch.float64)
    half, whole = noise_weight("sigmoid", log_snr + 4 ** 0.5 * torch.tensor(2.0).log(), 32), noise_weight(
        "sigmoid", log_snr, 64)
    root = [(1 + torch.exp(-at)).sqrt() for at in (log_snr + 2 * torch.tensor(2.0).log(), log_snr)]
    assert torch.allclose(half / root[0], whole / root[1], atol=1e-6)


def test_memory_is_tried_with_whole_pictures():
    """Several processes must find a micro-batch that fits to the end, before the first step."""
    batch, sides = batches(4), []
    trainer = Trainer(batch.plan, batch, precision="fp32", micro_batch=4, compiled=False, world=World())
    trainer.loss.no_sync = contextlib.nullcontext                              # as DistributedDataParallel has
    draw = Batches.draw

    def drawn(self, step, start, count):
        found, keys = draw(self, step, start, count)
        sides.append(found.image.shape[-1])
        return found, keys

    with mock.patch.object(Batches, "draw", drawn):
        assert not trainer._exceeds_memory()
        trainer.step()
    assert sides == [16, 8]


@pytest.mark.parametrize(("size", "expected"), [
    (64, 60), (Size(64, 96), 60), (128, 60), (32, 0), (Size(48, 64), 0), (Size(64, 72), 0)])
def test_new_networks_for_large_pictures_begin_so(size, expected):
    network = network_config("nano", Size.of(size), vocabulary=None, learned_variance=True)
    assert half_side.first_steps(network, 100) == expected


def test_upscalers_do_not_begin_so():
    upscaling = Upscaling(factor=4, small=64)
    assert half_side.first_steps(upscaler_config("nano", Size(64, 64), upscaling, text=None, learned_variance=True),
                                 100) == 0


def test_a_run_says_so_and_resumes_exactly_on_both_sides_of_the_change(squares, home, at_16):
    tiny.train(squares, NEW, name="whole")
    for stop in (2, 3):                                                          # at steps 2, 5 and to the end
        tiny.train(squares, NEW, stop_at=stop)
    stream = tiny.train(squares, NEW)
    assert stream[-1].complete
    whole, cut = (checkpoint.load_model(tiny.run_directory(home, name) / "model.safetensors", CPU).sha256
                  for name in ("whole", "tiny"))
    assert whole == cut
    (started,) = tiny.of_kind(events.Started, stream)
    assert dict(started.facts)["at first"].startswith("6 steps with pictures at half their side")
    told = [event.message for event in tiny.of_kind(events.Noticed, stream)]
    assert told.count("from now on pictures have their 16 px") == 1


def test_a_longer_budget_keeps_the_first_steps(squares, home, at_16):
    tiny.train(squares, NEW)
    tiny.train(squares, dataclasses.replace(NEW, steps=14))
    plan = run_directory.read_config(tiny.run_directory(home))["plan"]
    assert (plan["steps"], plan["half_side_steps"]) == (14, 6)


def test_another_start_than_a_new_network_sees_whole_pictures_alone(squares, home, at_16):
    tiny.train(squares, NEW, name="first")
    tiny.train(squares, dataclasses.replace(NEW, resolution=None, preset=None, init="first"), name="second")
    plans = [run_directory.read_config(tiny.run_directory(home, name))["plan"] for name in ("first", "second")]
    assert [plan["half_side_steps"] for plan in plans] == [6, 0]


def test_the_remaining_time_counts_both_kinds_of_steps(squares, home, at_16, monkeypatch):
    """On a clock by which a step takes just what is estimated, the time that remains is right from the first step."""
    now, step = 0.0, Trainer.step

    def stepping(trainer):
        nonlocal now
        now += half_side.COST if trainer.global_step < 6 else 1
        return step(trainer)

    monkeypatch.setattr(Trainer, "step", stepping)
    monkeypatch.setattr(loop.time, "monotonic", lambda: now)
    with mock.patch.object(monitor, "REPORT_SECONDS", 0):
        told = tiny.of_kind(events.Stepped, tiny.train(squares, NEW))
    total = 6 * half_side.COST + 4
    spent = [min(event.step, 6) * half_side.COST + max(event.step - 6, 0) for event in told]
    assert [event.remaining for event in told] == pytest.approx([total - seconds for seconds in spent], abs=1e-9)
