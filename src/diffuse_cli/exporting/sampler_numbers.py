"""The numbers of sampling beside the weights, for programs that know no noise schedule: a script and a web page."""

from typing import Any

import numpy as np
import torch

from ..config import SAMPLER_STEPS, Sampling
from ..diffusion.guidance import THRESHOLD_SHARE
from ..diffusion.sampling_times import FEW_STEPS, many_levels
from ..diffusion.schedule import make_schedule
from ..model_config import ModelConfig
from ..network.tokenizer import END, LENGTH, PAD
from ..sampling.steps import sampling_times_of

SAMPLERS = ("dpmpp-2m", "ddim")                 # those whose steps are a table; the model's default is the first
TABULATED_TIMES = 4001                          # so many that linear interpolation is as exact as float32


def sampler_numbers(config: ModelConfig) -> dict[str, Any]:
    """Return sizes, noise schedule and guidance of a model, ready for JSON. `step_table` in sample.py reads them."""
    network, defaults = config.network, Sampling.of(config)
    schedule = make_schedule(config.schedule, network.schedule_side)
    unguided = not config.conditional or config.student is not None    # no prompts, or guidance is built in
    interval = (0, 0) if unguided else defaults.interval_at(network.schedule_side)
    first = schedule.log_snr(torch.ones(1, dtype=torch.float64)).item()
    levels = many_levels(schedule, 3, network.schedule_side)
    times = schedule.time_of(torch.from_numpy(np.linspace(levels[0].item(), levels[-1].item(), TABULATED_TIMES)))
    return {
        "resolution": network.resolution.width if network.resolution.is_square else network.shape[1:],
        "channels": network.channels,
        "prediction": config.prediction,
        "learned_variance": config.learned_variance,
        "text": None if network.text is None else {
            "length": LENGTH, "pad": PAD, "end": END, "vocabulary": network.text.vocabulary,
            "width": network.text.width},
        "guidance": {"scale": defaults.guidance if config.conditional else 1.0, "interval": interval},
        "threshold_share": THRESHOLD_SHARE,
        "range": 1.0 if config.student is None else None,
        "distilled": config.student is not None,
        "schedule": {"name": config.schedule, "first_level": first, "levels": levels.tolist(),
                     "times": [round(time, 10) for time in times.tolist()],
                     "few": _few_levels(config)},
    }


def sampler_steps(config: ModelConfig) -> dict[str, int]:
    """Return the samplers of a model that such programs can compute, with their numbers of steps; the default first."""
    if config.student is not None:
        defaults = Sampling.of(config)
        return {defaults.sampler: defaults.number_of_steps}
    return {sampler: SAMPLER_STEPS[sampler] for sampler in SAMPLERS}


def _few_levels(config: ModelConfig) -> dict[str, list[float]]:
    """The log-SNRs between the first and the last time, for the numbers of steps whose levels are not even.

    A distilled model has no other number of steps.
    """
    schedule = make_schedule(config.schedule, config.network.schedule_side)
    numbers = range(1, FEW_STEPS + 1) if config.student is None else [config.student.evaluations]
    times = {str(steps): sampling_times_of(config, Sampling(steps=steps))[1:-1] for steps in numbers}
    return {steps: schedule.log_snr(torch.tensor(inner, dtype=torch.float64)).tolist()
            for steps, inner in times.items()}
