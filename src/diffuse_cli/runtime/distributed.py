"""The few things that processes working together say to one another. One process alone says nothing.

Knows torch.distributed; does not know what is trained or drawn. Every method is called by all processes at the same
point, or by none. Nothing here pickles: values travel as JSON, numbers as tensors.
"""

import contextlib
import json
import os
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import WorkerError
from . import launch_environment
from .launch_environment import Place

GLOO = ("gloo", "pair closure", "connection closed", "connection reset")       # signs that an error is its
TIMEOUT = 300.0                                 # seconds after which a process that does not answer is given up
PATIENCE = 12                                   # times as long, where one may be working alone


@dataclass(frozen=True)
class World:
    """The processes of one training or drawing. `World()` is a process alone, for which every method does nothing."""

    place: Place = launch_environment.ALONE
    patient: dist.ProcessGroup | None = None    # all of them, who wait for one another for longer
    _wrapped: weakref.WeakSet[DistributedDataParallel] = field(
        default_factory=weakref.WeakSet, init=False, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        return self.place.is_main

    @property
    def size(self) -> int:
        return self.place.size

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are means over all processes, all-reduced while the backward pass goes on.

        Buckets keep their first order (which is what `find_unused_parameters` is for here), so that a sum over
        processes is rounded alike before and after an interruption.
        """
        if self.size == 1:
            return module
        shared = DistributedDataParallel(module, find_unused_parameters=True)
        self._wrapped.add(shared)
        return shared

    def part(self) -> None:
        """Leave the others for good; what was wrapped can no longer learn.

        Whatever exchanges gradients goes before the group does. If it went after, it could end the group while it
        holds Python's lock, and wait for ever for a thread of the group that waits for the lock.
        """
        for shared in self._wrapped:
            del shared.reducer, shared.logger
        dist.destroy_process_group()

    def add(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            with together():
                dist.all_reduce(tensor)
        return tensor

    def largest(self, number: int, *, patiently: bool = False) -> int:
        """The largest of the numbers that the processes have. patiently: for one that may be working alone."""
        if self.size == 1:
            return number
        tensor = torch.tensor(int(number))
        with together():
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.patient if patiently else None)
        return int(tensor)

    def wait(self) -> None:
        """For all to be here, patiently."""
        self.largest(0, patiently=True)

    def told(self, value: Any) -> Any:
        """What the main process knows, as JSON carries it; the others' `value` is not looked at. Waits patiently."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.is_main else b""
        data = torch.zeros(self.largest(len(text), patiently=True), dtype=torch.uint8)
        if self.is_main:
            data[:] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        with together():
            dist.broadcast(data, 0)
        return json.loads(data.numpy().tobytes())

    def gathered(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, of one shape, in their order: for the main process. For others, nothing."""
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)] if self.is_main else None
        with together():
            dist.gather(tensor, parts)
        return parts or []

    def align(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes the main process's numbers, in place."""
        if self.size > 1:
            with together(), torch.no_grad():
                for tensor in tensors:
                    contiguous = tensor.contiguous()
                    dist.broadcast(contiguous, 0)
                    tensor.copy_(contiguous)


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Meet the other processes of this command, if the environment says that there are any. Raises WorkerError."""
    place = launch_environment.place()
    if place.size == 1:
        yield World()
        return
    meeting = os.environ.get(launch_environment.RENDEZVOUS)
    if meeting is None and "MASTER_ADDR" not in os.environ:
        os.environ.update(launch_environment.address_of_slurm())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=float(os.environ.get("DIFFUSE_TIMEOUT", TIMEOUT)))
    with together():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", rank=place.rank, world_size=place.size,
            init_method=f"file://{meeting}" if meeting else "env://", timeout=timeout)
        patient = dist.new_group(backend="gloo", timeout=PATIENCE * timeout)
    world = World(place, patient)
    try:
        yield world
        world.wait()                            # nobody leaves while another still waits for an answer
    finally:
        world.part()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Turn what torch says of a lost process into the one WorkerError that users see."""
    try:
        yield
    except RuntimeError as error:                                      # dist.DistError is one, gloo's have no class
        if not isinstance(error, dist.DistError) and not any(sign in str(error).lower() for sign in GLOO):
            raise
        raise WorkerError("another of the processes has ended, or does not answer") from error
