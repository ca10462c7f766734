"""Editing against the closed forms of Gaussian data; with a linear denoiser these are exact, and no sample is drawn."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch
from noise import level, random
from torch import Tensor

from diffuse_cli.config import SAMPLER_STEPS, SAMPLERS
from diffuse_cli.diffusion.editing import JUMP_STEPS, diffuse_further, inpaint, start_from
from diffuse_cli.diffusion.samplers import Denoised, Step, ddim, run_sampler
from diffuse_cli.diffusion.sampling_times import sampling_times
from diffuse_cli.diffusion.schedule import make_schedule

SCHEDULE = make_schedule("interpolated", 64)
SCHEDULES = ["interpolated", "cosine", "linear", "sigmoid"]


def bent(noisy: Tensor, t: float) -> Denoised:
    """A nonlinear denoiser that mixes pixels, with a learned variance, and with guidance in the middle."""
    image = 0.7 * torch.sin(2 * noisy + 0.5 * noisy.roll(1, -1) + 3 * t)
    return Denoised(image, torch.sigmoid(3 * noisy), guided=0.3 < t < 0.7)


# ── Starting from a picture ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 20])
def test_at_strength_0_the_picture_is_returned_and_no_step_is_taken(name: str, steps: int) -> None:
    image, noise = random(2, 2, 3, 4, 4).float()
    noisy, times = start_from(image, noise, sampling_times(SCHEDULE, steps, 64), 0, SCHEDULE)
    assert torch.equal(noisy, image)
    assert list(run_sampler(name, bent, noisy, times, SCHEDULE, fresh_noise=lambda number: image)) == []


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 7, 20, 100])
def test_the_strength_is_the_time_from_which_the_whole_way_s_steps_are_taken(name: str, steps: int) -> None:
    schedule = make_schedule(name, 64)
    whole = sampling_times(schedule, steps, 64)
    image, noise = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    kept = []
    for strength in (0.002, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0):
        noisy, times = start_from(image, noise, whole, strength, schedule)
        alpha, sigma = level(schedule, strength)
        torch.testing.assert_close(noisy, alpha * image + sigma * noise, rtol=0, atol=1e-12)
        assert times[0] == strength
        assert times[1:] == whole[len(whole) - len(times) + 1 :]
        assert all(t > s for t, s in itertools.pairwise(times))
        # The first step is at least half as long as the one it replaces, and not longer than one and a half.
        after = len(whole) - len(times)
        if after and strength < whole[0]:
            assert times[0] <= (whole[after] + whole[after - 1]) / 2
        if len(times) > 2:
            assert times[0] >= (whole[after] + whole[after + 1]) / 2
        kept.append(len(times) - 1)
    assert kept == sorted(kept)
    assert kept[-1] == steps
    assert times == whole


def test_nothing_below_the_first_time_is_asked_of_a_network() -> None:
    _, times = start_from(random(1, 3, 4, 4), random(1, 3, 4, 4), sampling_times(SCHEDULE, 20, 64), 1e-6, SCHEDULE)
    assert times == [0.001, 0.0]


@pytest.mark.parametrize("steps", [200, 400])
def test_what_is_left_of_a_gaussian_picture_falls_with_the_strength_as_it_should(steps: int) -> None:
    """The flow back from noisy_t = alpha·x + sigma·noise leaves alpha·s/√(alpha²s² + sigma²) of x, noise for the rest.

    So pictures from the data stay pictures from the data, of variance s², whatever the strength.
    """
    s = 0.5

    def denoise(noisy: Tensor, t: float) -> Denoised:
        alpha, sigma = level(SCHEDULE, t)
        return Denoised(alpha * s**2 / (alpha**2 * s**2 + sigma**2) * noisy)

    image, noise = torch.eye(2, dtype=torch.float64)                    # the shares of x and of the noise
    left = []
    for strength in (0.1, 0.3, 0.5, 0.7, 0.9):
        noisy, times = start_from(image.reshape(2, 1, 1, 1), noise.reshape(2, 1, 1, 1),
                                  sampling_times(SCHEDULE, steps, 64), strength, SCHEDULE)
        *_, last = ddim(denoise, noisy, times, SCHEDULE)
        of_image, of_noise = last.noisy.flatten().tolist()
        alpha, sigma = level(SCHEDULE, strength)
        assert of_image == pytest.approx(alpha * s / math.sqrt(alpha**2 * s**2 + sigma**2), rel=4 / steps)
        assert of_image**2 * s**2 + of_noise**2 == pytest.approx(s**2, rel=8 / steps)
        left.append(of_image)
    assert left == sorted(left, reverse=True)
    assert left[0] > 0.9
    assert left[-1] < 0.05


# ── Diffusing further ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(("s", "t"), [(0, 0.001), (0, 0.5), (0, 1), (0.2, 0.3), (0.5, 1), (0.85, 0.999)])
def test_diffusing_in_two_goes_is_diffusing_in_one(name: str, s: float, t: float) -> None:
    """Amplitudes of picture, first noise and second noise: the first is alpha_t, the squares of the rest sigma_t²."""
    schedule = make_schedule(name, 64)
    alpha_s, sigma_s = level(schedule, s)
    image, first, second = torch.eye(3, dtype=torch.float64)
    of_image, of_first, of_second = diffuse_further(alpha_s * image + sigma_s * first, second, s, t, schedule).tolist()
    alpha_t, sigma_t = level(schedule, t)
    assert of_image == pytest.approx(alpha_t, rel=1e-9)
    assert math.hypot(of_first, of_second) == pytest.approx(sigma_t, rel=1e-9)


# ── Inpainting: what it keeps ───────────────────────────────────────────────────────────────────────────────────────

MASK = torch.zeros(1, 1, 4, 4, dtype=torch.bool)
MASK[..., 1:3, 2:] = True


def fresh(number: int) -> Tensor:
    return random(2, 3, 4, 4, seed=100 + number)


def painted(name: str, *, steps: int, resamplings: int, mask: Tensor = MASK, dtype: torch.dtype = torch.float64,
            strength: float = 1) -> tuple[Tensor, list[Step]]:
    """(the given picture, the states)."""
    image = random(2, 3, 4, 4, seed=1).to(dtype)
    noisy, times = start_from(image, fresh(-1).to(dtype), sampling_times(SCHEDULE, steps, 64), strength, SCHEDULE)
    return image, list(inpaint(
        name, bent, noisy, times, SCHEDULE, image=image, mask=mask, resamplings=resamplings,
        fresh_noise=lambda number: fresh(number).to(dtype)))


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize(("steps", "resamplings"), [(1, 1), (6, 1), (1, 3), (6, 3), (7, 3)])
def test_pixels_outside_the_mask_stay_exactly_as_they_were(name: str, steps: int, resamplings: int) -> None:
    image, states = painted(name, steps=steps, resamplings=resamplings, dtype=torch.float32)
    known = ~MASK.expand_as(image)
    assert torch.equal(states[-1].noisy[known], image[known])
    assert (states[-1].noisy[~known] != image[~known]).all()
    assert all(torch.equal(state.image[known], image[known]) for state in states)
    assert states[-1].t == 0
    assert len(states) == steps * resamplings


@pytest.mark.parametrize("name", SAMPLERS)
def test_with_nothing_masked_the_picture_is_returned_and_with_everything_it_is_drawn(name: str) -> None:
    image, states = painted(name, steps=5, resamplings=3, mask=torch.zeros_like(MASK))
    assert torch.equal(states[-1].noisy, image)
    image, states = painted(name, steps=9, resamplings=1, mask=torch.ones_like(MASK))
    noisy, times = start_from(image, fresh(-1), sampling_times(SCHEDULE, 9, 64), 1, SCHEDULE)
    drawn = run_sampler(name, bent, noisy, times, SCHEDULE, fresh_noise=fresh)
    assert all(torch.equal(one.noisy, other.noisy) for one, other in zip(states, drawn, strict=True))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_inpainted_picture_does_not_depend_on_its_company(name: str) -> None:
    masks = torch.cat([MASK, MASK.flip(-1)])
    image, times = random(2, 3, 4, 4, seed=1), sampling_times(SCHEDULE, 6, 64)

    def run(pictures: slice) -> Tensor:
        *_, last = inpaint(
            name, bent, fresh(-1)[pictures], times, SCHEDULE, image=image[pictures], mask=masks[pictures],
            resamplings=2, fresh_noise=lambda number: fresh(number)[pictures])
        return last.noisy

    torch.testing.assert_close(run(slice(0, 2))[1:], run(slice(1, 2)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_draw_has_a_number_of_its_own(name: str) -> None:
    numbers = []

    def noise(number: int) -> Tensor:
        numbers.append(number)
        return fresh(number)

    image = random(2, 3, 4, 4, seed=1)
    list(inpaint(name, bent, fresh(-1), sampling_times(SCHEDULE, 6, 64), SCHEDULE, image=image, mask=MASK,
                 resamplings=3, fresh_noise=noise))
    assert numbers == list(range(len(numbers)))
    jumps, steps_but_to_0 = 6 // JUMP_STEPS * 2, 3 * 5
    assert len(numbers) == jumps + (steps_but_to_0 if name in ("ddpm", "dpmpp-sde") else 0)


# ── Inpainting: what it paints ──────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Row:
    """A row of eight correlated Gaussian pixels of mean 0: the left four are known, the right four to be inpainted."""

    length: float                               # pixels over which correlation falls to 1/e
    s: float = 0.5
    pixels: int = 8
    log_fraction: float | None = None           # the learned variance; any number

    @property
    def covariance(self) -> Tensor:
        place = torch.arange(self.pixels, dtype=torch.float64)
        return self.s**2 * torch.exp(-(place[:, None] - place).abs() / self.length)

    def denoise(self, noisy: Tensor, t: float) -> Denoised:
        alpha, sigma = level(SCHEDULE, t)
        gain = alpha * self.covariance @ torch.linalg.inv(
            alpha**2 * self.covariance + sigma**2 * torch.eye(self.pixels, dtype=torch.float64))
        return Denoised(noisy @ gain, None if self.log_fraction is None else torch.full_like(noisy, self.log_fraction))

    def conditional(self) -> tuple[Tensor, Tensor]:
        """Of the pixels to inpaint: (matrix from the known pixels to their mean, covariance)."""
        known, wanted = slice(0, self.pixels // 2), slice(self.pixels // 2, None)
        gain = self.covariance[wanted, known] @ torch.linalg.inv(self.covariance[known, known])
        return gain, self.covariance[wanted, wanted] - gain @ self.covariance[known, wanted]


def row_states(name: str, row: Row, *, steps: int, resamplings: int) -> Iterator[tuple[float, Tensor, Tensor]]:
    """(t, matrix from the known pixels to the mean of all, covariance of all) after each step, by unit vectors."""
    half = row.pixels // 2
    draws = 1 + steps * resamplings * 3 // 2
    batch = half + draws * row.pixels
    image = torch.zeros(batch, 1, 1, row.pixels, dtype=torch.float64)
    image[:half, 0, 0, :half] = torch.eye(half)

    def noise(number: int) -> Tensor:
        unit = torch.zeros_like(image)
        first = half + (number + 1) * row.pixels
        assert first < batch
        unit[first : first + row.pixels, 0, 0] = torch.eye(row.pixels)
        return unit

    noisy, times = start_from(image, noise(-1), sampling_times(SCHEDULE, steps, 64), 1, SCHEDULE)
    wanted = (torch.arange(row.pixels) >= half).reshape(1, 1, 1, -1)
    for step in inpaint(name, row.denoise, noisy, times, SCHEDULE, image=image, mask=wanted, resamplings=resamplings,
                        fresh_noise=noise):
        state = step.noisy.reshape(batch, row.pixels)
        yield step.t, state[:half].T, state[half:].T @ state[half:]


def root(matrix: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((matrix + matrix.T) / 2)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T


def errors(name: str, row: Row, *, steps: int, resamplings: int) -> tuple[float, float]:
    """Squared Wasserstein distance to the true conditional distribution over its variance: (means, spreads).

    The first is a mean over the known pixels, as they are distributed.
    """
    half = row.pixels // 2
    *_, (_, mean, covariance) = row_states(name, row, steps=steps, resamplings=resamplings)
    gain, truth = row.conditional()
    wrong, found = mean[half:] - gain, covariance[half:, half:]
    means = torch.trace(wrong @ row.covariance[:half, :half] @ wrong.T)
    spreads = torch.trace(truth) + torch.trace(found) - 2 * torch.trace(root(root(truth) @ found @ root(truth)))
    return (means / torch.trace(truth)).item(), (spreads / torch.trace(truth)).item()


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("resamplings", [1, 3])
def test_the_known_pixels_are_always_the_given_picture_diffused_forward(name: str, resamplings: int) -> None:
    for t, mean, covariance in row_states(name, Row(3.0, log_fraction=0.9), steps=8, resamplings=resamplings):
        alpha, sigma = level(SCHEDULE, t)
        torch.testing.assert_close(mean[:4], alpha * torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-9)
        torch.testing.assert_close(covariance[:4, :4], sigma**2 * torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-9)


@pytest.mark.parametrize("length", [1.0, 20.0])
@pytest.mark.parametrize("name", SAMPLERS)
def test_resampling_comes_closer_to_the_true_conditional_distribution(name: str, length: float) -> None:
    once, five = (errors(name, Row(length), steps=SAMPLER_STEPS[name], resamplings=count) for count in (1, 5))
    assert sum(once) > 1.3 * sum(five)
    assert once[0] > 2 * five[0]


@pytest.mark.parametrize(("name", "bound"), [("dpmpp-2m", 0.03), ("unipc", 0.03), ("dpmpp-sde", 0.02)])
def test_the_more_the_closer(name: str, bound: float) -> None:
    """Without resampling, the error is 0.16 of the conditional variance, or 0.10 with noise at every step."""
    once, five, ten = (
        sum(errors(name, Row(3.0), steps=SAMPLER_STEPS[name], resamplings=count)) for count in (1, 5, 10))
    assert once > 0.09
    assert once > 2 * five > 3 * ten
    assert ten < bound
