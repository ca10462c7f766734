"""When guidance acts, what it computes, and how the guided picture is brought back into range."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise import random
from torch import Tensor

from diffuse_cli.diffusion.guidance import classifier_free, dynamic_threshold, within_range
from diffuse_cli.diffusion.samplers import Denoised, Denoiser
from diffuse_cli.diffusion.schedule import Schedule, make_schedule

COSINE = make_schedule("cosine", 64)
ALWAYS = (0.0, math.inf)


NOISY, CONDITIONAL, UNCONDITIONAL = (0.05 * random(3, 2, 3, 8, 8)).unbind(0)
FRACTION, NULL_FRACTION = random(2, 2, 3, 8, 8, seed=1).sigmoid().unbind(0)


class Calls:
    """The two denoisers, which count their calls."""

    def __init__(self) -> None:
        self.conditional_calls = 0
        self.both_calls = 0

    def conditional(self, noisy: Tensor, t: float) -> Denoised:
        self.conditional_calls += 1
        return Denoised(CONDITIONAL, FRACTION)

    def both(self, noisy: Tensor, t: float) -> tuple[Denoised, Denoised]:
        self.both_calls += 1
        return Denoised(CONDITIONAL, FRACTION), Denoised(UNCONDITIONAL, NULL_FRACTION)

    def guided(self, *, scale: float, interval: tuple[float, float] = ALWAYS, schedule: Schedule = COSINE) -> Denoiser:
        return classifier_free(self.conditional, self.both, schedule=schedule, scale=scale, interval=interval)


def time_at(ratio: float) -> float:
    """The time at which sigma/alpha has this value."""
    return COSINE.time_of(torch.tensor([-2 * math.log(ratio)], dtype=torch.float64)).item()


# ── When it acts ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("scale", "ratio"), [(1.0, 1.0), (3.0, 0.1), (3.0, 7.0)])
def test_without_guidance_the_conditional_denoiser_is_asked_once(scale: float, ratio: float) -> None:
    calls = Calls()
    found = calls.guided(scale=scale, interval=(0.2, 6.0))(NOISY, time_at(ratio))
    assert (calls.conditional_calls, calls.both_calls) == (1, 0)
    assert found.image is CONDITIONAL
    assert found.log_fraction is FRACTION
    assert not found.guided


def test_within_the_interval_both_are_asked_in_one_call() -> None:
    calls = Calls()
    found = calls.guided(scale=3, interval=(0.2, 6.0))(NOISY, time_at(1))
    assert (calls.conditional_calls, calls.both_calls) == (0, 1)
    assert found.guided


def test_the_interval_excludes_its_low_end_and_includes_its_high_one() -> None:
    # A process whose sigma/alpha is exactly 1/4 at t = 1/4, and so on: λ = -2 ln t.
    exact = Schedule("exact", lambda t: -2 * torch.log(t))
    for ratio, expected in [(0.25, False), (0.25 + 1e-9, True), (0.5, True), (0.5 + 1e-9, False)]:
        found = Calls().guided(scale=3, interval=(0.25, 0.5), schedule=exact)(NOISY, ratio)
        assert found.guided == expected, ratio


@pytest.mark.parametrize("t", [0.001, 0.5, 1.0])
def test_an_unbounded_interval_guides_at_every_time(t: float) -> None:
    assert Calls().guided(scale=3)(NOISY, t).guided


# ── What it computes ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("scale", [0.0, 0.5, 2.0, 3.0])
@pytest.mark.parametrize("t", [0.1, 0.5, 0.9])
def test_guidance_in_noise_in_velocity_and_in_pictures_is_the_same(scale: float, t: float) -> None:
    """Ho & Salimans' eq. 6 with their 1 + w as the scale, on the noise or velocity that the two pictures imply."""
    time = torch.full((2,), t, dtype=torch.float64)
    found = Calls().guided(scale=scale)(NOISY, t).image
    assert found.abs().max() < 1                        # nothing was thresholded, so the formulas can be compared
    with_condition, without = (COSINE.noise_of(image, NOISY, time) for image in (CONDITIONAL, UNCONDITIONAL))
    noise = scale * with_condition + (1 - scale) * without
    torch.testing.assert_close(COSINE.image_of("epsilon", noise, NOISY, time), found, rtol=0, atol=1e-10)
    with_condition, without = (COSINE.target("v", image, COSINE.noise_of(image, NOISY, time), time)
                               for image in (CONDITIONAL, UNCONDITIONAL))
    velocity = scale * with_condition + (1 - scale) * without
    torch.testing.assert_close(COSINE.image_of("v", velocity, NOISY, time), found, rtol=0, atol=1e-10)


def test_scale_0_is_the_unconditional_model_and_the_variance_stays_the_conditional_one_s() -> None:
    found = Calls().guided(scale=0)(NOISY, 0.5)
    torch.testing.assert_close(found.image, UNCONDITIONAL)
    assert found.log_fraction is FRACTION


def test_a_strongly_guided_picture_is_thresholded() -> None:
    found = Calls().guided(scale=50)(NOISY, 0.5).image
    raw = UNCONDITIONAL + 50 * (CONDITIONAL - UNCONDITIONAL)
    assert raw.abs().max() > 1
    torch.testing.assert_close(found, dynamic_threshold(raw))
    assert found.abs().max() == 1


# ── Dynamic thresholding ────────────────────────────────────────────────────────────────────────────────────────────


@settings(deadline=None, max_examples=50)
@given(scale=st.floats(0.01, 100), seed=st.integers(0, 999))
def test_thresholding_leaves_pictures_in_range_alone_and_brings_others_into_it(scale: float, seed: int) -> None:
    image = scale * random(2, 3, 8, 8, seed=seed)
    found = dynamic_threshold(image)
    assert found.shape == image.shape
    assert found.abs().max() <= 1
    for before, after in zip(image, found, strict=True):
        if before.abs().max() <= 1:
            assert torch.equal(before, after)
        # Order and sign of the pixels stay; only what was clipped may become equal.
        order = before.flatten().argsort()
        assert (after.flatten()[order].diff() >= 0).all()
        assert (before * after >= 0).all()


def test_the_limit_is_the_value_below_which_the_share_of_absolute_pixels_lies() -> None:
    """Of 1000 pixels with absolute values 0.01 … 10, 99.5 % lie up to 9.95: the five above it are clipped to it."""
    values = torch.arange(1, 1001, dtype=torch.float64) / 100
    image = (values * torch.tensor([1.0, -1.0]).repeat(500)).flip(0).reshape(1, 1, 25, 40)
    found = dynamic_threshold(image)
    torch.testing.assert_close(found, image.clamp(-9.95, 9.95) / 9.95)
    assert (found.abs() == 1).sum() == 6
    torch.testing.assert_close(dynamic_threshold(image, share=0.5), image.clamp(-5, 5) / 5)


def test_a_few_outliers_are_clipped_and_the_rest_is_left_alone() -> None:
    """If 99.5 % lie within [-1, 1] already, the limit is 1, and the pixels are clipped."""
    image = (0.1 * random(1, 3, 20, 20)).clamp(-0.9, 0.9)
    image[0, 0, 0, :3] = torch.tensor([5.0, -7.0, 1.5], dtype=torch.float64)
    torch.testing.assert_close(dynamic_threshold(image), image.clamp(-1, 1))


def test_each_picture_has_its_own_limit() -> None:
    images = random(3, 3, 8, 8) * torch.tensor([0.1, 3.0, 50.0], dtype=torch.float64).reshape(3, 1, 1, 1)
    together = dynamic_threshold(images)
    for k in range(3):
        torch.testing.assert_close(together[k : k + 1], dynamic_threshold(images[k : k + 1]))


def test_opacity_is_clipped_and_not_made_smaller_with_the_colours() -> None:
    image = 3 * random(2, 4, 8, 8)
    found = dynamic_threshold(image, has_alpha=True)
    torch.testing.assert_close(found[:, 3:], image[:, 3:].clamp(-1, 1))
    torch.testing.assert_close(found[:, :3], dynamic_threshold(image)[:, :3])


# ── The pixel range ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_leaves_the_pixel_range_is_clipped_and_nothing_else_changes() -> None:
    image = torch.tensor([-3.0, -1.0, 0.25, 1.0, 7.0]).reshape(1, 1, 1, 5)
    now = within_range(lambda noisy, t: Denoised(image, FRACTION, guided=True))(NOISY, 0.5)
    assert now.image.flatten().tolist() == [-1, -1, 0.25, 1, 1]
    assert now.log_fraction is FRACTION
    assert now.guided
