"""The parts of the U-Net: embeddings of time and text, residual block, attention, and one level down, middle and up.

The modules are named as in diffusers, so that a state dict of the whole U-Net is also one of diffusers. How weights are
initialised is defined in `network.py`.

Letters in the shape comments: N pictures, C channels or features, H × W a feature map, L = H·W its pixels, T text
positions, E the width of the embedding that modulates every residual block, h heads of d features each.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ..model_config import NetworkConfig
from .cpu_kernels import attend, normalise

Dropout = Callable[[], Callable[[Tensor], Tensor]]      # → the next mask, as a function that applies it to maps
Resample = Callable[[Tensor], Tensor]

DROPOUT_MAX_SIZE = 16       # √pixels of the largest map with dropout: few parameters work on larger ones, and
                            # dropout there only costs quality
LONGEST_PERIOD = 10_000     # period of the slowest sinusoid of the time, divided by 2π, in steps of 1/1000


class Context(NamedTuple):
    """The inputs that every block receives beside its feature map."""

    embedding: Tensor                   # (N, E), the sum of time and pooled text, after SiLU
    text: Tensor | None                 # (N, T, text width); None when the network is unconditional
    dropout: Dropout | None = None      # None for no dropout
    recompute: bool = False             # whether a block keeps its input alone for the backward pass, see `compute`


# ── Embeddings ──────────────────────────────────────────────────────────────────────────────────────────────────────


def sinusoids(time: Tensor, width: int) -> Tensor:
    """cos(f_i·time), then sin(f_i·time), for width/2 frequencies f_i = 10000^(-2i/width) (Vaswani et al. 2017, 3.5).

    time: (N,) → (N, width) float32. Always computed in float32, because bf16 cannot tell neighbouring times apart.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=time.device) / half
    angles = time.float()[:, None] * torch.exp(-math.log(LONGEST_PERIOD) * exponents)       # (N, width/2)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class TimeEmbedding(nn.Module):
    """A perceptron of two layers on the sinusoids of the time: (N, width) → (N, E)."""

    def __init__(self, width: int, embedding_width: int) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(width, embedding_width)
        self.linear_2 = nn.Linear(embedding_width, embedding_width)

    def forward(self, features: Tensor) -> Tensor:
        hidden: Tensor = self.linear_2(F.silu(self.linear_1(features)))
        return hidden


def split_heads(features: Tensor, head_dim: int) -> Tensor:
    """(N, T, h·d) → (N, h, T, d), as a view."""
    return features.view(*features.shape[:-1], -1, head_dim).transpose(1, 2)


def merge_heads(heads: Tensor) -> Tensor:
    """(N, h, T, d) → (N, T, h·d)."""
    return heads.transpose(1, 2).flatten(2)


class TextPool(nn.Module):
    """Attention pooling: the mean of all positions, as the only query, attends to itself and to all of them.

    (N, T, C) → (N, C).
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.head_dim = width // heads
        self.positional_embedding = nn.Parameter(torch.empty(1, width))
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)

    def forward(self, text: Tensor) -> Tensor:
        mean = text.mean(dim=1, keepdim=True) + self.positional_embedding               # (N, 1, C)
        positions = torch.cat([mean, text], dim=1)                                      # (N, 1 + T, C)
        query = split_heads(self.q_proj(mean), self.head_dim)                           # (N, h, 1, d)
        key = split_heads(self.k_proj(positions), self.head_dim)                        # (N, h, 1 + T, d)
        value = split_heads(self.v_proj(positions), self.head_dim)
        return merge_heads(attend(query, key, value)).squeeze(1)                        # (N, C)


class TextEmbedding(nn.Module):
    """The summary of a caption, which is added to the time embedding: (N, T, text width) → (N, E)."""

    def __init__(self, text_width: int, heads: int, embedding_width: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(text_width)
        self.pool = TextPool(text_width, heads)
        self.proj = nn.Linear(text_width, embedding_width)
        self.norm2 = nn.LayerNorm(embedding_width)

    def forward(self, text: Tensor) -> Tensor:
        pooled: Tensor = self.norm2(self.proj(self.pool(self.norm1(text))))
        return pooled


# ── Residual block and attention ────────────────────────────────────────────────────────────────────────────────────


def halve(features: Tensor) -> Tensor:
    """Average 2×2 pixels: (N, C, H, W) → (N, C, H/2, W/2)."""
    return F.avg_pool2d(features, 2)


def double(features: Tensor) -> Tensor:
    """Repeat every pixel 2×2 times: (N, C, H, W) → (N, C, 2H, 2W)."""
    return F.interpolate(features, scale_factor=2.0, mode="nearest")


class ResBlock(nn.Module):
    """Two convolutions with a modulation by the embedding between them, and a residual connection around both.

    (N, C_in, H, W) → (N, C_out, H', W'). The modulation is normalised·(1 + scale) + shift, with scale and shift linear
    in the embedding (Dhariwal & Nichol 2021, section 3.1). `resample` (`halve` or `double`) is applied to both branches
    before the first convolution.
    """

    def __init__(
        self, config: NetworkConfig, in_width: int, out_width: int, *, resample: Resample | None = None
    ) -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = nn.GroupNorm(config.groups, in_width)
        self.conv1 = nn.Conv2d(in_width, out_width, 3, padding=1)
        self.time_emb_proj = nn.Linear(config.time_width, 2 * out_width)
        self.norm2 = nn.GroupNorm(config.groups, out_width)
        self.conv2 = nn.Conv2d(out_width, out_width, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_width, out_width, 1) if in_width != out_width else nn.Identity()

    def drops(self, features: Tensor) -> bool:
        """Whether dropout is applied: where the hidden map of these features is small enough."""
        pixels = features.shape[-2:].numel()
        if self.resample is not None:
            pixels = pixels // 4 if self.resample is halve else 4 * pixels
        return pixels <= DROPOUT_MAX_SIZE**2

    def forward(self, features: Tensor, context: Context) -> Tensor:
        mask = context.dropout() if context.dropout is not None and self.drops(features) else None
        hidden = F.silu(normalise(self.norm1, features))                                # (N, C_in, H, W)
        if self.resample is not None:
            features, hidden = self.resample(features), self.resample(hidden)           # (N, C_in, H', W')
        hidden = self.conv1(hidden)                                                     # (N, C_out, H', W')

        scale, shift = self.time_emb_proj(context.embedding).chunk(2, dim=1)            # (N, C_out) each
        hidden = F.silu(normalise(self.norm2, hidden, (scale, shift)))
        if mask is not None:
            hidden = mask(hidden)

        residual: Tensor = self.conv_shortcut(features) + self.conv2(hidden)
        return residual


class Attention(nn.Module):
    """Pixels attend to the text and, if `kind` is "full", to each other, in one softmax: (N, C, H, W) → the same shape.

    `kind` "text" leaves the pixels out. An unconditional network has no text to attend to.
    """

    def __init__(self, config: NetworkConfig, width: int, *, kind: str) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.to_pixels, self.to_text = kind == "full", config.text is not None
        self.group_norm = nn.GroupNorm(config.groups, width)
        self.to_q = nn.Linear(width, width)
        if self.to_pixels:
            self.to_k = nn.Linear(width, width)
            self.to_v = nn.Linear(width, width)
        if config.text is not None:
            self.add_k_proj = nn.Linear(config.text.width, width)
            self.add_v_proj = nn.Linear(config.text.width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width)])          # a list, for diffusers' name to_out.0

    def forward(self, features: Tensor, context: Context) -> Tensor:
        pixels = normalise(self.group_norm, features).flatten(2).transpose(1, 2)        # (N, L, C)
        keys, values = [], []
        if self.to_text:
            keys.append(self.add_k_proj(context.text))                                  # (N, T, C)
            values.append(self.add_v_proj(context.text))
        if self.to_pixels:
            keys.append(self.to_k(pixels))                                              # (N, L, C)
            values.append(self.to_v(pixels))

        query = split_heads(self.to_q(pixels), self.head_dim)                           # (N, h, L, d)
        key = split_heads(torch.cat(keys, dim=1), self.head_dim)                        # (N, h, T + L, d)
        value = split_heads(torch.cat(values, dim=1), self.head_dim)
        attended: Tensor = self.to_out[0](merge_heads(attend(query, key, value)))       # (N, L, C)
        return features + attended.transpose(1, 2).reshape(features.shape)              # (N, C, H, W)


def compute(block: nn.Module, features: Tensor, context: Context) -> Tensor:
    """A residual or attention block's output, (N, C, H, W) → (N, C', H', W').

    With `context.recompute`, the block keeps its input alone for the backward pass, and computes once more there (Chen
    et al. 2016, 1604.06174). All that it computes is a function of its input, so its output is the same again.
    """
    if not context.recompute:
        output: Tensor = block(features, context)
        return output
    if context.dropout is not None and isinstance(block, ResBlock) and block.drops(features):
        mask = context.dropout()
        context = context._replace(dropout=lambda: mask)
    output = checkpoint(block, features, context, use_reentrant=False, preserve_rng_state=False)
    return output


# ── One level of the U-Net ──────────────────────────────────────────────────────────────────────────────────────────


def attentions(config: NetworkConfig, level: int, *, count: int) -> nn.ModuleList:
    """The `count` attention blocks of a level, one after each of its residual blocks; none if it has no attention."""
    kind = config.attention[level]
    if kind == "none":
        return nn.ModuleList()
    return nn.ModuleList(Attention(config, config.widths[level], kind=kind) for _ in range(count))


class DownBlock(nn.Module):
    """Residual blocks of one level, each followed by its attention; then half the size, except at the lowest level."""

    def __init__(self, config: NetworkConfig, level: int, in_width: int) -> None:
        super().__init__()
        width, depth, lowest = config.widths[level], config.depths[level], level == len(config.widths) - 1
        self.attentions = attentions(config, level, count=depth)
        self.resnets = nn.ModuleList(ResBlock(config, in_width if i == 0 else width, width) for i in range(depth))
        self.downsamplers = nn.ModuleList([] if lowest else [ResBlock(config, width, width, resample=halve)])

    def forward(self, features: Tensor, context: Context) -> list[Tensor]:
        """(N, C_in, H, W) → the outputs of all blocks, which become skips; the last is the next level's input."""
        skips = []
        for i, resnet in enumerate(self.resnets):
            features = compute(resnet, features, context)
            if self.attentions:
                features = compute(self.attentions[i], features, context)
            skips.append(features)
        for downsampler in self.downsamplers:
            skips.append(compute(downsampler, features, context))
        return skips


class MidBlock(nn.Module):
    """Residual block, attention if there is any, and residual block at the lowest resolution.

    (N, C, H, W) → the same shape.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        width = config.widths[-1]
        kind = config.middle_attention
        self.attentions = nn.ModuleList([] if kind == "none" else [Attention(config, width, kind=kind)])
        self.resnets = nn.ModuleList(ResBlock(config, width, width) for _ in range(2))

    def forward(self, features: Tensor, context: Context) -> Tensor:
        features = compute(self.resnets[0], features, context)
        for attention in self.attentions:
            features = compute(attention, features, context)
        return compute(self.resnets[1], features, context)


class UpBlock(nn.Module):
    """The mirror of `DownBlock`: each residual block also reads a skip; then twice the size, except at the top."""

    def __init__(self, config: NetworkConfig, level: int, in_width: int, *, skip_widths: list[int]) -> None:
        super().__init__()
        width = config.widths[level]
        in_widths = [in_width] + [width] * (len(skip_widths) - 1)
        self.attentions = attentions(config, level, count=len(skip_widths))
        self.resnets = nn.ModuleList(
            ResBlock(config, features + skip, width) for features, skip in zip(in_widths, skip_widths, strict=True)
        )
        self.upsamplers = nn.ModuleList([] if level == 0 else [ResBlock(config, width, width, resample=double)])

    def forward(self, features: Tensor, skips: list[Tensor], context: Context) -> Tensor:
        """(N, C_in, H, W) → (N, C_out, H', W'). Removes the skips that it reads from the end of the list `skips`."""
        for i, resnet in enumerate(self.resnets):
            features = compute(resnet, torch.cat([features, skips.pop()], dim=1), context)
            if self.attentions:
                features = compute(self.attentions[i], features, context)
        for upsampler in self.upsamplers:
            features = compute(upsampler, features, context)
        return features
