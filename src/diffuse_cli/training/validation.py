"""Measuring a model in training on held-out pictures."""

from collections.abc import Iterator

from .. import events
from ..errors import StorageError
from ..evaluation.noise_curve import noise_curve, validation_times
from ..storage import training_states
from . import saving
from .prepare import Session


def validate(session: Session) -> Iterator[events.Event]:
    """Measure the averaged weights on held-out pictures; keep them if they are the best so far."""
    images, tokens = session.validation
    if len(images) == 0:
        return
    learner, plan = session.learner, session.plan
    yield events.Paused(step=learner.step, doing="validating")
    curve = noise_curve(
        learner.averaged, config=plan.model, schedule=learner.schedule, images=images, tokens=tokens,
        device=learner.batches.device, micro_batch=learner.micro_batch, precision=learner.precision)
    session.noise_mse = sum(curve) / len(curve)
    best = session.best is None or session.noise_mse < session.best["noise_mse"]
    if best and plan.keep_best and learner.step < plan.steps:
        try:
            saving.save_model(session, session.directory / training_states.BEST_FILE, delivered="best")
        except StorageError as error:
            yield events.Noticed(message=f"{error.what}; training goes on", level="warning")
            best = False
    if best:
        session.best = {"step": learner.step, "noise_mse": session.noise_mse, "data_id": plan.data_id}
    yield events.Validated(
        step=learner.step, noise_mse=session.noise_mse, noise_mse_at=tuple(curve), best=best,
        log_snr=tuple(learner.schedule.log_snr(validation_times()).tolist()))
