"""The steps of a sampler: their times, and the number of steps at which a guided denoiser guides."""

import itertools

import pytest
import torch

from diffuse_cli.config import SAMPLERS, Sampling
from diffuse_cli.diffusion.guidance import classifier_free
from diffuse_cli.diffusion.samplers import Denoised
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.model_config import SCHEDULES, ModelConfig
from diffuse_cli.network.presets import network_config
from diffuse_cli.sampling.steps import guided_steps, sampling_times_of


def config(schedule="interpolated", resolution=64):
    return ModelConfig(network=network_config("nano", resolution, vocabulary=300, learned_variance=True),
                       schedule=schedule, prediction="v")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_times_fall_from_1_to_0_in_the_samplers_number_of_steps(schedule, sampler):
    for sampling in (Sampling(sampler=sampler), Sampling(sampler=sampler, steps=1), Sampling(sampler=sampler, steps=7)):
        times = sampling_times_of(config(schedule), sampling)
        assert len(times) == sampling.number_of_steps + 1
        assert (times[0], times[-1]) == (1.0, 0.0)
        assert all(later < earlier for earlier, later in itertools.pairwise(times))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("resolution", [8, 64, 256])
@pytest.mark.parametrize("interval", [None, (0.5, 2.0), (0.0, 1e9), (0.2, 0.2)])
def test_guided_steps_are_those_at_which_the_guided_denoiser_guides(schedule, resolution, interval):
    sampling = Sampling(steps=30, guidance_interval=interval)
    model = config(schedule, resolution)

    def estimate(noisy, t):
        return Denoised(noisy)

    denoise = classifier_free(estimate, lambda noisy, t: (Denoised(noisy), Denoised(noisy)), scale=3.0,
                              schedule=make_schedule(schedule, resolution), interval=sampling.interval_at(resolution))
    guided = [denoise(torch.zeros(1, 3, 2, 2), t).guided for t in sampling_times_of(model, sampling)[:-1]]
    assert guided_steps(model, sampling) == sum(guided)
    if interval == (0.0, 1e9):
        assert all(guided)
    elif interval == (0.2, 0.2):
        assert not any(guided)


def test_few_steps_may_pass_over_the_interval():
    assert guided_steps(config(resolution=8), Sampling(steps=2)) == 0
