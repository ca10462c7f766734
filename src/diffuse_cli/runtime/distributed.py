"""Several processes that train or sample together: the few collective operations that they need, on torch.distributed.

Nothing is pickled: values travel as JSON, numbers as tensors.
"""

import contextlib
import json
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ..errors import UsageError, WorkerError
from . import launch_environment, sharding
from .launch_environment import ProcessRank

GLOO_ERRORS = ("gloo", "pair closure", "connection closed", "connection reset", "wait timeout")     # in its messages
TIMEOUT_SECONDS = 300.0         # seconds after which a process that does not answer counts as lost
MAX_TIMEOUT_SECONDS = 1_000_000
PATIENT_TIMEOUTS = 12                   # number of timeouts to wait for a process that may be working alone


@dataclass(frozen=True)
class World:
    """The processes of one training or sampling. In `World()`, a single process, no method communicates.

    Every method must be called by all processes at the same point. Methods raise WorkerError if a process is lost.
    """

    process: ProcessRank = launch_environment.SINGLE_PROCESS  # the rank of this process
    patient_group: dist.ProcessGroup | None = None          # all processes, with PATIENT_TIMEOUTS times the timeout
    _wrapped: weakref.WeakSet[DistributedDataParallel] = field(
        default_factory=weakref.WeakSet, init=False, repr=False, compare=False)

    @property
    def is_main(self) -> bool:
        """Whether this is the one process that writes files and reports to the user."""
        return self.process.is_main

    @property
    def size(self) -> int:
        """The number of processes (the world size)."""
        return self.process.world_size

    def wrap(
        self, module: nn.Module, device: torch.device, *, sharded_parts: Sequence[nn.Module] | None = None,
    ) -> nn.Module:
        """The module, which computes on `device`, with its gradients averaged over all processes in the backward pass.

        Every parameter must get a gradient in it. After the first such pass the gradients are exchanged in another
        order, that of their arrival; so sums are rounded differently in the passes before and after.

        sharded_parts: if given, each process keeps its share of the weights alone, see `sharding.shard`. Then every
        pass needs all processes, and gradients keep their order.
        """
        if self.size == 1:
            return module
        if sharded_parts is not None:
            sharding.shard(module, sharded_parts, device, processes=self.size)
            return module
        parallel = DistributedDataParallel(module, gradient_as_bucket_view=True)
        self._wrapped.add(parallel)
        return parallel

    def abort(self) -> None:
        """Give up what this process waits for on a GPU, so that `leave` does not wait for it either.

        Nothing else would end a wait for a process that has failed before the timeout. gloo's waits end by themselves;
        that of torch 2.6 has nothing to give up.
        """
        with contextlib.suppress(RuntimeError, AttributeError):
            dist.group.WORLD._get_backend(torch.device("cuda")).abort()        # type: ignore[union-attr]

    def leave(self) -> None:
        """Leave the other processes for good. Wrapped modules can no longer be trained.

        The reducers are deleted before the process group is destroyed. In the other order, the group could be destroyed
        while this thread holds Python's lock, and wait forever for one of its own threads, which waits for the lock.
        """
        for parallel in self._wrapped:
            del parallel.reducer, parallel.logger
        dist.destroy_process_group()

    def all_reduce_sum(self, tensor: Tensor) -> Tensor:
        """Add up the tensors of all processes, in place. → `tensor`"""
        if self.size > 1:
            with lost_process_as_error():
                dist.all_reduce(tensor)
        return tensor

    def all_reduce_max(self, number: int, *, patient: bool = False) -> int:
        """The largest of the processes' numbers.

        patient: wait up to `PATIENT_TIMEOUTS` timeouts, because one of the processes may be working alone.
        """
        return self.all_reduce_maxima([int(number)], patient=patient)[0]

    def all_reduce_maxima(self, numbers: list[int], *, patient: bool = False) -> list[int]:
        """The largest of the processes' first numbers, of their second ones, and so on, as `all_reduce_max`."""
        if self.size == 1:
            return numbers
        tensor = torch.tensor(numbers)
        with lost_process_as_error():
            dist.all_reduce(tensor, dist.ReduceOp.MAX, group=self.patient_group if patient else None)
        largest: list[int] = tensor.tolist()
        return largest

    def barrier(self) -> None:
        """Wait patiently until all processes have called this."""
        self.all_reduce_max(0, patient=True)

    def broadcast_json(self, value: Any) -> Any:
        """The main process's `value`, after a round trip through JSON. Waits patiently for the main process."""
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
        """The tensors of all processes, in the order of ranks. They must have the same shape.

        → an empty list in all processes but the main one
        """
        if self.size == 1:
            return [tensor]
        parts = [torch.empty_like(tensor) for _ in range(self.size)] if self.is_main else None
        with lost_process_as_error():
            dist.gather(tensor, parts)
        return parts or []

    def all_gather(self, tensor: Tensor) -> Tensor:
        """The tensors of all processes, of the same shape (N,) → (processes, N)."""
        parts = tensor.new_empty(self.size, len(tensor))
        gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor     # its older name
        with lost_process_as_error():
            gather(parts.view(-1), tensor)
        return parts

    def exchange(self, parts: Sequence[Tensor], lengths: Sequence[int]) -> list[Tensor]:
        """Give a tensor to every process, and get one from each.

        parts: those that this process gives, by rank, (N,) each. lengths: of those that it gets.
        """
        received = parts[0].new_empty(sum(lengths))
        with lost_process_as_error():
            dist.all_to_all_single(received, torch.cat(list(parts)), list(lengths), [len(part) for part in parts])
        return list(torch.split(received, list(lengths)))

    def broadcast_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors of every process with those of the main process."""
        if self.size > 1:
            with lost_process_as_error(), torch.no_grad():
                for tensor in tensors:
                    contiguous = tensor.contiguous()
                    dist.broadcast(contiguous, 0)
                    tensor.copy_(contiguous)


@contextlib.contextmanager
def join(device: torch.device) -> Iterator[World]:
    """Connect to the other processes of this command, if the environment names any. → their world, while it is open

    Raises WorkerError if a process does not connect, or is lost.
    """
    process = launch_environment.process_rank()
    if process.world_size == 1:
        yield World()
        return
    rendezvous = os.environ.get(launch_environment.RENDEZVOUS)
    if rendezvous is None and "MASTER_ADDR" not in os.environ:
        os.environ.update(launch_environment.slurm_address())
    if device.type == "cuda":
        torch.cuda.set_device(device)
    timeout = timedelta(seconds=_timeout())
    try:
        with lost_process_as_error():
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", rank=process.rank,
                world_size=process.world_size, init_method=f"file://{rendezvous}" if rendezvous else "env://",
                timeout=timeout, device_id=device if device.type == "cuda" else None)
            patient_group = dist.new_group(backend="gloo", timeout=PATIENT_TIMEOUTS * timeout)
    except WorkerError as error:
        if rendezvous:
            raise
        raise WorkerError(f"not all of the {process.world_size} processes that the environment names have connected",
                          hint="Start all with torchrun, srun or --gpus; or, if another program left RANK and "
                               "WORLD_SIZE behind, unset them") from error
    world = World(process, patient_group)
    try:
        yield world
        world.barrier()                         # no process leaves while another still waits for its answer
    except BaseException:
        world.abort()
        raise
    finally:
        world.leave()


def _timeout() -> float:
    """Seconds from the environment until a silent process is given up. Raises UsageError."""
    given = os.environ.get("DIFFUSE_TIMEOUT", "")
    try:
        seconds = float(given or TIMEOUT_SECONDS)
    except ValueError:
        seconds = 0.0
    if not 1 <= seconds <= MAX_TIMEOUT_SECONDS:
        raise UsageError(f"DIFFUSE_TIMEOUT={given} is no number of seconds from 1 to {MAX_TIMEOUT_SECONDS:,}",
                         hint=f"Unset it for {TIMEOUT_SECONDS:g} seconds")
    return seconds


@contextlib.contextmanager
def lost_process_as_error() -> Iterator[None]:
    """Raise WorkerError in place of every error with which torch reports that a process is lost."""
    try:
        yield
    except RuntimeError as error:               # dist.DistError is a subclass; gloo's errors have no class of their own
        if not isinstance(error, dist.DistError) and not any(word in str(error).lower() for word in GLOO_ERRORS):
            raise
        raise WorkerError("another of the processes has ended, or does not answer") from error
