"""The loss of a student: its teacher walks a segment in small guided steps, and the student learns to do it in one.

Half of the noisy pictures are real pictures with noise. The others are states that the student itself reaches from
noise, so that it also learns to mend the errors of its own earlier steps. The student of an upscaler reaches them from
the enlarged small picture with noise, where every picture that it draws starts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..config import Plan, Sampling
from ..denoiser import Network, encode_captions, features, predict
from ..diffusion import distillation
from ..diffusion.guidance import within_range
from ..diffusion.samplers import Denoiser, run_sampler
from ..diffusion.schedule import Schedule
from ..diffusion.upscaling import LowRes
from ..model_config import ModelConfig, Student
from ..network.network import Network as TextToImage
from ..runtime import randomness
from ..runtime.transfer import Packed
from ..sampling.guided import guided_denoiser
from .adversary import TIMES, Discriminator
from .loss import Batch, Coefficients

TEACHER_SAMPLER = "dpmpp-2m"
TEACHER_STEPS = 20                              # of the teacher from noise to picture; segments add a few
OWN_SHARE = 0.5                                 # share of the noisy pictures that the student makes itself


@dataclass(frozen=True)
class Teacher:
    """The model that a student learns from, and the empty caption from which its guidance leads away."""

    network: TextToImage
    empty: Tensor | None                        # (1, 77) tokens, on the network's device; None when unconditional


class Condition(NamedTuple):
    """What student and teacher are told of N noisy pictures."""

    text: Tensor | None                         # (N, 77, width), the teacher's features of their captions; or None
    negative: Tensor | None                     # (1, 77, width), of the empty caption; or None
    low_res: LowRes | None = None               # their small pictures, of an upscaler

    def of(self, rows: Tensor) -> "Condition":
        """That of some of the pictures. rows: their numbers (M,) int64"""
        return Condition(None if self.text is None else self.text[rows], self.negative,
                         self.low_res and self.low_res.of(rows))


@dataclass(frozen=True)
class Segments:
    """The steps of a student, and those of its teacher in the same segments. Nothing has gradients."""

    teacher: Teacher
    config: ModelConfig                         # of the student
    schedule: Schedule
    precision: str

    @property
    def student(self) -> Student:
        """What the student is to do."""
        assert self.config.student is not None
        return self.config.student

    @property
    def times(self) -> list[float]:
        """The student's times, from its start to 0."""
        return distillation.student_times(self.student.evaluations, self.student.start)

    def condition(self, batch: Batch) -> Condition:
        """What is told of the pictures of a batch. A student has the teacher's text encoder: it is not trained."""
        if self.teacher.empty is None:
            return Condition(None, None, batch.low_res)
        with torch.no_grad():
            text = encode_captions(
                self.teacher.network, batch.tokens, batch.caption_of, precision=self.precision)
            zero = torch.zeros(1, dtype=torch.int64, device=self.teacher.empty.device)
            return Condition(text, encode_captions(
                self.teacher.network, self.teacher.empty, zero, precision=self.precision), batch.low_res)

    def first_states(self, batch: Batch) -> Tensor:
        """The noisy pictures (N, C, H, W) from which a student draws: noise, and the enlarged picture of an upscaler.
        """
        if batch.enlarged is None:
            return batch.noise
        return self.schedule.add_noise(
            batch.enlarged, batch.noise, torch.tensor(self.student.start, dtype=torch.float64))

    @torch.no_grad()
    def own_states(self, student: Network, first: Tensor, t: float, condition: Condition) -> Tensor:
        """The noisy pictures which the student reaches at its time t from its `first_states`, (N, C, H, W) both."""
        return self._last("ddim", self._denoiser(student, condition, guidance=1.0), first,
                          [time for time in self.times if time >= t])

    @torch.no_grad()
    def targets(self, noisy: Tensor, t: float, condition: Condition) -> Tensor:
        """The images (N, C, H, W) which the student should estimate in noisy pictures (N, C, H, W) at its time t."""
        denoise = within_range(self._denoiser(self.teacher.network, condition, guidance=self.student.guidance))
        s = next(time for time in self.times if time < t)
        times = distillation.segment_times(t, s, self.schedule, steps=TEACHER_STEPS,
                                           resolution=self.config.network.schedule_side)
        reached = self._last(TEACHER_SAMPLER, denoise, noisy, times)
        first, last = (torch.tensor(time, dtype=torch.float64) for time in (times[0], times[-1]))
        return distillation.student_target(noisy, reached, first, last, self.schedule)

    def estimate(self, student: Network, noisy: Tensor, at: Coefficients, condition: Condition) -> Tensor:
        """The student's estimates of the images in noisy pictures, (N, C, H, W) both.

        at: the coefficients of their times, on their device.
        """
        prediction, _ = predict(student, noisy, at.time, condition.text, config=self.config, precision=self.precision,
                                low_res=condition.low_res)
        return self.schedule.image_of(self.config.prediction, prediction, noisy, at.level)

    def seen(self, image: Tensor, noise: Tensor, at: Coefficients, condition: Condition) -> list[Tensor]:
        """What the teacher sees in images with noise, (N, C, H, W) both; `denoiser.features`."""
        return features(self.teacher.network, self.schedule.add_noise(image, noise, at.level), at.time, condition.text,
                        precision=self.precision)

    def _denoiser(self, network: Network, condition: Condition, *, guidance: float) -> Denoiser:
        text, negative, low_res = condition
        sampling = Sampling(guidance=guidance, precision=self.precision)
        return guided_denoiser(
            network, self.config, self.schedule, text=text, negative=negative, sampling=sampling, low_res=low_res)

    def _last(self, sampler: str, denoise: Denoiser, noisy: Tensor, times: list[float]) -> Tensor:
        """The noisy pictures after the last of the times; `noisy` itself if there is one time only."""
        last = noisy
        for step in run_sampler(sampler, denoise, noisy, times, self.schedule, fresh_noise=lambda _: noisy):
            last = step.noisy
        return last


class DistillationLoss(nn.Module):
    """Student, discriminator and losses as one module, in the place of `loss.TrainingLoss`.

    discriminator: None for the squared error alone.
    """

    def __init__(self, network: Network, plan: Plan, segments: Segments,
                 discriminator: Discriminator | None = None) -> None:
        super().__init__()
        self.network, self.plan, self.discriminator = network, plan, discriminator
        self.segments = (segments,)             # in a tuple, so that the teacher's parameters are not this module's

    def forward(self, batch: Batch, keys: Tensor) -> Tensor:
        """N pictures of a step's batch, and a key for each (N,) → (3,) their part of the loss, of the loss, and 0.

        The parts of all pictures of a batch add up to `StepResult.losses`, the squared error. The gradient is also that
        of what the discriminator says, and of the discriminator. The keys are on the CPU, like the times, so that which
        picture is at which time, and which noisy picture is the student's own, is known without waiting.
        """
        (segments,) = self.segments
        condition, student = segments.condition(batch), segments.student
        t = distillation.student_time_at(batch.t, student.evaluations, student.start)
        own = randomness.uniform(keys, 1)[:, 0] < OWN_SHARE
        own = torch.where(t < student.start, own, student.start < 1)   # real pictures at t = 1 are noise as well
        groups = [(time, rows, rows & own) for time, rows in rows_at(t)]
        numbers = [which.nonzero()[:, 0] for _, *both in groups for which in both]         # of the pictures, on the CPU
        coefficients = Coefficients.of(segments.schedule, t).flat()
        sent = Packed([*coefficients, *numbers], batch.image.device).send()
        at, where = Coefficients.from_flat(sent[: len(coefficients)]), iter(sent[len(coefficients):])

        noisy, first = segments.schedule.add_noise(batch.image, batch.noise, at.level), segments.first_states(batch)
        target = torch.empty_like(noisy)
        for (time, _, _), rows, starts in zip(groups, where, where, strict=True):
            if len(starts):
                noisy[starts] = segments.own_states(self.network, first[starts], time, condition.of(starts))
            target[rows] = segments.targets(noisy[rows], time, condition.of(rows))
        image = segments.estimate(self.network, noisy, at, condition)
        loss = distillation.student_loss(image, target, at.level, segments.schedule)
        minimised = loss if self.discriminator is None else loss + self._adversarial(
            self.discriminator, image, target, t, keys, condition)
        return torch.stack([minimised, loss.detach(), torch.zeros_like(loss)], dim=1).sum(0) / self.plan.batch_size

    def _adversarial(self, discriminator: Discriminator, image: Tensor, target: Tensor, t: Tensor, keys: Tensor,
                     condition: Condition) -> Tensor:
        """What the discriminator adds to the loss of N estimates (N, C, H, W) at the student's times t (N,): (N,).

        The values are 0, because a sum of both losses says nothing. It is the gradients that matter, of the student and
        of the discriminator itself.
        """
        (segments,) = self.segments
        low, high = TIMES
        words = randomness.bits(keys, 3)                               # the first is for `own`
        judged_at = low + (high - low) * randomness.uniform(words[:, 1], 1)[:, 0]
        coefficients = Coefficients.of(segments.schedule, judged_at).flat()
        step = (t / segments.student.start * segments.student.evaluations).round().long() - 1
        *sent, step, noise_keys = Packed([*coefficients, step, words[:, 2].clone()], image.device).send()
        at, noise = Coefficients.from_flat(sent), randomness.normal(noise_keys, tuple(image.shape[1:]))
        with torch.no_grad():
            of_teacher = segments.seen(target, noise, at, condition)
        of_student, of_itself = discriminator(of_teacher, segments.seen(image, noise, at, condition), step)
        added: Tensor = self.plan.adversarial * of_student + of_itself
        return added - added.detach()


def rows_at(t: Tensor) -> Iterator[tuple[float, Tensor]]:
    """Each distinct time in t (N,), and which pictures have it: (N,) bool."""
    for time in sorted(set(t.tolist())):
        yield time, t == time


@dataclass(frozen=True)
class Probe:
    """Noisy held-out pictures at one of the student's times, with the answers of the teacher."""

    t: Tensor                                   # (N,), all equal
    noisy: Tensor                               # (N, C, H, W)
    target: Tensor                              # (N, C, H, W)
    condition: Condition
