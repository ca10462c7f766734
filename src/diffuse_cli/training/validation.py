"""Validation: the noise loss of the averaged weights on held-out pictures, and the best weights so far."""

from collections.abc import Generator, Iterator

from .. import events
from ..errors import StorageError
from ..evaluation.noise_curve import noise_curve, validation_times
from ..storage import training_states
from . import saving
from .prepare import Best, Session


def validate(session: Session) -> Iterator[events.Event]:
    """Measure, keep the weights if they are the best so far, and tell. Does nothing without held-out pictures."""
    if len(session.validation[0]) == 0:
        return
    trainer, schedule = session.trainer, session.trainer.schedule
    yield events.Paused(step=trainer.global_step, doing="validating")
    curve = _measure(session)
    session.noise_mse = sum(curve) / len(curve)
    is_best = session.best is None or session.noise_mse < session.best.noise_mse
    if is_best:
        is_best = yield from _keep_best(session)
    yield events.Validated(
        step=trainer.global_step, noise_mse=session.noise_mse, noise_mse_at=tuple(curve), best=is_best,
        log_snr=tuple(schedule.log_snr(validation_times()).tolist()))


def _measure(session: Session) -> list[float]:
    """The noise loss at each of `validation_times`, with the averaged weights."""
    trainer, (images, tokens) = session.trainer, session.validation
    return noise_curve(
        trainer.averaged, config=session.plan.model, schedule=trainer.schedule, images=images, tokens=tokens,
        device=trainer.batches.device, micro_batch=trainer.micro_batch, precision=trainer.precision)


def _keep_best(session: Session) -> Generator[events.Event, None, bool]:
    """Remember the present weights as the best, and keep them in a file. → whether that worked

    The last step needs no file: its weights are saved anyway.
    """
    trainer, plan = session.trainer, session.plan
    assert session.noise_mse is not None
    if plan.keep_best and trainer.global_step < plan.steps:
        try:
            saving.save_model(session, session.directory / training_states.BEST_FILE, delivered="best")
        except StorageError as error:
            yield events.Noticed(message=f"{error.what}; training continues", level="warning")
            return False
    session.best = Best(trainer.global_step, session.noise_mse, plan.data_id)
    return True
