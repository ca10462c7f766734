"""torch's Muon (Jordan et al. 2024) where the program has AdamW: for every matrix and convolution between the first and
the last, in place of its moments; the rest, and all that reads text, stays with AdamW. To be compared, not to be used.

A convolution is a matrix (C_out, 9·C_in) here, seen through a parameter of two dimensions that shares its memory.
Steps are as large as AdamW's would be (Liu et al. 2502.16982), so that the same learning rates apply.
"""

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from diffuse_cli.engine import learner
from diffuse_cli.engine.config import Plan
from diffuse_cli.engine.network.model import Network

ENDS = ("unet.conv_in.", "unet.conv_out.")


class MuonAndAdamW:
    """What `Learner` asks of an optimiser: groups, state, `step` and `zero_grad`.

    Muon's momentum is not part of the state: a training that was interrupted begins it anew.
    """

    def __init__(self, network: Network, adamw: torch.optim.Optimizer, without: tuple[str, ...] = ()) -> None:
        matrices = {parameter for name, parameter in network.named_parameters()
                    if parameter.ndim >= 2 and not name.startswith((*ENDS, *learner.READS_TEXT))
                    and not any(part in name for part in without)}
        for group in adamw.param_groups:
            group["params"] = [parameter for parameter in group["params"] if parameter not in matrices]
        self.matrices = [(parameter, nn.Parameter(flat(parameter.detach()))) for parameter in matrices]
        self.muon = torch.optim.Muon([{"params": [seen for _, seen in self.matrices], "rate": 1.0}],
                                     weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
        self.adamw, self.state = adamw, adamw.state
        self.param_groups = [*adamw.param_groups, *self.muon.param_groups]

    def step(self) -> None:
        self.adamw.step()
        for parameter, seen in self.matrices:
            seen.grad = None if parameter.grad is None else flat(parameter.grad)
        self.muon.step()

    def zero_grad(self, *, set_to_none: bool) -> None:
        for parameter, _ in self.matrices:
            parameter.grad = None
        self.adamw.zero_grad(set_to_none=set_to_none)


def flat(weight: Tensor) -> Tensor:
    """(C_out, …) → (C_out, rest), sharing memory if the weight is in either of torch's orders."""
    if weight.ndim == 4 and not weight.is_contiguous():
        weight = weight.permute(0, 2, 3, 1)
    return weight.view(len(weight), -1)


@contextlib.contextmanager
def instead_of_adamw(without: tuple[str, ...] = ()) -> Iterator[None]:
    """Every `Learner` made inside has it, but for matrices with such parts in their names."""
    make = learner._optimizer

    def made(network: Network, plan: Plan) -> Any:
        return MuonAndAdamW(network, make(network, plan), without)

    with mock.patch.object(learner, "_optimizer", made):
        yield
