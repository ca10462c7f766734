"""How many pictures fit into a GPU's memory: what is planned against activations that were counted another way."""

import dataclasses
import re
import weakref
from pathlib import Path

import launches
import pytest
import tiny
import torch
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from diffuse_cli import denoiser, events
from diffuse_cli.config import Machine, Recipe
from diffuse_cli.data.split import split_dataset
from diffuse_cli.errors import UsageError
from diffuse_cli.model_config import ModelConfig, Student
from diffuse_cli.network.network import Network, activation_bytes, parameter_count
from diffuse_cli.network.presets import network_config
from diffuse_cli.network.tokenizer import LENGTH
from diffuse_cli.runtime import devices, sharding
from diffuse_cli.training import memory
from diffuse_cli.training.adversary import Discriminator
from diffuse_cli.training.plan import make_plan

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
PAGE = Path(__file__).parents[2] / "docs" / "scaling.md"


def shape(preset, resolution):
    return network_config(preset, resolution, vocabulary=400, learned_variance=True)


def kept_in_bf16(config, count, *, recompute=False):
    """Bytes that a forward pass keeps in bf16, by the sizes of all tensors that its graph still holds."""
    with launches.on_device("bf16"):
        network = Network(config)
        network.unet.recompute = recompute
        weights = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
        sizes = {}

        def note(tensor):
            sizes[tensor.untyped_storage()._cdata] = tensor, tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            tokens = torch.empty(count, LENGTH, dtype=torch.int64, device="meta")
            caption_of = torch.empty(count, dtype=torch.int64, device="meta")
            text = denoiser.encode_captions(network, tokens, caption_of, precision="bf16")
            with denoiser._autocast(launches.DEVICE, "bf16"):
                network(torch.empty(count, *config.shape, device="meta"),
                        torch.empty(count, device="meta"), text)
        return sum(size for key, (_, size) in sizes.items() if key not in weights)


@pytest.mark.parametrize("preset", ["nano", pytest.param("small", marks=pytest.mark.slow),
                                    pytest.param("large", marks=pytest.mark.slow)])
def test_activations_in_bf16_are_within_what_is_planned(preset):
    """The difference of two passes: what each further picture keeps."""
    config = shape(preset, 64)
    counted = kept_in_bf16(config, 3) - kept_in_bf16(config, 2)
    planned = activation_bytes(config)
    assert counted <= planned <= 1.25 * counted


class Alive(TorchDispatchMode):
    """Bytes of all tensors that operations returned and that are still there, and the most there were at once."""

    def __init__(self):
        super().__init__()
        self.sizes, self.peak = {}, 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        for tensor in pytree.tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and (key := tensor.untyped_storage()._cdata) not in self.sizes:
                self.sizes[key] = tensor.untyped_storage().nbytes()
                weakref.finalize(tensor.untyped_storage(), self.sizes.pop, key, None)
        self.peak = max(self.peak, sum(self.sizes.values()))
        return result


def most_at_once(config, count, *, recompute):
    """The most bytes that a training pass has at once beside the weights and their gradients."""
    network = with_gradients(config, recompute=recompute)
    with Alive() as alive:
        text = network.encode(torch.zeros(count, LENGTH, dtype=torch.int64))
        network(torch.zeros(count, *config.shape), torch.zeros(count), text).sum().backward()
    return alive.peak


def with_gradients(config, *, recompute=False):
    network = Network(config)
    network.initialise(torch.Generator().manual_seed(0))
    network.unet.recompute = recompute
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return network


def most_of_a_student(config, count, *, recompute):
    """`most_at_once` of a student and its discriminator, after their targets were made."""
    student, teacher = (with_gradients(config, recompute=recompute) for _ in range(2))
    teacher.requires_grad_(False)
    discriminator = Discriminator(ModelConfig(
        network=config, schedule="cosine", prediction="v", student=Student(evaluations=4, guidance=3.0, teacher="")))
    with Alive() as alive:
        time, text = torch.zeros(count), torch.zeros(count, LENGTH, config.text.width)
        image = student(torch.zeros(count, *config.shape), time, text)[:, : config.channels]
        losses = discriminator(
            teacher.features(image.detach(), time, text), teacher.features(image, time, text), time.long())
        sum(losses).sum().backward()
    return alive.peak


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("resolution", [32, pytest.param(64, marks=pytest.mark.slow)])
def test_a_discriminator_takes_what_is_planned_for_it(resolution, recompute):
    config = shape("nano", resolution)
    each = most_of_a_student(config, 3, recompute=recompute) - most_of_a_student(config, 2, recompute=recompute)
    planned = memory.ALLOWANCE * memory.OF_A_DISCRIMINATOR * activation_bytes(config, recompute=recompute)
    assert each <= planned <= 3 * each


def test_blocks_that_compute_once_more_take_less_memory():
    """What is planned for a picture, with its allowance, against all that is there at once on a CPU in float32."""
    config = shape("nano", 32)
    for recompute in (False, True):
        each = most_at_once(config, 3, recompute=recompute) - most_at_once(config, 2, recompute=recompute)
        planned = activation_bytes(config, recompute=recompute)
        assert each <= memory.ALLOWANCE * planned
        assert planned <= 2 * each
    assert activation_bytes(config, recompute=True) < activation_bytes(config) / 3


def test_what_a_single_convolution_keeps_is_its_input(monkeypatch):
    """2 channels of 8 x 8 in float32, whatever the weights are; views of it count once."""
    class Convolution(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Conv2d(3, 5, 3, device="meta")

            self.unet = torch.nn.Module()

        def parts(self):
            return [self.layer]

        def forward(self, noisy, time, text):
            return self.layer(noisy) + self.layer(noisy.view(1, 3, 8, 8))

    config = dataclasses.replace(shape("nano", 8), text=None)
    monkeypatch.setattr("diffuse_cli.network.network.on_meta_device", lambda config: Convolution())
    assert activation_bytes(config) == 3 * 8 * 8 * 4


@pytest.fixture(scope="module")
def plan():
    data = tiny.dataset([()] * 12)
    return make_plan(Recipe(preset="nano", batch_size=256, steps=100, captions="none"), data,
                     split_dataset(data.pixel_hashes), resolution=64, fit="crop", tokenizer=None, init=None,
                     device=CPU)[0]


def chosen(plan, gigabytes, monkeypatch, *, processes=1, **machine):
    monkeypatch.setattr(devices, "total_memory", lambda device: int(gigabytes * 1e9))
    return memory.choose_micro_batch(plan, Machine(**machine), CUDA, processes=processes)


@pytest.mark.slow
def test_what_is_chosen_fits_and_one_part_less_would_not(plan, monkeypatch):
    for gigabytes in (1.5, 2, 3, 5, 8):
        count = chosen(plan, gigabytes, monkeypatch)
        parts = -(-plan.batch_size // count)
        assert count == 1 or memory.planned_bytes(plan, count) <= memory.SHARE * gigabytes * 1e9
        if parts > 1:
            larger = -(-plan.batch_size // (parts - 1))
            assert memory.planned_bytes(plan, larger) > memory.SHARE * gigabytes * 1e9
    assert chosen(plan, 0.1, monkeypatch) == 1                          # a smaller one is for the step to refuse
    assert chosen(plan, 80, monkeypatch) == 256
    assert chosen(plan, 80, monkeypatch, processes=3) == 86
    assert chosen(plan, 2, monkeypatch, micro_batch=17) == 17
    assert memory.choose_micro_batch(plan, Machine(), CPU, processes=1) == 64


def recomputes(plan, gigabytes, monkeypatch, *, device=CUDA, processes=1, sharded=False, **machine):
    monkeypatch.setattr(devices, "total_memory", lambda device: int(gigabytes * 1e9))
    return memory.choose_recompute(plan, Machine(**machine), device, processes=processes, sharded=sharded)


def test_blocks_compute_once_more_where_a_few_pictures_have_no_room_otherwise(plan, monkeypatch):
    needed = memory.planned_bytes(plan, memory.FEW_PICTURES) / memory.SHARE / 1e9
    assert not recomputes(plan, 1.01 * needed, monkeypatch)
    assert recomputes(plan, 0.99 * needed, monkeypatch)
    assert recomputes(plan, 1.01 * needed, monkeypatch, micro_batch=memory.FEW_PICTURES + 2)
    assert not recomputes(plan, 0.99 * needed, monkeypatch, micro_batch=1)
    assert not recomputes(plan, 0.99 * needed, monkeypatch, processes=256)        # each has one picture
    assert not recomputes(plan, 0.99 * needed, monkeypatch, processes=8, sharded=True)
    assert not recomputes(plan, 0, monkeypatch, device=CPU)
    pictures = [memory.choose_micro_batch(plan, Machine(), CUDA, processes=1, recompute=recompute)
                for recompute in (False, True)]
    monkeypatch.setattr(devices, "total_memory", lambda device: int(0.99 * needed * 1e9))
    few, more = (memory.choose_micro_batch(plan, Machine(), CUDA, processes=1, recompute=recompute)
                 for recompute in (False, True))
    assert few < memory.FEW_PICTURES <= more
    assert memory.planned_bytes(plan, more, recompute=True) <= memory.SHARE * 0.99 * needed * 1e9
    assert pictures == [1, 1]                                           # of a memory of nothing


def test_the_header_says_that_blocks_compute_once_more(squares, decoded, home, monkeypatch):
    monkeypatch.setattr(memory, "choose_recompute", lambda *_, **__: True)
    facts = dict(tiny.of_kind(events.Started, tiny.train(squares, stop_at=1))[0].facts)
    assert "activations computed twice" in facts["machine"]


def test_a_student_keeps_its_teachers_weights_besides(plan):
    taught = dataclasses.replace(plan, model=dataclasses.replace(
        plan.model, student=Student(evaluations=4, guidance=1.0, teacher="one")))
    more = memory.planned_bytes(taught, 3) - memory.planned_bytes(plan, 3)
    assert more == memory.OF_A_TEACHER * parameter_count(plan.model.network)


def sharded(plan, gigabytes, monkeypatch, *, processes=8, device=CUDA, **machine):
    monkeypatch.setattr(devices, "total_memory", lambda device: int(gigabytes * 1e9))
    return memory.choose_sharding(plan, Machine(**machine), device, processes=processes)


def test_weights_are_divided_where_a_gpu_has_no_room_for_all_and_a_few_pictures(plan, monkeypatch):
    monkeypatch.setattr(sharding, "is_possible", lambda device: True)
    needed = memory.planned_bytes(plan, memory.FEW_PICTURES) / memory.SHARE / 1e9
    assert not sharded(plan, 1.01 * needed, monkeypatch)
    assert sharded(plan, 0.99 * needed, monkeypatch)
    assert not sharded(plan, 0.99 * needed, monkeypatch, processes=1)              # nobody to share with
    assert not sharded(plan, 0.99 * needed, monkeypatch, device=CPU)
    assert sharded(plan, 1.01 * needed, monkeypatch, shard=True)
    assert sharded(plan, 0, monkeypatch, shard=True, device=CPU)
    assert not sharded(plan, 0, monkeypatch, shard=True, device=CPU, processes=1)


def test_a_torch_that_cannot_divide_weights_on_a_cpu_says_so(plan, monkeypatch):
    monkeypatch.setattr(sharding, "is_possible", lambda device: device != CPU)
    with pytest.raises(UsageError, match="cannot divide weights among processes on a CPU"):
        sharded(plan, 80, monkeypatch, shard=True, device=CPU)
    assert sharded(plan, 80, monkeypatch, shard=True)
    assert not sharded(plan, 80, monkeypatch, shard=True, device=CPU, processes=1)


def test_divided_weights_leave_room_for_more_pictures(plan, monkeypatch):
    monkeypatch.setattr(devices, "total_memory", lambda device: 2 * 10**9)
    monkeypatch.setattr(memory, "parameter_count", lambda network: 10**7)
    whole, divided = (memory.choose_micro_batch(plan, Machine(), CUDA, processes=2, sharded=sharded)
                      for sharded in (False, True))
    assert divided > whole
    saved = memory.planned_bytes(plan, 5) - memory.planned_bytes(plan, 5, shares=4)
    assert saved == 10**7 * (memory.FOR_EACH_PARAMETER * 3 / 4 - memory.GATHERED)


def test_a_student_is_not_divided(plan, monkeypatch):
    """Its processes call it different numbers of times."""
    taught = dataclasses.replace(plan, model=dataclasses.replace(
        plan.model, student=Student(evaluations=4, guidance=1.0, teacher="one")))
    assert not sharded(taught, 0.01, monkeypatch)
    with pytest.raises(UsageError, match="student"):
        sharded(taught, 80, monkeypatch, shard=True)


@pytest.mark.slow
def test_a_billion_parameters_are_planned_for_gpus_that_hold_them_and_for_those_that_do_not(plan, monkeypatch):
    """30 bytes for each parameter fill a GPU of 24 GiB; divided among eight they leave room for some pictures."""
    huge = dataclasses.replace(plan, model=dataclasses.replace(plan.model, network=shape("huge", 64)))
    assert parameter_count(huge.model.network) == pytest.approx(1e9, rel=0.02)
    assert not sharded(huge, 80 * 1.0737, monkeypatch)
    assert sharded(huge, 24 * 1.0737, monkeypatch)
    divided = memory.choose_micro_batch(huge, Machine(), CUDA, processes=8, sharded=True)
    assert 4 < divided <= 32
    assert chosen(huge, 80 * 1.0737, monkeypatch, processes=8) == 32


@pytest.mark.parametrize(("preset", "resolution"), [
    ("nano", 32), ("small", 64), ("base", 64), ("large", 64), ("large", 128), ("huge", 64)])
def test_the_page_has_the_bytes_of_a_picture(preset, resolution):
    (row,) = re.findall(rf"^\| {preset} \| {resolution} \| (\d+) MB \| (\d+) MB \|", PAGE.read_text(), re.MULTILINE)
    assert list(map(int, row)) == [
        round(activation_bytes(shape(preset, resolution), recompute=recompute) / 1e6) for recompute in (False, True)]
