"""The Muon optimiser."""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

WEIGHT_DECAY = 0.01                             # of matrices and kernels, as a factor of the learning rate
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)       # (a, b, c) of one iteration; singular values end up from 0.7 to 1.2
ITERATIONS = 5                                  # number of Newton-Schulz iterations
MOMENTUM = 0.95                                 # weight of the earlier gradients in the momentum
UPDATE_RMS = 0.2                                # root mean square of AdamW's updates, as a factor of the learning rate


class Muon(torch.optim.Optimizer):
    """Muon: steps along the orthogonalised momentum (Jordan et al. 2024, "Muon").

    The momentum M = U·S·Vᵀ of a matrix is replaced by U·Vᵀ, so that a step is equally long in every singular direction.
    A kernel (C_out, C_in, 3, 3) is treated as a matrix (C_out, 9·C_in). The update is scaled by 0.2·√max(m, n), which
    makes it as long as AdamW's at the same learning rate (Liu et al. 2025, 2502.16982, eq. 4).

    dtype: of the iterations. `lr_factor` of a parameter group multiplies the learning rate, see `Optimizer.step`.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, dtype: torch.dtype) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": WEIGHT_DECAY, "lr_factor": 1.0})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:                                            # type: ignore[override]
        """Update all parameters, which must have gradients and, in `state`, their "momentum"."""
        for group in self.param_groups:
            for same_shape in _by_shape(group["params"]):
                # Momentum of Nesterov's kind
                gradients = cast(list[Tensor], [parameter.grad for parameter in same_shape])
                momenta = [self.state[parameter]["momentum"] for parameter in same_shape]
                torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
                ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)

                # Orthogonal direction
                directions = orthogonal(torch.stack([one.flatten(1) for one in ahead]), self.dtype)         # (N, m, n)
                length = UPDATE_RMS * math.sqrt(max(directions.shape[1:]))

                # Weight decay, then the step
                torch._foreach_mul_(same_shape, 1 - group["lr"] * group["weight_decay"])
                updates = list(directions.view(-1, *same_shape[0].shape))
                torch._foreach_add_(same_shape, updates, alpha=-group["lr"] * length)


def _by_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    """The parameters in groups of one shape. Each group is orthogonalised at once, in a quarter of the calls."""
    groups: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        groups.setdefault(parameter.shape, []).append(parameter)
    return list(groups.values())


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """Orthogonalise matrices by Newton-Schulz iteration: X ← a·X + b·(X·Xᵀ)·X + c·(X·Xᵀ)²·X (Jordan et al. 2024).

    It maps U·S·Vᵀ to nearly U·Vᵀ. matrices: (N, m, n) → (N, m, n) of the same type; the iteration runs in `dtype`.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)                                   # (N, min(m, n), max(m, n))
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = x @ x.mT                                                                 # (N, min(m, n), min(m, n))
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype).contiguous()
