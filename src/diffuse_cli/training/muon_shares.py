"""Muon in several processes: each computes the steps of some matrices, and gives them to the others.

Otherwise every process would compute all of them, which takes longer than the network where a process has few pictures.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ..runtime import sharding
from ..runtime.distributed import World
from .muon import Directions, as_kernel, as_matrix


def cost(shape: torch.Size) -> int:
    """The arithmetic of the step of a matrix or kernel, in an arbitrary unit."""
    return min(shape[0], math.prod(shape[1:])) * math.prod(shape)


def owners(shapes: Sequence[torch.Size], processes: int) -> list[int]:
    """The process that computes the step of each matrix or kernel, so that all have about the same arithmetic."""
    costs = list(map(cost, shapes))
    load, owner = [0] * processes, [0] * len(shapes)
    for number in sorted(range(len(shapes)), key=lambda number: (-costs[number], number)):
        owner[number] = load.index(min(load))
        load[owner[number]] += costs[number]
    return owner


class SharedDirections:
    """`Directions` that several processes compute together. All of them must call it at the same point.

    What they exchange has the type in which the iterations compute; so all get the same bits.

    directions: what a process calls for its own matrices. shapes: of all matrices, whole. sharded: whether each process
    has its rows of every momentum, and needs those of every step; otherwise each has, and needs, all rows.
    """

    def __init__(self, directions: Directions, shapes: Sequence[torch.Size], world: World, *, sharded: bool) -> None:
        self.directions, self.shapes, self.world, self.sharded = directions, shapes, world, sharded
        owner = owners(shapes, world.size)
        self.owned = [[number for number, rank in enumerate(owner) if rank == process] for process in range(world.size)]
        self.own = self.owned[world.process.rank]

    def __call__(self, momenta: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """As `orthogonal_steps`. Raises WorkerError."""
        return self._of_rows(momenta, dtype) if self.sharded else self._of_whole(momenta, dtype)

    def _compute(self, momenta: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
        return self.directions(momenta, dtype) if momenta else []      # there may be more processes than matrices

    def _of_whole(self, momenta: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Compute the own steps, then gather all."""
        own = [as_matrix(step).flatten() for step in self._compute([momenta[number] for number in self.own], dtype)]
        length = max(sum(self.shapes[number].numel() for number in numbers) for numbers in self.owned)
        mine = momenta[0].new_zeros(length, dtype=dtype)
        mine[: sum(map(len, own))] = torch.cat([mine[:0], *own])
        gathered = self.world.all_gather(mine.view(torch.uint8)).view(dtype).to(momenta[0].dtype)
        result = list(momenta)
        for numbers, flat in zip(self.owned, gathered, strict=True):
            sizes = [self.shapes[number].numel() for number in numbers]
            for number, step in zip(numbers, torch.split(flat[: sum(sizes)], sizes), strict=True):
                result[number] = as_kernel(step.view(self.shapes[number][0], -1), momenta[number])
        return result

    def _of_rows(self, momenta: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Give every owner the rows of its matrices, compute the own steps, and give everybody their rows of them."""
        given = [[momenta[number] for number in numbers] for numbers in self.owned]
        received = self._exchange(given, momenta[0], dtype, [
            [self._rows(number, rank) for number in self.own] for rank in range(self.world.size)])
        whole = [torch.cat(parts) for parts in zip(*received, strict=True)]
        steps = self._compute(whole, dtype)
        parts = [[step[self._slice(number, rank)] for number, step in zip(self.own, steps, strict=True)]
                 for rank in range(self.world.size)]
        returned = self._exchange(parts, momenta[0], dtype, [
            [momenta[number].shape for number in numbers] for numbers in self.owned])
        result = list(momenta)
        for numbers, of_owner in zip(self.owned, returned, strict=True):
            for number, step in zip(numbers, of_owner, strict=True):
                result[number] = step.to(momenta[number].dtype)
        return result

    def _exchange(
        self, given: list[list[Tensor]], like: Tensor, dtype: torch.dtype, shapes: list[list[torch.Size]],
    ) -> list[list[Tensor]]:
        """Give lists of tensors to the processes, by rank, and get lists with these shapes from them.

        like: a tensor on their device. dtype: in which they are exchanged.
        """
        sizes = [[shape.numel() for shape in of_process] for of_process in shapes]
        flat = [torch.cat([like.new_empty(0, dtype=dtype), *(tensor.flatten().to(dtype) for tensor in tensors)])
                for tensors in given]
        received = self.world.exchange([part.view(torch.uint8) for part in flat],
                                       [dtype.itemsize * sum(parts) for parts in sizes])
        return [[part.view(shape) for part, shape in zip(torch.split(one.view(dtype), parts), of_process, strict=True)]
                for one, parts, of_process in zip(received, sizes, shapes, strict=True)]

    def _slice(self, number: int, rank: int) -> slice:
        return sharding.rows(self.shapes[number][0], rank=rank, processes=self.world.size)

    def _rows(self, number: int, rank: int) -> torch.Size:
        """The shape of a process's rows of a matrix."""
        rows = self._slice(number, rank)
        return torch.Size((rows.stop - rows.start, *self.shapes[number][1:]))
