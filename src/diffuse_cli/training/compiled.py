"""The network, compiled by torch: both its text encoder and its U-Net, or neither if that is not possible here."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..network.network import Network
from ..runtime import out_of_memory

Call = Callable[..., Tensor]


class CompiledNetwork(nn.Module):
    """A network whose calls are compiled when they are first made. It has the weights of the given network.

    required: raise UsageError if torch cannot compile it, for example because there is no C++ compiler. Otherwise it
    is then called as it is, and `failure` says why.
    """

    def __init__(self, network: Network, *, required: bool) -> None:
        super().__init__()
        self.network, self.required, self.failure = network, required, ""
        self.calls: dict[str, Call] = {
            "encode": torch.compile(network.encode), "forward": torch.compile(network.forward)}

    def encode(self, tokens: Tensor) -> Tensor:
        """As `Network.encode`. Raises UsageError."""
        return self._call("encode", tokens)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As `Network.forward`. Raises UsageError."""
        return self._call("forward", *args, **kwargs)

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Tensor:
        if not self.failure:
            try:
                return self.calls[name](*args, **kwargs)
            except RuntimeError as error:
                if out_of_memory.is_full(error) or not _is_of_the_compiler(error):
                    raise
                reason = next(iter(str(error).splitlines()), "").strip()[:200] or type(error).__name__
                if self.required:
                    raise UsageError(f"torch cannot compile the network here: {reason}",
                                     hint="Leave --compile out, or install a compiler for C++") from error
                self.failure = reason
        plain: Call = getattr(self.network, name)
        return plain(*args, **kwargs)


def _is_of_the_compiler(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is raised by torch's compiler itself."""
    while error is not None:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "triton")):
            return True
        error = error.__cause__
    return False
