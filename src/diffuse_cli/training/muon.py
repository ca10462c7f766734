"""The Muon optimiser."""

import math
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn

from ..runtime import sharding
from . import descent

WEIGHT_DECAY = 0.01                             # of matrices and kernels, as a factor of the learning rate
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)       # (a, b, c) of one iteration; singular values end up from 0.7 to 1.2
ITERATIONS = 5                                  # number of Newton-Schulz iterations
MOMENTUM = 0.95                                 # weight of the earlier gradients in the momentum
UPDATE_RMS = 0.2                                # root mean square of AdamW's updates, as a factor of the learning rate

Directions = Callable[[list[Tensor], torch.dtype], list[Tensor]]


class Muon(torch.optim.Optimizer):
    """Muon: steps along the orthogonalised momentum (Jordan et al. 2024, "Muon").

    The momentum M = U·S·Vᵀ of a matrix is replaced by U·Vᵀ, so that a step is equally long in every singular direction.
    A kernel (C_out, C_in, 3, 3) is treated as a matrix (C_out, 9·C_in). The update is scaled by 0.2·√max(m, n), which
    makes it as long as AdamW's at the same learning rate (Liu et al. 2025, 2502.16982, eq. 4).

    dtype: of the iterations. directions: `orthogonal_steps`, the same compiled, or `SharedDirections`, which may get
    the rows of this process alone. `lr_factor` of a parameter group multiplies the learning rate, see `Optimizer.step`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, dtype: torch.dtype,
                 directions: Directions) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": WEIGHT_DECAY, "lr_factor": 1.0})
        self.dtype, self.directions = dtype, directions

    @torch.no_grad()
    def step(self) -> None:                                            # type: ignore[override]
        """Update all parameters, which must have gradients and, in `state`, their "momentum".

        Nothing changes if the tensor `found_inf`, which torch's GradScaler also gives to optimisers, is 1.
        """
        skip: Tensor | None = getattr(self, "found_inf", None)
        for group in self.param_groups:
            parameters: list[Tensor] = group["params"]

            # Momentum of Nesterov's kind
            gradients = [sharding.local(cast(Tensor, parameter.grad)) for parameter in parameters]
            momenta = [sharding.local(self.state[parameter]["momentum"]) for parameter in parameters]
            weights = [sharding.local(parameter) for parameter in parameters]
            descent.approach(momenta, gradients, 1 - MOMENTUM, skip)
            ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)

            # Weight decay, and a step in the orthogonal direction
            steps = self.directions(list(ahead), self.dtype)
            descent.descend(weights, steps, lr=group["lr"], decay=group["weight_decay"], skip=skip)


def orthogonal_steps(momenta: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """The step of each momentum at a learning rate of 1, of its shape: its direction, as long as AdamW's.

    Matrices of one shape, lying or standing, are orthogonalised at once; so a GPU begins a quarter of the operations.
    """
    matrices = [as_matrix(momentum) for momentum in momenta]
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, matrix in enumerate(matrices):
        groups.setdefault(tuple(sorted(matrix.shape)), []).append(number)
    result = list(momenta)
    for (_, longer), numbers in groups.items():
        wide = torch.stack([_laid(matrices[number]) for number in numbers])             # (N, shorter, longer)
        found = orthogonal(wide, dtype) * (UPDATE_RMS * math.sqrt(longer))
        for number, direction in zip(numbers, found, strict=True):
            of_matrix = direction if matrices[number].shape[0] <= matrices[number].shape[1] else direction.mT
            result[number] = as_kernel(of_matrix, momenta[number])
    return result


def as_matrix(momentum: Tensor) -> Tensor:
    """(C_out, …) → (C_out, the rest): of a kernel (C_out, C_in, h, w) in the order of channels-last memory.

    The order of a matrix's columns makes no difference to its orthogonal direction but for that of its columns.
    """
    return momentum if momentum.ndim == 2 else momentum.movedim(1, -1).flatten(1)


def as_kernel(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_matrix`, in the shape of `like`, without gaps in memory."""
    matrix = matrix.contiguous()
    return matrix if like.ndim == 2 else matrix.view(like.shape[0], *like.shape[2:], like.shape[1]).movedim(-1, 1)


def _laid(matrix: Tensor) -> Tensor:
    """The matrix, or its transpose if it is higher than wide."""
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Orthogonalise matrices by Newton-Schulz iteration: X ← a·X + b·(X·Xᵀ)·X + c·(X·Xᵀ)²·X (Jordan et al. 2024).

    It maps U·S·Vᵀ to nearly U·Vᵀ. matrices: (N, m, n), m <= n → (N, m, n) of the same type; the iteration runs in
    `dtype`.
    """
    x = matrices.to(dtype)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = x @ x.mT                                                                 # (N, m, m)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.to(matrices.dtype)
