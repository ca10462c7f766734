"""The discriminator of a distillation: it learns to tell a student's estimates from what its teacher reached.

The squared error alone makes a student estimate averages, whose surfaces are hazy. The discriminator sees both with
noise, by the features of the teacher, which stays as it is; only a few convolutions on each of its maps learn. So a few
hundred steps are enough (Sauer et al. 2024, "Fast High-Resolution Image Synthesis with Latent Adversarial Diffusion
Distillation", 2403.12015).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ..diffusion.distillation import hinge_losses
from ..model_config import ModelConfig

WIDTH = 64                                      # channels of the heads
TIMES = (0.05, 0.6)                             # of the noise with which estimates are judged


class Head(nn.Module):
    """Judges one map of the teacher: (N, C, H, W) → (N, 1, H/2, W/2), one number for each place."""

    def __init__(self, channels: int, evaluations: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(channels, WIDTH, 3, padding=1)
        self.step = nn.Embedding(evaluations, WIDTH)
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, stride=2, padding=1)
        self.conv_out = nn.Conv2d(WIDTH, 1, 1)

    def forward(self, features: Tensor, step: Tensor) -> Tensor:
        """features: (N, C, H, W); step: (N,) int64, which of the student's steps each estimate is of"""
        hidden = self.conv_in(features) + self.step(step)[:, :, None, None]
        judged: Tensor = self.conv_out(F.silu(self.conv(F.silu(hidden))))
        return judged


class Discriminator(nn.Module):
    """A head for each map of the teacher's `features`. Call it to get the losses of student and discriminator."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        assert config.student is not None
        widths = config.network.widths
        self.heads = nn.ModuleList(Head(width, config.student.evaluations) for width in (*widths, widths[-1]))

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Initialise all weights from a generator on their device: uniform within ±1/√fan-in, and nothing of a step."""
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                module.weight.zero_()
            elif isinstance(module, nn.Conv2d) and module.bias is not None:
                bound = module.weight[0].numel() ** -0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                module.bias.uniform_(-bound, bound, generator=generator)

    def forward(self, of_teacher: list[Tensor], of_student: list[Tensor], step: Tensor) -> tuple[Tensor, Tensor]:
        """Features of N targets and of N estimates, both with noise, and their steps (N,).

        → the loss of the student (N,), which has no gradient for the heads; that of the discriminator (N,), which has
        none for the student
        """
        losses = []
        for head, real, estimated in zip(self.heads, of_teacher, of_student, strict=True):
            fixed = {name: weight.detach() for name, weight in head.named_parameters()}
            losses.append(hinge_losses(head(real, step), head(estimated.detach(), step),
                                       functional_call(head, fixed, (estimated, step))))
        of_students, of_discriminators = zip(*losses, strict=True)
        return torch.stack(of_students).mean(0), torch.stack(of_discriminators).mean(0)
