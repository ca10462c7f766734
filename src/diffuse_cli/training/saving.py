"""What a training leaves on the disk: the states it goes on from, and the model that it delivers."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import events
from ..data import caption_words
from ..errors import StorageError
from ..files import durable
from ..storage import checkpoint, registry, training_states
from . import saving
from .monitor import Due
from .prepare import Session


def save(session: Session) -> events.Saved:
    """A training state and the model of this moment, so that a model in training can be sampled."""
    begun, learner = time.monotonic(), session.learner
    path = training_states.state_path(session.directory, learner.step)
    record = {"learner": learner.record(), "best": session.best, "noise_mse": session.noise_mse}
    size, sha256 = checkpoint.save_state(path, learner.tensors(), record)
    training_states.acknowledge(session.directory, training_states.SavedState(learner.step, path, size, sha256),
                     keep=session.plan.cooldown_start)
    if learner.step < session.plan.steps:                              # the last is delivered, or a better one
        save_model(session, session.directory / registry.MODEL_FILE, delivered="last")
    return events.Saved(step=learner.step, path=str(path), bytes=size, seconds=time.monotonic() - begun)


def rescue(session: Session, error: StorageError) -> StorageError:
    """Write the model where there is room, now that its run's directory cannot take it. → the error, saying where."""
    for place in (Path(), Path(tempfile.gettempdir())):
        path = place / f"{session.run.name}-{session.learner.step:08d}.safetensors"
        try:
            if not path.exists():
                save_model(session, path, delivered="last")
                where = f"The model as it is now, without what training needs, was written to {path.absolute()}"
                return StorageError(error.what, hint=f"{error.hint}. {where}" if error.hint else where)
        except (OSError, StorageError):
            continue
    return error


def save_model(session: Session, path: Path, *, delivered: str) -> None:
    plan, learner = session.plan, session.learner
    captions = (caption for position in session.split.train.tolist() for caption in session.dataset.captions[position])
    training = {
        "name": session.run.name, "preset": plan.preset, "step": learner.step, "steps": plan.steps,
        "images_seen": learner.step * plan.batch_size, "train_images": plan.train_images, "seed": plan.seed,
        "objective": plan.objective, "optimizer": plan.optimizer, "lr": plan.lr, "batch_size": plan.batch_size,
        "captions": session.run.found.source, "noise_mse": session.noise_mse, "delivered": delivered,
        "data_id": plan.data_id, "init_id": plan.init_id}
    checkpoint.save_model(
        path, config=plan.model, weights=learner.averaged.state_dict(), tokenizer=session.tokenizer,
        words=caption_words.count_words(captions), training=training)


def _best_is_better(session: Session) -> bool:
    """Whether the best weights kept beat the last by more than 1 %: a sign of overfitting, not of luck."""
    if not session.plan.keep_best or session.best is None or session.noise_mse is None:
        return False
    kept = training_states.is_of_step(session.directory / training_states.BEST_FILE, session.best["step"])
    return kept and session.best["noise_mse"] < 0.99 * session.noise_mse


def deliver(session: Session, path: Path) -> str:
    """Make the last weights the model, or on small sets the best ones when the last have overfitted. → which, and why.

    Done anew when the run is complete but its model is not there: the last time may have ended in between.
    """
    best, delivered = session.best if _best_is_better(session) else None, "last step"
    step = session.learner.step if best is None else best["step"]
    if not training_states.is_of_step(path, step):
        if best is None:
            save_model(session, path, delivered="last")
        else:
            durable.write(path, (session.directory / training_states.BEST_FILE).read_bytes())
    if best is not None:
        delivered = (f"best step, {best['step']:,}: validation loss {best['noise_mse']:.4f}, "
                     f"at the last {session.noise_mse:.4f}")
    elif session.noise_mse is not None:
        delivered = f"last step: validation loss {session.noise_mse:.4f}"
    registry.set_last(session.run.name)
    if session.run.machine.out is not None:
        durable.write(Path(session.run.machine.out), path.read_bytes(), mode=0o644)
    return delivered


MAX_FAILED_WRITES = 3                           # in a row


def unless_full(session: Session, write: Callable[[Session], events.Event], *, final: bool) -> events.Event:
    """What `write` tells; a warning if it could not write, up to three times: the disk may have room again later."""
    try:
        event = write(session)
    except StorageError as error:
        session.failed_writes += 1
        if final or session.failed_writes == MAX_FAILED_WRITES or not session.directory.exists():
            raise saving.rescue(session, error) from error
        return events.Noticed(message=f"{error.what}; training goes on", level="warning")
    session.failed_writes = 0
    return event


class Saver:
    """Saves when it is time, and knows what is saved."""

    def __init__(self, session: Session) -> None:
        self.session, self.step = session, -1                          # of the newest state saved here
        self.due = Due(session.run.machine.save_every, "--save-every", session.plan.steps, session.learner.step)

    def is_due(self) -> bool:
        """Every so often, and before the cool-down, from where a longer budget goes on."""
        step = self.session.learner.step
        return self.due(step) or step == self.session.plan.cooldown_start

    def is_saved(self) -> bool:
        return self.step == self.session.learner.step

    def save(self, *, final: bool) -> Iterator[events.Event]:
        """A final save must not fail."""
        yield events.Paused(step=self.session.learner.step, doing="saving")
        saved = unless_full(self.session, saving.save, final=final)
        if isinstance(saved, events.Saved):
            self.due.cost(saved.seconds)
            self.step = saved.step
        yield saved
