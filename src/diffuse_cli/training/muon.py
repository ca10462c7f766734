"""The Muon optimiser."""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

DECAY = 0.01                                    # of matrices and kernels, times the learning rate
NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)       # a·X + b·(X·Xᵀ)·X + c·(X·Xᵀ)²·X: singular values go to 0.7 … 1.2
ITERATIONS = 5
MOMENTUM = 0.95
RMS = 0.2                                       # of AdamW's steps, times the learning rate


class Muon(torch.optim.Optimizer):
    """Steps in the direction of the momentum, as far along every singular direction (Jordan et al. 2024, "Muon").

    A kernel (C_out, C_in, 3, 3) is a matrix (C_out, 9·C_in). At the same learning rate steps are as long
    as AdamW's (Liu et al. 2025, 2502.16982, eq. 4). `dtype` is that of the iterations.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], *, lr: float, dtype: torch.dtype) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": DECAY, "rate": 1.0})
        self.dtype = dtype

    @torch.no_grad()
    def step(self) -> None:                                            # type: ignore[override]
        for group in self.param_groups:
            for alike in _of_one_shape(group["params"]):
                gradients = cast(list[Tensor], [parameter.grad for parameter in alike])
                momenta = [self.state[parameter]["momentum"] for parameter in alike]
                torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
                ahead = torch._foreach_lerp(gradients, momenta, MOMENTUM)              # Nesterov's
                directions = orthogonal(torch.stack([one.flatten(1) for one in ahead]), self.dtype)
                length = RMS * math.sqrt(max(directions.shape[1:]))
                torch._foreach_mul_(alike, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(alike, list(directions.view(-1, *alike[0].shape)), alpha=-group["lr"] * length)


def _of_one_shape(parameters: list[Tensor]) -> list[list[Tensor]]:
    """Those that can be turned together, in a quarter of the calls."""
    shapes: dict[torch.Size, list[Tensor]] = {}
    for parameter in parameters:
        shapes.setdefault(parameter.shape, []).append(parameter)
    return list(shapes.values())


def orthogonal(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, m, n) → nearly the U·Vᵀ of each U·S·Vᵀ, by iteration in `dtype`."""
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    a, b, c = NEWTON_SCHULZ
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype).contiguous()
