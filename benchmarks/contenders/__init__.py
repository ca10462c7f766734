"""What is measured, each in a module that imports only what its own environment has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Contender:
    """Something ready to work. `work(n)` does n units (steps, batches, pictures) and may say what came out, as JSON."""

    work: Callable[[int], Any]
    facts: dict[str, Any]


def finish(device: str) -> None:
    """Wait until the device has done what it was told: its seconds are not the process's."""
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def training_gflop(forward: Callable[[], Any]) -> float:
    """GFLOP of a training step for what `forward` computes: three times the forward pass, attention by its products.

    Of a CPU's fused attention the counter knows nothing.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        forward()
    return 3 * counter.get_total_flops() / 1e9
