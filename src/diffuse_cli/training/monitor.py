"""Monitoring: the losses and the speed of steps, averaged between two reports."""

import time

import torch

from .. import events
from ..runtime import devices
from .half_side import work
from .session import Session
from .trainer import StepResult

REPORT_SECONDS = 2.0                            # minimum seconds between two reports
SPEED_MEMORY = 0.8                              # weight of earlier reports in the speed behind the remaining time


class LossMonitor:
    """Sums, since the last report, of the losses and of the seconds that the steps alone have taken."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.totals = torch.zeros(3, device=session.trainer.batches.device)
        self.gradient_norm = torch.zeros((), device=session.trainer.batches.device)      # of the newest step
        self.steps, self.step_seconds = 0, 0.0
        self.pace: float | None = None          # whole steps a second, in which `work` counts
        self.reported_at = time.monotonic()

    def record(self, result: StepResult, seconds: float) -> None:
        """Add the result of one step, which took `seconds`."""
        self.totals += result.losses
        self.gradient_norm = result.gradient_norm
        self.steps, self.step_seconds = self.steps + 1, self.step_seconds + seconds

    def is_due(self) -> bool:
        """Whether it is time for a report."""
        return time.monotonic() - self.reported_at >= REPORT_SECONDS

    def report(self) -> events.Stepped:
        """The means over the steps since the last report; then a new interval begins. Raises DivergedError."""
        trainer, plan = self.session.trainer, self.session.plan
        train_objective, noise_mse, variance_loss, gradient_norm = torch.cat(
            (self.totals / self.steps, self.gradient_norm.reshape(1))).tolist()
        speed = self.steps * plan.batch_size / self.step_seconds
        done, to_do = (work(plan, step) for step in (trainer.global_step, plan.steps))
        pace = (done - work(plan, trainer.global_step - self.steps)) / self.step_seconds
        self.pace = pace if self.pace is None else SPEED_MEMORY * self.pace + (1 - SPEED_MEMORY) * pace
        now = time.monotonic()
        event = events.Stepped(
            step=trainer.global_step, steps=plan.steps, train_objective=train_objective, noise_mse=noise_mse,
            variance_loss=variance_loss if plan.model.learned_variance and plan.model.student is None else None,
            gradient_norm=gradient_norm, lr=trainer.optimizer.lr, images_per_second=speed,
            seconds=now - self.session.begun,
            remaining=(to_do - done) / self.pace,
            skipped=trainer.skipped, memory=devices.peak_memory(trainer.batches.device))
        self.totals.zero_()
        self.steps, self.step_seconds, self.reported_at = 0, 0.0, now
        return event
