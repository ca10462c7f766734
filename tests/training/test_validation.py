"""Validations during a training."""

from unittest import mock

import numpy as np
import pytest
import tiny

from diffuse_cli import events
from diffuse_cli.data.split import Split
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.training.previews import preview_prompts
from diffuse_cli.training.session import held_out_groups

pytestmark = pytest.mark.usefixtures("decoded")


def test_the_validation_loss_falls(trained):
    first, last = tiny.of_kind(events.Validated, trained[1])
    assert last.best
    assert last.noise_mse < 0.97 * first.noise_mse
    assert last.noise_mse == pytest.approx(sum(last.noise_mse_at) / len(last.noise_mse_at))
    assert list(last.log_snr) == sorted(last.log_snr, reverse=True)


def test_validations_and_previews_show_pictures_of_all_folders():
    """Ten folders of ten pictures each, in the order of their names, and validations of thirty."""
    data = tiny.dataset([(f"thing {folder}",) for folder in range(10) for _ in range(10)])
    split = Split(np.arange(0), np.arange(100))
    tokenizer = train_tokenizer(f"thing {folder}" for folder in range(10))
    model = mock.Mock(is_upscaler=False)
    plans = [mock.Mock(seed=seed, validation_probe=30, model=model) for seed in (0, 0, 1)]
    measured = [held_out_groups(plan, data, split, tokenizer)[0] for plan in plans]
    assert len({tuple(row) for row in measured[0][1].tolist()}) >= 8
    assert measured[0][0].equal(measured[1][0])
    assert not measured[0][0].equal(measured[2][0])
    session = mock.Mock(split=split, dataset=data, plan=plans[0], tokenizer=tokenizer, words={})
    session.run.machine.preview_prompt = ()
    assert len(preview_prompts(session)[0]) >= 4
