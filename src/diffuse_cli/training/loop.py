"""The training loop: a run goes in, a stream of events comes out, and a model is left on the disk.

One step is `trainer.step()`. Between steps the loop reports, validates, previews and saves; each has its own module.
"""

import contextlib
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from .. import events
from ..checks import from_dict, to_dict
from ..config import Plan
from ..data.dataset import open_dataset
from ..data.listing import Dataset
from ..errors import DivergedError, StorageError
from ..files import durable
from ..model_config import Upscaling
from ..picture_size import Size
from ..reporting.live_page import LivePage
from ..runtime import devices
from ..runtime.distributed import World, join
from ..storage import home_directory, registry
from ..storage.event_log import LOG_FILE
from . import estimate, saving
from .deadline import Pace, with_steps
from .estimate import Facts
from .every import Every
from .header import header
from .meetings import Meetings, first_of_each_machine
from .monitor import LossMonitor
from .prepare import open_session
from .previews import preview, prompt_to_try
from .restoring import restore
from .run import Run
from .session import Session
from .trainer import Trainer
from .validation import measure

SAVE_SIGNAL = "SIGUSR1"                         # the one signal that asks for a save, and does not stop the training
NOT_LOGGED = (events.Scanned, events.Paused)    # events that are of interest only at the moment when they happen
ShouldStop = Callable[[], str | None]           # → the name of a signal to stop or save for after this step, or None


def train(run: Run, *, should_stop: ShouldStop = lambda: None) -> Iterator[events.Event]:
    """Train, or resume, to the end of the budget or until `should_stop` names a signal.

    If several processes train together, each of them calls this, and a signal to any of them stops all. The main
    process also appends the events to the run's events.jsonl, and keeps its report.html up to date. Raises DiffuseError
    of every kind.
    """
    page, begun, lines = LivePage(run.directory), False, ""
    try:
        for event in _train(run, should_stop):
            if run.is_main and not isinstance(event, NOT_LOGGED):
                begun = begun or isinstance(event, events.Started)
                lines += json.dumps(events.to_dict(event)) + "\n"
            if begun and lines:                                        # a run that is refused leaves no log
                with contextlib.suppress(StorageError):                # a log that cannot be written ends no training
                    durable.append(run.directory / LOG_FILE, lines.encode())
                lines = ""
            if begun and page.is_due(event):
                yield from page.write()
            yield event
    except DivergedError:                                              # the report's curves show when, and perhaps why
        if run.is_main:
            yield from page.write()
        raise


def rehearse(run: Run) -> Generator[events.Event, None, Plan]:
    """Do everything that comes before the first step, and write nothing. → the plan

    The last event is a `Started` whose facts also say what the run would cost. Raises DiffuseError of every kind.
    """
    device = devices.choose_device(run.machine)
    with devices.arithmetic(device, search=True, deterministic=run.machine.deterministic):
        dataset = yield from _open_dataset(run)
        yield from _remarks(run, dataset)
        session, reasons, start = yield from open_session(run, dataset, device, world=World(), rehearsal=True)
        yield from restore(session)
        started = _started(session, header(session, reasons, start))
        if session.trainer.global_step < session.plan.steps and session.trainer.has_values:
            yield events.Noticed(message="measuring the speed to estimate the time")
        costs = estimate.facts(session.trainer, run.machine)
        yield dataclasses.replace(started, facts=(*started.facts, *costs))
    return session.plan


def _train(run: Run, should_stop: ShouldStop) -> Iterator[events.Event]:
    """`train` without the log and the report."""
    if run.aside is not None:
        yield events.Noticed(message=f"the old run is kept as {run.aside}")
    device = devices.choose_device(run.machine)
    # The processes join before pictures are decoded, which takes longer on some machines than on others.
    with devices.arithmetic(device, search=True, deterministic=run.machine.deterministic), join(device) as world:
        sizes, fit, upscaling = world.broadcast_json([run.sizes, run.fit, run.upscaling and to_dict(run.upscaling)])
        run = dataclasses.replace(run, sizes=tuple(Size(*size) for size in sizes), fit=fit,
                                  upscaling=upscaling and from_dict(Upscaling, upscaling, where="upscaling"))
        dataset = yield from first_of_each_machine(world, functools.partial(_open_dataset, run))
        yield from _remarks(run, dataset)
        session, reasons, start = yield from open_session(run, dataset, device, world=world)
        yield from restore(session)
        yield _started(session, header(session, reasons, start))
        if session.trainer.global_step < session.plan.steps:
            with contextlib.closing(session.trainer.batches):
                reason = yield from _loop(session, should_stop)
        else:
            reason = None
            yield events.Noticed(message=f"already trained to {session.plan.steps:,} steps; use --fresh to start anew")
        with session.trainer.whole():
            finished = _finished(session, reason=reason or "")
        yield finished


def _open_dataset(run: Run, verified: bool = False) -> Generator[events.Event, None, Dataset]:
    """The pictures of a run; `verified` as for `open_dataset`."""
    return (yield from open_dataset(
        run.found, resolution=run.sizes, directory=home_directory.cache_directory(), strict=run.machine.strict,
        rendering=run.rendering, verified=verified))


def _remarks(run: Run, dataset: Dataset) -> Iterator[events.Noticed]:
    """What there is to say about the pictures and captions before the plan."""
    yield from (events.Noticed(message=f"note: {note}") for note in run.found.notes)
    yield from (events.Noticed(message=warning, level="warning")
                for warning in (*run.found.warnings, *dataset.warnings))


def _loop(session: Session, should_stop: ShouldStop) -> Generator[events.Event, None, str | None]:
    """Train until the budget is used up, or a process gets a signal to stop. → the name of that signal, or None"""
    trainer, plan, machine, world = session.trainer, session.plan, session.run.machine, session.trainer.world
    monitor, saver = LossMonitor(session), saving.Saver(session)
    preview_every = Every(machine.preview_every, "--preview-every", steps=plan.steps, step=trainer.global_step)
    stop_signal, first = None, trainer.global_step
    meetings, pace = Meetings(world, step=first), Pace(first, session.begun)
    while trainer.global_step < plan.steps and stop_signal is None:
        # Train
        if pace.pictures_grow(plan, trainer.global_step):
            yield events.Noticed(message=f"from now on pictures have their {plan.model.network.resolution} px")
        begun, micro_batch = time.monotonic(), trainer.micro_batch
        result = trainer.step()
        monitor.record(result, time.monotonic() - begun)
        if trainer.global_step == first + 1 and trainer.compiled is not None:
            yield _compiled(trainer, monitor.step_seconds)
        if trainer.micro_batch < micro_batch:
            yield events.Noticed(message=f"out of memory: from now on {trainer.micro_batch} pictures at once",
                                 level="warning")

        if not meetings.is_due(trainer.global_step):
            continue
        if world.size > 1:                      # so that all find out at once that the training has diverged
            trainer.verdicts.hear()

        # The steps of --time are counted again before the cool-down
        if plan.deadline is not None and (counted := _count_again(session, pace)) is not None:
            plan = counted
            yield events.Noticed(message=f"--time allows {plan.steps:,} steps at the present speed")

        # Report, validate, preview, save: the main process alone
        last = trainer.global_step == plan.steps
        alone = Alone(
            report=last or monitor.is_due(), validate=last or trainer.global_step % plan.validate_steps == 0,
            preview=last or preview_every.is_due(trainer.global_step), save=last or saver.is_due(),
        ) if world.is_main else Alone()
        with _whole_weights(session, alone):
            if alone.report:
                yield monitor.report()
                if not session.directory.exists():
                    raise saving.rescue(
                        session, StorageError(f"the directory of this run is gone: {session.directory}"))
            if alone.validate:
                yield from _validate(session)
            if alone.preview:
                yield events.Paused(step=trainer.global_step, doing="drawing a preview")
                yield saving.write_or_warn(session, preview, must_succeed=False)
            if alone.save:
                yield from saver.save(must_succeed=last)

        # Stop or save if a signal asks for it
        received = meetings.hold(trainer.global_step, should_stop(),
                                 latest=_next_duty(session, saver.next_step(), preview_every))
        stop_signal = None if received == SAVE_SIGNAL else received
        if received:
            with trainer.whole(moments=True):
                if world.is_main and not saver.is_saved():
                    yield from saver.save(must_succeed=stop_signal is not None)
            world.barrier()
    return stop_signal


def _compiled(trainer: Trainer, seconds: float) -> events.Noticed:
    """What became of compiling in the first step, which took so long."""
    network, message = trainer.compiled, f"compiled: the first step took {seconds:.0f} s"
    if trainer.compile_failure:
        message = f"not compiled, because torch cannot do it here: {trainer.compile_failure}"
    elif network is not None and network.captured:
        message += ", CUDA graphs included"
    elif network is not None and network.capture_failure:
        message += f"; without CUDA graphs: {network.capture_failure}"
    return events.Noticed(message=message)


class Alone(NamedTuple):
    """What the main process does alone after a step."""

    report: bool = False
    validate: bool = False
    preview: bool = False
    save: bool = False


def _whole_weights(session: Session, alone: Alone) -> contextlib.AbstractContextManager[None]:
    """The context of what the main process does alone: if weights are sharded, all processes give it what it needs."""
    trainer = session.trainer
    if not trainer.state.sharded:
        return contextlib.nullcontext()
    averages = alone.validate or alone.preview or (alone.report and not session.directory.exists())
    needed = trainer.world.all_reduce_max(2 if alone.save else int(averages), patient=True)
    return trainer.whole(moments=needed == 2) if needed else contextlib.nullcontext()


def _count_again(session: Session, pace: Pace) -> Plan | None:
    """The plan with the steps that --time allows, recorded before it is followed; None while that is not due.

    The main process measures. If it cannot write, it tries again after the next step.
    """
    plan, trainer, steps = session.plan, session.trainer, 0
    if trainer.world.is_main and pace.is_count_due(plan, trainer.global_step):
        with contextlib.suppress(StorageError):
            allowed = pace.steps_within(plan, trainer.global_step)
            session.run.write_plan(with_steps(plan, trainer.global_step, allowed))
            steps = allowed
    steps = trainer.world.all_reduce_max(steps, patient=True)
    if not steps:
        return None
    session.plan = with_steps(plan, trainer.global_step, steps)
    trainer.follow(session.plan)
    return session.plan


def _validate(session: Session) -> Iterator[events.Event]:
    """Measure the averaged weights, if there are held-out pictures, and keep them if they are the best so far."""
    if not session.validation:
        return
    yield events.Paused(step=session.trainer.global_step, doing="validating")
    validated = measure(session)
    if validated.best and (warning := saving.keep_best(session)):
        yield warning
        validated = dataclasses.replace(validated, best=False)
    yield validated


def _next_duty(session: Session, next_save: int | None, preview_every: Every) -> int:
    """The next step after which it is known that the main process validates, previews, saves or ends."""
    step, plan = session.trainer.global_step, session.plan
    validation = (step // plan.validate_steps + 1) * plan.validate_steps
    return min(duty for duty in (plan.steps, validation, next_save, preview_every.next_step(step)) if duty is not None)


def _started(session: Session, facts: Facts) -> events.Started:
    trainer, plan = session.trainer, session.plan
    return events.Started(
        name=session.run.name, step=trainer.global_step, steps=plan.steps, parameters=trainer.parameters,
        batch_size=plan.batch_size, micro_batch=trainer.micro_batch, device=str(trainer.batches.device),
        precision=trainer.precision, directory=str(session.directory), facts=facts,
        student=plan.model.student is not None, upscaler=plan.model.is_upscaler,
        upscaler_for=session.run.recipe.upscaler_for, preview_prompt=session.run.machine.preview_prompt)


def _finished(session: Session, *, reason: str) -> events.Finished:
    """The last event, after the model of a completed run is delivered. reason: the signal that stopped it, or ""."""
    trainer, plan, path = session.trainer, session.plan, session.directory / registry.MODEL_FILE
    complete = trainer.global_step >= plan.steps
    delivered = saving.deliver(session, path) if complete and trainer.world.is_main else "last"
    return events.Finished(
        step=trainer.global_step, steps=plan.steps, path=str(path), complete=complete, reason=reason,
        delivered=delivered, prompt=prompt_to_try(session),
        seconds=time.monotonic() - session.begun)
