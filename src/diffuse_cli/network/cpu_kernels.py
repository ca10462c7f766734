"""Faster group normalisation and attention for a CPU in bf16, where torch's own kernels are slow.

There, at 64 pixels, the two took a third of a training step. Everywhere else, and in compiled code, torch's own kernels
are used.
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

AT_ONCE = 2**20                                 # numbers in float32 for which a processor's cache is large enough


def normalise(norm: nn.GroupNorm, features: Tensor, modulation: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """norm(features)·(1 + scale) + shift: (N, C, H, W) → the same shape; on a CPU in bf16, with channels last.

    modulation: (scale, shift), (N, C) each; None for scale 0 and shift 0.
    """
    if _is_slow(features):
        return _normalise_on_cpu(norm, features, modulation)
    normalised: Tensor = norm(features)
    if modulation is None:
        return normalised
    scale, shift = (factor[:, :, None, None] for factor in modulation)                  # (N, C, 1, 1) each
    return normalised * (1 + scale) + shift


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d)·v (Vaswani et al. 2017, eq. 1). query: (N, h, L, d); key, value: (N, h, K, d) → (N, h, L, d).

    On a CPU in bf16, when a gradient is needed, it is computed by plain matrix products: torch's fused kernel takes two
    to four times as long, most of it in the backward pass.
    """
    if _is_slow(query) and query.requires_grad:
        scores: Tensor = query * query.shape[-1] ** -0.5 @ key.transpose(2, 3)          # (N, h, L, K)
        return scores.softmax(dim=3) @ value
    return F.scaled_dot_product_attention(query, key, value)


def _is_slow(features: Tensor) -> bool:
    """Whether torch's own kernels are slow for this tensor."""
    return features.device.type == "cpu" and features.dtype == torch.bfloat16 and not torch.compiler.is_compiling()


def _normalise_on_cpu(norm: nn.GroupNorm, features: Tensor, modulation: tuple[Tensor, Tensor] | None) -> Tensor:
    """`normalise`, with the norm's parameters and the modulation combined into one weight and bias per picture."""
    if modulation is None:
        weight, bias = (parameter.expand(len(features), -1) for parameter in (norm.weight, norm.bias))      # (N, C)
    else:
        scale, shift = (factor.float() for factor in modulation)                        # (N, C) each
        weight, bias = norm.weight * (1 + scale), norm.bias * (1 + scale) + shift       # (N, C) each
    normalised: Tensor = _GroupNorm.apply(                              # type: ignore[no-untyped-call]
        features, weight, bias, norm.num_groups, norm.eps)
    return normalised


class _GroupNorm(torch.autograd.Function):
    """Group normalisation y = x̂·weight + bias, x̂ = (x - mean)/std (Wu & He 2018), as one multiply-add of every pixel.

    The factor and the constant of the multiply-add are one number for each channel of each picture. Because weight and
    bias are (N, C), a modulation of the picture is part of them and costs no pass of its own. torch's kernel for
    channels last takes four to twelve times as long, above all in the backward pass. Only the results are rounded to
    bf16: with a rounded factor, a mean that is large beside the deviations would drown them.

    A few pictures are computed at a time, so that their float32 copies stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        """features: (N, C, H, W) bf16; weight, bias: (N, C) float32 → (N, C, H, W) bf16, channels last."""
        pixels = _to_pixels(features)                                                   # (N, L, C)
        length, normalised, moments = pixels.shape[1], torch.empty_like(pixels), []
        for part in _parts(pixels):
            exact = pixels[part].float()
            sums = exact.sum(1), exact.square_().sum(1)                                 # (n, C) each, of x and x²
            mean, mean_square = (_group_mean(total, groups, length) for total in sums)  # (n, C) each
            inverse = (mean_square - mean.square()).clamp_min(0).add(eps).rsqrt()       # (n, C), 1 / std
            moments.append((mean, inverse))
            factor = inverse * weight[part]
            normalised[part] = _multiply_add(exact.copy_(pixels[part]), factor, bias[part] - mean * factor)
        ctx.save_for_backward(features, weight, *map(torch.cat, zip(*moments, strict=True)))
        ctx.groups = groups
        return _to_maps(normalised, features)

    @staticmethod
    @once_differentiable            # a second derivative would take mean and std for constants, and be wrong
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """With g the gradient of y, that of x is (g·weight - mean(g·weight) - x̂·mean(g·weight·x̂)) / std.

        The means are over a group's pixels and channels. The gradients of bias and weight are the sums over the pixels
        of g and of g·x̂.
        """
        features, weights, means, inverses = ctx.saved_tensors
        pixels, of_normalised = _to_pixels(features), _to_pixels(gradients[0])          # (N, L, C) each
        of_pixels, of_weight, of_bias = (torch.empty_like(one) for one in (pixels, weights, weights))
        for part in _parts(pixels):
            exact, gradient = pixels[part].float(), of_normalised[part].float()         # (n, L, C) each
            weight, mean, inverse = weights[part], means[part], inverses[part]          # (n, C) each
            of_bias[part] = gradient.sum(1)                                             # sum of g
            of_weight[part] = (exact.mul_(gradient).sum(1) - mean * of_bias[part]) * inverse            # sum of g·x̂
            constant, slope = (_group_mean(weight * total[part], ctx.groups, exact.shape[1])
                               for total in (of_bias, of_weight))
            slope = -inverse.square() * slope
            _multiply_add(exact.copy_(pixels[part]), slope, -inverse * constant - mean * slope)
            of_pixels[part] = exact.addcmul_(gradient, (inverse * weight)[:, None])     # (n, L, C)
        return _to_maps(of_pixels, features), of_weight, of_bias, None, None


def _parts(pixels: Tensor) -> Iterator[slice]:
    """The pictures of (N, L, C), as few at a time as have AT_ONCE numbers, or one picture."""
    count = max(1, AT_ONCE // (pixels.shape[1] * pixels.shape[2]))
    return (slice(start, start + count) for start in range(0, len(pixels), count))


def _to_pixels(features: Tensor) -> Tensor:
    """(N, C, H, W) → (N, L, C); a view if channels are last in memory."""
    return features.permute(0, 2, 3, 1).reshape(features.shape[0], -1, features.shape[1])


def _to_maps(pixels: Tensor, like: Tensor) -> Tensor:
    """(N, L, C) → (N, C, H, W) as `like`, channels last; a view."""
    count, channels, height, width = like.shape
    return pixels.view(count, height, width, channels).permute(0, 3, 1, 2)


def _group_mean(sums: Tensor, groups: int, length: int) -> Tensor:
    """Sums over the `length` pixels of every channel, (N, C) → for every channel, the mean over its group (N, C)."""
    width = sums.shape[1] // groups
    means = sums.view(-1, groups, width).sum(2) / (length * width)
    return means.repeat_interleave(width, 1)


def _multiply_add(pixels: Tensor, factor: Tensor, constant: Tensor) -> Tensor:
    """pixels·factor + constant, in place. pixels: (N, L, C); factor, constant: (N, C)."""
    return torch.addcmul(constant[:, None], pixels, factor[:, None], out=pixels)
