"""Captured passes train a network only if their gradients are those of the plain one; a CPU has no CUDA graphs."""

import pytest
import tiny
import torch
import worlds

from diffuse_cli import events
from diffuse_cli.network.network import Network
from diffuse_cli.runtime.distributed import World
from diffuse_cli.training import captured
from diffuse_cli.training.captured import prove
from diffuse_cli.training.compiled import CompiledNetwork

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(("parameters", "device", "processes", "passes", "expected"), [
    (1_400_000, CUDA, 1, 1, True), (5_500_000, CUDA, 1, 1, True), (22_700_000, CUDA, 1, 1, False),
    (1_400_000, CPU, 1, 1, False), (1_400_000, CUDA, 2, 1, False), (1_400_000, CUDA, 1, 2, False)])
def test_small_networks_on_one_gpu_with_one_pass_in_a_step_are_captured(
        parameters, device, processes, passes, expected):
    assert captured.is_worthwhile(parameters, device, processes=processes, passes=passes) is expected


class WrongGradient(torch.autograd.Function):
    """Right values, with a gradient that was overwritten."""

    @staticmethod
    def forward(ctx, output):
        return output.clone()

    @staticmethod
    def backward(ctx, gradient):
        return 0.7 * gradient


def right(call):
    return call


def wrong(call):
    return lambda *args, **options: WrongGradient.apply(call(*args, **options))


def stale(call):
    """Results stay those of the second call, as if the inputs of a replay had not been copied."""
    results = []

    def replayed(*args, **options):
        if len(results) < 2:
            results.append(call(*args, **options))
            return results[-1]
        return call(*args, **options) * 0 + results[1].detach()

    return replayed


def refused(call):
    def fail(*args, **options):
        raise RuntimeError("accessing tensor output of CUDAGraphs that has been overwritten by a subsequent run.\nMore")

    return fail


def full(call):
    def fail(*args, **options):
        raise torch.OutOfMemoryError("CUDA out of memory")

    return fail


def trained(monkeypatch, capture=None, *, micro_batch=12, steps=2):
    """A trainer after two steps; where a function captures, compiled by it as if this were a GPU."""
    monkeypatch.setattr(torch, "compile", lambda call, options=None: call if options is None else capture(call))
    monkeypatch.setattr(captured, "is_worthwhile", lambda *args, processes, passes: passes == 1)
    trainer = worlds.trainer(World(), micro_batch=micro_batch, compiled=None if capture else False)
    for _ in range(steps):
        trainer.step()
    return trainer


@pytest.mark.parametrize(("capture", "failure"), [
    (right, ""), (wrong, "their gradients are wrong by"), (stale, "their gradients are wrong by 1"),
    (refused, "accessing tensor output of CUDAGraphs that has been overwritten by a subsequent run."),
    (full, "CUDA out of memory")])
def test_captured_passes_are_given_up_unless_their_gradients_are_right(capture, failure, monkeypatch):
    """Whatever a capture does, the weights are those of a training without it, bit for bit."""
    found, plain = trained(monkeypatch, capture), trained(monkeypatch)
    assert found.compiled.captured == (not failure)
    assert found.compiled.capture_failure.startswith(failure)
    assert bool(found.compiled.capture_failure) == bool(failure)
    for name, tensor in plain.tensors().items():
        assert torch.equal(found.tensors()[name], tensor), name


def test_new_networks_are_compared_with_noise_on_their_zeros(monkeypatch):
    """Gradients of a new network are zero but for the last layer, and would hide what is wrong in all others."""
    def wrong_inside(call):
        def passes(noisy, *args, **options):
            return call(WrongGradient.apply(noisy.detach().requires_grad_()), *args, **options)
        return passes

    def wrong_text(call):
        return lambda noisy, time, text, **options: call(noisy, time, WrongGradient.apply(text), **options)

    assert trained(monkeypatch, wrong_inside, steps=1).compiled.captured            # nobody needs this gradient
    trainer = worlds.trainer(World(), micro_batch=12)
    new = Network(trainer.plan.model.network)
    new.initialise(torch.Generator().manual_seed(0))
    compiled = CompiledNetwork(new, required=False, captured=True)
    trainer.loss.network = compiled
    compiled.calls["forward"] = wrong_text(new.forward)
    prove(compiled, lambda step: trainer._accumulate(0, 12, step=step), [range(3)])
    assert not compiled.captured


def test_a_smaller_micro_batch_ends_the_capture(monkeypatch):
    trainer = trained(monkeypatch, right, steps=1)
    trainer._halve_micro_batch()
    assert (trainer.compiled.captured, trainer.compiled.capture_failure) == (False, "out of memory")
    assert not trained(monkeypatch, right, micro_batch=6, steps=1).compiled.captured


@pytest.mark.parametrize(("capture", "told"), [
    (right, ", CUDA graphs included"), (refused, "; without CUDA graphs: accessing tensor output of CUDAGraphs")])
def test_the_first_step_tells_what_became_of_the_capture(capture, told, squares, home, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda call, options=None: call if options is None else capture(call))
    monkeypatch.setattr(captured, "is_worthwhile", lambda *args, processes, passes: passes == 1)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(home))
    stream = tiny.train(squares, stop_at=1, compile=True)
    [message] = [event.message for event in tiny.of_kind(events.Noticed, stream) if "compiled" in event.message]
    assert told in message
