"""The times of few steps: their levels are where the estimate changes most, and near the best ones that a search finds.

Pictures are Gaussian with the spectrum of natural ones, 1/f², for which the end of DDIM is a closed form. So is its
distance to the right end, and the best levels can be searched for.
"""

import itertools
import math

import pytest
import torch

from diffuse_cli.diffusion.samplers import Denoised, ddim
from diffuse_cli.diffusion.sampling_times import FEW_STEPS, few_levels, many_levels, sampling_times
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.model_config import SCHEDULES

SCHEDULE = make_schedule("interpolated", 64)


def spectrum(resolution, variance=0.3):
    """Variances of the cosine transform of R×R pixels, c/f², with the mean at frequency 1/2."""
    f = torch.arange(resolution, dtype=torch.float64)
    squares = (f[:, None] ** 2 + f**2).flatten()
    squares[0] = 0.25
    return variance * resolution**2 / squares / (1 / squares).sum()


def levels_of(times, schedule=SCHEDULE):
    """sigma/alpha at the times; 0 at time 0."""
    t = torch.tensor(times[:-1], dtype=torch.float64)
    return torch.cat([torch.exp(-schedule.log_snr(t) / 2), torch.zeros(1, dtype=torch.float64)])


def distance(variances, rho):
    """Squared Wasserstein distance between DDIM's pictures and the right ones, as a share of their variance.

    A step multiplies noisy/alpha by (v + rho_s·rho_t)/(v + rho_t²).
    """
    reached = rho[0]
    for t, s in itertools.pairwise(rho):
        reached = reached * (variances + s * t) / (variances + t * t)
    return ((reached - variances.sqrt()) ** 2).sum() / variances.sum()


def searched(variances, steps, start):
    """The least distance that any levels have, found by L-BFGS from `start`."""
    logs = start[1:-1].log().clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS([logs], max_iter=300, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = distance(variances, torch.cat([start[:1], logs.exp(), start[-1:]]))
        loss.backward()
        return loss

    optimiser.step(closure)
    return closure().item()


def test_the_distance_is_that_of_the_sampler():
    variances, times = spectrum(8), sampling_times(SCHEDULE, 4, 64)
    rho = levels_of(times)

    def denoise(noisy, t):
        alpha, sigma = (value.item() for value in SCHEDULE.alpha_sigma(torch.tensor(t, dtype=torch.float64)))
        return Denoised(alpha * variances / (alpha**2 * variances + sigma**2) * noisy)

    start = torch.ones(64, dtype=torch.float64) * SCHEDULE.alpha_sigma(torch.ones(1, dtype=torch.float64))[1]
    *_, last = ddim(denoise, start, times, SCHEDULE)
    expected = ((last.noisy - variances.sqrt()) ** 2).sum() / variances.sum()
    assert distance(variances, rho).item() == pytest.approx(expected.item(), rel=1e-6)


@pytest.mark.parametrize("resolution", [16, 32, 64, 128])
@pytest.mark.parametrize("steps", [2, 3, 4, 6, 8, 10])
def test_few_steps_are_nearly_the_best(resolution, steps):
    schedule, variances = make_schedule("interpolated", resolution), spectrum(resolution)
    rho = levels_of(sampling_times(schedule, steps, resolution), schedule)
    even = torch.cat([rho[:1], torch.exp(-many_levels(schedule, steps, resolution) / 2), rho[-1:]])
    ours = distance(variances, rho).item()
    assert ours < 1.35 * searched(variances, steps, rho)
    assert ours < 0.93 * distance(variances, even).item()


def test_the_estimate_changes_most_at_the_levels():
    """The mean squared error of the best estimate, 1/f² without end, falls evenly in the integral of the root."""
    rho = torch.exp(-few_levels(SCHEDULE, 8, 64) / 2)
    coarse, fine = 0.3 * 64, math.sqrt(0.3 / (2 * math.log(64)))
    fine_grid = torch.logspace(-8, 8, 400_001, dtype=torch.float64, base=math.e) * 2
    root = (1 / (1 + (fine_grid / coarse) ** 2) - 1 / (1 + (fine_grid / fine) ** 2)).sqrt()
    integral = root.cumsum(0) / root.sum()
    at = integral[torch.searchsorted(fine_grid, rho.flip(0))]
    torch.testing.assert_close(at, torch.arange(1, 8, dtype=torch.float64) / 8, rtol=0, atol=2e-3)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", range(1, 14))
def test_times_fall(schedule, steps):
    for resolution in (8, 64, 512):
        times = sampling_times(make_schedule(schedule, resolution), steps, resolution)
        assert len(times) == steps + 1
        assert (times[0], times[-1]) == (1, 0)
        assert all(t > s for t, s in itertools.pairwise(times))


def test_many_steps_are_even_in_log_snr():
    levels = -2 * levels_of(sampling_times(SCHEDULE, FEW_STEPS + 1, 64))[1:-1].log()
    torch.testing.assert_close(levels.diff(), levels.diff()[:1].expand(len(levels) - 1), rtol=1e-6, atol=0)
