"""The weights of a network for pictures of other channels: a foundation of colours begins one of grey, or of alpha."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ..model_config import NetworkConfig


def with_channels(weights: Mapping[str, Tensor], source: NetworkConfig, channels: int) -> dict[str, Tensor]:
    """The weights of the network `source` → those of `source.with_channels(channels)`, for what it draws already.

    A grey pixel is read as red, green and blue of the same value, and the mean of their answers is the answer. A new
    alpha channel is not read, and its answer is zero, as in a new network. Raises ValueError if grey would become
    colours, or alpha would be lost.
    """
    if channels == source.channels:
        return dict(weights)
    spread = _spread(source.channels, channels).to(weights["unet.conv_in.weight"])                      # (C, C')
    collected = (spread / spread.sum(0).clamp(min=1)).T                                                 # (C', C)
    answers = source.out_channels // source.channels                   # 2 with those of the variance
    changed = {"unet.conv_in.weight": torch.einsum("wchv,cd->wdhv", weights["unet.conv_in.weight"], spread)}
    for name in ("unet.conv_out.weight", "unet.conv_out.bias"):
        split = weights[name].reshape(answers, source.channels, *weights[name].shape[1:])               # (2, C, …)
        changed[name] = torch.einsum("dc,ac...->ad...", collected, split).flatten(0, 1)
    return {**weights, **changed}


def _spread(source: int, target: int) -> Tensor:
    """How many times each channel of `source` reads each channel of `target`. → (source, target)"""
    colours, wanted = (channels - (channels % 2 == 0) for channels in (source, target))
    if wanted > colours or target % 2 > source % 2:
        raise ValueError(f"a network of {source} channels cannot become one of {target}")
    result = torch.zeros(source, target)
    result[:colours, :wanted] = 1 if wanted < colours else torch.eye(colours)
    if source % 2 == 0:
        result[-1, -1] = 1
    return result
