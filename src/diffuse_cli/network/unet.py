"""The U-Net, built from its config: a noisy picture, a time and a text → the prediction and the variance channels.

That of an upscaler reads a small picture as well, enlarged and with noise of its own (Ho et al. 2021, "Cascaded
Diffusion Models", 2106.15282).

The architecture is that of Dhariwal & Nichol 2021, "Diffusion Models Beat GANs" (2105.05233, the residual blocks) and
Saharia et al. 2022, "Imagen" (2205.11487, text in the attention, and pooled into the time embedding). The state dict
is, key by key, that of diffusers' `UNet2DConditionModel` (conditional) or `UNet2DModel` (unconditional), and the
computation is the same.
"""

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..model_config import NetworkConfig
from .blocks import Context, DownBlock, Dropout, MidBlock, TextEmbedding, TimeEmbedding, UpBlock, sinusoids
from .cpu_kernels import normalise


class UNet(nn.Module):
    """Down through the levels, keeping every output as a skip; the middle; and up again, reading the skips."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False                  # whether blocks compute once more in the backward pass, to keep less
        widths = config.widths
        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.time_embedding = TimeEmbedding(widths[0], config.time_width)
        if config.upscaling is not None:
            self.class_embedding = TimeEmbedding(widths[0], config.time_width)      # diffusers' name: a class label
        if config.text is not None:
            self.add_embedding = TextEmbedding(config.text.width, config.text.heads, config.time_width)

        self.down_blocks, skip_widths = nn.ModuleList(), [widths[0]]
        for level, width in enumerate(widths):
            block = DownBlock(config, level, skip_widths[-1])
            self.down_blocks.append(block)
            skip_widths += [width] * (len(block.resnets) + len(block.downsamplers))

        self.mid_block = MidBlock(config)

        self.up_blocks, in_width = nn.ModuleList(), widths[-1]
        for level, width in reversed(list(enumerate(widths))):
            skips = [skip_widths.pop() for _ in range(config.depths[level] + 1)]
            self.up_blocks.append(UpBlock(config, level, in_width, skip_widths=skips))
            in_width = width

        self.conv_norm_out = nn.GroupNorm(config.groups, widths[0])
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(
        self,
        noisy: Tensor,
        time: Tensor,
        text: Tensor | None = None,
        *,
        low_res: tuple[Tensor, Tensor] | None = None,
        dropout: Dropout | None = None,
        detach_variance: bool = False,
    ) -> Tensor:
        """Predict from noisy pictures (N, C, H, W). → (N, out_channels, H, W)

        Channels [:C] of the output are the prediction, channels [C:], if there are any, the variance channels.
        time: (N,), the index 1000·t - 1 as a float. text: (N, T, text width), the captions' features; None in an
        unconditional network. low_res: of an upscaler, the enlarged and noisy small pictures (N, C, H, W) and the
        indices (N,) of the times of their noise; None in any other network. dropout: called for every residual block
        whose hidden map has at most 256 pixels, in a fixed order; what it returns is applied to that map.
        detach_variance: let the variance channels train only their own rows of `conv_out`, not the layers before it.
        """
        skips, context = self._down(noisy, time, text, low_res, dropout)
        features = self.mid_block(skips[-1], context)
        for block in self.up_blocks:
            features = block(features, skips, context)

        return self._output(F.silu(normalise(self.conv_norm_out, features)), detach_variance=detach_variance)

    def features(self, noisy: Tensor, time: Tensor, text: Tensor | None = None) -> list[Tensor]:
        """What the network sees in noisy pictures: the last map of every level on the way down, and the middle's.

        The arguments are those of `forward`; the network is no upscaler. → maps (N, widths[level], H/2^level,
        W/2^level), and one like the last
        """
        skips, context = self._down(noisy, time, text, None, None)
        ends = itertools.accumulate(self.config.depths, lambda end, depth: end + 1 + depth)   # 1: half the size
        return [*(skips[end] for end in ends), self.mid_block(skips[-1], context)]

    def _down(self, noisy: Tensor, time: Tensor, text: Tensor | None, low_res: tuple[Tensor, Tensor] | None,
              dropout: Dropout | None) -> tuple[list[Tensor], Context]:
        """The way down. → the skips, of which the last is the input of the middle; what all blocks are told"""
        assert (text is None) == (self.config.text is None), "conditional networks need a text, others take none"
        assert (low_res is None) == (self.config.upscaling is None), "upscalers need a small picture, others take none"
        embedding = self.time_embedding(sinusoids(time, self.config.widths[0]).to(noisy.dtype))     # (N, E)
        if low_res is not None:
            small, level = low_res
            embedding = embedding + self.class_embedding(sinusoids(level, self.config.widths[0]).to(noisy.dtype))
            noisy = torch.cat([noisy, small.to(noisy.dtype)], dim=1)                                # (N, 2·C, H, W)
        if text is not None:
            embedding = embedding + self.add_embedding(text)
        context = Context(F.silu(embedding), text, dropout, self.recompute and torch.is_grad_enabled())

        skips = [self.conv_in(noisy)]                                                   # (N, widths[0], H, W)
        for block in self.down_blocks:
            skips += block(skips[-1], context)
        return skips, context

    def _output(self, features: Tensor, *, detach_variance: bool) -> Tensor:
        """The last convolution, (N, widths[0], H, W) → (N, out_channels, H, W).

        With `detach_variance` it is computed in two halves, of which the one for the variance reads detached features.
        """
        if not detach_variance or self.config.out_channels == self.config.channels:
            output: Tensor = self.conv_out(features)
            return output
        weight, bias, rows = self.conv_out.weight, self.conv_out.bias, self.config.channels
        assert bias is not None
        prediction = F.conv2d(features, weight[:rows], bias[:rows], padding=1)
        variance = F.conv2d(features.detach(), weight[rows:], bias[rows:], padding=1)
        return torch.cat([prediction, variance], dim=1)
