"""The first steps of a new network, which see pictures at half their side: more is learnt in the same time.

Averaging a noisy picture over squares of two by two pixels leaves half of the noise. So the reduced picture at one time
is what the whole one is at another, where sigma/alpha is twice as large, and the network is told that time. Its
convolutions are the same at both sizes (the noise level follows the size as in Hoogeboom et al. 2023, 2301.11093).
"""

import math

from torch import Tensor
from torch.nn import functional as F

from ..config import Plan
from ..denoiser import network_time
from ..diffusion.schedule import Schedule
from ..model_config import NetworkConfig
from .loss import Coefficients

SHARE = 0.6                                     # of the steps of a new network
MIN_SIDE = 64                                   # pixels; of the smallest pictures of which it pays
COST = 0.43                                     # time of such a step, if that of a whole one is 1: an estimate
REDUCTION = 2                                   # by which the sides are reduced


def first_steps(network: NetworkConfig, steps: int) -> int:
    """How many steps of a new network see pictures at half their side: 0 if they are small, or cannot be halved so.

    An upscaler learns from crops of one size alone.
    """
    multiple = REDUCTION * network.side_multiple
    sides = [side for size in network.sizes for side in size]
    if network.upscaling is not None or network.resolution.side < MIN_SIDE or any(side % multiple for side in sides):
        return 0
    return round(SHARE * steps)


def work(plan: Plan, steps: int) -> float:
    """The time of the first `steps` steps, in steps with whole pictures."""
    return steps - (1 - COST) * min(steps, plan.half_side_steps)


def halved(pictures: Tensor) -> Tensor:
    """Pictures (N, C, H, W), averaged over squares of two by two pixels. → (N, C, H/2, W/2)"""
    return F.avg_pool2d(pictures, REDUCTION)


def matched(schedule: Schedule, t: Tensor) -> tuple[Tensor, Coefficients]:
    """What N pictures at times t become at half their side. → their times (N,), and all that network and losses need

    At these times sigma/alpha is half that at t, and the network is told t. t: (N,) float64 on the CPU
    """
    level = schedule.time_of(schedule.log_snr(t) + 2 * math.log(REDUCTION))
    return level, Coefficients.of(schedule, level)._replace(time=network_time(t).float())
