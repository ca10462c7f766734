"""A plot of noise schedules, for comparing them side by side."""

import io
from collections.abc import Sequence

import torch

from .. import python_process
from ..diffusion.schedule import Schedule

POINTS = 400                                    # of each curve
LOG_SNR_LIMIT = 15                              # beyond it, no difference is visible in a picture


def plot_schedules(shown: Sequence[Schedule]) -> bytes:
    """Log-SNR, and alpha and sigma, of each schedule against the time t in (0, 1]. → the bytes of a PNG"""
    with python_process.elsewhere():
        from matplotlib.figure import Figure

    t = torch.linspace(1 / POINTS, 1, POINTS, dtype=torch.float64)
    figure = Figure(figsize=(10, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for number, schedule in enumerate(shown):
        alpha, sigma = schedule.alpha_sigma(t)
        left.plot(t, schedule.log_snr(t), f"C{number}", label=schedule.name)
        right.plot(t, alpha, f"C{number}")
        right.plot(t, sigma, f"C{number}--")
    left.set(xlabel="time t", ylabel="log-SNR", title="How much of the picture is left")
    right.set(xlabel="time t", title="Amplitude of picture (alpha) and noise (sigma)")
    left.set_ylim(-LOG_SNR_LIMIT, LOG_SNR_LIMIT)
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.plot([], [], "k", label="alpha")
    right.plot([], [], "k--", label="sigma")
    figure.legend(loc="outside lower center", ncols=len(shown) + 2, frameon=False)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=120)
    return stream.getvalue()
