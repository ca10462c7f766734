"""Weights that are divided among processes, with torch's `fully_shard` (FSDP2).

Of every tensor, each process keeps its share of the rows, that is of the first dimension. A part of the network gathers
its weights when it computes, and forgets them again. What is imported here takes torch most of a second, so that it is
imported when it is needed.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def shard(module: nn.Module, parts: Iterable[nn.Module], device: torch.device, *, processes: int) -> None:
    """Divide the weights of a module among all processes, in place, and move them to a device part by part.

    All processes have the same weights before.

    parts: of the module, which gather their weights one after the other; what is in no part stays gathered for the
    whole pass. The weights must be contiguous.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(device.type, (processes,))
    for part in (*parts, module):
        fully_shard(part, mesh=mesh)


def is_possible(device: torch.device) -> bool:
    """Whether this torch can divide weights on that device: 2.6 fails on a CPU."""
    return device.type != "cpu" or hasattr(torch.cpu.Stream, "record_event")


def rows(count: int, *, rank: int, processes: int) -> slice:
    """The rows, of `count`, that the process `rank` keeps. They are none if the others have them all."""
    each = math.ceil(count / processes)
    return slice(min(count, each * rank), min(count, each * (rank + 1)))


def is_sharded(tensor: Tensor) -> bool:
    """Whether the processes have rows of it. Without an import of torch's class for that."""
    return hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """The rows of this process, as a view; of a tensor that is not divided, all."""
    return tensor.to_local() if is_sharded(tensor) else tensor         # type: ignore[attr-defined, no-any-return]


def whole(tensor: Tensor) -> Tensor:
    """All rows, gathered from all processes, which must all call this; a tensor that is not divided is itself."""
    return tensor.full_tensor() if is_sharded(tensor) else tensor      # type: ignore[attr-defined, no-any-return]
