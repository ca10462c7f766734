"""Distillation in segments: the target with which one step of the student is as good as the teacher's many."""

import itertools

import pytest
import torch
from noise import random

from diffuse_cli.diffusion import distillation
from diffuse_cli.diffusion.samplers import Denoised, ddim, run_sampler
from diffuse_cli.diffusion.sampling_times import many_levels
from diffuse_cli.diffusion.schedule import make_schedule
from diffuse_cli.model_config import SCHEDULES

SCHEDULE = make_schedule("interpolated", 64)


def gaussian(schedule, deviation):
    """The exact denoiser of Gaussian data with mean 0."""
    def denoise(noisy, t):
        alpha, sigma = (value.item() for value in schedule.alpha_sigma(torch.tensor(t, dtype=torch.float64)))
        return Denoised(alpha * deviation**2 / (alpha**2 * deviation**2 + sigma**2) * noisy)
    return denoise


def end(name, denoise, noisy, times, schedule):
    *_, last = run_sampler(name, denoise, noisy, times, schedule, fresh_noise=lambda _: noisy)
    return last.noisy


def times_of(value):
    return torch.full((2,), value, dtype=torch.float64)


@pytest.mark.parametrize("evaluations", [1, 2, 3, 4, 8])
def test_the_students_times_are_the_trailing_time_steps_of_other_programs(evaluations):
    diffusers = pytest.importorskip("diffusers")
    scheduler = diffusers.DDIMScheduler(timestep_spacing="trailing")
    scheduler.set_timesteps(evaluations)
    times = distillation.student_times(evaluations)
    assert [round(1000 * t - 1) for t in times[:-1]] == scheduler.timesteps.tolist()
    assert times[-1] == 0


@pytest.mark.parametrize("start", [1.0, 0.6])
@pytest.mark.parametrize("evaluations", [1, 3, 4, 7])
def test_every_time_belongs_to_the_step_over_it(evaluations, start):
    t = torch.linspace(0.001, 1, 1000, dtype=torch.float64)
    knots = distillation.student_time_at(t, evaluations, start)
    assert sorted(set(knots.tolist()), reverse=True) == distillation.student_times(evaluations, start)[:-1]
    assert torch.all((knots >= start * t - 1e-12) & (knots - start * t < start / evaluations))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("evaluations", [1, 2, 4, 8])
@pytest.mark.parametrize("resolution", [8, 64, 256])
@pytest.mark.parametrize("start", [1.0, 0.6])
def test_the_teachers_times_lead_from_one_of_the_students_to_the_next(schedule, evaluations, resolution, start):
    schedule = make_schedule(schedule, resolution)
    usual = many_levels(schedule, 20, resolution)
    count = 0
    for t, s in itertools.pairwise(distillation.student_times(evaluations, start)):
        times = distillation.segment_times(t, s, schedule, steps=20, resolution=resolution)
        assert (times[0], times[-1]) == (t, s)
        assert all(earlier > later for earlier, later in itertools.pairwise(times))
        inner = schedule.log_snr(torch.tensor([time for time in times if 0 < time < 1], dtype=torch.float64))
        assert (inner.diff() <= (usual[1] - usual[0]) * (1 + 1e-6)).all()
        count += len(times) - 1
    if start < 1:
        assert 3 <= count < 20 + 2 * evaluations
        return
    assert 20 <= count + 1e-9 <= 20 + 2 * evaluations
    if evaluations == 1:
        torch.testing.assert_close(inner, usual, rtol=0, atol=1e-6)                   # simply the usual times


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("t", "s"), [(1.0, 0.75), (0.5, 0.25), (0.25, 0.0), (1.0, 0.0)])
def test_the_target_is_the_image_that_a_step_of_ddim_used(schedule, t, s):
    schedule = make_schedule(schedule, 64)
    image, noisy = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1)
    reached = end("ddim", lambda noisy, t: Denoised(image), noisy, [t, s], schedule)
    found = distillation.student_target(noisy, reached, times_of(t), times_of(s), schedule)
    torch.testing.assert_close(found, image, rtol=0, atol=1e-9)


@pytest.mark.parametrize("evaluations", [1, 2, 4])
def test_a_student_that_hits_its_targets_ends_where_its_teacher_ends(evaluations):
    teacher, noisy = gaussian(SCHEDULE, 0.4), random(2, 3, 4, 4)
    times = distillation.student_times(evaluations)

    def student(noisy, t):
        small = distillation.segment_times(t, times[times.index(t) + 1], SCHEDULE, steps=200, resolution=64)
        reached = end("ddim", teacher, noisy, small, SCHEDULE)
        return Denoised(distillation.student_target(noisy, reached, times_of(t), times_of(small[-1]), SCHEDULE))

    small = list(itertools.chain(*(distillation.segment_times(
        t, s, SCHEDULE, steps=200, resolution=64)[:-1] for t, s in itertools.pairwise(times)), [0.0]))
    *_, last = ddim(student, noisy, times, SCHEDULE)
    torch.testing.assert_close(last.noisy, end("ddim", teacher, noisy, small, SCHEDULE), rtol=0, atol=1e-9)
    # and that is the right spread, which so few steps of the teacher itself miss
    assert last.noisy.std() == pytest.approx(0.4 * noisy.std().item(), rel=0.06)
    *_, alone = ddim(teacher, noisy, times, SCHEDULE)
    assert alone.noisy.std() < 0.9 * last.noisy.std()


def test_the_loss_is_the_error_of_v():
    noisy, v, other = random(2, 3, 4, 4), random(2, 3, 4, 4, seed=1), random(2, 3, 4, 4, seed=2)
    t = torch.tensor([0.3, 0.9], dtype=torch.float64)
    image, target = (SCHEDULE.image_of("v", output, noisy, t) for output in (v, other))
    loss = distillation.student_loss(image, target, t, SCHEDULE)
    torch.testing.assert_close(loss, (v - other).square().flatten(1).mean(1), rtol=1e-9, atol=0)
