"""The programs that are measured. Each module imports only packages of its own environment."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contender:
    """A program that is ready to work."""

    work: Callable[[int], Any]                  # does that many units (steps, batches, samplings); may return JSON
    facts: dict[str, Any]                       # for the report, ready for JSON


def finish(device: str) -> None:
    """Wait until the device has finished its work, so that its seconds are measured too."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def training_gflop(forward: Callable[[], Any]) -> float:
    """GFLOP of a training step: three times those of `forward`.

    Attention is computed by matrix products here, because the counter does not see a CPU's fused attention.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward()
    return 3 * counter.get_total_flops() / 1e9
