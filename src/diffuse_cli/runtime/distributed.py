"""Several processes that train or draw together: the few collective operations they need, on torch.distributed.

Does not know what is trained or drawn. Nothing here pickles: values travel as JSON, numbers as tensors.
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
from .launch_environment import ProcessRank

GLOO_ERRORS = ("gloo", "pair closure", "connection closed", "connection reset")     # words of gloo's error messages
TIMEOUT = 300.0                                 # seconds; a process that does not answer for so long counts as lost
PATIENCE = 12                                   # timeouts to wait for a process that may be working alone


@dataclass(frozen=True)
class World:
    """The processes of one training or drawing. `World()` is one process alone, for which every method does nothing.

    All processes call a method at the same point, or none does.
    """

    place: ProcessRank = launch_environment.SINGLE_PROCESS
    patient_group: dist.ProcessGroup | None = None          # all processes, with a longer timeout
    _wrapped: weakref.WeakSet[DistributedDataParallel] = field(
        default_factory=weakref.WeakSet, init=False, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        return self.place.is_main

    @property
    def size(self) -> int:
        return self.place.size

    def wrap(self, module: nn.Module) -> nn.Module:
        """A module whose gradients are averaged over all processes during the backward pass.

        Buckets keep their first order (`find_unused_parameters` serves only for that), so that a sum over processes is
        rounded alike before and after an interruption.
        """
        if self.size == 1:
            return module
        shared = DistributedDataParallel(module, find_unused_parameters=True)
        self._wrapped.add(shared)
        return shared

    def leave(self) -> None:
        """Leave the other processes for good. Wrapped modules can no longer be trained.

        The reducers go before the process group. If they went after it, the group could end while it holds Python's
        lock, and wait for ever for one of its threads that waits for the lock.
        """
        for shared in self._wrapped:
            del shared.reducer, shared.logger
        dist.destroy_process_group()

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in place."""
        if self.size > 1:
            with lost_process_as_error():
                dist.all_reduce(tensor)
        return tensor

    def all_reduce_max(self, number: int, *, patient: bool = False) -> int:
        """The largest of the processes' numbers. patient: wait longer, for a process that may be working alone."""
        if self.size == 1:
            return number
        tensor = torch.tensor(int(number))
        with lost_process_as_error():
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.patient_group if patient else None)
        return int(tensor)

    def barrier(self) -> None:
        """Wait patiently until all processes are here."""
        self.all_reduce_max(0, patient=True)

    def broadcast_json(self, value: Any) -> Any:
        """The main process's `value`, as JSON carries it, in every process. Waits patiently for the main process."""
        if self.size == 1:
            return value
        text = json.dumps(value).encode() if self.is_main else b""
        data = torch.zeros(self.all_reduce_max(len(text), patient=True), dtype=torch.uint8)
        if self.is_main:
            data[:] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        with lost_process_as_error():
            dist.broadcast(data, 0)
        return json.loads(data.numpy().tobytes())

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """For the main process, the tensors of all processes in order of rank, all of one shape; else an empty list."""
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)] if self.is_main else None
        with lost_process_as_error():
            dist.gather(tensor, parts)
        return parts or []

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of every process with the main process's."""
        if self.size > 1:
            with lost_process_as_error(), torch.no_grad():
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
    with lost_process_as_error():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", rank=place.rank, world_size=place.size,
            init_method=f"file://{meeting}" if meeting else "env://", timeout=timeout)
        patient_group = dist.new_group(backend="gloo", timeout=PATIENCE * timeout)
    world = World(place, patient_group)
    try:
        yield world
        world.barrier()                         # nobody leaves while another still waits for an answer
    finally:
        world.leave()


@contextlib.contextmanager
def lost_process_as_error() -> Iterator[None]:
    """Raise WorkerError, which users understand, for every error by which torch tells that a process is lost."""
    try:
        yield
    except RuntimeError as error:               # dist.DistError is one; gloo's errors have no class of their own
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in GLOO_ERRORS):
            raise
        raise WorkerError("another of the processes has ended, or does not answer") from error
