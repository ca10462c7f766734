"""The script that leaves with a model: its noise is ours, and its tables of steps lead where our samplers lead."""

import json
from unittest import mock

import numpy as np
import pytest
import torch

from diffuse_cli.config import Sampling
from diffuse_cli.diffusion.samplers import DETERMINISTIC, Denoised
from diffuse_cli.diffusion.sampling_times import sampling_times
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.exporting.onnx_folder import constants
from diffuse_cli.exporting.standalone.sample import noise_of, step_table
from diffuse_cli.model_config import PREDICTIONS, SCHEDULES, ModelConfig
from diffuse_cli.network.presets import network_config
from diffuse_cli.runtime import randomness
from diffuse_cli.sampling.steps import sampling_times_of


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 5, 5), (3, 32, 32)])
@pytest.mark.parametrize("seed", [0, 7, 2**62])
def test_the_script_computes_the_noise_of_a_seed(shape, seed):
    ours = randomness.normal(torch.tensor([randomness.key(seed, "sample", -1)]), shape)[0].numpy()
    theirs = noise_of(seed, shape)
    assert theirs.dtype == np.float32
    assert np.abs(theirs - ours).max() < 1e-6                           # the same bits, rounded by another library


@pytest.mark.parametrize("resolution", [8, 64])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_tables_of_steps_are_those_of_the_schedule(schedule, resolution):
    """Times and noise levels are those of the samplers, and a step keeps the right shares of picture and noise."""
    network = network_config("nano", resolution, vocabulary=None, learned_variance=True)
    for prediction in PREDICTIONS:
        model = mock.Mock(config=ModelConfig(network=network, schedule=schedule, prediction=prediction))
        numbers = json.loads(json.dumps(constants(model)))
        for steps in (1, 2, 3, 20, 37, 250):
            table = step_table(numbers, steps).astype(float)
            t = torch.tensor(sampling_times_of(model.config, Sampling(steps=steps))[:-1], dtype=torch.float64)
            alpha, sigma = (x.numpy() for x in make_schedule(schedule, resolution).alpha_sigma(t))
            time, from_noisy, from_output, _, _, keep, gain = table.T
            assert np.allclose(time, 1000 * t.numpy() - 1, atol=3e-4)
            assert np.allclose(keep * alpha + gain, [*alpha[1:], 1], rtol=1e-5)
            assert np.allclose(keep * sigma, [*sigma[1:], 0], rtol=1e-5)
            output = {"v": alpha * 2 - sigma, "epsilon": np.full(steps, 2), "x0": np.ones(steps)}[prediction]
            image = from_noisy * (alpha + sigma * 2) + from_output * output             # the picture 1 with noise 2
            assert np.allclose(image * alpha, alpha, atol=1e-6)


@pytest.mark.parametrize("sampler", ["dpmpp-2m", "ddim"])
@pytest.mark.parametrize("conditional", [True, False])
def test_tables_of_steps_lead_where_the_samplers_lead(conditional, sampler):
    """With the optimal denoiser for pixels of variance 1/4, whose estimates are doubled where guidance acts."""
    network = network_config("nano", 32, vocabulary=300 if conditional else None, learned_variance=True)
    config = ModelConfig(network=network, schedule="interpolated", prediction="v")
    numbers, schedule = constants(mock.Mock(config=config)), make_schedule("interpolated", 32)
    low, high = Sampling().interval_at(32) if conditional else (0, 0)

    def estimate(noisy, alpha, sigma):
        guided = low < sigma / alpha <= high
        return noisy * alpha / 4 / (alpha**2 / 4 + sigma**2) * (2 if guided else 1), guided

    def denoise(noisy, t):
        image, guided = estimate(noisy, *(x.item() for x in schedule.alpha_sigma(torch.tensor(t).double())))
        return Denoised(image, guided=guided)

    noise = torch.randn(1, 1, 4, 4, dtype=torch.float64)
    *_, last = DETERMINISTIC[sampler](denoise, noise, sampling_times(schedule, 20, 32), schedule)
    noisy, previous = noise.numpy(), 0
    for time, _, _, guided, memory, keep, gain in step_table(numbers, 20, sampler=sampler).astype(float):
        at_t = schedule.alpha_sigma(torch.tensor((time + 1) / 1000))
        image, acts = estimate(noisy, *(x.item() for x in at_t))
        assert acts == guided
        noisy, previous = keep * noisy + gain * (image + memory * (image - previous)), image
    assert np.allclose(noisy, last.noisy.numpy(), atol=1e-4)
