"""Noise processes against their formulas, against those of diffusers, and against their own inverses."""

import math

import pytest
import torch
from diffusers import DDPMScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from noise import random
from torch import Tensor

from diffuse_cli.diffusion.schedule import FIRST_TIME, STEPS, Schedule, jump_log_variances, make_schedule
from diffuse_cli.model_config import PREDICTIONS, SCHEDULES

RESOLUTIONS = (8, 16, 32, 64, 128, 256, 512)
GRID = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS
SCHEDULES_64 = {name: make_schedule(name, 64) for name in SCHEDULES}

times = st.floats(FIRST_TIME, 1)
schedules = st.sampled_from(list(SCHEDULES_64.values()))


def alpha_bar(schedule: Schedule, t: Tensor) -> Tensor:
    return schedule.alpha_sigma(t)[0] ** 2


# ── The four schedules ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_the_log_snr_falls_strictly(name: str, resolution: int) -> None:
    t = torch.linspace(1e-4, 1, 10_000, dtype=torch.float64)
    assert (make_schedule(name, resolution).log_snr(t).diff() < 0).all()


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_interpolated_ends_where_even_the_mean_brightness_drowns(resolution: int) -> None:
    log_snr = make_schedule("interpolated", resolution).log_snr(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert log_snr[0].item() == pytest.approx(12, abs=1e-6)
    assert log_snr[1].item() == pytest.approx(-11 - 2 * math.log(max(resolution, 64) / 64), abs=1e-6)


@pytest.mark.parametrize("resolution", RESOLUTIONS)
def test_interpolated_is_a_cosine_shifted_at_its_noisy_end_on_a_stretched_axis(resolution: int) -> None:
    """λ = -2 ln tan(π u/2) + u·2 ln(32/resolution), solved for u, rises evenly with t: stretched, not clipped."""
    t = torch.linspace(0, 1, 101, dtype=torch.float64)
    log_snr = make_schedule("interpolated", resolution).log_snr(t)
    low, high = torch.zeros_like(t), torch.ones_like(t)
    for _ in range(60):
        u = (low + high) / 2
        too_clean = -2 * torch.log(torch.tan(math.pi / 2 * u)) + u * 2 * math.log(32 / resolution) > log_snr
        low, high = torch.where(too_clean, u, low), torch.where(too_clean, high, u)
    torch.testing.assert_close(u, u[0] + (u[-1] - u[0]) * t, rtol=0, atol=1e-12)
    assert u[0] > 0
    assert u[-1] < 1


def test_interpolated_at_32_pixels_is_not_shifted() -> None:
    first, last = (2 / math.pi * math.atan(math.exp(-log_snr / 2)) for log_snr in (12, -11))
    expected = -2 * torch.log(torch.tan(math.pi / 2 * (first + (last - first) * GRID)))
    torch.testing.assert_close(make_schedule("interpolated", 32).log_snr(GRID), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(("name", "stock"), [("cosine", "squaredcos_cap_v2"), ("linear", "linear")])
def test_cosine_and_linear_are_the_stock_ones(name: str, stock: str) -> None:
    scheduler = DDPMScheduler(beta_schedule=stock)
    schedule = SCHEDULES_64[name]
    # The tables of diffusers are float32, and a running product of a thousand factors in float32.
    torch.testing.assert_close(schedule.betas(), scheduler.betas.double(), rtol=1e-6, atol=2e-7)
    torch.testing.assert_close(alpha_bar(schedule, GRID), scheduler.alphas_cumprod.double(), rtol=1e-4, atol=0)


def test_linear_interpolates_the_logarithm_of_alpha_bar_between_its_steps() -> None:
    middles = (GRID[:-1] + GRID[1:]) / 2
    at_steps = alpha_bar(SCHEDULES_64["linear"], GRID).log()
    torch.testing.assert_close(
        alpha_bar(SCHEDULES_64["linear"], middles).log(), (at_steps[:-1] + at_steps[1:]) / 2, rtol=1e-9, atol=0)


def test_sigmoid_is_the_published_formula() -> None:
    """Jabri et al. 2022, algorithm 1: gamma(t) with start -3, end 3 and tau 1."""
    t = torch.linspace(0.001, 0.999, 99, dtype=torch.float64)
    start, end = 1 / (1 + math.e**3), 1 / (1 + math.e**-3)
    gamma = (end - 1 / (1 + torch.exp(-(t * 6 - 3)))) / (end - start)
    torch.testing.assert_close(alpha_bar(SCHEDULES_64["sigmoid"], t), gamma, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_only_interpolated_depends_on_the_resolution(name: str) -> None:
    at_32, at_128 = (make_schedule(name, resolution).log_snr(GRID) for resolution in (32, 128))
    assert torch.equal(at_32, at_128) == (name != "interpolated")


@settings(deadline=None, max_examples=50)
@given(schedule=schedules, t=times)
def test_signal_and_noise_preserve_the_variance_and_have_the_log_snr(schedule: Schedule, t: float) -> None:
    time = torch.tensor(t, dtype=torch.float64)
    alpha, sigma = (x.item() for x in schedule.alpha_sigma(time))
    assert alpha**2 + sigma**2 == pytest.approx(1, rel=1e-14)
    assert 2 * math.log(alpha / sigma) == pytest.approx(schedule.log_snr(time).item(), rel=1e-12, abs=1e-12)


# ── Adding noise and taking it away ─────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=50)
@given(schedule=schedules, prediction=st.sampled_from(PREDICTIONS), t=st.lists(times, min_size=1, max_size=4),
       seed=st.integers(0, 999))
def test_every_target_leads_back_to_its_picture_and_noise(
    schedule: Schedule, prediction: str, t: list[float], seed: int
) -> None:
    time = torch.tensor(t, dtype=torch.float64)
    image, noise = random(2, len(t), 3, 4, 5, seed=seed)
    noisy = schedule.add_noise(image, noise, time)
    target = schedule.target(prediction, image, noise, time)
    # Dividing by alpha = 5e-5 at the noisy end, or by sigma = 2e-3 at the clean one, costs digits.
    torch.testing.assert_close(schedule.image_of(prediction, target, noisy, time), image, rtol=0, atol=1e-10)
    torch.testing.assert_close(schedule.noise_of(image, noisy, time), noise, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["cosine", "linear"])
def test_noise_and_velocity_are_the_stock_ones(name: str) -> None:
    schedule, index = SCHEDULES_64[name], torch.tensor([0, 10, 500, 999])
    scheduler = DDPMScheduler(trained_betas=schedule.betas().tolist())
    image, noise = random(2, 4, 3, 8, 8).float()
    time = (index.double() + 1) / STEPS
    torch.testing.assert_close(
        schedule.add_noise(image, noise, time), scheduler.add_noise(image, noise, index), rtol=0, atol=1e-5)
    torch.testing.assert_close(
        schedule.target("v", image, noise, time), scheduler.get_velocity(image, noise, index), rtol=0, atol=1e-5)


def test_the_other_targets_are_noise_and_picture() -> None:
    image, noise = random(2, 3, 1, 2, 2)
    t = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    assert SCHEDULES_64["cosine"].target("epsilon", image, noise, t) is noise
    assert SCHEDULES_64["cosine"].target("x0", image, noise, t) is image


def test_each_picture_has_its_own_time_and_keeps_its_type() -> None:
    schedule = SCHEDULES_64["cosine"]
    image, noise = random(2, 3, 3, 4, 4).float()
    t = torch.tensor([0.001, 0.4, 0.9], dtype=torch.float64)
    together = schedule.add_noise(image, noise, t)
    assert together.dtype == torch.float32
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], schedule.add_noise(image[k : k + 1], noise[k : k + 1], t[k]))


# ── Times and stock betas ───────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=50)
@given(schedule=schedules, t=st.floats(FIRST_TIME, 0.9999))
def test_time_of_inverts_the_log_snr(schedule: Schedule, t: float) -> None:
    """Up to 0.9999: `cosine` and `sigmoid` are flat on the last 3e-5, because the last beta of the papers is capped."""
    time = torch.tensor([t], dtype=torch.float64)
    assert schedule.time_of(schedule.log_snr(time)).item() == pytest.approx(t, rel=1e-9)


@pytest.mark.parametrize("schedule", SCHEDULES_64.values(), ids=SCHEDULES)
def test_time_of_stays_within_the_trained_times(schedule: Schedule) -> None:
    found = schedule.time_of(torch.tensor([50.0, -50.0], dtype=torch.float64))
    assert found.tolist() == pytest.approx([FIRST_TIME, 1], abs=1e-15)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("resolution", [32, 64, 256])
def test_a_thousand_float32_betas_carry_the_process(name: str, resolution: int) -> None:
    """diffusers reads the `trained_betas` of an export as the same log-SNR, within 0.003."""
    schedule = make_schedule(name, resolution)
    betas = schedule.betas()
    assert betas.shape == (STEPS,)
    assert betas.min() > 0
    assert betas.max() < 0.9991
    stock = DDPMScheduler(trained_betas=betas.float().tolist()).alphas_cumprod.double()
    assert (torch.log(stock / (1 - stock)) - schedule.log_snr(GRID)).abs().max() < 0.003


# ── One step back ───────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=50)
@given(schedule=schedules, pair=st.tuples(times, times).filter(lambda pair: abs(pair[0] - pair[1]) > 1e-3))
def test_the_variances_of_a_jump_are_those_of_bayes_rule(schedule: Schedule, pair: tuple[float, float]) -> None:
    """noisy_t = ratio·noisy_s + N(0, beta); beta_tilde joins its precision with that of q(noisy_s | image)."""
    s, t = sorted(pair)
    at_t, at_s = (schedule.log_snr(torch.tensor(x, dtype=torch.float64)) for x in (t, s))
    (alpha_t, sigma_t), (alpha_s, sigma_s) = (schedule.alpha_sigma(torch.tensor(x, dtype=torch.float64))
                                              for x in (t, s))
    ratio = alpha_t / alpha_s
    beta = sigma_t**2 - ratio**2 * sigma_s**2
    beta_tilde = 1 / (1 / sigma_s**2 + ratio**2 / beta)
    log_beta, log_beta_tilde = jump_log_variances(at_t, at_s)
    torch.testing.assert_close(log_beta.exp(), beta, rtol=1e-8, atol=0)
    torch.testing.assert_close(log_beta_tilde.exp(), beta_tilde, rtol=1e-8, atol=0)


def test_the_jump_to_the_clean_picture_has_variance_sigma_squared_and_no_posterior_variance() -> None:
    schedule, t = SCHEDULES_64["cosine"], torch.tensor(0.3, dtype=torch.float64)
    log_beta, log_beta_tilde = jump_log_variances(schedule.log_snr(t), torch.tensor(math.inf, dtype=torch.float64))
    assert log_beta.exp().item() == pytest.approx(schedule.alpha_sigma(t)[1].item() ** 2, rel=1e-12)
    assert log_beta_tilde.item() == -math.inf
