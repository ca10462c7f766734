"""Validation: the noise loss of the averaged weights on held-out pictures."""

from .. import events
from ..evaluation.noise_curve import noise_curve, validation_times
from .session import Session


def measure(session: Session) -> events.Validated:
    """Measure the averaged weights on the pictures of `session.validation`.

    `Validated.best` is true if no earlier loss of the run was as low.
    """
    trainer, (images, tokens) = session.trainer, session.validation
    curve = noise_curve(
        trainer.averaged, config=session.plan.model, schedule=trainer.schedule, images=images, tokens=tokens,
        device=trainer.batches.device, micro_batch=trainer.micro_batch, precision=trainer.precision)
    session.noise_mse = sum(curve) / len(curve)
    return events.Validated(
        step=trainer.global_step, noise_mse=session.noise_mse, noise_mse_at=tuple(curve),
        best=session.best is None or session.noise_mse < session.best.noise_mse,
        log_snr=tuple(trainer.schedule.log_snr(validation_times()).tolist()))
