"""How many operations a GPU has to begin in a step of each preset, as docs/scaling.md says."""

import re
from pathlib import Path

import launches
import pytest
import torch

from benchmarks.studies import projection
from diffuse_cli.training.compiled import CompiledCall
from diffuse_cli.training.muon import orthogonal_steps

PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"
AT_FIRST = {"nano": 2900, "micro": 3850, "small": 4600, "base": 5500, "large": 6100}       # as first counted
SLOW = [pytest.param(preset, marks=pytest.mark.slow) for preset in AT_FIRST if preset != "nano"]


def documented(preset):
    """The numbers in the row of a preset."""
    (row,) = re.findall(rf"^\| {preset} \| (\d,\d+ \| .*) \|$", PAGE.read_text(), re.MULTILINE)
    return [int(cell.replace(",", "")) for cell in row.split(" | ")]


@pytest.mark.parametrize("preset", ["nano", *SLOW])
def test_a_step_begins_as_many_operations_as_documented(preset):
    training, sampling = launches.of_training(preset), launches.of_sampling(preset)
    assert documented(preset)[2:] == [
        training.step, training.muon, training.compiled, training.compiled_muon, sampling]
    assert projection.LAUNCHES.get(preset, training.step) == training.step
    assert training.compiled <= AT_FIRST[preset] / 3
    assert training.compiled_muon <= 40


@pytest.mark.slow
def test_a_billion_parameters_make_a_step():
    """On a device that computes nothing: shapes, types and devices agree from the pictures to the average."""
    with launches.on_device("bf16"):
        trainer = launches.make_trainer("huge", 64)
        trainer.step()
        assert trainer.parameters == pytest.approx(1e9, rel=0.02)
        assert all(tensor.device == launches.DEVICE for tensor in trainer.tensors().values())


def test_what_is_counted():
    weight = torch.nn.Parameter(torch.empty(3, 3, device="meta"))
    with launches.counted() as counts:
        (weight.T @ weight).view(9).sum().backward()
        torch._foreach_add_([weight.detach()] * 5, 1.0)
        torch.zeros(3) + 1                                              # on the CPU
    assert {name.split(".")[1]: count for name, count in counts.items()} == {
        "mm": 3, "sum": 1, "ones_like": 1, "add": 1, "_foreach_add_": 1}


def test_only_on_a_gpu_is_muon_compiled(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda call: call)
    with launches.on_device("bf16"):
        for compiled, expected in ((False, False), (None, True), (True, True)):
            trainer = launches.make_trainer("nano", 16, compiled=compiled)
            assert isinstance(trainer.optimizer.parts[-1].directions, CompiledCall) is expected


def test_muon_is_one_graph_with_the_same_answers():
    """With a backend that runs the graph as it is. The matrices lie, stand, and are kernels, channels last or not."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(4, 12), (12, 4), (8, 4, 3, 3), (4, 8, 1, 1), (36, 8)]
    momenta = [torch.randn(shape, generator=generator) for shape in shapes]
    momenta.append(torch.randn(8, 4, 3, 3, generator=generator).to(memory_format=torch.channels_last))
    compiled = torch.compile(orthogonal_steps, backend="eager", fullgraph=True)
    for found, expected, momentum in zip(
            compiled(momenta, torch.float32), orthogonal_steps(momenta, torch.float32), momenta, strict=True):
        assert torch.equal(found, expected)
        assert found.shape == momentum.shape
