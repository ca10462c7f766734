"""The figures of an evaluation against closed forms: the exact denoiser of Gaussian data, and one that outputs 0.

For pixels N(mu, s²) rounded to 8 bits, and the best denoiser and variance of the Gaussian before rounding, the bound is
the entropy of the rounded pixels, but for one gap: the true cleanest level, given a pixel, is N(·, sigma²), that of the
model has the width of a bin in it as well, sigma² + (2/255)²/12.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from diffuse_cli.diffusion.losses import fine_log_variances, gaussian_kl
from diffuse_cli.diffusion.samplers import Denoised
from diffuse_cli.diffusion.schedule import FIRST_TIME, STEPS, Schedule, make_schedule
from diffuse_cli.evaluation.likelihood import (
    LEVELS,
    Estimate,
    Likelihood,
    curve_weights,
    level_log_snrs,
    mean_of,
    noise_losses,
    ratio_of,
    stratified_steps,
    summarise,
    variational_bound,
)
from diffuse_cli.model_config import SCHEDULES
from diffuse_cli.runtime import randomness

BIN = 2 / 255
MU, S = 0.05, 0.2


@dataclass(frozen=True)
class Exact:
    """The best denoiser of Gaussian pixels. `doubt` multiplies the variance that it expects of the clean picture."""

    schedule: Schedule
    learned: bool = True
    doubt: float = 1.0
    bias: float = 0.0

    def __call__(self, noisy: Tensor, t: Tensor) -> Denoised:
        alpha, sigma = (x.reshape(-1, 1, 1, 1) for x in self.schedule.alpha_sigma(t))
        variance = alpha**2 * S**2 + sigma**2
        image = MU + alpha * S**2 / variance * (noisy - alpha * MU)
        log_beta, log_beta_tilde = (x.reshape(-1, 1, 1, 1) for x in fine_log_variances(self.schedule, t))
        share = self.doubt * S**2 / variance
        best = torch.log(torch.lerp(log_beta_tilde.exp(), log_beta.exp(), share))
        best = torch.where(t.reshape(-1, 1, 1, 1) < 1.5 / STEPS, torch.log(share * sigma**2), best)
        fraction = ((best - log_beta_tilde) / (log_beta - log_beta_tilde)).float().expand_as(noisy)
        return Denoised(image.float() + self.bias, fraction if self.learned else None)


def gaussian_pixels(count: int) -> Tensor:
    """(count, 3, 8, 8) in [-1, 1], on the grid of 8 bits."""
    continuous = MU + S * randomness.normal(randomness.keys(0, "test", 0, torch.arange(count)), (3, 8, 8))
    return ((continuous + 1) / BIN).round().clamp(0, 255) * BIN - 1


def measure(ask, schedule: Schedule, *, count: int = 256, seed: int = 0, learned: bool = True) -> Likelihood:
    image, index = gaussian_pixels(count), torch.arange(count)
    curves = noise_losses(ask, image, schedule=schedule, times=schedule.time_of(level_log_snrs(schedule)), seed=seed,
                          purpose="evaluation", index=index)
    bound = variational_bound(ask, image, schedule=schedule, seed=seed, index=index)
    return summarise(curves, [bound], schedule, learned=learned)


def entropy_of_rounded_pixels() -> float:
    """In bits, over all 256 values."""
    edges = torch.arange(257, dtype=torch.float64) * BIN - 1 - BIN / 2
    below = torch.special.ndtr((edges - MU) / S)
    mass = below.diff()
    mass[0], mass[-1] = below[1], 1 - below[-2]
    return -(mass * mass.clamp(min=1e-300).log2()).sum().item()


def gap_of_rounding(schedule: Schedule) -> float:
    sigma = schedule.alpha_sigma(torch.tensor(FIRST_TIME, dtype=torch.float64))[1].item()
    widened = torch.tensor(sigma**2 + BIN**2 / 12).log()
    return gaussian_kl(torch.zeros(()), torch.tensor(sigma**2).log(), widened).item() / math.log(2)


def assert_is(figure: Estimate | None, value: float, *, within: float = 3.0) -> None:
    assert figure is not None
    assert figure.standard_error is not None
    assert abs(figure.value - value) < within * figure.standard_error


# ── Gaussian data ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SCHEDULES)
def test_bits_per_dimension_of_gaussian_data_are_their_entropy(name: str) -> None:
    schedule = make_schedule(name, 8)
    truth = entropy_of_rounded_pixels() + gap_of_rounding(schedule)
    found = measure(Exact(schedule), schedule, count=1024)
    assert_is(found.bound, truth)
    assert_is(found.area, truth)
    for figure in (found.bound, found.area):
        assert figure.standard_error < 0.008                           # or the test would prove nothing
    if name == "sigmoid":                                              # whose cleanest level is wide beside a bin
        assert gap_of_rounding(schedule) < 1e-3


def test_a_schedule_that_ends_too_early_pays_for_it_before_the_first_step() -> None:
    """With λ from 7 to 0 the last level is not N(0, 1): both estimates are larger by the divergence between the two."""
    schedule = Schedule("short", lambda t: 7 - 7 * t)
    alpha, sigma = (x.item() for x in schedule.alpha_sigma(torch.tensor(1.0, dtype=torch.float64)))
    level = torch.tensor(alpha**2 * S**2 + sigma**2).log()
    lost = gaussian_kl(torch.tensor(alpha * MU), level, torch.zeros(())).item() / math.log(2)
    found = measure(Exact(schedule), schedule, count=1024)
    assert lost > 0.04
    assert_is(found.bound, entropy_of_rounded_pixels() + gap_of_rounding(schedule) + lost)
    assert_is(found.area, entropy_of_rounded_pixels() + gap_of_rounding(schedule) + lost)
    assert found.bound.standard_error < 0.01
    assert 0 < found.variance_gain.value < lost                        # the fixed variances pay it as well


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_noise_loss_of_gaussian_data_is_a_sigmoid_of_the_log_snr(name: str) -> None:
    """alpha²s² / (alpha²s² + sigma²), at every level and under both schedules."""
    schedule = make_schedule(name, 8)
    found = measure(Exact(schedule), schedule)
    log_snr, spread = torch.tensor(found.log_snr), math.log(S**2 + BIN**2 / 12)
    for level, figure in zip(torch.sigmoid(log_snr + spread).tolist(), found.noise_mse_at, strict=True):
        assert_is(figure, level, within=4)
    times = torch.linspace(FIRST_TIME, 1, 100_001, dtype=torch.float64)
    assert_is(found.noise_mse, torch.sigmoid(schedule.log_snr(times) + spread).mean().item())
    steps = torch.arange(1, 1001, dtype=torch.float64) / 1000
    reference = torch.sigmoid(make_schedule("cosine", 8).log_snr(steps) + spread).mean().item()
    assert_is(found.noise_mse_ref, reference)


def test_standard_errors_are_those_of_repeated_measurements() -> None:
    """Figures from other noise and other pictures deviate by as much as their standard errors say."""
    schedule = make_schedule("interpolated", 8)
    ask, figures = Exact(schedule), {"noise_mse": [], "bound": [], "area": [], "variance_calibration": []}
    pictures = gaussian_pixels(32 * 24).split(32)
    for turn, image in enumerate(pictures):
        index = torch.arange(32)
        curves = noise_losses(ask, image, schedule=schedule, times=schedule.time_of(level_log_snrs(schedule)),
                              seed=turn, purpose="evaluation", index=index)
        bound = variational_bound(ask, image, schedule=schedule, seed=turn, index=index)
        found = summarise(curves, [bound], schedule, learned=True)
        for name, values in figures.items():
            values.append(getattr(found, name))
    for name, values in figures.items():
        actual = torch.tensor([figure.value for figure in values]).std().item()
        estimated = torch.tensor([figure.standard_error for figure in values]).mean().item()
        assert 0.6 < estimated / actual < 1.7, name                   # a deviation of 24 is known to 15 %


def test_the_right_variance_is_calibrated_and_gains_over_both_fixed_ones() -> None:
    schedule = make_schedule("cosine", 8)
    found = measure(Exact(schedule), schedule)
    assert_is(found.variance_calibration, 1)
    assert found.variance_gain is not None
    assert found.variance_gain.value > 5 * found.variance_gain.standard_error
    timid = measure(Exact(schedule, doubt=2.0), schedule)
    assert_is(timid.variance_calibration, 0.5)
    assert timid.variance_gain.value < found.variance_gain.value
    assert timid.bound.value > found.bound.value
    assert timid.noise_mse == found.noise_mse                          # which does not depend on the variance


def test_a_fixed_variance_has_neither_gain_nor_calibration() -> None:
    schedule = make_schedule("cosine", 8)
    fixed, learned = (
        measure(Exact(schedule, learned=some), schedule, count=32, learned=some) for some in (False, True))
    assert fixed.variance_gain is fixed.variance_calibration is None
    assert fixed.bound.value > learned.bound.value


def test_a_worse_denoiser_costs_bits_by_both_routes() -> None:
    schedule = make_schedule("interpolated", 8)
    best, biased = (measure(Exact(schedule, bias=bias), schedule, count=64) for bias in (0.0, 0.01))
    for name in ("bound", "area", "noise_mse", "noise_mse_ref"):
        assert getattr(biased, name).value > getattr(best, name).value
    assert biased.variance_calibration.value > 1.05


# ── A denoiser that outputs 0 ───────────────────────────────────────────────────────────────────────────────────────


def test_a_denoiser_that_outputs_0_has_the_figures_of_the_formulas() -> None:
    """It estimates every picture as grey: the error of the noise is SNR·x², and the area an integral of e^log-SNR."""
    schedule, image = make_schedule("sigmoid", 8), gaussian_pixels(16)
    index = torch.arange(16)

    def ask(noisy: Tensor, t: Tensor) -> Denoised:
        return Denoised(torch.zeros_like(noisy))

    levels = level_log_snrs(schedule)
    curves = noise_losses(ask, image, schedule=schedule, times=schedule.time_of(levels), seed=0, purpose="p",
                          index=index)
    power = image.double().square().mean((1, 2, 3))
    torch.testing.assert_close(curves, levels.exp() * power[:, None], rtol=1e-5, atol=0)
    bound = variational_bound(ask, image, schedule=schedule, seed=0, index=index)
    first, last = schedule.log_snr(torch.tensor([1 / 1000, 1], dtype=torch.float64)).exp().tolist()
    found = summarise(curves, [bound], schedule, learned=False)
    expected = (bound.prior + bound.decoder + (first - last) * power / (2 * math.log(2))).mean().item()
    assert found.area.value == pytest.approx(expected, rel=0.01)       # of a curve that rises e-fold between levels
    torch.testing.assert_close(bound.lower, bound.total)               # without a variance it is beta_tilde
    assert not bound.learned_excess.any()


# ── The parts ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SCHEDULES)
def test_drawn_steps_stand_for_all_of_them(name: str) -> None:
    """The mean weighted sum of a number over drawn steps is its sum over steps 2 … 1000; a fine grid replaces draws."""
    schedule, draws = make_schedule(name, 64), 20_000
    uniform = ((torch.arange(draws, dtype=torch.float64) + 0.5) / draws).expand(3, draws)
    times, weights = stratified_steps(schedule, uniform)
    step = (times * STEPS).round().long()
    torch.testing.assert_close(times * STEPS, step.double(), rtol=0, atol=1e-9)
    assert (step >= 2).all()
    assert (step <= 1000).all()
    log_snr = schedule.log_snr(torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS)
    lengths = -log_snr.diff()                                          # [0] is that of step 2
    torch.testing.assert_close(weights * lengths[step - 2], (-lengths.sum().neg() / 3).expand_as(weights))
    for number in (lengths, lengths * log_snr[1:], lengths / (1 + lengths)):
        found = (weights * number[step - 2]).mean(1).sum().item()
        assert found == pytest.approx(number.sum().item(), rel=1e-3, abs=1e-2)
    for third, ends in zip(step, ([0, 1], [1, 2], [2, 3]), strict=True):
        low, high = (log_snr[0] + (log_snr[-1] - log_snr[0]) * end / 3 for end in ends)
        assert (log_snr[third - 2] >= high).all()                      # the step begins before the end of its interval
        assert (log_snr[third - 1] <= low).all()


def test_cubics_are_averaged_exactly_and_curves_are_constant_beyond_their_ends() -> None:
    levels = torch.linspace(9, -11, LEVELS, dtype=torch.float64)
    anywhere = torch.tensor([9.0, 8.9, 3.21, 0.0, -10.5, -11.0], dtype=torch.float64)
    for power in range(4):
        found = (curve_weights(levels, anywhere) * levels**power).sum()
        assert found.item() == pytest.approx((anywhere**power).mean().item(), abs=1e-9)
    beyond = torch.tensor([30.0, -30.0], dtype=torch.float64)
    ends = curve_weights(levels, beyond)
    assert ends[0].item() == pytest.approx(0.5)
    assert ends[-1].item() == pytest.approx(0.5)


def test_the_figures_of_a_picture_do_not_depend_on_its_batch() -> None:
    schedule, image = make_schedule("cosine", 8), gaussian_pixels(6)
    ask, index = Exact(schedule), torch.arange(6)
    whole = variational_bound(ask, image, schedule=schedule, seed=3, index=index)
    part = variational_bound(ask, image[4:], schedule=schedule, seed=3, index=index[4:])
    torch.testing.assert_close(part.total, whole.total[4:], rtol=1e-6, atol=0)
    other = variational_bound(ask, image, schedule=schedule, seed=4, index=index)
    assert (other.steps != whole.steps).all()


def test_figures_are_means_with_the_errors_of_means() -> None:
    values = torch.tensor([1.0, 2.0, 3.0, 6.0])
    assert mean_of(values) == Estimate(3.0, pytest.approx(math.sqrt(14 / 3) / 2))
    assert mean_of(values[:1]) == Estimate(1.0, None)
    assert ratio_of(2 * values, values) == Estimate(2.0, pytest.approx(0))
    assert ratio_of(values, torch.full((4,), 2.0)).standard_error == pytest.approx(math.sqrt(14 / 3) / 4)
