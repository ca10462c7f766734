"""What a training does now and then besides its steps: report, validate, preview, save, and keep its page.

Each tells what it did in events. Knows neither when a training ends nor who asks it to.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from .. import events
from ..checks import parse_interval
from ..config import Sampling
from ..errors import StorageError
from ..evaluation.evaluate import noise_curve, validation_times
from ..files import durable
from ..pictures import image_files
from ..sampling.generate import draw
from ..sampling.request import Wanted
from ..storage import checkpoint, registry, training_states
from . import estimate, saving
from . import plan as planning
from .prepare import Session
from .trainer import Learner

LOG_SECONDS = 2.0                               # between two reports of the steps, at least
MAX_COST = 0.02                                 # share of the run that saving may take
REPORT_SECONDS = 0.5                            # that writing a report is taken to cost before the first was written
MAX_REPORT_COST = 0.01                          # share of the run that reports may take, the last one apart
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


class Due:
    """Whether something that happens every so many steps, seconds or shares of the run is due."""

    def __init__(self, interval: str, option: str, steps: int, step: int) -> None:
        self.kind, self.every = parse_interval(option, interval)
        if self.kind == "share":
            self.kind, self.every = "steps", max(1, round(self.every * steps))
        self.last: float = time.monotonic() if self.kind == "seconds" else step

    def cost(self, seconds: float) -> None:
        """Happen so rarely, where seconds count, that what takes `seconds` each time stays below 2 % of them."""
        if self.kind == "seconds":
            self.every = max(self.every, seconds / MAX_COST)

    def __call__(self, step: int) -> bool:
        now = time.monotonic() if self.kind == "seconds" else step
        due = now - self.last >= self.every if self.kind == "seconds" else step % self.every == 0
        self.last = now if due else self.last
        return due


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


class Reporter:
    """Sums what the steps measured, on the device, and times the compute alone."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.totals = torch.zeros(3, device=session.learner.batches.device)
        self.steps, self.busy, self.norm, self.rate = 0, 0.0, 0.0, 0.0
        self.reported = time.monotonic()

    def add(self, learner: Learner) -> None:
        begun = time.monotonic()
        measured = learner.advance()                                   # which waits for the device, for the norm
        self.busy += time.monotonic() - begun
        self.totals += measured.totals
        self.norm, self.steps = measured.norm, self.steps + 1

    def is_due(self) -> bool:
        return time.monotonic() - self.reported >= LOG_SECONDS

    def report(self) -> events.Stepped:
        learner, plan = self.session.learner, self.session.plan
        objective, noise_mse, variance = (self.totals / self.steps).tolist()
        images_per_second = self.steps * plan.batch_size / self.busy
        self.rate = images_per_second if self.rate == 0 else 0.8 * self.rate + 0.2 * images_per_second
        now = time.monotonic()
        event = events.Stepped(
            step=learner.step, steps=plan.steps, train_objective=objective, noise_mse=noise_mse,
            variance_loss=variance if plan.model.learned_variance else None, gradient_norm=self.norm,
            lr=learner.optimizer.lr, images_per_second=images_per_second,
            seconds=now - self.session.begun, remaining=(plan.steps - learner.step) * plan.batch_size / self.rate,
            skipped=learner.skipped, memory=estimate.peak_memory(learner.batches.device))
        self.totals.zero_()
        self.steps, self.busy, self.reported = 0, 0.0, now
        return event


class Page:
    """The run's report, written anew when there is something to see, in no more than a small share of the time."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.begun, self.seconds = time.monotonic(), REPORT_SECONDS
        self.news, self.complained = False, False

    def is_due(self, event: events.Event) -> bool:
        """Always at the end; else with the first report of steps after something was validated, drawn or saved."""
        self.news |= isinstance(event, events.Validated | events.Previewed | events.Saved)
        cheap = self.seconds <= MAX_REPORT_COST * (time.monotonic() - self.begun)
        return isinstance(event, events.Finished) or (isinstance(event, events.Stepped) and self.news and cheap)

    def write(self) -> Iterator[events.Event]:
        from ..reporting import report  # matplotlib takes its time to be there

        begun = time.monotonic()
        try:
            durable.write(self.directory / registry.REPORT_FILE, report.build(self.directory))
        except Exception as error:                                     # whatever it is, it is not worth a training
            if not self.complained:
                yield events.Noticed(message=f"the report could not be written: {error}", level="warning")
            self.complained = True
        self.news, self.seconds = False, self.seconds + time.monotonic() - begun


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


def preview(session: Session) -> events.Previewed:
    """One strip of pictures of fixed prompts and seeds, drawn with the averaged weights."""
    learner, plan = session.learner, session.plan
    model = checkpoint.Model(plan.model, learner.averaged, session.tokenizer, {}, {}, "")
    prompts, count = preview_prompts(session)
    sampling = Sampling(batch_size=planning.PREVIEWED, precision=learner.precision)
    wanted = [Wanted(prompt=prompt, count=count, seed=plan.seed, sampling=sampling) for prompt in prompts]
    drawn = list(draw(model, wanted))
    strip = image_files.sheet(np.stack([picture.pixels for picture in drawn]), columns=len(drawn))
    path = session.directory / "previews" / f"step-{learner.step:08d}.png"
    durable.write(path, image_files.encode(strip))
    return events.Previewed(step=learner.step, path=str(path), prompts=tuple(picture.prompt for picture in drawn))


def preview_prompts(session: Session) -> tuple[tuple[str, ...], int]:
    """Prompts and the number of pictures of each: those asked for, else captions of held-out pictures."""
    if session.tokenizer is None:
        return ("",), planning.PREVIEWED
    asked = session.run.machine.preview_prompt
    if asked:
        return asked, max(1, planning.PREVIEWED // len(asked))
    positions = (session.split.held_out if len(session.split.held_out) else session.split.train).tolist()
    captions = dict.fromkeys(caption for position in positions for caption in session.dataset.captions[position][:1])
    return tuple(captions)[:planning.PREVIEWED] or ("",), 1
