"""Steps of many tensors at once that a number on the device can call off.

They are torch's fused kernel of gradient descent, made for the loss scaling of mixed precision: if its `found_inf` is
1, it returns at once. So a device skips a step by itself, whatever values the gradients have.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def descend(targets: list[Tensor], steps: Sequence[Tensor], *, lr: float, decay: float, skip: Tensor | None) -> None:
    """targets ← targets·(1 - lr·decay) - lr·steps, in place.

    targets: of any strides without gaps. steps: of the same shapes. skip: () float32 on their device; if it is 1,
    nothing changes. None never skips.
    """
    torch._fused_sgd_(
        targets, laid_as(targets, steps), [], weight_decay=decay, momentum=0.0, lr=lr, dampening=0.0, nesterov=False,
        maximize=False, is_first_step=False, grad_scale=None, found_inf=skip)


def approach(targets: list[Tensor], others: Sequence[Tensor], share: float, skip: Tensor | None) -> None:
    """targets ← targets + share·(others - targets), in place; `skip` as in `descend`."""
    descend(targets, others, lr=-share, decay=-1.0, skip=skip)


def laid_as(targets: Sequence[Tensor], others: Sequence[Tensor]) -> list[Tensor]:
    """The others with the strides of the targets, which fused kernels need: views where nothing moves.

    Nothing moves where only the strides of dimensions of size 1 differ, as those of the gradients of 1x1 kernels may.
    """
    return [_laid_as(target, other) for target, other in zip(targets, others, strict=True)]


def _laid_as(target: Tensor, other: Tensor) -> Tensor:
    if other.stride() == target.stride():
        return other
    if all(own == wanted for own, wanted, size in zip(other.stride(), target.stride(), target.shape, strict=True)
           if size > 1):
        return other.as_strided(target.shape, target.stride())
    return torch.empty_like(target).copy_(other)
