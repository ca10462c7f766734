"""How weights follow their gradients: AdamW, the classic Adam, or Muon for matrices with AdamW for the rest.

Knows which parameters are treated alike; does not know when a step is taken, or what the learning rate is by then.
"""

import math
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn

from ..config import Plan
from ..network.network import Network

TEXT_RATE = 0.002                               # of the learning rate, for what reads text: its start is worth keeping
READS_TEXT = ("text_encoder.", "unet.add_embedding.")          # parameters of these names
ENDS = ("unet.conv_in.", "unet.conv_out.")      # where channels are colours, not features
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


class Optimizer:
    """One or two of torch's, with all that they remember from the start."""

    def __init__(self, network: Network, plan: Plan, *, precision: str) -> None:
        named = dict(network.named_parameters())
        turned = {name for name, parameter in named.items()
                  if plan.optimizer == "muon" and parameter.ndim >= 2 and not name.startswith((*ENDS, *READS_TEXT))}
        decay, betas = (0.0, (0.9, 0.999)) if plan.optimizer == "adam" else (DECAY, (0.9, 0.99))
        groups = [
            {"params": [parameter for name, parameter in named.items() if name not in turned
                        and name.startswith(READS_TEXT) == text and (parameter.ndim >= 2) == is_matrix],
             "weight_decay": decay if is_matrix else 0.0, "rate": TEXT_RATE if text else 1.0}
            for text in (False, True) for is_matrix in (True, False)]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=plan.lr, betas=betas, eps=1e-8, fused=True)]
        if turned:
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            self.parts.append(Muon([named[name] for name in sorted(turned)], lr=plan.lr, dtype=dtype))
        self.lr = plan.lr                                              # of the last step
        self.moments: dict[str, Tensor] = {}
        self.counts: list[Tensor] = []                                 # of steps taken; AdamW's own
        for name, parameter in named.items():
            kinds = ("momentum",) if name in turned else ("exp_avg", "exp_avg_sq")
            state = {kind: torch.zeros_like(parameter) for kind in kinds}
            self.moments |= {f"{kind}.{name}": tensor for kind, tensor in state.items()}
            if name not in turned:
                state["step"] = torch.zeros((), device=parameter.device)
                self.counts.append(state["step"])
            self.parts[-1 if name in turned else 0].state[parameter] = state

    def zero_grad(self) -> None:
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self, lr: float) -> None:
        """Move the weights at a learning rate."""
        self.lr = lr
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = group["rate"] * lr
            part.step()
