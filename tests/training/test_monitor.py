"""Reports: means over the steps since the last one, and the speed of the steps alone."""

from unittest import mock

import pytest
import tiny

from diffuse_cli import events
from diffuse_cli.training import loop, monitor, saving
from diffuse_cli.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("decoded")


def test_reports_are_means_over_the_steps_since_the_last(squares, home):
    with mock.patch.object(monitor, "REPORT_SECONDS", 0):
        each = tiny.of_kind(events.Stepped, tiny.train(squares))
    with mock.patch.object(monitor, "REPORT_SECONDS", 1e9):
        (all_,) = tiny.of_kind(events.Stepped, tiny.train(squares, fresh=True))
    assert [event.step for event in each] == list(range(1, 9))
    for field in ("train_objective", "noise_mse", "variance_loss"):
        assert getattr(all_, field) == pytest.approx(sum(getattr(event, field) for event in each) / 8, rel=1e-5)
    assert each[-1].remaining == 0
    assert all(event.train_objective != event.noise_mse for event in each)


def test_saving_and_validating_do_not_count_as_compute(squares, home):
    """images_per_second is of the steps alone: each takes 10 s of this clock, everything else 1,000 s."""
    now, step, save = 0.0, Trainer.step, saving.save

    def stepping(trainer):
        nonlocal now
        now += 10
        return step(trainer)

    def slowly(act):
        def acting(*arguments):
            nonlocal now
            now += 1000
            return act(*arguments)
        return acting

    def clock():
        return now

    with mock.patch.object(loop.time, "monotonic", clock), mock.patch.object(Trainer, "step", stepping), \
            mock.patch.object(loop, "measure", slowly(loop.measure)), \
            mock.patch.object(loop, "preview", slowly(loop.preview)), \
            mock.patch.object(saving, "save", slowly(save)):
        told = tiny.of_kind(events.Stepped, tiny.train(squares, save_every="2"))
    assert now > 3000
    assert {event.images_per_second for event in told} == {tiny.RECIPE.batch_size / 10}
