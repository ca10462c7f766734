"""What torch compiles, where it can: the network, both its text encoder and its U-Net, and the directions of Muon."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..network.network import Network
from ..runtime import out_of_memory


class CompiledCall:
    """A function that is compiled when it is first called.

    required: raise UsageError if torch cannot compile it, for example because there is no C++ compiler. Otherwise it
    is then called as it is, and `failure` says why.
    """

    def __init__(self, call: Callable[..., Any], *, required: bool) -> None:
        self.plain, self.required, self.failure = call, required, ""
        self.compiled: Callable[..., Any] = torch.compile(call)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raises UsageError."""
        if not self.failure:
            try:
                return self.compiled(*args, **kwargs)
            except RuntimeError as error:
                if out_of_memory.is_full(error) or not _is_of_the_compiler(error):
                    raise
                reason = next(iter(str(error).splitlines()), "").strip()[:200] or type(error).__name__
                if self.required:
                    raise UsageError(f"torch cannot compile the network here: {reason}",
                                     hint="Leave --compile out, or install a compiler for C++") from error
                self.failure = reason
        return self.plain(*args, **kwargs)


class CompiledNetwork(nn.Module):
    """A network whose two calls are each a `CompiledCall`. It has the weights of the given network."""

    def __init__(self, network: Network, *, required: bool) -> None:
        super().__init__()
        self.network = network
        self.calls = {"encode": CompiledCall(network.encode, required=required),
                      "forward": CompiledCall(network.forward, required=required)}

    @property
    def failure(self) -> str:
        """Why torch cannot compile a part of it; empty if it can, or if that is not known yet."""
        return next((call.failure for call in self.calls.values() if call.failure), "")

    def encode(self, tokens: Tensor) -> Tensor:
        """As `Network.encode`. Raises UsageError."""
        text: Tensor = self.calls["encode"](tokens)
        return text

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As `Network.forward`. Raises UsageError."""
        output: Tensor = self.calls["forward"](*args, **kwargs)
        return output


def _is_of_the_compiler(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is raised by torch's compiler itself."""
    while error is not None:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "triton")):
            return True
        error = error.__cause__
    return False
