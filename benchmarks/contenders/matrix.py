"""The best rate of a device: one large matrix product in bfloat16."""

import torch

from . import Contender, finish


def product(*, device: str, size: int) -> Contender:
    """A unit is a product of two (size, size) matrices, of 2·size³ operations."""
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))

    def work(times: int) -> None:
        for _ in range(times):
            torch.mm(left, right)
        finish(device)

    return Contender(work, {"flop": 2 * size**3})
