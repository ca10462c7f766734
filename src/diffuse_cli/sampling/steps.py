"""The steps of a sampler: the times that it visits, and the number of steps at which guidance acts."""

import torch

from ..config import Sampling
from ..diffusion.distillation import student_times
from ..diffusion.sampling_times import sampling_times
from ..diffusion.schedule import make_schedule
from ..model_config import ModelConfig


def sampling_times_of(config: ModelConfig, sampling: Sampling) -> list[float]:
    """The steps + 1 times that the sampler visits, from 1 down to 0. Those of a distilled model are even, and those of
    a distilled upscaler start below 1.
    """
    side = config.network.schedule_side
    if config.student is not None:
        return student_times(config.student.evaluations, config.student.start)
    schedule = make_schedule(config.schedule, side)
    return sampling_times(schedule, sampling.number_of_steps, side)


def guided_steps(config: ModelConfig, sampling: Sampling) -> int:
    """Count the steps that begin at a noise level inside the guidance interval; with few steps it may be 0.

    It is 0 with a guidance of 1, too, which is none.
    """
    if sampling.guidance == 1:
        return 0
    side = config.network.schedule_side
    schedule, (low, high) = make_schedule(config.schedule, side), sampling.interval_at(side)
    times = torch.tensor(sampling_times_of(config, sampling)[:-1], dtype=torch.float64)
    ratio = torch.exp(-schedule.log_snr(times) / 2)                    # sigma/alpha
    return int(((low < ratio) & (ratio <= high)).sum())
