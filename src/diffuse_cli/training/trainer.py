"""One training step: draw a batch, compute its gradient, clip or skip it, update the weights, update their average.

A `Trainer` holds all state that changes from step to step, and can hand it out and restore it exactly.
"""

import contextlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ..config import Plan
from ..diffusion.schedule import Schedule, make_schedule
from ..errors import OutOfMemoryError, UsageError
from ..network.network import Network, on_meta_device
from ..network.tokenizer import encode
from ..runtime import out_of_memory, randomness, sharding
from ..runtime.distributed import World, lost_process_as_error
from . import captured, ema
from .adversary import Discriminator
from .batches import Batches
from .compiled import CompiledCall, CompiledNetwork
from .distillation import DistillationLoss, Segments, Teacher
from .loss import TrainingLoss
from .muon import orthogonal_steps
from .optimizer import Optimizer, learning_rate_at
from .state import AVERAGE, WEIGHTS, TrainingTensors
from .verdicts import Verdicts

MAX_GRADIENT_NORM = 1.0         # norm of the gradient to which longer gradients are clipped


@dataclass(frozen=True)
class StepResult:
    """The measurements of one step, on the device."""

    losses: Tensor                              # (3,), means over the batch: the loss that is minimised, the unweighted
    #                                             noise loss, the variance loss
    gradient_norm: Tensor                       # (), before clipping


class Trainer:
    """A network in training, with its optimiser and the average of its weights.

    `global_step` counts the batches that were drawn, `verdicts.updates` those that changed the weights. Every process
    of a world has a trainer with the same weights, and computes the gradient of its share of every batch.

    precision: of the network, "bf16" or "fp32". micro_batch: pictures at once; of the same number in all processes.
    compiled: whether torch compiles the network; None: if it can. sharded: whether each process keeps its share of the
    weights alone; then nothing is compiled. recompute: see `memory.choose_recompute`. values: False for shapes only, of
    a training too large to be tried. Raises UsageError if the batch has fewer pictures than there are processes.
    """

    def __init__(self, plan: Plan, batches: Batches, *, precision: str, micro_batch: int, compiled: bool | None,
                 world: World, sharded: bool = False, recompute: bool = False, values: bool = True) -> None:
        self.plan, self.batches, self.precision, self.micro_batch = plan, batches, precision, micro_batch
        self.world, self.share = world, world.process.share(plan.batch_size)
        if plan.batch_size < world.size:
            raise UsageError(f"a batch of {plan.batch_size} cannot be shared by {world.size} processes",
                             hint="Use fewer processes, or a larger --batch-size")
        # Network, loss and optimiser
        self.has_values = values
        if values:
            self.network = Network(plan.model.network)
            self.network.initialise(randomness.generator(plan.seed, "weights"))
            if not sharded:                     # whose weights must be contiguous, and move one part after the other
                self.network.place_on(batches.device)
        else:
            self.network = on_meta_device(plan.model.network)
        self.network.unet.recompute = recompute
        self.schedule: Schedule = make_schedule(plan.model.schedule, plan.model.network.schedule_side)
        self.compiled = None if compiled is False else CompiledNetwork(
            self.network, required=compiled is True, captured=values and plan.model.student is None
            and captured.is_worthwhile(self.parameters, batches.device, processes=world.size,
                                       passes=math.ceil(plan.batch_size / micro_batch)))
        forward = self.compiled or self.network
        self.teacher = Network(plan.model.network) if plan.model.student is not None else None
        self.segments = None if self.teacher is None else self._segments(self.teacher)
        self.discriminator = self._discriminator() if plan.adversarial else None
        self.loss = world.wrap(TrainingLoss(forward, plan, self.schedule, precision=precision)
                               if self.segments is None else DistillationLoss(
                                   forward, plan, self.segments, self.discriminator),
                               batches.device, sharded_parts=self.network.parts() if sharded else None)
        self.directions = CompiledCall(orthogonal_steps, required=compiled is True) if (
            self.compiled is not None and batches.device.type != "cpu") else None  # a CPU begins operations at once
        self.optimizer = Optimizer(self.network, plan, precision=precision,
                                   directions=self.directions or orthogonal_steps, world=world,
                                   discriminator=self.discriminator)
        self.state = TrainingTensors(self.network, self.optimizer, world, batches.device, self.discriminator)

        self.global_step = 0
        self.verdicts = Verdicts(plan)

        # Whether the micro-batch is known to fit into memory. Several processes must find out before they depend on
        # each other, which those of a sharded network always do; a single process can halve it at any time.
        self.micro_batch_fits = world.size == 1 or sharded
        self.order_is_final = world.size == 1 or sharded    # in which gradients are exchanged, see `World.wrap`
        self.is_capture_proven = self.compiled is None or not self.compiled.captured
        self.settled = False                    # whether the pictures are where they stay: on the device if they fit

    @property
    def skipped(self) -> int:
        """The number of steps so far that did not change the weights. Waits for the newest; raises DivergedError."""
        self.verdicts.hear()
        return self.global_step - self.verdicts.updates

    @property
    def compile_failure(self) -> str:
        """Why torch cannot compile all that it was to compile; empty if it can, or if that is not known yet."""
        failures = [call.failure for call in (self.compiled, self.directions) if call is not None]
        return next(filter(None, failures), "")

    @property
    def parameters(self) -> int:
        """The number of parameters of the network."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def _segments(self, teacher: Network) -> Segments:
        """What a student learns from its teacher; its own text encoder is not trained."""
        device, tokenizer = self.batches.device, self.batches.tokenizer
        teacher.place_on(device).requires_grad_(False).eval()
        teacher.unet.recompute = self.network.unet.recompute            # when gradients pass through what it sees
        if self.network.text_encoder is not None:
            self.network.text_encoder.requires_grad_(False)
        empty = None if tokenizer is None else encode(tokenizer, [""]).to(device)
        return Segments(Teacher(teacher, empty), self.plan.model, self.schedule, self.precision)

    def _discriminator(self) -> Discriminator:
        """A new one, the same for every process."""
        discriminator = Discriminator(self.plan.model)
        discriminator.initialise(randomness.generator(self.plan.seed, "discriminator"))
        return discriminator.to(self.batches.device)

    def follow(self, plan: Plan) -> None:
        """Train by another plan from now on, of which the steps so far are the same."""
        self.plan = plan
        self.batches.follow(plan)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Replace the weights and their average by another model's, which a student learns from. Main process only.

        Raises RuntimeError if their shapes do not fit.
        """
        self.state.load({f"{kind}{name}": weight for kind in (WEIGHTS, AVERAGE) for name, weight in weights.items()})
        if self.teacher is not None:
            self.teacher.load_state_dict(weights)

    # ── The step ────────────────────────────────────────────────────────────────────────────────────────────────────

    def step(self) -> StepResult:
        """Train on the next batch. Raises OutOfMemoryError; DivergedError, for the step before."""
        # Draw the batch, and compute the gradient of its mean loss.
        losses = self._gradient_of_batch()

        with out_of_memory.for_update(self.micro_batch), lost_process_as_error():
            # Clip the gradient.
            norm = sharding.whole(torch.nn.utils.clip_grad_norm_(self.network.parameters(), MAX_GRADIENT_NORM))

            # Skip the step if a number is not finite, or if the gradient is a spike. Only here does a step wait for the
            # device: for its verdict on the step before.
            skip = self.verdicts.judge(norm, losses, step=self.global_step)

            # Update the weights, and their average.
            self.optimizer.step(learning_rate_at(self.plan, self.global_step), skip)
            ema.update(self.state.averages, self.network, self.verdicts.updates + 1, skip)

        self.global_step += 1
        if not self.settled and self.global_step > self.plan.half_side_steps:   # all memory that a step needs is taken
            with contextlib.suppress(torch.OutOfMemoryError), out_of_memory.as_torch_error():
                self.batches.settle()
            self.settled = True
        return StepResult(losses, norm)

    def _gradient_of_batch(self) -> Tensor:
        """Leave the gradient of the batch's mean loss in the parameters. → (3,) the losses of `StepResult`

        The batch is cut into micro-batches. If one does not fit into memory, the pictures leave the device, or else the
        micro-batch is halved, and the batch is started again. Raises OutOfMemoryError if that is not possible.
        """
        # Several processes: find a micro-batch that fits all of them, before the first step.
        while not self.micro_batch_fits:
            self.micro_batch_fits = not self.world.all_reduce_max(self._exceeds_memory())
            if not self.micro_batch_fits:
                self._halve_micro_batch()

        # Compare the gradients of captured passes with plain ones, before the first step.
        if self.compiled is not None and not self.is_capture_proven:
            steps = (self.global_step, self.plan.half_side_steps, self.plan.steps)
            captured.prove(self.compiled, lambda step: self._accumulate(0, self.plan.batch_size, step=step),
                           [range(*steps[:2]), range(max(steps[:2]), steps[2])])
            self.is_capture_proven = True

        # Add up the gradients of this process's share, in micro-batches.
        while True:
            try:
                if not self.order_is_final:     # a pass that trains nothing, so that all steps add in the same order
                    with out_of_memory.as_torch_error(), lost_process_as_error():
                        self._accumulate(self.share.start, min(self.micro_batch, len(self.share)))
                    self.order_is_final = True
                self.optimizer.zero_grad()
                losses = torch.zeros(3, device=self.batches.device)
                if self._is_a_pass_short():
                    with out_of_memory.as_torch_error(), lost_process_as_error():
                        self._accumulate(self.share.start, 1, weight=0)
                for start in range(self.share.start, self.share.stop, self.micro_batch):
                    stop = min(start + self.micro_batch, self.share.stop)
                    with out_of_memory.as_torch_error(), self._averaged_over_processes(last=stop == self.share.stop):
                        losses += self._accumulate(start, stop - start)
                    self._draw_ahead(stop)
                return self.world.all_reduce_sum(losses)
            except torch.OutOfMemoryError as error:
                if self.world.size > 1:         # the other processes are already waiting for this gradient
                    raise OutOfMemoryError(
                        f"{self.micro_batch} pictures at once no longer fit into the device's memory",
                        hint=f"Resume with --micro-batch {max(1, self.micro_batch // 2)}") from error
            # After the handler, which keeps the tensors of the failed pass alive
            if not self.batches.release():
                self._halve_micro_batch()

    def _is_a_pass_short(self) -> bool:
        """Whether this process has fewer micro-batches than another, and its weights are sharded.

        Then it needs one pass more, in which the others get its weights.
        """
        longest = math.ceil(self.plan.batch_size / self.world.size)
        passes = [math.ceil(count / self.micro_batch) for count in (len(self.share), longest)]
        return self.state.sharded and passes[0] < passes[1]

    def _accumulate(self, start: int, count: int, *, weight: int = 1, step: int | None = None) -> Tensor:
        """Add `weight` times the gradient of `count` pictures of a batch, from `start` on. step: if not the present one

        → (3,) their part of the losses
        """
        batch, dropout_keys = self.batches.draw(self.global_step if step is None else step, start, count)
        losses = self.loss(batch, dropout_keys)
        # The losses are parts of the whole batch's mean. Gradients are averaged over the processes; this undoes it.
        torch.autograd.backward(losses[0] * (self.world.size * weight))
        return cast(Tensor, losses.detach())

    def _draw_ahead(self, start: int) -> None:
        """Begin to draw the micro-batch from `start` on, or the first one of the next step if the share ends there.

        The device still works on the last one, and the thread that draws leaves this one's calls of it undisturbed.
        """
        if start < self.share.stop:
            self.batches.draw_ahead(self.global_step, start, min(self.micro_batch, self.share.stop - start))
        elif self.global_step + 1 < self.plan.steps:
            self.batches.draw_ahead(self.global_step + 1, self.share.start, min(self.micro_batch, len(self.share)))

    def _averaged_over_processes(self, *, last: bool) -> contextlib.AbstractContextManager[None]:
        """The context of a backward pass; the one of the last micro-batch averages the gradients over the processes."""
        if not last and isinstance(self.loss, DistributedDataParallel):
            return self.loss.no_sync()
        return lost_process_as_error()

    def _exceeds_memory(self) -> bool:
        """Whether a micro-batch does not fit into this process's memory.

        It is tried without communication, so that no process waits for one that has failed.
        """
        try:
            with out_of_memory.as_torch_error(), cast(DistributedDataParallel, self.loss).no_sync():
                whole = max(self.global_step, self.plan.half_side_steps)        # a step that sees whole pictures
                self._accumulate(self.share.start, min(self.micro_batch, len(self.share)), step=whole)
        except torch.OutOfMemoryError:
            return True
        return False

    def _halve_micro_batch(self) -> None:
        """Raises OutOfMemoryError if it is a single picture."""
        if self.micro_batch == 1:
            raise OutOfMemoryError("not even one picture at a time fits into the device's memory",
                                   hint="Choose a smaller --preset or --resolution")
        self.micro_batch //= 2
        if self.compiled is not None:           # now a step has several passes
            self.compiled.give_up_capture("out of memory")
        if self.batches.device.type == "cuda":
            torch.cuda.empty_cache()

    # ── The state: tensors under flat names, and the few numbers that are not tensors ───────────────────────────────

    @property
    def averaged(self) -> Network:
        """The network with the averaged weights; if sharded, only inside `whole`, and in the main process."""
        return self.state.averaged

    def whole(self, *, moments: bool = False) -> contextlib.AbstractContextManager[None]:
        """See `TrainingTensors.whole`. Around everything that the main process does with the weights alone."""
        return self.state.whole(moments=moments)

    def tensors(self) -> dict[str, Tensor]:
        """The weights, their average and the optimiser's moments, without copies; whole ones inside `whole`."""
        return self.state.gathered or self.state.here

    def record(self) -> dict[str, Any]:
        """Return the numbers of the saved state, ready for JSON: step counts and recent gradient norms.

        `tensors` returns the other part of the state. `restore` takes both. Raises DivergedError.
        """
        self.verdicts.hear()
        return {"step": self.global_step, "updates": self.verdicts.updates, "bad": self.verdicts.bad_steps,
                "norms": list(self.verdicts.norms)}

    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Restore a saved state: the tensors and the record that `tensors` and `record` returned. Main process only."""
        self.state.load(tensors)
        self._restore_numbers(record)

    def broadcast_state(self) -> None:
        """Replace the state in every process by that of the main process."""
        if self.world.size > 1:
            self._restore_numbers(self.world.broadcast_json(self.record()))
            self.state.broadcast()
            self.world.broadcast_([] if self.teacher is None else self.teacher.state_dict().values())

    def _restore_numbers(self, record: Mapping[str, Any]) -> None:
        self.global_step = record["step"]
        self.verdicts.restore(record["updates"], record["bad"], record["norms"])
        for count in self.optimizer.counts:
            count.fill_(record["updates"])
