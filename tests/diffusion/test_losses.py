"""Losses against their papers, restated for discrete times from the betas alone, and against Gaussian closed forms."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise import random
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from diffuse_cli.diffusion.losses import (
    discretised_log_likelihood,
    fine_log_variances,
    gaussian_kl,
    log_fraction,
    noise_loss,
    noise_weight,
    prior_bits,
    training_times,
    variance_loss,
)
from diffuse_cli.diffusion.schedule import FIRST_TIME, STEPS, Schedule, make_schedule
from diffuse_cli.model_config import PREDICTIONS, SCHEDULES

COSINE = make_schedule("cosine", 64)
GRID = torch.arange(1, STEPS + 1, dtype=torch.float64) / STEPS
PIXELS = torch.arange(256, dtype=torch.float64) / 127.5 - 1               # every value of an 8-bit picture


# ── Times ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None)
@given(batch_size=st.integers(1, 300), uniform=st.floats(0, 1, exclude_max=True), discrete=st.booleans())
def test_every_picture_draws_from_a_stratum_of_its_own(batch_size: int, uniform: float, discrete: bool) -> None:
    t = training_times(
        torch.full((batch_size,), uniform, dtype=torch.float64), index=torch.arange(batch_size),
        batch_size=batch_size, times="discrete" if discrete else "continuous")
    assert t.dtype == torch.float64
    assert t.min() >= FIRST_TIME
    assert t.max() <= 1
    low = torch.arange(batch_size, dtype=torch.float64) / batch_size
    if discrete:
        index = t * STEPS
        torch.testing.assert_close(index, index.round(), rtol=0, atol=1e-9)
        assert (index.round() > low * STEPS - 1e-9).all()
        assert (index.round() <= (low + 1 / batch_size) * STEPS + 1 + 1e-9).all()
    else:
        share = (t - FIRST_TIME) / (1 - FIRST_TIME)
        assert (share >= low - 1e-12).all()
        assert (share <= low + 1 / batch_size + 1e-12).all()


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_discrete_times_are_uniform_on_the_stock_grid(batch_size: int) -> None:
    """Averaged over the random number, for which a fine even grid stands, each of the 1000 times is equally likely."""
    draws = 7000 // batch_size
    uniform = ((torch.arange(draws, dtype=torch.float64) + 0.5) / draws).repeat_interleave(batch_size)
    t = training_times(uniform, index=torch.arange(batch_size).repeat(draws), batch_size=batch_size, times="discrete")
    assert torch.bincount((t * STEPS).round().long(), minlength=STEPS + 1).tolist() == [0] + [7] * STEPS


def test_the_largest_draw_of_the_last_picture_does_not_pass_the_noisy_end() -> None:
    """In float64 the sum of 4095 and the number below 1 is 4096."""
    uniform, index = torch.tensor([1 - 2.0**-53], dtype=torch.float64), torch.tensor([4095])
    for times in ("continuous", "discrete"):
        assert training_times(uniform, index=index, batch_size=4096, times=times).item() == 1


def test_micro_batches_draw_the_times_of_the_batch() -> None:
    uniform, index = torch.linspace(0, 0.99, 8, dtype=torch.float64), torch.arange(8)
    whole = training_times(uniform, index=index, batch_size=8, times="continuous")
    parts = [training_times(uniform[k : k + 2], index=index[k : k + 2], batch_size=8, times="continuous")
             for k in (0, 2, 4, 6)]
    assert torch.equal(whole, torch.cat(parts))


# ── Noise loss ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_noise_loss_is_the_mean_squared_error_of_the_noise(name: str, prediction: str) -> None:
    schedule = make_schedule(name, 64)
    t = torch.tensor([0.001, 0.05, 0.3, 0.6, 0.9], dtype=torch.float64)
    image, noise, error = random(3, 5, 3, 4, 4)
    noisy, target = schedule.add_noise(image, noise, t), schedule.target(prediction, image, noise, t)
    output = target + error
    estimate = schedule.noise_of(schedule.image_of(prediction, output, noisy, t), noisy, t)
    expected = (noise - estimate).square().mean((1, 2, 3))
    found = noise_loss(output, target, prediction=prediction, log_snr=schedule.log_snr(t))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


@settings(deadline=None)
@given(log_snr=st.floats(-20, 15), resolution=st.sampled_from([16, 32, 64, 128, 256]))
def test_the_weights_are_their_formulas(log_snr: float, resolution: int) -> None:
    def weight(loss_weighting: str) -> float:
        return noise_weight(loss_weighting, torch.tensor([log_snr], dtype=torch.float64), resolution).item()

    snr = math.exp(log_snr)
    assert weight("simple") == 1
    assert weight("min-snr") == pytest.approx(min(snr, 5) / snr, rel=1e-12)
    # sigmoid(b - λ) with b = 2 - 2 ln(resolution/64), so at any size the same at the same *blurred* noise level,
    # on the geometric mean of the errors of the noise and of v
    logistic = 1 / (1 + snr * math.exp(-2) * (resolution / 64) ** 2)
    assert weight("sigmoid") == pytest.approx(logistic * math.sqrt(1 + 1 / snr), rel=1e-12)


def test_the_sigmoid_objective_is_halfway_between_the_errors_of_the_noise_and_of_v() -> None:
    """At high noise the weighted loss is the geometric mean of the two errors; at b = 2 (64 px) half of it."""
    log_snr = torch.tensor([-9.0, 2.0], dtype=torch.float64)
    output, target = random(2, 2, 3, 4, 4)
    error_of_noise = noise_loss(output, target, prediction="v", log_snr=log_snr)
    error_of_v = (output - target).square().mean((1, 2, 3))
    expected = (error_of_noise * error_of_v).sqrt() * torch.tensor([1.0, 0.5])
    weighted = noise_weight("sigmoid", log_snr, 64) * error_of_noise
    torch.testing.assert_close(weighted, expected, rtol=1e-4, atol=0, check_dtype=False)


# ── Gaussians ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_gaussian_kl_is_torch_s() -> None:
    difference, log_q, log_p = random(3, 100)
    expected = kl_divergence(Normal(difference, (log_q / 2).exp()), Normal(torch.zeros(()), (log_p / 2).exp()))
    torch.testing.assert_close(gaussian_kl(difference, log_q, log_p), expected, rtol=1e-10, atol=1e-12)


def test_gaussian_kl_of_nearly_equal_variances_keeps_its_digits() -> None:
    """KL = gap²/4 for small gaps; of these, a float32 sum e^gap - 1 - gap would leave only rounding errors."""
    gap = torch.tensor([1e-3, 1e-2, -1e-2])
    torch.testing.assert_close(gaussian_kl(torch.zeros(3), gap, torch.zeros(3)), gap.square() / 4, rtol=2e-2, atol=0)


@settings(deadline=None)
@given(mean=st.floats(-1.5, 1.5), deviation=st.floats(1e-3, 3))
def test_the_likelihoods_of_all_256_values_sum_to_one(mean: float, deviation: float) -> None:
    log_likelihood = discretised_log_likelihood(
        PIXELS, mean=torch.full_like(PIXELS, mean), log_variance=torch.full_like(PIXELS, 2 * math.log(deviation)))
    assert log_likelihood.exp().sum().item() == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_likelihood_of_a_pixel_is_the_mass_of_its_bin(dtype: torch.dtype, sign: int) -> None:
    """Against the error function of the standard library; as exact far above the mean as far below it."""
    values, mean, deviation = (PIXELS[100:180] * sign).to(dtype), 0.1 * sign, 0.05
    expected = []
    for x in (PIXELS[100:180] * sign).tolist():
        near, far = (abs(x - mean) + edge / 255 for edge in (-1, 1))
        expected.append(0.5 * (math.erfc(near / deviation / math.sqrt(2)) - math.erfc(far / deviation / math.sqrt(2))))
    found = discretised_log_likelihood(values, mean=torch.full_like(values, mean),
                                       log_variance=torch.full_like(values, 2 * math.log(deviation))).exp()
    torch.testing.assert_close(found.double(), torch.tensor(expected, dtype=torch.float64), rtol=1e-3, atol=1e-10)


def test_hopeless_estimates_have_a_small_likelihood_and_no_broken_gradient() -> None:
    """At pure noise, the picture that an estimate of the noise implies can be wrong by thousands."""
    image = torch.tensor([-1.0, -1.0, 0.0, 0.0, 1.0, 1.0])
    mean = torch.tensor([1e5, -1e5, 1e5, -1e5, 1e5, -1e5])
    log_variance = torch.zeros(6, requires_grad=True)
    found = discretised_log_likelihood(image, mean=mean, log_variance=log_variance)
    floor = math.log(1e-12)
    assert found.tolist() == pytest.approx([floor, 0, floor, floor, 0, floor])
    (gradient,) = torch.autograd.grad(found.sum(), log_variance)
    assert gradient.isfinite().all()


# ── Variance loss ───────────────────────────────────────────────────────────────────────────────────────────────────


def improved_ddpm_step(
    schedule: Schedule, index: int, image: Tensor, estimate: Tensor, channels: Tensor
) -> Tensor:
    """L_t of Nichol & Dhariwal 2021 in bits per dimension for index 0 … 999, from the betas alone. → (N,)

    Their eq. 10 and 11 (posterior variance and mean), 15 (learned variance), section 3.1 (its clipped logarithm at
    index 0), 5 to 7 (L_t, and for index 0 the likelihood of the 8-bit picture).
    """
    beta = schedule.betas()
    alpha = 1 - beta
    alpha_bar = torch.cumprod(alpha, 0)
    previous = torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar[:-1]])
    beta_tilde = beta * (1 - previous) / (1 - alpha_bar)
    log_beta_tilde = torch.cat([beta_tilde[1:2], beta_tilde[1:]]).log()

    fraction = (channels + 1) / 2
    log_variance = fraction * beta[index].log() + (1 - fraction) * log_beta_tilde[index]
    from_image = previous[index].sqrt() * beta[index] / (1 - alpha_bar[index])
    if index > 0:
        # The share of noisy_t in both means is the same, so it is left out of both.
        true = Normal(from_image * image, torch.full_like(image, beta_tilde[index].sqrt().item()))
        nats = kl_divergence(true, Normal(from_image * estimate, (log_variance / 2).exp()))
    else:
        assert from_image.item() == pytest.approx(1)
        normal = Normal(estimate, (log_variance / 2).exp())
        upper = torch.where(image > 0.999, torch.ones_like(image), normal.cdf(image + 1 / 255))
        lower = torch.where(image < -0.999, torch.zeros_like(image), normal.cdf(image - 1 / 255))
        nats = -(upper - lower).clamp(min=1e-12).log()
    return nats.mean((1, 2, 3)) / math.log(2)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("index", [0, 1, 2, 10, 500, 998, 999])
def test_the_variance_loss_is_improved_ddpm_s(name: str, index: int) -> None:
    schedule = make_schedule(name, 64)
    image = PIXELS[torch.randint(256, (4, 3, 5, 5), generator=torch.Generator().manual_seed(index))]
    image[0, 0, 0] = torch.tensor([-1.0, 1.0, -1.0, 1.0, 0.0])                              # the outermost bins
    sigma = schedule.alpha_sigma(GRID[index])[1]
    estimate, channels = image + 0.5 * sigma * random(4, 3, 5, 5), torch.tanh(random(4, 3, 5, 5, seed=1))
    found = variance_loss(
        schedule, image=image, estimate=estimate, log_fraction=log_fraction(channels), t=GRID[index].expand(4))
    expected = improved_ddpm_step(schedule, index, image, estimate, channels)
    torch.testing.assert_close(found.double(), expected, rtol=2e-5, atol=1e-9)


def test_the_variance_loss_of_pictures_at_different_times_is_that_of_each_alone() -> None:
    t = torch.tensor([0.001, 0.0015, 0.002, 0.37, 1.0], dtype=torch.float64)
    image, estimate, channels = random(3, 5, 3, 4, 4).clamp(-1, 1).float()
    fraction = log_fraction(channels)
    together = variance_loss(COSINE, image=image, estimate=estimate, log_fraction=fraction, t=t)
    for k in range(5):
        alone = variance_loss(COSINE, image=image[k : k + 1], estimate=estimate[k : k + 1],
                              log_fraction=fraction[k : k + 1], t=t[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-6, atol=0)


def test_fine_variances_are_those_of_the_stock_betas_and_continuous_between_them() -> None:
    beta = COSINE.betas()
    alpha_bar = torch.cumprod(1 - beta, 0)
    beta_tilde = beta[1:] * (1 - alpha_bar[:-1]) / (1 - alpha_bar[1:])
    log_beta, log_beta_tilde = fine_log_variances(COSINE, GRID)
    torch.testing.assert_close(log_beta.exp(), beta, rtol=1e-8, atol=0)
    torch.testing.assert_close(log_beta_tilde.exp(), torch.cat([beta_tilde[:1], beta_tilde]), rtol=1e-8, atol=0)
    between = fine_log_variances(COSINE, (GRID[1:-2] + GRID[2:-1]) / 2)
    for middle, at in zip(between, (log_beta, log_beta_tilde), strict=True):
        assert (middle > torch.minimum(at[1:-2], at[2:-1]) - 1e-3).all()
        assert (middle < torch.maximum(at[1:-2], at[2:-1]) + 1e-3).all()


def test_the_variance_channels_run_from_minus_one_to_one_and_are_not_clamped() -> None:
    """-1 is beta_tilde and 1 is beta; outside, the loss must still be able to pull the output back."""
    channels = torch.tensor([-1.0, 0.0, 1.0, 3.0], requires_grad=True)
    fraction = log_fraction(channels)
    assert fraction.tolist() == [0, 0.5, 1, 2]
    fraction.sum().backward()
    assert channels.grad is not None
    assert channels.grad.tolist() == [0.5] * 4


@pytest.mark.parametrize("t", [0.002, 0.02, 0.3, 0.7])
def test_the_loss_teaches_the_variance_that_is_best(t: float) -> None:
    """For Gaussian data and the best mean its gradient vanishes at the closed-form fraction, and only pulls to it."""
    s = 0.5
    time = torch.tensor([t], dtype=torch.float64)
    alpha, sigma = (x.item() for x in COSINE.alpha_sigma(time))
    share = s**2 / (alpha**2 * s**2 + sigma**2)         # of the way from beta_tilde to beta, for any step
    log_beta, log_beta_tilde = (x.item() for x in fine_log_variances(COSINE, time))
    ratio = math.exp(log_beta - log_beta_tilde)
    best = 2 * math.log1p(share * (ratio - 1)) / math.log(ratio) - 1

    # Errors of the best estimate, the same in size as their expectation: E (image - estimate)² = s² sigma² / (…).
    error = math.sqrt(s**2 * sigma**2 / (alpha**2 * s**2 + sigma**2)) * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    image = torch.zeros(1, 1, 1, 2, dtype=torch.float64)
    slopes = []
    for shift in (-0.05, 0.0, 0.05):
        channels = torch.full_like(image, best + shift).requires_grad_()
        loss = variance_loss(
            COSINE, image=image, estimate=image + error, log_fraction=log_fraction(channels), t=time)
        slopes.append(torch.autograd.grad(loss.sum(), channels)[0].sum().item())
    assert slopes[0] < 0 < slopes[2]
    assert abs(slopes[1]) < 0.02 * min(-slopes[0], slopes[2])


# ── The whole bound ─────────────────────────────────────────────────────────────────────────────────────────────────


def gauss_hermite(count: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights whose weighted sums are the expectations over N(0, 1) of polynomials below degree 2·count.

    The nodes are the eigenvalues of the Jacobi matrix of Hermite's polynomials (Golub & Welsch 1969).
    """
    beside = torch.arange(1, count, dtype=torch.float64).sqrt()
    nodes, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return nodes, vectors[0] ** 2


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_the_whole_bound_of_gaussian_data_is_its_entropy(name: str) -> None:
    """Prior + 999 steps + decoder, in exact expectation over all 256 values and over the noise.

    Pixels are N(mu, s²) rounded to 8 bits; denoiser and variance are the best for the Gaussian before rounding. What
    this leaves of the gap: the true first noisy level, given a pixel, is N(·, sigma²), that of the model has the width
    of a bin in it as well, sigma² + (2/255)²/12.
    """
    schedule, mu, s = make_schedule(name, 64), 0.05, 0.2
    mass = discretised_log_likelihood(
        PIXELS, mean=torch.full_like(PIXELS, mu), log_variance=torch.full_like(PIXELS, 2 * math.log(s))).exp()
    entropy = -(mass * mass.log2()).sum().item()

    def step_bits(t: Tensor, nodes: int) -> float:
        """Sum of the steps that start at the times t: each (time, value, node) is a picture of one pixel."""
        node, weight = gauss_hermite(nodes)
        shape = (len(t), 256, nodes)
        time, image, noise = (x.expand(shape).reshape(-1, 1, 1, 1)
                              for x in (t[:, None, None], PIXELS[None, :, None], node))
        alpha, sigma = schedule.alpha_sigma(time)
        variance = alpha**2 * s**2 + sigma**2
        noisy = alpha * image + sigma * noise
        estimate = mu + alpha * s**2 / variance * (noisy - alpha * mu)
        log_beta, log_beta_tilde = (x.reshape(-1, 1, 1, 1) for x in fine_log_variances(schedule, time.flatten()))
        share = s**2 / variance
        log_best = torch.log(torch.lerp(log_beta_tilde.exp(), log_beta.exp(), share))
        last = time == FIRST_TIME
        log_best = torch.where(last, torch.log(share * sigma**2), log_best)     # Var[image | noisy]
        fraction = (log_best - log_beta_tilde) / (log_beta - log_beta_tilde)
        bits = variance_loss(schedule, image=image, estimate=estimate, log_fraction=fraction, t=time.flatten())
        return (bits.reshape(shape).double() * mass[:, None] * weight).sum().item()

    prior = (prior_bits(schedule, PIXELS.reshape(-1, 1, 1, 1)).double() * mass).sum().item()
    steps = sum(step_bits(part, nodes=3) for part in GRID[1:].split(100))               # quadratic in the noise
    bound = prior + steps + step_bits(GRID[:1], nodes=64)
    sigma = schedule.alpha_sigma(GRID[0])[1].item()
    widened = torch.tensor(sigma**2 + (2 / 255) ** 2 / 12).log()
    gap = gaussian_kl(torch.zeros(()), torch.tensor(sigma**2).log(), widened).item() / math.log(2)
    assert bound == pytest.approx(entropy + gap, abs=1e-4)
    assert bound > entropy


def test_prior_bits_are_those_of_the_last_level() -> None:
    image = random(4, 3, 5, 5).clamp(-1, 1)
    alpha, sigma = COSINE.alpha_sigma(torch.ones(1, dtype=torch.float64))
    expected = kl_divergence(Normal(alpha * image, sigma), Normal(0.0, 1.0)).mean((1, 2, 3)) / math.log(2)
    torch.testing.assert_close(prior_bits(COSINE, image), expected, rtol=1e-6, atol=1e-12)
