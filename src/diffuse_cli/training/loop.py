"""Training: a run's directory goes in, a stream of events comes out, a model is left behind.

The loop itself: resume or begin, step after step, deliver. Knows no terminal. What is learnt is in `learner`, what is
drawn in `batches`, what was decided in `planning`, what is done between steps in `chores`, what is kept in `saving`.
"""

import contextlib
import dataclasses
import json
import signal
import time
from collections.abc import Callable, Generator, Iterator

from .. import events
from ..data.dataset import open_dataset
from ..errors import DivergedError, StorageError
from ..files import durable
from ..reporting import live_page
from ..runtime import devices
from ..runtime.distributed import World, join
from ..storage import registry
from ..storage.event_log import LOG_FILE
from . import estimate, monitor, previews, saving, validation
from .estimate import Facts
from .prepare import Session, open_session
from .run import Run

SAVE = "SIGUSR1"                                # the one signal that asks for a save, not for an end
PASSING = (events.Scanned, events.Paused)       # is to be seen, not to be kept
ShouldStop = Callable[[], str | None]           # the signal to stop (or save) after this step, or None


def train(run: Run, *, should_stop: ShouldStop = lambda: None) -> Iterator[events.Event]:
    """Train, or go on training, the run to the end of its budget or until `should_stop` names a signal.

    Where several processes train together, each calls this, and a signal that one of them got stops all. The main one
    writes; it also appends what happened to the run's events.jsonl, and keeps its report.html. Raises DiffuseError
    of every kind.
    """
    page, begun, lines = live_page.Page(run.directory), False, ""
    try:
        for event in _train(run, should_stop):
            if run.is_main and not isinstance(event, PASSING):
                begun = begun or isinstance(event, events.Started)
                lines += json.dumps(events.to_dict(event)) + "\n"
            if begun and lines:                                        # a run that was refused leaves no log
                with contextlib.suppress(StorageError):                # no training ends because its log is full
                    durable.append(run.directory / LOG_FILE, lines.encode())
                lines = ""
            if begun and page.is_due(event):
                yield from page.write()
            yield event
    except DivergedError:                                              # whose curves say when, and perhaps why
        if run.is_main:
            yield from page.write()
        raise


def rehearse(run: Run) -> Iterator[events.Event]:
    """Everything up to the first step, ending with a `Started` whose facts also tell what the run would cost."""
    device = devices.choose_device(run.machine)
    dataset = yield from open_dataset(
        run.found, resolution=run.resolution, directory=registry.cache_directory(), strict=run.machine.strict)
    session, facts = yield from open_session(run, dataset, device, world=World(), rehearsal=True)
    started = _started(session, facts)
    yield dataclasses.replace(started, facts=(*facts, *estimate.facts(session.learner, run.machine)))


def _train(run: Run, should_stop: ShouldStop) -> Iterator[events.Event]:
    if run.aside is not None:
        yield events.Noticed(message=f"the old run is kept as {run.aside}")
    device = devices.choose_device(run.machine)
    with join(device) as world:                # before pictures are read, which takes each machine a time of its own
        run = dataclasses.replace(run, resolution=world.told(run.resolution))
        dataset = yield from open_dataset(
            run.found, resolution=run.resolution, directory=registry.cache_directory(), strict=run.machine.strict)
        for warning in (*run.found.warnings, *dataset.warnings):
            yield events.Noticed(message=warning, level="warning")
        session, facts = yield from open_session(run, dataset, device, world=world)
        yield _started(session, facts)
        if session.learner.step < session.plan.steps:
            reason = yield from _loop(session, should_stop)
        else:
            reason = None
            yield events.Noticed(message=f"already trained to {session.plan.steps:,} steps; use --fresh to start anew")
        yield _finished(session, reason=reason or "")


def _loop(session: Session, should_stop: ShouldStop) -> Generator[events.Event, None, str | None]:
    """Step until the budget is used up, or a process got a signal to stop, whose name is returned."""
    learner, plan, machine, world = session.learner, session.plan, session.run.machine, session.learner.world
    reporter, saver = monitor.Reporter(session), saving.Saver(session)
    preview_due = monitor.Due(machine.preview_every, "--preview-every", plan.steps, learner.step)
    reason, compiling = None, machine.compile
    while learner.step < plan.steps and reason is None:
        micro_batch = learner.micro_batch
        reporter.add(learner)
        if compiling:
            yield events.Noticed(message=f"compiled: the first step took {reporter.busy:.0f} s")
            compiling = False
        if learner.micro_batch < micro_batch:
            yield events.Noticed(message=f"out of memory: from now on {learner.micro_batch} pictures at once",
                                 level="warning")
        last = learner.step == plan.steps
        if world.is_main and (last or reporter.is_due()):
            yield reporter.report()
            if not session.directory.exists():
                raise saving.rescue(session, StorageError(f"the directory of this run is gone: {session.directory}"))
        if world.is_main and (last or learner.step % plan.validate_steps == 0):
            yield from validation.validate(session)
        if world.is_main and (last or preview_due(learner.step)):
            yield events.Paused(step=learner.step, doing="drawing a preview")
            yield saving.unless_full(session, previews.preview, final=False)
        if world.is_main and (last or saver.is_due()):
            yield from saver.save(final=last)
        asked = _agreed(should_stop(), world)
        reason = None if asked == SAVE else asked
        if asked and world.is_main and not saver.is_saved():
            yield from saver.save(final=reason is not None)
        if asked:
            world.wait()
    return reason


def _agreed(name: str | None, world: World) -> str | None:
    """The signal that any of the processes got. Waits patiently: the main one may still have worked alone."""
    number = world.largest(signal.Signals[name] if name else 0, patiently=True)
    return signal.Signals(number).name if number else None


def _started(session: Session, facts: Facts) -> events.Started:
    learner, plan = session.learner, session.plan
    return events.Started(
        name=session.run.name, step=learner.step, steps=plan.steps, parameters=learner.parameters,
        batch_size=plan.batch_size, micro_batch=learner.micro_batch, device=str(learner.batches.device),
        precision=learner.precision, directory=str(session.directory), facts=facts)


def _finished(session: Session, *, reason: str) -> events.Finished:
    learner, plan, path = session.learner, session.plan, session.directory / registry.MODEL_FILE
    complete = learner.step >= plan.steps
    delivered = saving.deliver(session, path) if complete and learner.world.is_main else "last"
    return events.Finished(
        step=learner.step, steps=plan.steps, path=str(path), complete=complete, reason=reason, delivered=delivered,
        prompt=min(previews.preview_prompts(session)[0], key=len), seconds=time.monotonic() - session.begun)
