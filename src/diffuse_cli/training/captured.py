"""CUDA graphs: a GPU begins all operations of a small network's pass by one launch, instead of one for each.

A graph writes its results, gradients among them, into the same memory each time. torch notices most of what could go
wrong with that, and refuses it. For the rest, gradients are compared with those of the plain network before they train
anything.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from ..runtime import out_of_memory, randomness
from .compiled import CompiledNetwork

PARAMETERS = 8_000_000          # of the largest networks whose launches may take longer than their work: nano and micro
PASSES = 3                      # torch runs the first as it is, records the second, and replays the third
TOLERANCE = 0.2                 # of `_error`; what compiling and bf16 round makes up to 0.1 of `nano`
LEAST = 1e-4                    # share of the whole gradient's norm below which a weight's gradient is rounding alone
NOISE = 0.02                    # deviation of what is added to the weights while gradients are compared


def is_worthwhile(parameters: int, device: torch.device, *, processes: int, passes: int) -> bool:
    """Whether passes of a compiled network are captured: of a small one, on a GPU, alone, with one pass in a step.

    The gradients of a second pass would be added to memory that the next replay overwrites, and those of several
    processes lie in buckets of their own.
    """
    return device.type == "cuda" and parameters <= PARAMETERS and processes == passes == 1


def prove(network: CompiledNetwork, pass_of: Callable[[int], object], parts: Sequence[range]) -> None:
    """Keep the captured passes of a network if their gradients are right, or else give them up and say why.

    The weights are as before at the end; the gradients are not.

    pass_of: leaves the gradient of a step's batch in the weights. parts: steps of each kind; some of each are compared.
    """
    fault = ""
    try:
        with out_of_memory.as_torch_error(), _noise_on_weights(network):
            worst = max((_error(network, pass_of, steps) for steps in parts if steps), default=0.0)
        if not worst <= TOLERANCE:
            fault = f"their gradients are wrong by {worst:.0%}"
    except RuntimeError as error:               # also where memory is full
        fault = next(iter(str(error).splitlines()), "").strip()[:200] or type(error).__name__
    if fault:
        network.give_up_capture(fault)


def _error(network: CompiledNetwork, pass_of: Callable[[int], object], steps: range) -> float:
    """Largest ‖captured - plain‖ / ‖plain‖ of a weight's gradients, in the first of some steps after passes of others.
    """
    for step in reversed([steps[min(number, len(steps) - 1)] for number in range(PASSES)]):
        captured = _gradients(network, pass_of, step)
    with network.as_it_is():
        plain = _gradients(network, pass_of, steps[0])
    norms = torch.stack([gradient.norm() for gradient in plain])
    errors = torch.stack([(one - other).norm() for one, other in zip(captured, plain, strict=True)])
    return float((errors / norms.clamp(min=LEAST * float(norms.norm()))).max())


def _gradients(network: nn.Module, pass_of: Callable[[int], object], step: int) -> list[Tensor]:
    """The gradients of a step's batch, in memory of their own."""
    for parameter in network.parameters():
        parameter.grad = None
    pass_of(step)
    return [parameter.grad.clone() for parameter in network.parameters() if parameter.grad is not None]


@contextlib.contextmanager
def _noise_on_weights(network: nn.Module) -> Iterator[None]:
    """Weights with a little noise, so that no gradient is zero; a new network's last layers are. Then as before."""
    weights = list(network.parameters())
    before = [weight.detach().clone() for weight in weights]
    generator = randomness.generator(0, "noise on weights")
    try:
        with torch.no_grad():
            for weight in weights:
                weight.add_(torch.randn(weight.shape, generator=generator).to(weight), alpha=NOISE)
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
