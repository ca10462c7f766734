"""What torch compiles, where it can: the network, both its text encoder and its U-Net, and the directions of Muon."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..network.network import Network
from ..runtime import out_of_memory


class CompiledCall:
    """A function that is compiled when it is first called.

    required: raise UsageError if torch cannot compile it, for example because there is no C++ compiler. Otherwise it
    is then called as it is, and `failure` says why. captured: what it does on a GPU becomes CUDA graphs.
    """

    def __init__(self, call: Callable[..., Any], *, required: bool, captured: bool = False) -> None:
        self.plain, self.required, self.failure = call, required, ""
        options: dict[str, Any] = {"options": {"triton.cudagraphs": True}} if captured else {}
        self.compiled: Callable[..., Any] = torch.compile(call, **options)

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
    """A network whose two calls are each a `CompiledCall`. It has the weights of the given network.

    captured: capture the U-Net, until `give_up_capture`; the number of captions changes from batch to batch.
    """

    def __init__(self, network: Network, *, required: bool, captured: bool = False) -> None:
        super().__init__()
        self.network, self.required = network, required
        self.captured, self.capture_failure, self.is_compiled = captured, "", True
        self.calls = {"encode": CompiledCall(network.encode, required=required),
                      "forward": CompiledCall(network.forward, required=required, captured=captured)}

    def give_up_capture(self, reason: str) -> None:
        """Compile the U-Net without CUDA graphs from now on, if it has them; `capture_failure` says why."""
        if self.captured:
            self.captured, self.capture_failure = False, reason
            self.calls["forward"] = CompiledCall(self.network.forward, required=self.required)

    @contextlib.contextmanager
    def as_it_is(self) -> Iterator[None]:
        """Call the network itself."""
        self.is_compiled = False
        try:
            yield
        finally:
            self.is_compiled = True

    @property
    def failure(self) -> str:
        """Why torch cannot compile a part of it; empty if it can, or if that is not known yet."""
        return next((call.failure for call in self.calls.values() if call.failure), "")

    def encode(self, tokens: Tensor) -> Tensor:
        """As `Network.encode`. Raises UsageError."""
        text: Tensor = (self.calls["encode"] if self.is_compiled else self.network.encode)(tokens)
        return text

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """As `Network.forward`. Raises UsageError."""
        if self.captured:                       # what the graph wrote before may be overwritten
            torch.compiler.cudagraph_mark_step_begin()      # type: ignore[no-untyped-call]
        output: Tensor = (self.calls["forward"] if self.is_compiled else self.network)(*args, **kwargs)
        return output


def _is_of_the_compiler(error: BaseException | None) -> bool:
    """Whether an error, or one that it came from, is raised by torch's compiler itself."""
    while error is not None:
        if type(error).__module__.startswith(("torch._dynamo", "torch._inductor", "triton")):
            return True
        error = error.__cause__
    return False
