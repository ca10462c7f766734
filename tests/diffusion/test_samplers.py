"""Samplers against the closed forms of Gaussian data, and against the schedulers of diffusers on the same noise.

For pixels x ~ N(mu, s²) everything is known. noisy_t ~ N(alpha·mu, alpha²s² + sigma²); the best denoiser is

    E[x | noisy_t] = mu + alpha s² / (alpha²s² + sigma²) · (noisy_t - alpha·mu);

the probability flow keeps (noisy_t - alpha·mu) / √(alpha²s² + sigma²); and the best reverse variance of every jump lies
the share s² / (alpha²s² + sigma²) of the way from beta_tilde to beta.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UniPCMultistepScheduler
from noise import level, random
from torch import Tensor

from diffuse_cli.config import SAMPLER_STEPS, SAMPLERS
from diffuse_cli.diffusion.losses import fine_log_variances
from diffuse_cli.diffusion.samplers import (
    DETERMINISTIC,
    Denoised,
    Denoiser,
    FreshNoise,
    Step,
    ddim,
    ddpm,
    dpmpp_2m,
    dpmpp_sde,
    run_sampler,
    unipc,
)
from diffuse_cli.diffusion.sampling_times import sampling_times
from diffuse_cli.diffusion.schedule import FIRST_TIME, STEPS, Schedule, make_schedule
from diffuse_cli.pictures.pixels import to_pixels

COSINE = make_schedule("cosine", 64)


def log_snr_grid(schedule: Schedule, steps: int, *, first: float, last: float) -> list[float]:
    """steps + 1 times at evenly spaced log-SNRs."""
    return schedule.time_of(torch.linspace(first, last, steps + 1, dtype=torch.float64)).tolist()


@dataclass(frozen=True)
class Gaussian:
    mu: float
    s: float
    schedule: Schedule

    def variance(self, t: float) -> float:
        alpha, sigma = level(self.schedule, t)
        return alpha**2 * self.s**2 + sigma**2

    def denoise(self, noisy: Tensor, t: float) -> Denoised:
        alpha, _ = level(self.schedule, t)
        image = self.mu + alpha * self.s**2 / self.variance(t) * (noisy - alpha * self.mu)
        log_beta, log_beta_tilde = (x.item() for x in fine_log_variances(
            self.schedule, torch.tensor([t], dtype=torch.float64)))
        beta, beta_tilde = math.exp(log_beta), math.exp(log_beta_tilde)
        best = beta_tilde + self.s**2 / self.variance(t) * (beta - beta_tilde)
        log_fraction = (math.log(best) - log_beta_tilde) / (log_beta - log_beta_tilde)
        return Denoised(image, torch.full_like(noisy, log_fraction))

    def flow(self, noisy: Tensor, t: float, s: float) -> Tensor:
        """The probability-flow ODE's solution at time s from `noisy` at time t."""
        (alpha_t, _), (alpha_s, _) = level(self.schedule, t), level(self.schedule, s)
        return alpha_s * self.mu + (noisy - alpha_t * self.mu) * math.sqrt(self.variance(s) / self.variance(t))


# ── Order of convergence ────────────────────────────────────────────────────────────────────────────────────────────

ORDERS = {"ddim": 1, "euler": 1, "heun": 2, "dpmpp-2m": 2, "unipc": 3}


def flow_error(name: str, data: Gaussian, steps: int) -> float:
    times = log_snr_grid(data.schedule, steps, first=-6, last=4)
    noisy = random(4, 1, 2, 2)
    *_, last = DETERMINISTIC[name](data.denoise, noisy, times, data.schedule)
    assert last.t == times[-1]
    return (last.noisy - data.flow(noisy, times[0], times[-1])).abs().max().item()


@pytest.mark.parametrize("schedule", ["cosine", "interpolated", "linear"])
@pytest.mark.parametrize("name", ORDERS)
def test_errors_fall_at_the_order_of_the_solver(name: str, schedule: str) -> None:
    data = Gaussian(0.3, 0.5, make_schedule(schedule, 64))
    coarse, fine = (flow_error(name, data, steps) for steps in (80, 160))
    low, high = {1: (1.8, 2.2), 2: (3.4, 4.6), 3: (7, 9.5)}[ORDERS[name]]
    assert low < coarse / fine < high
    assert fine < {1: 0.02, 2: 3e-4, 3: 1e-5}[ORDERS[name]]


def test_every_deterministic_sampler_has_a_known_order_and_every_sampler_a_name() -> None:
    assert set(DETERMINISTIC) == set(ORDERS)
    assert set(SAMPLERS) == {*DETERMINISTIC, "ddpm", "dpmpp-sde"}


# ── Each sampler's own promises ─────────────────────────────────────────────────────────────────────────────────────


def bend(noisy: Tensor, t: float) -> Tensor:
    """An estimate of the clean picture that is nonlinear in the noisy one and mixes its pixels."""
    return 0.7 * torch.sin(2 * noisy + 0.5 * noisy.roll(1, -1) + 3 * t)


def bent(noisy: Tensor, t: float) -> Denoised:
    return Denoised(bend(noisy, t), torch.sigmoid(3 * noisy))


def euler_rule(denoise: Denoiser, noisy: Tensor, times: Sequence[float], schedule: Schedule) -> Iterator[Step]:
    """Euler's rule on d x / d rho = (x - image) / rho, with x = noisy/alpha and rho = sigma/alpha (Karras et al. 2022).
    """
    for t, s in itertools.pairwise(times):
        (alpha_t, sigma_t), (alpha_s, sigma_s) = level(schedule, t), level(schedule, s)
        rho_t, rho_s = sigma_t / alpha_t, sigma_s / alpha_s
        image = denoise(noisy, t).image
        slope = (noisy / alpha_t - image) / rho_t
        noisy = alpha_s * (image + rho_s * slope)                      # x + (rho_s - rho_t)·slope, without cancellation
        yield Step(s, noisy, image)


def test_ddim_is_euler_s_rule() -> None:
    times = sampling_times(COSINE, 12, 64)
    noisy = random(2, 3, 4, 4)
    for one, other in zip(ddim(bent, noisy, times, COSINE), euler_rule(bent, noisy, times, COSINE), strict=True):
        torch.testing.assert_close(one.noisy, other.noisy, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(one.image, other.image, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["interpolated", "cosine", "linear", "sigmoid"])
def test_the_sampler_euler_gives_the_8_bit_pictures_of_euler_s_rule(name: str) -> None:
    """In float32 the two ways of writing the same map differ in the last digits, which no 8-bit picture shows."""
    schedule = make_schedule(name, 64)
    data = Gaussian(0.1, 0.4, schedule)
    noisy, times = random(4, 3, 16, 16).float(), sampling_times(schedule, SAMPLER_STEPS["euler"], 64)
    *_, ours = run_sampler("euler", data.denoise, noisy, times, schedule, fresh_noise=lambda _: noisy)
    *_, rule = euler_rule(data.denoise, noisy, times, schedule)
    torch.testing.assert_close(ours.noisy, rule.noisy, rtol=0, atol=2e-6)
    assert (to_pixels(ours.noisy) == to_pixels(rule.noisy)).all()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_last_step_arrives_at_the_denoiser_s_picture(name: str, steps: int) -> None:
    times = sampling_times(COSINE, steps, 64)
    seen: list[tuple[float, Tensor]] = []

    def denoise(noisy: Tensor, t: float) -> Denoised:
        seen.append((t, bend(noisy, t)))
        return bent(noisy, t)

    reached = list(run_sampler(name, denoise, random(2, 3, 4, 4), times, COSINE,
                               fresh_noise=lambda step: random(2, 3, 4, 4, seed=step)))
    assert [step.t for step in reached] == times[1:]
    assert seen[-1][0] == times[-2]
    torch.testing.assert_close(reached[-1].noisy, seen[-1][1], rtol=1e-9, atol=1e-9)
    assert torch.equal(reached[-1].image, seen[-1][1])
    assert len(seen) == (max(2 * steps - 2, 1) if name == "heun" else steps)


@pytest.mark.parametrize("name", ["dpmpp-2m", "unipc", "dpmpp-sde"])
def test_multistep_samplers_restart_where_guidance_switches(name: str) -> None:
    """Guidance is switched on at step 4 and off at step 7: only there do earlier steps have no influence."""
    times = log_snr_grid(COSINE, 9, first=-6, last=4)
    guided = dict(zip(times, [False] * 4 + [True] * 3 + [False] * 3, strict=True))

    def denoise(noisy: Tensor, t: float) -> Denoised:
        return Denoised(bend(noisy, t), guided=guided[t])

    def noise(number: int) -> Tensor:
        return random(2, 3, 4, 4, seed=number)

    start = random(2, 3, 4, 4)
    states = [start, *(step.noisy for step in run_sampler(name, denoise, start, times, COSINE, fresh_noise=noise))]
    restarts = []
    for number, (t, s) in enumerate(itertools.pairwise(times)):
        (alone,) = run_sampler(name, denoise, states[number], [t, s], COSINE,
                               fresh_noise=lambda _, number=number: noise(number))
        if torch.allclose(states[number + 1], alone.noisy, rtol=0, atol=1e-10):
            restarts.append(number)
    assert restarts == [0, 4, 7]


def test_the_first_step_of_a_multistep_sampler_is_of_first_order() -> None:
    def noise(number: int) -> Tensor:
        return random(2, 3, 4, 4, seed=number)

    noisy, times = random(2, 3, 4, 4), [0.6, 0.35]
    (deterministic,) = ddim(bent, noisy, times, COSINE)
    for sampler in (dpmpp_2m, unipc):
        (step,) = sampler(bent, noisy, times, COSINE)
        torch.testing.assert_close(step.noisy, deterministic.noisy, rtol=0, atol=1e-10)
    (ancestral,) = ddpm(lambda noisy, t: Denoised(bend(noisy, t)), noisy, times, COSINE, fresh_noise=noise)
    (step,) = dpmpp_sde(bent, noisy, times, COSINE, fresh_noise=noise)
    torch.testing.assert_close(step.noisy, ancestral.noisy, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_picture_does_not_depend_on_its_company(name: str) -> None:
    noisy, times = random(3, 3, 4, 4), sampling_times(COSINE, 6, 64)

    def run(pictures: slice) -> Tensor:
        *_, last = run_sampler(name, bent, noisy[pictures], times, COSINE,
                               fresh_noise=lambda step: random(3, 3, 4, 4, seed=step)[pictures])
        return last.noisy

    torch.testing.assert_close(run(slice(0, 3))[1:2], run(slice(1, 2)), rtol=0, atol=1e-12)


# ── The grid ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("name", "resolution"), [
    *itertools.product(["interpolated", "cosine", "linear", "sigmoid"], [16, 32, 64]),
    ("interpolated", 256), ("cosine", 256), ("sigmoid", 256)])           # a level that `linear` does not reach
def test_times_make_one_wide_step_and_then_even_ones_in_log_snr(name: str, resolution: int) -> None:
    schedule = make_schedule(name, resolution)
    times = sampling_times(schedule, 20, resolution)
    assert len(times) == 21
    assert times[0] == 1
    assert times[-1] == 0
    assert all(t > s for t, s in itertools.pairwise(times))
    ratios = torch.tensor([sigma / alpha for alpha, sigma in (level(schedule, t) for t in times[1:-1])])
    assert ratios[0].item() == pytest.approx(1.5 * resolution, rel=1e-6)
    assert ratios[-1].item() == pytest.approx(0.03, rel=1e-6)
    gaps = ratios.log().diff()
    torch.testing.assert_close(gaps, gaps.mean().expand_as(gaps), rtol=1e-4, atol=0)


@pytest.mark.parametrize("resolution", [16, 64, 256])
@pytest.mark.parametrize("sampler", ["dpmpp-2m", "unipc", "heun"])
def test_the_mean_brightness_of_pictures_varies_as_it_should(sampler: str, resolution: int) -> None:
    """With a perfect denoiser, the mean of samples varies as that of the data, with a deviation of 0.3, within 5 %.

    Of all that pictures have in common with Gaussian data, the mean is decided first, at sigma/alpha of resolution/2.
    """
    schedule = make_schedule("interpolated", resolution)
    variance = 0.3**2 * 3 * resolution**2               # of the projection on a constant picture of norm 1

    def denoise(noisy: Tensor, t: float) -> Denoised:
        alpha, sigma = level(schedule, t)
        return Denoised(alpha * variance / (alpha**2 * variance + sigma**2) * noisy)

    times = sampling_times(schedule, 20, resolution)
    *_, last = run_sampler(sampler, denoise, torch.ones(1, 1, 1, 1, dtype=torch.float64), times, schedule,
                           fresh_noise=lambda step: random(1, 1, 1, 1, seed=step))
    assert last.noisy.item() == pytest.approx(math.sqrt(variance), rel=0.05)


def test_the_shortest_grids_and_one_that_cannot_reach_the_wide_level() -> None:
    assert sampling_times(COSINE, 1, 64) == [1, 0]
    assert (sampling_times(COSINE, 2, 64)[0], sampling_times(COSINE, 2, 64)[2]) == (1, 0)
    first, second, *_ = sampling_times(COSINE, 20, 64)
    alpha, sigma = level(COSINE, second)
    assert first == 1
    assert sigma / alpha == pytest.approx(96)
    linear = make_schedule("linear", 256)               # its noisiest level is sigma/alpha = 157, not 1.5·256
    for steps, resolution in ((12, 256), (10, 256), (10, 512)):
        times = sampling_times(linear, steps, resolution)
        assert all(t > s for t, s in itertools.pairwise(times))


# ── Samplers that draw noise: variances ─────────────────────────────────────────────────────────────────────────────


def variance_ratios(
    sampler: Callable[..., Iterator[Step]], data: Gaussian, times: Sequence[float], **options: str
) -> list[float]:
    """Variance of the sampler's states over the exact one, after each step.

    With a linear denoiser the result is a linear map of the first noise and of each step's, so running it on unit
    vectors gives its coefficients, and the sum of their squares is the variance: nothing is drawn.
    """
    sources = torch.eye(len(times), dtype=torch.float64)                # the start and every step but the last
    sources = torch.cat([torch.zeros(1, len(times), dtype=torch.float64), sources])     # nothing: the mean

    def noise(number: int) -> Tensor:
        return sources[:, number + 1].reshape(-1, 1, 1, 1)

    start = math.sqrt(data.variance(times[0])) * noise(-1)
    ratios = []
    for step in sampler(data.denoise, start, times, data.schedule, fresh_noise=noise, **options):
        mean, reached = step.noisy.flatten()[0], step.noisy.flatten()[1:]
        ratios.append((reached - mean).square().sum().item() / data.variance(step.t))
    return ratios


def clipped_grid(steps: int) -> list[float]:
    """`steps` times even in log-SNR from -10.2, the lowest that diffusers' solvers use, to FIRST_TIME; then 0."""
    first_time = COSINE.log_snr(torch.tensor(FIRST_TIME, dtype=torch.float64)).item()
    return [*log_snr_grid(COSINE, steps - 1, first=-10.2, last=first_time), 0.0]


@pytest.mark.parametrize("s", [0.25, 0.35, 0.5])
@pytest.mark.parametrize("steps", [4, 10, 25])
def test_the_linear_rule_draws_the_exact_variance_however_few_the_steps(s: float, steps: int) -> None:
    *_, before, after = variance_ratios(ddpm, Gaussian(0.2, s, COSINE), clipped_grid(steps), variance_rule="linear")
    assert before == pytest.approx(1, abs=0.003)
    assert after == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("s", [0.25, 0.5, 0.8])
@pytest.mark.parametrize("steps", [4, 10, 25])
def test_the_linear_rule_is_exact_on_the_default_grid_too(s: float, steps: int) -> None:
    schedule = make_schedule("interpolated", 64)
    *_, before, _ = variance_ratios(
        ddpm, Gaussian(0.2, s, schedule), sampling_times(schedule, steps, 64), variance_rule="linear")
    assert before == pytest.approx(1, abs=0.003)


@pytest.mark.parametrize("s", [0.25, 0.35, 0.5])
def test_the_log_rule_draws_too_little_at_few_steps(s: float) -> None:
    before = {steps: variance_ratios(ddpm, Gaussian(0.2, s, COSINE), clipped_grid(steps), variance_rule="log")[-2]
              for steps in (4, 10, 25)}
    assert 0.32 < before[4] < 0.36
    assert 0.71 < before[10] < 0.81
    assert 0.94 < before[25] < 0.98


@pytest.mark.parametrize("schedule", ["cosine", "interpolated", "linear"])
@pytest.mark.parametrize("s", [0.25, 1.0, 1.5])
def test_the_variance_of_dpmpp_sde_is_right_to_second_order(s: float, schedule: str) -> None:
    """Ancestral steps with the same noise, but without the extrapolation, are right to first order only."""
    data = Gaussian(0.3, s, make_schedule(schedule, 64))

    def error(sampler: Callable[..., Iterator[Step]], steps: int) -> float:
        return abs(variance_ratios(sampler, data, log_snr_grid(data.schedule, steps, first=-9, last=4))[-1] - 1)

    def first_order(denoise: Denoiser, *arguments: Any, fresh_noise: FreshNoise) -> Iterator[Step]:
        return ddpm(lambda noisy, t: Denoised(denoise(noisy, t).image), *arguments, fresh_noise=fresh_noise)

    assert 3.4 < error(dpmpp_sde, 80) / error(dpmpp_sde, 160) < 5
    assert 1.8 < error(first_order, 80) / error(first_order, 160) < 2.2
    assert error(dpmpp_sde, 160) < 1e-3


@pytest.mark.parametrize("s", [0.25, 0.5, 0.8])
def test_dpmpp_sde_keeps_the_variance_at_its_usual_steps(s: float) -> None:
    schedule = make_schedule("interpolated", 64)
    times = sampling_times(schedule, SAMPLER_STEPS["dpmpp-sde"], 64)
    *_, before, after = variance_ratios(dpmpp_sde, Gaussian(0.2, s, schedule), times)
    assert before == pytest.approx(1, abs=0.015)
    assert after == pytest.approx(1, abs=0.02)


def test_on_the_fine_grid_both_rules_are_one() -> None:
    noisy = random(2, 3, 4, 4)

    def run(rule: str, times: Sequence[float]) -> Tensor:
        *_, last = ddpm(bent, noisy, times, COSINE, fresh_noise=lambda k: random(2, 3, 4, 4, seed=k),
                        variance_rule=rule)
        return last.noisy

    for start in (1.0, 0.5, 0.002):
        times = [start, start - 1 / STEPS]
        torch.testing.assert_close(run("linear", times), run("log", times), rtol=0, atol=1e-9)
    assert not torch.allclose(run("linear", [0.5, 0.4]), run("log", [0.5, 0.4]), rtol=0, atol=1e-3)


def test_the_linear_rule_is_what_ddpm_uses_by_name() -> None:
    times, noisy = sampling_times(COSINE, 5, 64), random(2, 3, 4, 4)

    def noise(number: int) -> Tensor:
        return random(2, 3, 4, 4, seed=number)

    by_name = run_sampler("ddpm", bent, noisy, times, COSINE, fresh_noise=noise)
    linear = ddpm(bent, noisy, times, COSINE, fresh_noise=noise, variance_rule="linear")
    for one, other in zip(by_name, linear, strict=True):
        assert torch.equal(one.noisy, other.noisy)


def test_without_a_learned_variance_the_posterior_s_is_drawn() -> None:
    """beta_tilde by Bayes' rule: the precisions of q(noisy_s | image) and of q(noisy_t | noisy_s) add up."""
    t, s = 0.6, 0.35
    (alpha_t, sigma_t), (alpha_s, sigma_s) = level(COSINE, t), level(COSINE, s)
    ratio = alpha_t / alpha_s
    beta = sigma_t**2 - ratio**2 * sigma_s**2
    beta_tilde = 1 / (1 / sigma_s**2 + ratio**2 / beta)
    image, noisy, noise = random(3, 2, 3, 4, 4)

    (step,) = ddpm(lambda noisy, t: Denoised(image), noisy, [t, s], COSINE, fresh_noise=lambda number: noise)
    mean = beta_tilde * (alpha_s / sigma_s**2 * image + ratio / beta * noisy)
    torch.testing.assert_close(step.noisy, mean + math.sqrt(beta_tilde) * noise, rtol=0, atol=1e-10)


# ── The schedulers of diffusers ─────────────────────────────────────────────────────────────────────────────────────

MODELS = [("linear", "epsilon"), ("interpolated", "epsilon"), ("interpolated", "v"), ("cosine", "v")]
Predict = Callable[[Tensor, float], tuple[Tensor, Tensor]]
Scheduler = DDIMScheduler | DDPMScheduler | DPMSolverMultistepScheduler | UniPCMultistepScheduler


def model(schedule: Schedule, prediction: str) -> tuple[Predict, Denoiser]:
    """One fixed function of (noisy, t), as a network (prediction, variance channels) and as a denoiser."""

    def predict(noisy: Tensor, t: float) -> tuple[Tensor, Tensor]:
        alpha, sigma = level(schedule, t)
        image = bend(noisy, t)
        noise = (noisy - alpha * image) / sigma
        return noise if prediction == "epsilon" else alpha * noise - sigma * image, torch.cos(5 * noisy + t)

    def denoise(noisy: Tensor, t: float) -> Denoised:
        output, channels = predict(noisy, t)
        time = torch.full((len(noisy),), t, dtype=torch.float64)
        return Denoised(schedule.image_of(prediction, output, noisy, time), (channels + 1) / 2)

    return predict, denoise


def diffusers_options(schedule: Schedule, prediction: str) -> dict[str, object]:
    return {"trained_betas": schedule.betas().tolist(), "timestep_spacing": "linspace",
            "prediction_type": {"v": "v_prediction", "epsilon": "epsilon"}[prediction]}


def diffusers_times(scheduler: Scheduler) -> list[float]:
    """The index c of diffusers is t = (c + 1)/1000; the clean end, which its schedulers imply, is 0."""
    return [(int(index) + 1) / STEPS for index in scheduler.timesteps] + [0.0]


def diffusers_steps(scheduler: Scheduler, predict: Predict, noisy: Tensor, **options: torch.Generator) -> list[Tensor]:
    states = []
    for index in scheduler.timesteps:
        noisy = scheduler.step(predict(noisy, (int(index) + 1) / STEPS)[0], index, noisy, **options).prev_sample
        states.append(noisy)
    return states


@pytest.mark.parametrize(("name", "prediction"), MODELS)
@pytest.mark.parametrize("sampler", ["ddim", "euler", "dpmpp-2m", "unipc"])
@pytest.mark.parametrize("steps", [10, 30])
def test_deterministic_samplers_agree_with_diffusers(name: str, prediction: str, sampler: str, steps: int) -> None:
    schedule = make_schedule(name, 64)
    options = diffusers_options(schedule, prediction)
    if sampler == "unipc":
        scheduler = UniPCMultistepScheduler(**options, solver_order=2, solver_type="bh2", final_sigmas_type="zero")
    elif sampler == "dpmpp-2m":
        scheduler = DPMSolverMultistepScheduler(
            **options, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero")
    else:
        scheduler = DDIMScheduler(**options, clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(steps)
    if sampler in ("ddim", "euler"):
        # DDIM in diffusers lowers the index by a fixed stride; it does not go to the next of its own times.
        scheduler.timesteps = torch.arange(STEPS - 1, -1, -(STEPS // steps))
    predict, denoise = model(schedule, prediction)
    noisy = random(2, 3, 8, 8).float()
    ours = DETERMINISTIC[sampler](denoise, noisy, diffusers_times(scheduler), schedule)
    for expected, found in zip(diffusers_steps(scheduler, predict, noisy), ours, strict=True):
        torch.testing.assert_close(found.noisy, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "prediction"), MODELS)
@pytest.mark.parametrize("steps", [10, 30])
def test_dpmpp_sde_agrees_with_diffusers(name: str, prediction: str, steps: int) -> None:
    schedule = make_schedule(name, 64)
    scheduler = DPMSolverMultistepScheduler(**diffusers_options(schedule, prediction), algorithm_type="sde-dpmsolver++",
                                            solver_order=2, final_sigmas_type="zero")
    scheduler.set_timesteps(steps)
    predict, denoise = model(schedule, prediction)
    noisy = random(2, 3, 8, 8).float()
    theirs, ours = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)
    walk = dpmpp_sde(denoise, noisy, diffusers_times(scheduler), schedule,
                     fresh_noise=lambda number: torch.randn(noisy.shape, generator=ours))
    for expected, found in zip(diffusers_steps(scheduler, predict, noisy, generator=theirs), walk, strict=True):
        torch.testing.assert_close(found.noisy, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("name", "prediction", "steps"), [
    *(pytest.param(name, prediction, steps) for name, prediction in MODELS for steps in (10, 50)),
    ("cosine", "v", 1000)])
def test_ddpm_with_the_log_rule_agrees_with_diffusers(name: str, prediction: str, steps: int) -> None:
    """The scheduler of diffusers also interpolates between the bounds of the *jump*, so any number of steps compares.

    Its running product is float32, from which the beta of a single step has three digits; here it is float64, so that
    the rules are compared and not the tables.
    """
    schedule = make_schedule(name, 64)
    options = diffusers_options(schedule, prediction)
    scheduler = DDPMScheduler(**options, variance_type="learned_range", clip_sample=False)
    scheduler.alphas_cumprod = torch.cumprod(1 - schedule.betas(), 0)
    scheduler.set_timesteps(steps)
    predict, denoise = model(schedule, prediction)
    noisy = start = random(2, 3, 8, 8).float()
    theirs, ours = torch.Generator().manual_seed(1), torch.Generator().manual_seed(1)

    walk = ddpm(denoise, start, diffusers_times(scheduler), schedule, variance_rule="log",
                fresh_noise=lambda number: torch.randn(start.shape, generator=ours))
    for index, found in zip(scheduler.timesteps, walk, strict=True):
        output = torch.cat(predict(noisy, (int(index) + 1) / STEPS), dim=1)
        noisy = scheduler.step(output, index, noisy, generator=theirs).prev_sample
        torch.testing.assert_close(found.noisy, noisy, rtol=0, atol=1e-4)
