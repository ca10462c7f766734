"""A device that is not there, for tests on any machine: it computes on the CPU, but keeps an accelerator's law.

Tensors on it refuse to meet those of the CPU (numbers of no dimension apart), and no float64 exists there, as on MPS.
Its name is "meta", the one that torch knows everywhere; every operation is caught before torch's own meta tensors are.
"""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

from diffuse_cli.runtime import devices

DEVICE = torch.device("meta")
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)   # the CPU must know the values

# What has happened since `counted` began: "to device", of which "waiting" are those that the program waits for; "to
# host", for all of which it waits; "launches", operations that a GPU would have to begin.
COUNTS: collections.Counter[str] = collections.Counter()


class There(Tensor):
    """A tensor on the device; `here` is what it holds."""

    here: Tensor

    @staticmethod
    def __new__(cls, here: Tensor) -> "There":
        made = Tensor._make_wrapper_subclass(
            cls, here.shape, strides=here.stride(), storage_offset=here.storage_offset(), dtype=here.dtype,
            device=DEVICE)
        made.here = here
        return made

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {})

    def tolist(self) -> Any:
        COUNTS["to host"] += 1
        return self.here.tolist()


class _Caught(TorchDispatchMode):
    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(operation, args, kwargs or {})


def _compute(operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    there = any(isinstance(tensor, There) for tensor in tensors)
    if there and operation not in MOVES and any(not isinstance(tensor, There) and tensor.ndim for tensor in tensors):
        raise RuntimeError(f"{operation} of tensors on two devices")
    _count(operation, args, kwargs, tensors)
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == DEVICE
        kwargs = {**kwargs, "device": torch.device("cpu")}
    args_here, kwargs_here = tree_map(lambda value: value.here if isinstance(value, There) else value, (args, kwargs))
    result = operation(*args_here, **kwargs_here)
    if operation is torch.ops.aten.copy_.default:
        return args[0]

    def sent(value: Any) -> Any:
        if not there or not isinstance(value, Tensor):
            return value
        if value.dtype == torch.float64:
            raise TypeError(f"{operation}: there is no float64 on this device")
        same = [tensor for tensor in tensors if isinstance(tensor, There) and tensor.here is value]
        return same[0] if same else There(value)               # what was changed in place stays itself

    return tree_map(sent, result)


def _count(operation: Any, args: Any, kwargs: dict[str, Any], tensors: list[Tensor]) -> None:
    """Note a move between the devices, or an operation on this one that is more than another view of a tensor."""
    if operation in MOVES:
        source = isinstance(tensors[-1], There)
        target = isinstance(tensors[0], There) if operation is MOVES[1] else \
            torch.device(kwargs.get("device") or tensors[0].device) == DEVICE
        waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking"))
        if source != target:
            COUNTS["to device" if target else "to host"] += 1
            COUNTS["waiting"] += target and waits
            return
    there = any(isinstance(tensor, There) for tensor in tensors)
    by_mask = operation in (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default) and any(
        isinstance(index, There) and index.dtype == torch.bool for index in args[1])
    if there and (operation in READS or by_mask):
        COUNTS["to host"] += 1
    COUNTS["launches"] += there and not operation.is_view


@contextlib.contextmanager
def counted() -> Iterator[collections.Counter[str]]:
    """What happens meanwhile, in a new `COUNTS`."""
    COUNTS.clear()
    counts: collections.Counter[str] = collections.Counter()
    yield counts
    counts.update(COUNTS)


@contextlib.contextmanager
def chosen() -> Iterator[None]:
    """Everything that chooses a device chooses this one."""
    made = torch.tensor

    def tensor(data: Any, *, device: torch.device | None = None, **options: Any) -> Tensor:
        return made(data, **options).to(device)            # which torch does where nothing catches it

    with mock.patch.object(devices, "choose_device", return_value=DEVICE), \
            mock.patch.object(torch, "autocast", return_value=contextlib.nullcontext()), \
            mock.patch.object(torch, "tensor", tensor), _Caught():
        yield
