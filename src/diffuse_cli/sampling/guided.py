"""The network as a function of noisy pictures and one time, with guidance: what a sampler calls."""

import torch
from torch import Tensor

from ..config import Sampling
from ..denoiser import Network, denoise
from ..diffusion.guidance import classifier_free
from ..diffusion.samplers import Denoised, Denoiser
from ..diffusion.schedule import Schedule
from ..diffusion.upscaling import LowRes
from ..model_config import ModelConfig


def guided_denoiser(
    network: Network, config: ModelConfig, schedule: Schedule, *, text: Tensor | None, negative: Tensor | None,
    sampling: Sampling, low_res: LowRes | None = None,
) -> Denoiser:
    """Return the network as a function of noisy pictures (N, C, H, W) and one time, as `run_sampler` needs it.

    text: features of the prompts (N, 77, width). negative: features that guidance leads away from, of the negative
    prompts or of the empty caption (N or 1, 77, width). Both are None for unconditional models. With text, the
    estimates are guided (`guidance.classifier_free`). Where guidance acts, one pass over a batch of 2·N computes the
    estimates with and without the prompt. low_res: the small pictures that an upscaler enlarges.
    """

    def estimate(noisy: Tensor, t: float, features: Tensor | None, small: LowRes | None) -> Denoised:
        return denoise(network, noisy, torch.tensor(t, dtype=torch.float64), features, config=config,
                       schedule=schedule, precision=sampling.precision, low_res=small)

    if text is None or negative is None:
        return lambda noisy, t: estimate(noisy, t, None, low_res)
    doubled = torch.cat([text, negative.expand_as(text)])                                      # (2·N, 77, width)

    def both(noisy: Tensor, t: float) -> tuple[Denoised, Denoised]:
        images, fractions, _ = estimate(torch.cat([noisy, noisy]), t, doubled, low_res and low_res.twice())
        count = len(noisy)
        fraction, negative_fraction = (None, None) if fractions is None else (fractions[:count], fractions[count:])
        return Denoised(images[:count], fraction), Denoised(images[count:], negative_fraction)

    return classifier_free(
        lambda noisy, t: estimate(noisy, t, text, low_res), both, schedule=schedule, scale=sampling.guidance,
        interval=sampling.interval_at(config.network.schedule_side), has_alpha=config.network.has_alpha)
