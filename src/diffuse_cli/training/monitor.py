"""What a training does now and then besides its steps: report, validate, preview, save, and keep its page.

Each tells what it did in events. Knows neither when a training ends nor who asks it to.
"""

import time

import torch

from .. import events
from ..checks import parse_interval
from ..runtime import devices
from .prepare import Session
from .trainer import Learner

LOG_SECONDS = 2.0                               # between two reports of the steps, at least
MAX_COST = 0.02                                 # share of the run that saving may take


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
            skipped=learner.skipped, memory=devices.peak_memory(learner.batches.device))
        self.totals.zero_()
        self.steps, self.busy, self.reported = 0, 0.0, now
        return event
