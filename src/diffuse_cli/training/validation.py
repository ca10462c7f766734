"""Validation: the noise loss of the averaged weights on held-out pictures; of a student, its distance to its teacher.
"""

import torch

from .. import events
from ..config import VALIDATION_LEVELS
from ..diffusion.distillation import student_loss
from ..evaluation.noise_curve import noise_curve, validation_times
from ..runtime import randomness
from .distillation import Probe, Segments
from .loss import Batch, Coefficients
from .session import Session

PROBE_PICTURES = 32                             # held-out pictures in each validation of a student, at most


def measure(session: Session) -> events.Validated:
    """Measure the averaged weights on the pictures of `session.validation`.

    `Validated.best` is true if no earlier loss of the run was as low.
    """
    if session.trainer.segments is not None:
        return _measure_student(session, session.trainer.segments)
    trainer, groups = session.trainer, session.validation
    total = sum(len(group.images) for group in groups)
    curve = [0.0] * VALIDATION_LEVELS
    for images, tokens, low_res, _ in groups:
        losses = noise_curve(
            trainer.averaged, config=session.plan.model, schedule=trainer.schedule, images=images, tokens=tokens,
            device=trainer.batches.device, micro_batch=trainer.micro_batch, precision=trainer.precision,
            low_res=low_res)
        curve = [mean + len(images) / total * loss for mean, loss in zip(curve, losses, strict=True)]
    session.noise_mse = sum(curve) / len(curve)
    return events.Validated(
        step=trainer.global_step, noise_mse=session.noise_mse, noise_mse_at=tuple(curve),
        best=session.best is None or session.noise_mse < session.best.noise_mse,
        log_snr=tuple(trainer.schedule.log_snr(validation_times()).tolist()))


# ── Students ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _probes(session: Session, segments: Segments) -> list[Probe]:
    """A probe for each of the student's times, from the first `PROBE_PICTURES` of the validation, of its first size.

    The noise is fixed. Those of an upscaler start as its pictures do, with noise on the enlarged small picture.
    """
    device, size = session.trainer.batches.device, session.trainer.micro_batch
    group, probes = session.validation[0], []
    count = min(PROBE_PICTURES, len(group.images))
    for number, time in enumerate(segments.times[:-1]):
        for start in range(0, count, size):
            part = group.of(slice(start, min(start + size, count)), device)
            image = part.images if part.enlarged is None or number else part.enlarged
            index = torch.arange(start, start + len(image))
            noise = randomness.normal(
                randomness.keys(0, "validation", round(1000 * time), index).to(device), tuple(image.shape[1:]))
            t = torch.full((len(image),), time, dtype=torch.float64)
            noisy = segments.schedule.add_noise(image, noise, t)
            everyone = None if part.tokens is None else torch.arange(len(image), device=device)
            condition = segments.condition(Batch(image, noise, t, part.tokens, everyone, low_res=part.low_res))
            probes.append(Probe(t, noisy, segments.targets(noisy, time, condition), condition))
    return probes


@torch.no_grad()
def _measure_student(session: Session, segments: Segments) -> events.Validated:
    """The loss of the averaged student on held-out pictures, at each of its times, and their mean."""
    trainer = session.trainer
    if not session.probes:
        session.probes = _probes(session, segments)
    sums: dict[float, list[float]] = {}
    for probe in session.probes:
        at = Coefficients.of(segments.schedule, probe.t).on(probe.noisy.device)
        image = segments.estimate(trainer.averaged, probe.noisy, at, probe.condition)
        loss = student_loss(image, probe.target, at.level, segments.schedule)
        sums.setdefault(probe.t[0].item(), []).extend(loss.tolist())
    curve = {time: sum(losses) / len(losses) for time, losses in sums.items()}
    session.noise_mse = sum(curve.values()) / len(curve)
    return events.Validated(
        step=trainer.global_step, noise_mse=session.noise_mse, noise_mse_at=tuple(curve.values()),
        best=session.best is None or session.noise_mse < session.best.noise_mse,
        log_snr=tuple(segments.schedule.log_snr(torch.tensor(list(curve), dtype=torch.float64)).tolist()))
