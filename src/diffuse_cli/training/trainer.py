"""What learns: the network, its average and its optimiser, advanced one step at a time; saved and restored exactly.

Knows no files, no events and no clock.
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
from ..runtime.distributed import World, together
from . import ema
from .batches import Batches
from .loss import Shares
from .optimizer import Optimizer

CLIP = 1.0                                      # largest norm of the gradient
SPIKE = 8.0                                     # a norm so many times the running median is not learnt from
WINDOW = 128                                    # norms in that median
BAD_STEPS = 3                                   # so many non-finite steps in a row end the run


@dataclass(frozen=True)
class Measured:
    """What a step's batch cost, on the device, and its gradient's norm before clipping."""

    totals: Tensor                              # (3,), means: weighted + variance, noise_mse, variance
    norm: float


class Learner:
    """One model in training. `step` counts batches drawn, `updates` those learnt from.

    Every process of a world has one, with the same weights, and learns from its share of each batch.
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
        self.shares = world.wrap(Shares(forward, plan, self.schedule, precision=precision))
        self.optimizer = Optimizer(self.network, plan, precision=precision)
        self.norms: deque[float] = deque(maxlen=WINDOW)
        self.step = self.updates = self.bad = 0
        self.fits = world.size == 1                                    # alone, what does not fit is noticed in time

    @property
    def skipped(self) -> int:
        return self.step - self.updates

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.network.parameters())

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Begin with the weights of another model. Raises what `load_state_dict` raises when they do not fit."""
        self.network.load_state_dict(weights)
        self.averaged.load_state_dict(weights)

    def advance(self) -> Measured:
        """Draw the next batch and learn from it. Raises DivergedError, OutOfMemoryError."""
        plan = self.plan
        totals = self._gradient_of_batch()
        unclipped = torch.nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        norm, *means = torch.cat((unclipped.reshape(1), totals)).tolist()               # the one wait for the device
        if all(map(math.isfinite, (norm, *means))):
            self.bad = 0
            if not self._is_spike(norm):
                self._update()
            self.norms.append(norm)
        else:
            self.bad += 1
            if self.bad == BAD_STEPS:
                raise DivergedError(f"training diverged: {BAD_STEPS} steps in a row were not finite, the last "
                                    f"{self.step + 1}; {self.step + 1 - BAD_STEPS} was good",
                                    hint=f"Try --lr {plan.lr / 4:.1e} --fresh")
        self.step += 1
        return Measured(totals, norm)

    def _gradient_of_batch(self) -> Tensor:
        """The gradient of the whole batch, in micro-batches that are halved until they fit. → (3,) the totals"""
        while not self.fits:
            self.fits = not self.world.largest(self._is_too_much())
            if not self.fits:
                self._halve()
        while True:
            try:
                self.optimizer.zero_grad()
                totals = torch.zeros(3, device=self.batches.device)
                for start in range(self.share.start, self.share.stop, self.micro_batch):
                    stop = min(start + self.micro_batch, self.share.stop)
                    with self._alone_until_the_end(stop):
                        totals += self._accumulate(start, stop - start)
                return self.world.add(totals)
            except torch.OutOfMemoryError as error:
                if self.world.size > 1:                                # others are waiting for this very gradient
                    raise OutOfMemoryError(
                        f"{self.micro_batch} pictures at once no longer fit into the device's memory",
                        hint=f"Go on with --micro-batch {max(1, self.micro_batch // 2)}") from error
            self._halve()                                              # outside, where the failed pass is forgotten

    def _is_too_much(self) -> bool:
        """Whether a micro-batch is too much for this process, tried without the others: none must wait in vain."""
        try:
            with cast(DistributedDataParallel, self.shares).no_sync():
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

    def _alone_until_the_end(self, stop: int) -> AbstractContextManager[None]:
        """Gradients are summed over the processes once a step: in the backward pass of the last micro-batch."""
        if stop < self.share.stop and isinstance(self.shares, DistributedDataParallel):
            return self.shares.no_sync()
        return together()

    @out_of_memory.recognised()
    def _accumulate(self, start: int, count: int) -> Tensor:
        """Add the gradient of some pictures of the batch. → (3,) their share of the totals"""
        shares = self.shares(*self.batches.draw(self.step, start, count))
        torch.autograd.backward(shares[0] * self.world.size)           # over which the gradients are averaged
        detached: Tensor = shares.detach()
        return detached

    def _is_spike(self, norm: float) -> bool:
        settled = self.step >= self.plan.warmup_steps and len(self.norms) >= WINDOW // 4
        return settled and norm > SPIKE * statistics.median(self.norms)

    def _update(self) -> None:
        self.optimizer.step(learning_rate_at(self.plan, self.step))
        self.updates += 1
        ema.update(list(self.averaged.parameters()), self.network, self.updates)

    def _parameters(self) -> Iterator[tuple[str, Tensor, Tensor]]:
        """(name, weight, averaged weight) of every parameter."""
        for (name, parameter), averaged in zip(
                self.network.named_parameters(), self.averaged.parameters(), strict=True):
            yield name, parameter, averaged

    # The state: tensors under flat names, and the few numbers that are not tensors.

    def tensors(self) -> dict[str, Tensor]:
        """Weights and averaged weights of every parameter, and what the optimiser remembers of it."""
        result = dict(self.optimizer.moments)
        for name, parameter, averaged in self._parameters():
            result[f"weights.{name}"], result[f"average.{name}"] = parameter.detach(), averaged
        return result

    def record(self) -> dict[str, Any]:
        """The numbers that belong to `tensors`."""
        return {"step": self.step, "updates": self.updates, "bad": self.bad, "norms": list(self.norms)}

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Go back to a saved state."""
        for name, parameter, averaged in self._parameters():
            parameter.copy_(tensors[f"weights.{name}"])
            averaged.copy_(tensors[f"average.{name}"])
        for name, moment in self.optimizer.moments.items():
            moment.copy_(tensors[name])
        for count in self.optimizer.counts:
            count.fill_(record["updates"])
        self._take(record)

    def _take(self, record: Mapping[str, Any]) -> None:
        self.step, self.updates, self.bad = record["step"], record["updates"], record["bad"]
        self.norms = deque(record["norms"], maxlen=WINDOW)

    def align(self) -> None:
        """Give every process of the world the state of the main one."""
        if self.world.size > 1:
            self._take(self.world.told(self.record()))
            self.world.align([*self.tensors().values(), *self.optimizer.counts])


def learning_rate_at(plan: Plan, step: int) -> float:
    """Warm-up, then constant, then a linear fall to 0 at the end of the budget."""
    rising = (step + 1) / plan.warmup_steps
    falling = (plan.steps - step) / plan.cooldown_steps
    return plan.lr * max(0.0, min(1.0, rising, falling))
