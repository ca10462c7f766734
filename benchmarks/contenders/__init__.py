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
