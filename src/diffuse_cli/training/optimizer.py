"""How weights follow their gradients: AdamW, the classic Adam, or Muon for matrices with AdamW for the rest.

Knows which parameters are treated alike; does not know when a step is taken, or what the learning rate is by then.
"""


import torch
from torch import Tensor, nn

from ..config import Plan
from .muon import DECAY, Muon

TEXT_RATE = 0.002                               # of the learning rate, for what reads text: its start is worth keeping
READS_TEXT = ("text_encoder.", "unet.add_embedding.")          # parameters of these names
ENDS = ("unet.conv_in.", "unet.conv_out.")      # where channels are colours, not features


class Optimizer:
    """One or two of torch's, with all that they remember from the start."""

    def __init__(self, network: nn.Module, plan: Plan, *, precision: str) -> None:
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
