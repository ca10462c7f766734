"""Saving: the states from which a training resumes, the best weights so far, and the model that it delivers."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .. import events
from ..config import Plan, Recipe
from ..errors import StorageError
from ..files import durable
from ..storage import checkpoint, model_info, registry, training_states
from .every import Every
from .session import Best, Session

MAX_FAILED_WRITES = 3                           # number of failed writes in a row that end the training
OVERFITTED_RATIO = 0.99                         # the best weights are delivered if their loss is below this share of
#                                                 the loss of the last weights


class Saver:
    """Saves the training when a save is due, and knows which step was saved last."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.saved_step = -1                    # step of the newest state that this process saved
        self.every = Every(session.run.machine.save_every, "--save-every", steps=session.plan.steps,
                           step=session.trainer.global_step)

    def is_due(self) -> bool:
        """Whether --save-every asks for a save, or the cool-down begins: a longer budget resumes from that state."""
        step = self.session.trainer.global_step
        return self.every.is_due(step) or step == self.session.plan.cooldown_start

    def next_step(self) -> int | None:
        """The next step after which a save is due; None if seconds decide on that."""
        step, cooldown_start = self.session.trainer.global_step, self.session.plan.cooldown_start
        steps = [self.every.next_step(step), cooldown_start if cooldown_start > step else None]
        return min((one for one in steps if one is not None), default=None)

    def is_saved(self) -> bool:
        """Whether the current step is saved."""
        return self.saved_step == self.session.trainer.global_step

    def save(self, *, must_succeed: bool) -> Iterator[events.Event]:
        """Save now. Raises StorageError if a save fails that must succeed, or is the third in a row that fails."""
        yield events.Paused(step=self.session.trainer.global_step, doing="saving")
        event = write_or_warn(self.session, save, must_succeed=must_succeed)
        if isinstance(event, events.Saved):
            self.every.limit_cost(event.seconds)
            self.saved_step = event.step
        yield event


def save(session: Session) -> events.Saved:
    """Save a training state, and the current model, so that a model in training can be sampled. Raises StorageError."""
    begun, trainer = time.monotonic(), session.trainer
    path = training_states.state_path(session.directory, trainer.global_step)
    record = {"learner": trainer.record(), "best": session.best and dataclasses.asdict(session.best),
              "noise_mse": session.noise_mse}
    size, sha256 = checkpoint.save_state(path, trainer.tensors(), record)
    training_states.acknowledge(session.directory, training_states.SavedState(trainer.global_step, path, size, sha256),
                                keep=session.plan.cooldown_start)
    if trainer.global_step < session.plan.steps:                       # the last model is written by `deliver`
        save_model(session, session.directory / registry.MODEL_FILE, delivered="last")
    return events.Saved(step=trainer.global_step, path=str(path), bytes=size, seconds=time.monotonic() - begun)


def write_or_warn(session: Session, write: Callable[[Session], events.Event], *, must_succeed: bool) -> events.Event:
    """Call `write`. → its event, or a warning if the write failed, because the disk may have room again later.

    The model is written to another place, and StorageError is raised, if it must succeed, if it is the third in a
    row that fails, or if the run's directory is gone.
    """
    try:
        event = write(session)
    except StorageError as error:
        session.failed_writes += 1
        if must_succeed or session.failed_writes == MAX_FAILED_WRITES or not session.directory.exists():
            raise rescue(session, error) from error
        return events.Noticed(message=f"{error.what}; training continues", level="warning")
    session.failed_writes = 0
    return event


def rescue(session: Session, error: StorageError) -> StorageError:
    """Write the model to another place when the run's directory cannot take it. → `error`, its hint naming the place

    The places are the current directory and the one for temporary files. An existing file is not replaced.
    """
    for place in (Path, durable.scratch_directory):
        try:
            path = place() / f"{session.run.name}-{session.trainer.global_step:08d}.safetensors"
            if not path.exists():
                save_model(session, path, delivered="last")
                where = f"The current model, without the state of the training, was written to {path.absolute()}"
                return StorageError(error.what, hint=f"{error.hint}. {where}" if error.hint else where)
        except (OSError, StorageError):
            continue
    return error


def save_model(session: Session, path: Path, *, delivered: str) -> None:
    """Write the averaged weights as a model file. delivered: "last" or "best", which weights they are.

    Raises StorageError.
    """
    plan, trainer, recipe = session.plan, session.trainer, session.run.recipe
    training = model_info.TrainingSummary(
        name=session.run.name, preset=plan.preset, step=trainer.global_step, steps=plan.steps,
        images_seen=trainer.global_step * plan.batch_size, train_images=plan.train_images, seed=plan.seed,
        loss_weighting=plan.loss_weighting, optimizer=plan.optimizer, lr=plan.lr, batch_size=plan.batch_size,
        captions=session.run.found.caption_source, delivered=delivered,
        noise_mse=session.noise_mse if plan.model.student is None else None,
        teacher_mse=None if plan.model.student is None else session.noise_mse,
        data_id=plan.data_id, init_id=plan.init_id, white_level=recipe.white_level,
        background=None if recipe.background == Recipe.background else recipe.background,
        fit=None if plan.fit == Plan.fit else plan.fit)
    checkpoint.save_model(
        path, config=plan.model, weights=trainer.averaged.state_dict(), tokenizer=session.tokenizer,
        words=session.words, training=training)


def keep_best(session: Session) -> events.Noticed | None:
    """Remember the current weights as the best, in a file unless this is the last step. → a warning if that failed"""
    trainer, plan = session.trainer, session.plan
    assert session.noise_mse is not None
    if plan.keep_best and trainer.global_step < plan.steps:
        try:
            save_model(session, session.directory / training_states.BEST_FILE, delivered="best")
        except StorageError as error:
            return events.Noticed(message=f"{error.what}; training continues", level="warning")
    session.best = Best(trainer.global_step, session.noise_mse, plan.data_id)
    return None


def deliver(session: Session, path: Path) -> str:
    """Write the model of a completed run: the last weights, or the best if the last have overfitted. → which, and why

    Only small data sets keep the best weights. The model is also copied to --out. If the run was completed before, a
    missing model is written again, because the process may have been killed before that was done. Raises StorageError.
    """
    best = _best_if_overfitted(session)
    step = session.trainer.global_step if best is None else best.step
    if not model_info.is_of_step(path, step):
        if best is None:
            save_model(session, path, delivered="last")
        else:
            durable.write(path, (session.directory / training_states.BEST_FILE).read_bytes())
    if not session.plan.model.is_upscaler:      # `last` is what `sample` draws with
        registry.set_last(session.run.name)
    if session.run.machine.out is not None:
        durable.write(Path(session.run.machine.out), path.read_bytes(), mode=0o644)
    if best is not None:
        return (f"best step, {best.step:,}: validation loss {best.noise_mse:.4f}, "
                f"at the last {session.noise_mse:.4f}")
    return "last step" if session.noise_mse is None else f"last step: validation loss {session.noise_mse:.4f}"


def _best_if_overfitted(session: Session) -> Best | None:
    """The best weights, if they are kept and their loss is more than 1 % below the last: then it is not by chance."""
    best = session.best
    if not session.plan.keep_best or best is None or session.noise_mse is None:
        return None
    kept = model_info.is_of_step(session.directory / training_states.BEST_FILE, best.step)
    return best if kept and best.noise_mse < OVERFITTED_RATIO * session.noise_mse else None
