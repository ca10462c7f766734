"""Restoring: the newest whole state of a run, loaded by the main process and given to all processes."""

from collections.abc import Iterator

from .. import events
from ..errors import ModelError
from ..storage import checkpoint, model_info, training_states
from .session import Best, Session


def restore(session: Session) -> Iterator[events.Event]:
    """Restore the newest whole state, if the run has saved any, and bring all processes to it.

    Raises ModelError if the run has states, but none is whole.
    """
    plan = session.run.plan
    if plan is not None:
        states = training_states.saved_states(session.run.directory)
        if session.plan.steps != plan.steps:                           # a rehearsal has not forgotten the old cool-down
            states = [state for state in states if state.step <= plan.cooldown_start]
        if states:
            yield from _load_newest(session, states)
    session.trainer.broadcast_state()


def _load_newest(session: Session, states: list[training_states.SavedState]) -> Iterator[events.Event]:
    """Load the first of `states` that is whole. Yields a warning for each damaged one before it.

    Raises ModelError if none is whole.
    """
    trainer = session.trainer
    shapes = {name: tuple(tensor.shape) for name, tensor in trainer.tensors().items()}
    for state in states:
        if not training_states.is_whole(state):
            yield events.Noticed(message=f"the state of step {state.step} is damaged, trying the one before",
                                 level="warning")
            continue
        tensors, record = checkpoint.load_state(state.path, shapes)
        trainer.restore(tensors, record["learner"])
        session.noise_mse = record["noise_mse"]
        session.best = _still_best(session, record["best"] and Best(**record["best"]))
        return
    raise ModelError(f"no saved state of the run {session.run.name!r} is whole", hint="Start anew with --fresh")


def _still_best(session: Session, best: Best | None) -> Best | None:
    """The best weights of a state, or None if they no longer count.

    They do not count if they were measured on other pictures, unless nothing is left to train. Nor do they if their
    file was replaced since: a run that is resumed with a longer budget goes back to before its cool-down, but the file
    may hold weights from that cool-down.
    """
    if best is None:
        return None
    if best.data_id != session.plan.data_id and session.trainer.global_step < session.plan.steps:
        return None
    kept = not session.plan.keep_best or model_info.is_of_step(
        session.directory / training_states.BEST_FILE, best.step)
    return best if kept else None
