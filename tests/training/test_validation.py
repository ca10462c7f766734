"""Validations during a training."""

import pytest
import tiny

from diffuse_cli import events

pytestmark = pytest.mark.usefixtures("decoded")


def test_the_validation_loss_falls(trained):
    first, last = tiny.of_kind(events.Validated, trained[1])
    assert last.best
    assert last.noise_mse < 0.97 * first.noise_mse
    assert last.noise_mse == pytest.approx(sum(last.noise_mse_at) / len(last.noise_mse_at))
    assert list(last.log_snr) == sorted(last.log_snr, reverse=True)
