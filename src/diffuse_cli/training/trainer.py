"""One training step: draw a batch, compute its gradient, clip or skip, update the weights, update their average.

A `Trainer` holds all state that changes from step to step, and saves and restores it exactly. It knows no files, no
events and no clock.
"""

import math
import statistics
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..config import Plan
from ..diffusion.schedule import Schedule, make_schedule
from ..errors import DivergedError, OutOfMemoryError, UsageError
from ..network.network import Network
from ..runtime import out_of_memory, randomness
from ..runtime.distributed import World, lost_process_as_error
from . import ema
from .batches import Batches
from .loss import TrainingLoss
from .optimizer import Optimizer

MAX_GRADIENT_NORM = 1.0                         # longer gradients are clipped
SPIKE = 8.0                                     # a gradient this many times as long as the median is skipped
NORM_WINDOW = 128                               # number of gradient norms in that median
MAX_BAD_STEPS = 3                               # this many steps in a row that are not finite end the training


@dataclass(frozen=True)
class StepResult:
    """What one step measured."""

    losses: Tensor                              # (3,) on the device, means over the batch: weighted + variance,
    #                                             noise_mse, variance
    gradient_norm: float                        # before clipping


class Trainer:
    """A network in training, with the average of its weights and its optimiser.

    `global_step` counts the batches drawn, `updates` those that changed the weights. Every process of a world has a
    trainer with the same weights, and each computes the gradient of its share of every batch.
    """

    def __init__(self, plan: Plan, batches: Batches, *, precision: str, micro_batch: int, compiled: bool,
                 world: World) -> None:
        self.plan, self.batches, self.precision, self.micro_batch = plan, batches, precision, micro_batch
        self.world, self.share = world, world.place.share(plan.batch_size)
        if plan.batch_size < world.size:
            raise UsageError(f"a batch of {plan.batch_size} cannot be shared by {world.size} processes",
                             hint="Use fewer processes, or a larger --batch-size")
        self.schedule: Schedule = make_schedule(plan.model.schedule, plan.model.network.resolution)
        self.network = Network(plan.model.network)
        self.network.initialise(randomness.generator(plan.seed, "weights"))
        self.network.settle(batches.device)
        self.averaged = Network(plan.model.network).settle(batches.device).requires_grad_(False).eval()
        self.averaged.load_state_dict(self.network.state_dict())
        forward = cast(Network, torch.compile(self.network)) if compiled else self.network
        self.loss = world.wrap(TrainingLoss(forward, plan, self.schedule, precision=precision))
        self.optimizer = Optimizer(self.network, plan, precision=precision)
        self.norms: deque[float] = deque(maxlen=NORM_WINDOW)
        self.global_step = self.updates = self.bad_steps = 0
        self.fits = world.size == 1             # one process alone notices in time when a micro-batch does not fit

    @property
    def skipped(self) -> int:
        return self.global_step - self.updates

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Begin with the weights of another model. Raises what `load_state_dict` raises when they do not fit."""
        self.network.load_state_dict(weights)
        self.averaged.load_state_dict(weights)

    # ── The step ────────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> StepResult:
        """Train on the next batch. Raises DivergedError, OutOfMemoryError."""
        # Draw the batch, and compute the gradient of its mean loss.
        losses = self._gradient_of_batch()

        # Clip the gradient. Reading its norm is the one time that a step waits for the device.
        unclipped = torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM)
        norm, *means = torch.cat((unclipped.reshape(1), losses)).tolist()

        # Skip the step if a number is not finite, or if the gradient is a spike.
        finite = all(map(math.isfinite, (norm, *means)))
        if finite and not self._is_spike(norm):
            # Update the weights.
            self.optimizer.step(learning_rate_at(self.plan, self.global_step))
            self.updates += 1

            # Update their average.
            ema.update(list(self.averaged.parameters()), self.network, self.updates)

        # Count.
        self._check_divergence(finite)
        if finite:
            self.norms.append(norm)
        self.global_step += 1
        return StepResult(losses, norm)

    def _gradient_of_batch(self) -> Tensor:
        """Leave the gradient of the whole batch in the parameters. → (3,) the losses of `StepResult`

        The batch is cut into micro-batches. One that does not fit into memory is halved, and the batch begun again.
        """
        while not self.fits:
            self.fits = not self.world.all_reduce_max(self._is_too_much())
            if not self.fits:
                self._halve()
        while True:
            try:
                self.optimizer.zero_grad()
                losses = torch.zeros(3, device=self.batches.device)
                for start in range(self.share.start, self.share.stop, self.micro_batch):
                    stop = min(start + self.micro_batch, self.share.stop)
                    with self._averaged_over_processes(last=stop == self.share.stop):
                        losses += self._accumulate(start, stop - start)
                return self.world.all_reduce_sum(losses)
            except torch.OutOfMemoryError as error:
                if self.world.size > 1:         # the other processes wait for this very gradient
                    raise OutOfMemoryError(
                        f"{self.micro_batch} pictures at once no longer fit into the device's memory",
                        hint=f"Resume with --micro-batch {max(1, self.micro_batch // 2)}") from error
            self._halve()                       # outside the handler, which keeps the failed pass in memory

    @out_of_memory.as_torch_error()
    def _accumulate(self, start: int, count: int) -> Tensor:
        """Add the gradient of `count` pictures of the batch to the parameters'. → (3,) their part of the losses"""
        batch, dropout_keys = self.batches.draw(self.global_step, start, count)
        losses = self.loss(batch, dropout_keys)
        torch.autograd.backward(losses[0] * self.world.size)           # gradients are averaged over processes
        return cast(Tensor, losses.detach())

    def _averaged_over_processes(self, *, last: bool) -> AbstractContextManager[None]:
        """Average the gradients over the processes once a step: in the backward pass of the last micro-batch."""
        if not last and isinstance(self.loss, DistributedDataParallel):
            return self.loss.no_sync()
        return lost_process_as_error()

    def _is_too_much(self) -> bool:
        """Whether a micro-batch is too much for this process, tried without the others: none must wait in vain."""
        try:
            with cast(DistributedDataParallel, self.loss).no_sync():
                self._accumulate(self.share.start, min(self.micro_batch, len(self.share)))
        except torch.OutOfMemoryError:
            return True
        return False

    def _halve(self) -> None:
        if self.micro_batch == 1:
            raise OutOfMemoryError("not even one picture at a time fits into the device's memory",
                                   hint="Choose a smaller --preset or --resolution")
        self.micro_batch //= 2
        if self.batches.device.type == "cuda":
            torch.cuda.empty_cache()

    def _is_spike(self, norm: float) -> bool:
        settled = self.global_step >= self.plan.warmup_steps and len(self.norms) >= NORM_WINDOW // 4
        return settled and norm > SPIKE * statistics.median(self.norms)

    def _check_divergence(self, finite: bool) -> None:
        """Count steps in a row that are not finite. Raises DivergedError at the last one that is allowed."""
        self.bad_steps = 0 if finite else self.bad_steps + 1
        if self.bad_steps == MAX_BAD_STEPS:
            step = self.global_step + 1
            raise DivergedError(f"training diverged: {MAX_BAD_STEPS} steps in a row were not finite, the last {step}; "
                                f"{step - MAX_BAD_STEPS} was good",
                                hint=f"Try --lr {self.plan.lr / 4:.1e} --fresh")

    # ── Its state: tensors under flat names, and the few numbers that are not tensors ───────────────────────────────

    def tensors(self) -> dict[str, Tensor]:
        """The weights, their average, and the optimiser's moments, without copies."""
        result = dict(self.optimizer.moments)
        for name, parameter, averaged in self._parameters():
            result[f"weights.{name}"], result[f"average.{name}"] = parameter.detach(), averaged
        return result

    def record(self) -> dict[str, Any]:
        """The numbers that belong to `tensors`, ready for JSON."""
        return {"step": self.global_step, "updates": self.updates, "bad": self.bad_steps, "norms": list(self.norms)}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Go back to a saved state: what `tensors` and `record` returned."""
        for name, parameter, averaged in self._parameters():
            parameter.copy_(tensors[f"weights.{name}"])
            averaged.copy_(tensors[f"average.{name}"])
        for name, moment in self.optimizer.moments.items():
            moment.copy_(tensors[name])
        for count in self.optimizer.counts:
            count.fill_(record["updates"])
        self._restore_numbers(record)

    def broadcast_state(self) -> None:
        """Give every process of the world the state of the main one."""
        if self.world.size > 1:
            self._restore_numbers(self.world.broadcast_json(self.record()))
            self.world.broadcast_([*self.tensors().values(), *self.optimizer.counts])

    def _restore_numbers(self, record: Mapping[str, Any]) -> None:
        self.global_step, self.updates, self.bad_steps = record["step"], record["updates"], record["bad"]
        self.norms = deque(record["norms"], maxlen=NORM_WINDOW)

    def _parameters(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(name, weight, averaged weight) of every parameter."""
        for (name, parameter), averaged in zip(
                self.network.named_parameters(), self.averaged.parameters(), strict=True):
            yield name, parameter, averaged


def learning_rate_at(plan: Plan, step: int) -> float:
    """The learning rate of `step`: warm-up, then constant, then a linear fall to 0 at the end of the budget."""
    rising = (step + 1) / plan.warmup_steps
    falling = (plan.steps - step) / plan.cooldown_steps
    return plan.lr * max(0.0, min(1.0, rising, falling))
