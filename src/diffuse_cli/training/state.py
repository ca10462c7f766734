"""The tensors of a training under flat names: weights, their average and the optimiser's moments, whole or in rows."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from ..network.network import Network, on_meta_device
from ..runtime import sharding
from ..runtime.distributed import World
from .optimizer import Optimizer

WEIGHTS, AVERAGE = "weights.", "average."       # beginnings of the names of weights, and of their averages
DISCRIMINATOR = "discriminator."                # and of those of the discriminator of a distillation
PIECE = 2**28                                   # bytes that sharded tensors have together when they are exchanged


class TrainingTensors:
    """All tensors of a training, in every process of its world.

    If the network is sharded, each process has its rows of every tensor, and `averaged` has no values but in the main
    process inside `whole`. Otherwise each process has everything, at any time. A network of shapes only, on the meta
    device, has such an average.
    """

    def __init__(self, network: Network, optimizer: Optimizer, world: World, device: torch.device,
                 discriminator: nn.Module | None = None) -> None:
        self.network, self.world, self.device = network, world, device
        weights = dict(network.named_parameters())
        self.sharded = any(map(sharding.is_sharded, weights.values()))
        shapes_only = next(network.parameters()).is_meta and device.type != "meta"
        #                                                                         the network with averaged weights
        self.averaged = on_meta_device(network.config) if self.sharded or shapes_only else self._network()
        if self.sharded:
            averages = {name: weight.detach().clone() for name, weight in weights.items()}
        else:
            if not shapes_only:
                self.averaged.load_state_dict(network.state_dict())
            averages = dict(self.averaged.named_parameters())
        self.averages = list(averages.values())
        self.here = dict(optimizer.moments)                                 # what this process has of each tensor
        for name, weight in weights.items():
            self.here[WEIGHTS + name], self.here[AVERAGE + name] = weight.detach(), averages[name]
        for name, weight in [] if discriminator is None else discriminator.named_parameters():
            self.here[DISCRIMINATOR + name] = weight.detach()
        self.gathered: dict[str, Tensor] = {}                               # in the main process, inside `whole`
        self.loaded: dict[str, Tensor] = {}                                 # in the main process, until `broadcast`

    def _network(self) -> Network:
        return Network(self.network.config).place_on(self.device).requires_grad_(False).eval()

    @contextlib.contextmanager
    def whole(self, *, moments: bool) -> Iterator[None]:
        """Inside, the main process has whole averages, and with `moments` all that belongs to a saved state.

        Every process must enter and leave. Raises WorkerError.
        """
        if not self.sharded:
            yield
            return
        for names in self._pieces(name for name in self.here if moments or name.startswith(AVERAGE)):
            self._gather(names)
        if self.world.is_main:
            self.averaged = self._network()
            self.averaged.load_state_dict({name.removeprefix(AVERAGE): tensor for name, tensor in self.gathered.items()
                                           if name.startswith(AVERAGE)})
        try:
            yield
        finally:
            self.averaged, self.gathered = on_meta_device(self.network.config), {}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the values of whole tensors, if the network is sharded at the next `broadcast`. Main process only."""
        if self.sharded:
            self.loaded |= tensors
            return
        for name, tensor in tensors.items():
            self.here[name].copy_(tensor)

    @torch.no_grad()
    def broadcast(self) -> None:
        """Replace the values in every process by those of the main process. Raises WorkerError."""
        if not self.sharded:
            self.world.broadcast_(self.here.values())
            return
        for names in self._pieces(self.world.broadcast_json(list(self.loaded))):
            sizes = [self.here[name].numel() for name in names]
            flat = torch.empty(sum(sizes), device=self.device)
            if self.world.is_main:
                torch.cat([self.loaded[name].flatten().to(self.device) for name in names], out=flat)
            self.world.broadcast_([flat])
            for name, tensor in zip(names, torch.split(flat, sizes), strict=True):
                here = self.here[name]
                sharding.local(here).copy_(tensor.view(here.shape)[self._rows(name, self.world.process.rank)])
        self.loaded = {}

    @torch.no_grad()
    def _gather(self, names: list[str]) -> None:
        """Collect the rows of tensors in the main process, in one exchange."""
        shapes = [[(rows.stop - rows.start, *self.here[name].shape[1:]) for name in names
                   for rows in [self._rows(name, rank)]] for rank in range(self.world.size)]
        sizes = [list(map(math.prod, of_process)) for of_process in shapes]
        flat = torch.zeros(max(map(sum, sizes)), device=self.device)
        torch.cat([sharding.local(self.here[name]).flatten() for name in names],
                  out=flat[: sum(sizes[self.world.process.rank])])
        parts = [[part.view(shape) for part, shape in zip(torch.split(row[: sum(length)], length), its, strict=True)]
                 for row, length, its in zip(self.world.gather(flat), sizes, shapes, strict=False)]
        for name, rows in zip(names, zip(*parts, strict=True), strict=False):              # nothing in other processes
            self.gathered[name] = torch.cat(rows).cpu()

    def _pieces(self, names: Iterable[str]) -> Iterator[list[str]]:
        """The names in groups whose tensors are exchanged at once: few exchanges, but of a limited size."""
        group: list[str] = []
        for name in names:
            if group and sum(self.here[other].nbytes for other in (*group, name)) > PIECE:
                yield group
                group = []
            group.append(name)
        if group:
            yield group

    def _rows(self, name: str, rank: int) -> slice:
        return sharding.rows(len(self.here[name]), rank=rank, processes=self.world.size)
