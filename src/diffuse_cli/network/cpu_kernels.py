"""Group normalisation and attention by another way where torch's own kernels are slow: on a CPU in bf16.

There, at 64 pixels, the two took a third of a training step. Everywhere else, and when compiled, torch's own are used.
Knows nothing of the network.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def normalise(norm: nn.GroupNorm, features: Tensor, modulation: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """`norm(features)·(1 + scale) + shift`, (N, C, H, W) → the same; on a CPU in bf16 with channels last.

    `modulation`: scale and shift (N, C) of each picture's channels; None: neither.
    """
    if _is_slow(features):
        return _grouped(norm, features, modulation)
    normalised: Tensor = norm(features)
    if modulation is None:
        return normalised
    scale, shift = (one[:, :, None, None] for one in modulation)
    return normalised * (1 + scale) + shift


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d)·v for query (N, h, L, d) and key, value (N, h, K, d) → (N, h, L, d).

    By plain matrix products where a gradient is wanted on a CPU in bf16: torch's fused kernel takes two to four times
    as long, of which the backward pass is most.
    """
    if _is_slow(query) and query.requires_grad:
        scores: Tensor = query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)          # (N, h, L, K)
        return scores.softmax(dim=3) @ value
    return F.scaled_dot_product_attention(query, key, value)


def _is_slow(features: Tensor) -> bool:
    return features.device.type == "cpu" and features.dtype == torch.bfloat16 and not torch.compiler.is_compiling()


def _grouped(norm: nn.GroupNorm, features: Tensor, modulation: tuple[Tensor, Tensor] | None) -> Tensor:
    if modulation is None:
        weight, bias = (one.expand(len(features), -1) for one in (norm.weight, norm.bias))
    else:
        scale, shift = (one.float() for one in modulation)
        weight, bias = norm.weight * (1 + scale), norm.bias * (1 + scale) + shift
    normalised: Tensor = _GroupNorm.apply(                              # type: ignore[no-untyped-call]
        features, weight, bias, norm.num_groups, norm.eps)
    return normalised


class _GroupNorm(torch.autograd.Function):
    """Group normalisation (Wu & He 2018) as one multiply-add of every pixel, with a factor for each picture's channel.

    Weight and bias are (N, C), so that what modulates pictures goes into the same factor and costs no pass of its own.
    torch's kernel for channels last takes four to twelve times as long, backward above all. Sums are float32, as there;
    factor and constant are rounded to bf16, as the result is.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        pixels = _pixels(features)                                                      # (N, L, C)
        exact = pixels.float()
        sums = exact.sum(1), exact.square_().sum(1)                                     # (N, C), of x and x²
        mean, square = (_group_mean(one, groups, pixels.shape[1]) for one in sums)
        inverse = (square - mean.square()).clamp_min(0).add(eps).rsqrt()
        factor = inverse * weight
        ctx.save_for_backward(features, weight, mean, inverse)
        ctx.groups = groups
        return _maps(_multiply_add(pixels, factor, bias - mean * factor), features)

    @staticmethod
    @once_differentiable                        # a second derivative, mean and std taken as constants, would be wrong
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With y = x̂·weight + bias: x receives (g·weight - mean of that - x̂·mean of g·weight·x̂) / std, as x and g."""
        features, weight, mean, inverse = ctx.saved_tensors
        pixels, gradient = _pixels(features), _pixels(gradients[0])
        height, length = features.shape[2], pixels.shape[1]
        to_bias = _row_sums(gradient, height)                                           # (N, C): sum of g
        to_weight = (_row_sums(gradient * pixels, height) - mean * to_bias) * inverse   # of g·x̂
        constant, slope = (_group_mean(weight * one, ctx.groups, length) for one in (to_bias, to_weight))
        slope = -inverse.square() * slope
        found = _multiply_add(pixels, slope, -inverse * constant - mean * slope)
        found.addcmul_(gradient, (inverse * weight)[:, None].to(gradient.dtype))
        return _maps(found, features), to_weight, to_bias, None, None


def _pixels(features: Tensor) -> Tensor:
    """(N, C, H, W) → (N, L, C): a view where channels are last."""
    return features.permute(0, 2, 3, 1).reshape(features.shape[0], -1, features.shape[1])


def _maps(pixels: Tensor, like: Tensor) -> Tensor:
    """(N, L, C) → (N, C, H, W), channels last; a view."""
    count, channels, height, width = like.shape
    return pixels.view(count, height, width, channels).permute(0, 3, 1, 2)


def _group_mean(sums: Tensor, groups: int, length: int) -> Tensor:
    """Sums over the pixels of every channel (N, C) → for every channel, the mean of its group (N, C)."""
    width = sums.shape[1] // groups
    means = sums.view(-1, groups, width).sum(2) / (length * width)
    return means.repeat_interleave(width, 1)


def _multiply_add(pixels: Tensor, factor: Tensor, constant: Tensor) -> Tensor:
    """pixels (N, L, C)·factor (N, C) + constant (N, C), in the pixels' precision."""
    return torch.addcmul(constant[:, None].to(pixels.dtype), pixels, factor[:, None].to(pixels.dtype))


def _row_sums(pixels: Tensor, height: int) -> Tensor:
    """(N, L, C) bf16 → (N, C) float32: along rows by a matrix product, then over the rows without rounding."""
    rows = pixels.reshape(len(pixels) * height, -1, pixels.shape[2])
    ones = torch.ones(len(rows), 1, rows.shape[1], dtype=pixels.dtype)
    return torch.bmm(ones, rows).float().view(len(pixels), height, -1).sum(1)
