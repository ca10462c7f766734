"""Estimates of a run's time: the steps, and the previews and validations beside them."""

from unittest import mock

import pytest
import tiny
import torch

from diffuse_cli import config
from diffuse_cli.checks import from_dict
from diffuse_cli.config import Machine, Plan, Recipe, Sampling
from diffuse_cli.network.network import Network
from diffuse_cli.storage import run_directory
from diffuse_cli.training import estimate, half_side, loop
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.run import open_run

pytestmark = pytest.mark.usefixtures("decoded")


def test_measuring_previews_and_validations_count_as_time_spent():
    trainer = mock.Mock(plan=mock.Mock(half_side_steps=0, steps=100))
    with mock.patch.object(estimate, "_speeds", return_value=(10.0, 10.0)), \
            mock.patch.object(estimate, "_overhead", return_value=120.0), \
            mock.patch.object(estimate.time, "monotonic", side_effect=[100.0, 104.0]):
        assert estimate.images_within(60.0, trainer, Machine()) == int(estimate.STEPS_TIME_SHARE * (10 * 56 - 120))


def test_pictures_at_half_their_side_are_counted_at_their_own_speed():
    """60 % of the pictures at 20 a second and 40 % at 10 take 70 % of the time of all at 10."""
    trainer = mock.Mock(plan=mock.Mock(half_side_steps=60, steps=100))
    with mock.patch.object(estimate, "_speeds", return_value=(10.0, 20.0)), \
            mock.patch.object(estimate, "_overhead", return_value=70.0), \
            mock.patch.object(estimate.time, "monotonic", side_effect=[100.0, 100.0]):
        assert estimate.images_within(70.0, trainer, Machine()) == int(estimate.STEPS_TIME_SHARE * 10 * 63 / 0.7)


def test_both_speeds_are_measured_by_steps_of_their_kind(squares, home, monkeypatch):
    monkeypatch.setattr(half_side, "MIN_SIDE", 16)
    sides, draw = [], Batches.draw

    def drawn(batches, step, start, count):
        batch, keys = draw(batches, step, start, count)
        sides.append(batch.image.shape[-1])
        return batch, keys

    monkeypatch.setattr(Batches, "draw", drawn)
    recipe = Recipe(resolution=16, preset="nano", steps=10, batch_size=4, init="none")
    with mock.patch.object(estimate, "MEASURED_SECONDS", 0.0), open_run(
            squares, recipe, Machine(**tiny.OPTIONS), rehearsal=True) as run, tiny.scaled_down():
        *_, started = loop.rehearse(run)
    assert sides == 4 * [8] + 4 * [16]                 # one to warm up, and three
    assert dict(started.facts)["speed"].endswith("at half the side")


@pytest.mark.parametrize("every", ["100%", "50%", "2"])
def test_the_overhead_beside_the_steps_is_what_was_estimated(squares, home, every):
    seen = 0

    def counted(network, noisy, *arguments, **options):
        nonlocal seen
        seen += 0 if torch.is_grad_enabled() else len(noisy)
        return forward(network, noisy, *arguments, **options)

    forward = Network.forward
    with mock.patch.object(Network, "forward", counted):
        tiny.train(squares, preview_every=every)
    plan = from_dict(Plan, run_directory.read_config(tiny.run_directory(home))["plan"])
    with tiny.scaled_down():
        assert seen == pytest.approx(3 * estimate._overhead(
            plan, Machine(preview_every=every), images=plan.steps * plan.batch_size, seconds=1.0))


@pytest.mark.parametrize(("every", "seconds", "previews"), [("20s", 100.0, 5), ("30s", 10.0, 1), ("5", 1.0, 8)])
def test_previews_are_counted_over_the_time_that_there_is(every, seconds, previews):
    """The steps of a provisional plan do not count. 8 previews: 160 pictures in batches of 4, every 5 steps."""
    network = mock.Mock(resolution=8)
    plan = mock.Mock(batch_size=4, steps=10**6, validation_images=0,
                     model=mock.Mock(conditional=False, network=network, student=None))
    found = estimate._overhead(plan, Machine(preview_every=every), images=160, seconds=seconds)
    assert found == pytest.approx(previews * config.PREVIEW_PICTURES * Sampling().number_of_steps / 3)
