"""The optimiser of a network: AdamW, the classic Adam, or Muon for matrices with AdamW for all other parameters."""

import torch
from torch import Tensor, nn

from ..config import Plan
from ..runtime import sharding
from ..runtime.distributed import World
from . import descent
from .muon import WEIGHT_DECAY, Directions, Muon, orthogonal_steps
from .muon_shares import SharedDirections

TEXT_LR_FACTOR = 0.002                          # learning rate of the layers that read text, as a factor of the plan's:
#                                                 a higher rate would lose the bag of words as which they start
DISCRIMINATOR_LR = 1e-3                         # highest learning rate of a discriminator
TEXT_LAYERS = ("text_encoder.", "unet.add_embedding.")         # beginnings of the names of their parameters
FIRST_AND_LAST_LAYERS = ("unet.conv_in.", "unet.conv_out.")    # some of their channels are colours; never Muon's


class Optimizer:
    """One or two optimisers of torch for all parameters of a network, with their moments allocated from the start.

    With `plan.optimizer` "muon", Muon has all matrices and kernels except those of the first, the last and the text
    layers; AdamW has the other parameters. With "adamw" or "adam" there is one optimiser for everything.

    precision: "bf16" lets Muon's iterations run in bf16, "fp32" in float32. directions: of Muon, see `Muon`; the
    processes of `world` share them. discriminator: of a distillation; it has an AdamW of its own.
    """

    def __init__(self, network: nn.Module, plan: Plan, *, precision: str, directions: Directions = orthogonal_steps,
                 world: World | None = None, discriminator: nn.Module | None = None) -> None:
        parameters = dict(network.named_parameters())
        muon_params = {
            name for name, parameter in parameters.items() if plan.optimizer == "muon" and parameter.ndim >= 2
            and not name.startswith((*FIRST_AND_LAST_LAYERS, *TEXT_LAYERS))}

        # Adam's parameters in four groups: only matrices decay, and text layers have a learning rate of their own.
        decay, betas = (0.0, (0.9, 0.999)) if plan.optimizer == "adam" else (WEIGHT_DECAY, (0.9, 0.99))
        groups = [
            {"params": [parameter for name, parameter in parameters.items() if name not in muon_params
                        and name.startswith(TEXT_LAYERS) == reads_text and (parameter.ndim >= 2) == is_matrix],
             "weight_decay": decay if is_matrix else 0.0, "lr_factor": TEXT_LR_FACTOR if reads_text else 1.0}
            for reads_text in (False, True) for is_matrix in (True, False)]
        self.parts: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(groups, lr=plan.lr, betas=betas, eps=1e-8, fused=True)]
        if muon_params:
            dtype = torch.bfloat16 if precision == "bf16" else torch.float32
            matrices = [parameters[name] for name in sorted(muon_params)]
            if world is not None and world.size > 1:
                directions = SharedDirections(directions, [matrix.shape for matrix in matrices], world,
                                              sharded=sharding.is_sharded(matrices[0]))
            self.parts.append(Muon(matrices, lr=plan.lr, dtype=dtype, directions=directions))
        part_of = {name: self.parts[-1 if name in muon_params else 0] for name in parameters}
        if discriminator is not None:
            its = {f"discriminator.{name}": parameter for name, parameter in discriminator.named_parameters()}
            group = {"params": list(its.values()), "weight_decay": 0.0, "lr_factor": DISCRIMINATOR_LR / plan.lr}
            self.parts.append(torch.optim.AdamW([group], betas=(0.0, 0.99), eps=1e-8, fused=True))
            part_of |= dict.fromkeys(its, self.parts[-1])
            parameters |= its

        # All moments, so that a saved state has the same tensors after any number of steps.
        self.lr = plan.lr                       # learning rate of the last step
        self.moments: dict[str, Tensor] = {}    # "momentum.NAME", "exp_avg.NAME" or "exp_avg_sq.NAME" → moment
        self.counts: list[Tensor] = []          # AdamW's own counts of its steps, one for each parameter
        for name, parameter in parameters.items():
            kinds = ("momentum",) if name in muon_params else ("exp_avg", "exp_avg_sq")
            state = {kind: torch.zeros_like(parameter) for kind in kinds}
            self.moments |= {f"{kind}.{name}": tensor for kind, tensor in state.items()}
            if name not in muon_params:
                state["step"] = torch.zeros((), device=parameter.device)
                self.counts.append(state["step"])
            part_of[name].state[parameter] = state

    def zero_grad(self) -> None:
        """Forget the gradients of all parameters."""
        for part in self.parts:
            part.zero_grad(set_to_none=True)

    def step(self, lr: float, skip: Tensor | None = None) -> None:
        """Update the weights by their gradients. A parameter group's rate is `lr` times its `lr_factor`.

        skip: if it is 1, neither weights nor moments change, see `descent.descend`.
        """
        self.lr = lr
        trained = [parameter for part in self.parts for group in part.param_groups for parameter in group["params"]
                   if parameter.grad is not None]                      # a student's text encoder has none
        for parameter, gradient in zip(
                trained, descent.laid_as(trained, [parameter.grad for parameter in trained]), strict=True):
            parameter.grad = gradient
        for part in self.parts:
            part.grad_scale, part.found_inf = None, skip           # type: ignore[attr-defined] # as from a GradScaler
            for group in part.param_groups:
                group["lr"] = group["lr_factor"] * lr
            part.step()


def learning_rate_at(plan: Plan, step: int) -> float:
    """lr·max(0, min(1, (step + 1)/warmup_steps, (steps - step)/cooldown_steps)), the learning rate of `step`.

    It rises linearly, is constant, and falls linearly towards 0, which the step after the last would have. `plan.lr` is
    its highest value; `plan.make_plan` chooses the lengths.
    """
    rising = (step + 1) / plan.warmup_steps
    falling = (plan.steps - step) / plan.cooldown_steps
    return plan.lr * max(0.0, min(1.0, rising, falling))
