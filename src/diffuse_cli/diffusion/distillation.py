"""Distillation in segments: a student learns to do in one step what its teacher does in several.

The student steps through the times 1, 1 - 1/E, …, 0 by DDIM, whose step t → s is noisy_s = alpha_s·image +
sigma_s·noise, with noise = (noisy_t - alpha_t·image)/sigma_t. There is one `image` for which this step ends where the
teacher's small steps from t to s end; the student is trained to estimate it (Salimans & Ho 2022, 2202.00512, section 3,
with more than two steps of the teacher; Luhman & Luhman 2021). An upscaler does not start from noise, at 1: all times
of its student are so many times smaller.

In formulas alpha and sigma are the amplitudes of picture and noise, and E is the number of the student's evaluations.
"""

import math

import torch
from torch import Tensor

from .sampling_times import many_levels
from .schedule import Level, Schedule, column


def student_times(evaluations: int, start: float = 1.0) -> list[float]:
    """The evaluations + 1 times that a student visits, even from `start`, in (0, 1], to 0.

    Those from 1, 1 - 1/E, …, are what programs call trailing time steps.
    """
    return [start * (evaluations - number) / evaluations for number in range(evaluations + 1)]


def student_time_at(t: Tensor, evaluations: int, start: float = 1.0) -> Tensor:
    """The first of the student's times that is not below t·start, where its step over t·start begins.

    t: any shape, in (0, 1], float64 → the same shape; each is exactly one of `student_times`
    """
    return start * torch.ceil(t * evaluations).clamp(1, evaluations) / evaluations


def segment_times(t: float, s: float, schedule: Schedule, *, steps: int, resolution: float) -> list[float]:
    """The times from the student's time t to its next, s, that the teacher visits, both included.

    They are even in log-SNR, and no further apart than in `many_levels` of so many steps. From pure noise the teacher
    first goes to the highest of these levels, and to the clean picture from the lowest.
    """
    usual = many_levels(schedule, steps, resolution)
    at_t, at_s = (schedule.log_snr(torch.tensor([time], dtype=torch.float64)) for time in (t, s or 1.0))    # (1,) each
    noisy, clean = usual[:1] if t == 1 else at_t, usual[-1:] if s == 0 else at_s
    count = math.ceil((clean - noisy).item() / (usual[1] - usual[0]).item() - 1e-6)
    if count < 1:
        return [t, s]
    levels = torch.lerp(noisy, clean, torch.linspace(0, 1, count + 1, dtype=torch.float64))
    inner = levels[0 if t == 1 else 1 : None if s == 0 else -1]
    return [t, *schedule.time_of(inner).tolist(), s]


def student_target(noisy_t: Tensor, noisy_s: Tensor, t: Tensor, s: Tensor, schedule: Schedule) -> Tensor:
    """The image with which DDIM's step takes noisy_t to noisy_s: (noisy_s - r·noisy_t)/(alpha_s - r·alpha_t).

    r = sigma_s/sigma_t. noisy_t, noisy_s: (N, C, H, W); t, s: (N,) or of no dimension, float64, with s < t and s ≥ 0
    → (N, C, H, W)
    """
    alpha_t, sigma_t = schedule.alpha_sigma(t)
    alpha_s, sigma_s = schedule.alpha_sigma(s.clamp(min=torch.finfo(torch.float64).tiny))
    alpha_s, sigma_s = torch.where(s > 0, alpha_s, 1.0), torch.where(s > 0, sigma_s, 0.0)
    ratio = sigma_s / sigma_t
    scale = 1 / (alpha_s - ratio * alpha_t)
    return column(scale, noisy_t) * noisy_s - column(scale * ratio, noisy_t) * noisy_t


def student_loss(image: Tensor, target: Tensor, t: Tensor | Level, schedule: Schedule) -> Tensor:
    """‖image - target‖²/(D·sigma_t²), the error of v over the D values of a picture (Salimans & Ho 2022, appendix D).

    image: (N, C, H, W), the student's estimate at times or levels t (N,); target: (N, C, H, W)
    → (N,) float32
    """
    sigma = schedule.at(t).sigma
    return (image - target).square().flatten(1).mean(1) / sigma.square().to(image)


def hinge_losses(real: Tensor, estimated: Tensor, hoped: Tensor) -> tuple[Tensor, Tensor]:
    """What a discriminator says of targets and of estimates → the losses of N students and of N discriminators, (N,).

    They are -D(x̂), and max(0, 1 - D(x̃)) + max(0, 1 + D(x̂)) (Lim & Ye 2017, 1705.02894), as means over places.

    real, estimated: (N, 1, H, W), of targets x̃ and of estimates x̂, with gradients for the discriminator; hoped: the
    same values as `estimated`, with gradients for the student.
    """
    of_student, of_discriminator = -hoped, torch.relu(1 - real) + torch.relu(1 + estimated)
    return of_student.flatten(1).mean(1), of_discriminator.flatten(1).mean(1)
