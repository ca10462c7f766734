"""A network that torch compiles, and the answers where it cannot: an error if it must, otherwise the network itself."""

import pytest
import tiny
import torch
from random_models import make_model
from torch._dynamo.exc import TorchDynamoException
from torch._inductor.exc import InvalidCxxCompiler

from diffuse_cli import events
from diffuse_cli.config import Machine
from diffuse_cli.errors import UsageError
from diffuse_cli.runtime import devices
from diffuse_cli.training import compiled as module
from diffuse_cli.training.compiled import CompiledNetwork


class Plain(torch.nn.Module):
    """In the place of a network: its calls have answers of their own."""

    def encode(self, tokens):
        return tokens + 1

    def forward(self, noisy, time):
        return noisy * time


def failing(error):
    """torch.compile, with a compiler that is missing or broken."""
    def compile_(call):
        def fail(*args, **kwargs):
            raise error
        return fail
    return compile_


def without_compiler():
    """The error that torch raises then."""
    error = RuntimeError(f"InvalidCxxCompiler: {InvalidCxxCompiler()}\n\nSet TORCHDYNAMO_VERBOSE=1 for more")
    error.__cause__ = InvalidCxxCompiler()
    return error


def test_both_parts_are_compiled(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "compile", lambda call: lambda *args: asked.append(call.__name__) or call(*args))
    network = CompiledNetwork(Plain(), required=True)
    assert network.encode(torch.ones(2)).tolist() == [2, 2]
    assert network(torch.ones(2), torch.tensor(3.0)).tolist() == [3, 3]
    assert asked == ["encode", "forward"]
    assert not network.failure


@pytest.mark.parametrize("error", [without_compiler(), InvalidCxxCompiler(),
                                   TorchDynamoException("No working C++ compiler found\nand more")])
def test_where_torch_cannot_compile_the_network_is_called_as_it_is(monkeypatch, error):
    monkeypatch.setattr(torch, "compile", failing(error))
    network = CompiledNetwork(Plain(), required=False)
    assert network(torch.ones(2), torch.tensor(3.0)).tolist() == [3, 3]
    assert network.encode(torch.ones(2)).tolist() == [2, 2]
    assert "C++ compiler" in network.failure
    assert "\n" not in network.failure
    with pytest.raises(UsageError, match="C\\+\\+ compiler") as caught:
        CompiledNetwork(Plain(), required=True).encode(torch.ones(2))
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("error", [RuntimeError("a defect"), torch.OutOfMemoryError("full"),
                                   RuntimeError("CUDA error: out of memory")])
def test_errors_that_are_not_the_compilers_are_passed_on(monkeypatch, error):
    monkeypatch.setattr(torch, "compile", failing(error))
    network = CompiledNetwork(Plain(), required=False)
    with pytest.raises(type(error)) as caught:
        network.encode(torch.ones(2))
    assert caught.value is error
    assert not network.failure


@pytest.mark.parametrize(("asked", "device", "steps", "expected"), [
    (None, "cpu", 10**6, False), (None, "mps", 10**6, False), (None, "cuda", 9_999, False),
    (None, "cuda", 10_000, None), (True, "cpu", 1, True), (False, "cuda", 10**6, False)])
def test_only_long_runs_on_a_gpu_are_compiled_unasked(asked, device, steps, expected):
    assert devices.choose_compile(Machine(compile=asked), torch.device(device), steps=steps) is expected


def test_a_run_that_nobody_asked_to_compile_says_so_in_one_line_and_goes_on(squares, home, monkeypatch):
    monkeypatch.setattr(torch, "compile", failing(without_compiler()))
    monkeypatch.setattr(devices, "choose_compile", lambda machine, device, steps: machine.compile)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(home))
    stream = tiny.train(squares, stop_at=2, compile=None)
    told = [event.message for event in tiny.of_kind(events.Noticed, stream) if "compile" in event.message]
    assert len(told) == 1
    assert told[0].startswith("not compiled, because torch cannot do it here: ")
    assert stream[-1].step == 2
    with pytest.raises(UsageError, match="torch cannot compile the network here"):
        tiny.train(squares, compile=True)


@pytest.mark.slow
def test_torch_compiles_both_parts_without_a_break(monkeypatch):
    """With a backend that runs the graphs as they are, which shows whether there is one for each part."""
    graphs, compile_ = [], torch.compile

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(module.torch, "compile", lambda call: compile_(call, backend=backend, fullgraph=True))
    model = make_model("the default")
    network = CompiledNetwork(model.network, required=True)
    tokens = torch.arange(154).reshape(2, 77) % 200
    text = network.encode(tokens)
    found = network(torch.ones(2, 3, 16, 16), torch.tensor([1.0, 500.0]), text)
    assert len(graphs) == 2
    assert torch.equal(text, model.network.encode(tokens))
    assert torch.equal(found, model.network(torch.ones(2, 3, 16, 16), torch.tensor([1.0, 500.0]), text))
