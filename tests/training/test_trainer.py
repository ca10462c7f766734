"""One training step: learning rate, weight decay, average, skipped steps, and a saved state that is complete."""

import copy
import dataclasses
import math
from unittest import mock

import pytest
import tiny
import torch

from diffuse_cli.config import Recipe
from diffuse_cli.data.split import split_dataset
from diffuse_cli.errors import DivergedError, OutOfMemoryError
from diffuse_cli.model_config import Student
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.runtime import devices
from diffuse_cli.runtime.distributed import World
from diffuse_cli.runtime.transfer import Fetched
from diffuse_cli.training import ema
from diffuse_cli.training.batches import Batches
from diffuse_cli.training.loss import Batch, TrainingLoss
from diffuse_cli.training.optimizer import TEXT_LAYERS, Optimizer, learning_rate_at
from diffuse_cli.training.plan import make_plan
from diffuse_cli.training.trainer import Trainer
from diffuse_cli.training.verdicts import NORM_WINDOW

CPU = torch.device("cpu")
CAPTIONS = [("a red square", "red"), ("a blue square",)] * 6


@pytest.fixture(scope="module")
def batches():
    data = tiny.dataset(CAPTIONS)
    split = split_dataset(data.pixel_hashes)
    tokenizer = train_tokenizer(text for texts in CAPTIONS for text in texts)
    recipe = Recipe(preset="nano", batch_size=4, steps=100, lr=1e-3)
    with tiny.scaled_down():
        plan, _ = make_plan(recipe, data, split, resolution=8, fit="crop", tokenizer=tokenizer, init=None, device=CPU)
    return Batches(plan, data, split.train, tokenizer, CPU)


def make(batches, *, micro_batch=4, recompute=False, **changes):
    plan = dataclasses.replace(batches.plan, **changes)
    return Trainer(plan, dataclasses.replace(batches, plan=plan), precision="fp32", micro_batch=micro_batch,
                   compiled=False, world=World(), recompute=recompute)


def weights(trainer):
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def with_norms(*norms):
    """As if the gradients had these norms, one after another, whatever they are."""
    return mock.patch.object(torch.nn.utils, "clip_grad_norm_", side_effect=[torch.tensor(norm) for norm in norms])


@pytest.mark.parametrize("recompute", [False, True])
def test_a_teacher_computes_blocks_once_more_where_its_student_does(batches, recompute):
    student = Student(evaluations=2, guidance=3.0, teacher="tiny")
    model = dataclasses.replace(batches.plan.model, student=student)
    trainer = make(batches, recompute=recompute, model=model, adversarial=0.1)
    assert (trainer.network.unet.recompute, trainer.teacher.unet.recompute) == (recompute, recompute)


# ── The learning rate ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_learning_rate_rises_stays_and_falls_to_zero(batches):
    plan = dataclasses.replace(batches.plan, lr=2.0, steps=100, warmup_steps=10, cooldown_steps=20)
    rates = [learning_rate_at(plan, step) for step in range(101)]
    assert rates[:10] == pytest.approx([2 * (step + 1) / 10 for step in range(10)])
    assert rates[10:81] == [2.0] * 71
    assert rates[80:] == pytest.approx([2 * (100 - step) / 20 for step in range(80, 101)])
    assert rates[100] == 0
    assert rates[0] > 0                                    # no step is wasted


def test_the_optimiser_uses_that_rate(batches):
    one = make(batches, optimizer="adamw", lr=0.01, warmup_steps=4)
    before = weights(one)
    for parameter in one.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    one.optimizer.step(learning_rate_at(one.plan, one.global_step))
    for name, tensor in weights(one).items():
        rate = 0.0025 / 500 if name.startswith(TEXT_LAYERS) else 0.0025            # text layers are trained more slowly
        moved = (tensor - before[name]).abs().max()
        assert moved == pytest.approx(rate, rel=0.05), name  # Adam's first step is the rate, but for the small decay


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weight_decay_is_on_matrices_alone(batches, optimizer):
    one = make(batches, optimizer=optimizer, lr=0.1, warmup_steps=1)
    before = weights(one)
    one.optimizer.zero_grad()
    for parameter in one.network.parameters():
        parameter.grad = torch.zeros_like(parameter)       # without gradients, only decay changes a weight
    one.optimizer.step(learning_rate_at(one.plan, one.global_step))
    for name, tensor in weights(one).items():
        rate = 0.1 / 500 if name.startswith(TEXT_LAYERS) else 0.1
        expected = before[name] * (1 - rate * 0.01) if tensor.ndim >= 2 else before[name]
        assert torch.allclose(tensor, expected, rtol=1e-6, atol=0), name


def test_the_classic_recipe_has_no_decay_and_its_own_moments(batches):
    groups = make(batches, optimizer="adam").optimizer.parts[0].param_groups
    assert {(group["weight_decay"], group["betas"]) for group in groups} == {(0.0, (0.9, 0.999))}
    groups = make(batches).optimizer.parts[0].param_groups
    assert {(group["weight_decay"], group["betas"]) for group in groups} == {(0.01, (0.9, 0.99)), (0.0, (0.9, 0.99))}


def test_the_norm_of_the_gradient_is_clipped_and_reported_unclipped(batches):
    one = make(batches)
    gradient_of_batch = one._gradient_of_batch

    def steeper():
        totals = gradient_of_batch()
        for parameter in one.network.parameters():
            parameter.grad *= 1000
        return totals

    with mock.patch.object(one, "_gradient_of_batch", steeper):
        measured = one.step()
    clipped = torch.cat([parameter.grad.flatten() for parameter in one.network.parameters()]).norm()
    assert clipped == pytest.approx(1, rel=1e-3)
    assert measured.gradient_norm > 100


# ── Micro-batches ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("micro_batch", [1, 2, 3])
def test_the_gradient_of_micro_batches_is_that_of_the_batch(batches, micro_batch):
    whole, cut = make(batches), make(batches, micro_batch=micro_batch)
    totals = [one._gradient_of_batch() for one in (whole, cut)]
    assert torch.allclose(*totals, rtol=1e-5)
    gradients = [torch.cat([parameter.grad.flatten() for parameter in one.network.parameters()])
                 for one in (whole, cut)]
    assert (gradients[0] - gradients[1]).norm() < 1e-5 * gradients[0].norm()


def test_too_little_memory_halves_the_micro_batch_and_gives_the_same_step(batches):
    starved, modest = make(batches), make(batches, micro_batch=1)
    accumulate = Trainer._accumulate

    def scarce(self, start, count):
        result = accumulate(self, start, count)            # its gradient must not count
        if count > 1:
            raise torch.OutOfMemoryError
        return result

    with mock.patch.object(Trainer, "_accumulate", scarce):
        starved.step()
    modest.step()
    assert starved.micro_batch == 1
    assert same(weights(starved), weights(modest))
    with mock.patch.object(Trainer, "_accumulate", side_effect=torch.OutOfMemoryError), \
            pytest.raises(OutOfMemoryError) as caught:
        starved.step()
    assert caught.value.exit_code == 7
    assert starved.global_step == 1


def test_a_cpu_that_runs_out_of_memory_is_no_surprise(batches):
    """The real RuntimeError of its allocator is recognised; any other error is passed on."""
    starved, modest, draw = make(batches), make(batches, micro_batch=1), Batches.draw

    def scarce(self, step, start, count):
        if count > 1:
            torch.empty(1 << 56, dtype=torch.uint8)
        return draw(self, step, start, count)

    with mock.patch.object(Batches, "draw", scarce):
        starved.step()
    modest.step()
    assert starved.micro_batch == 1
    assert same(weights(starved), weights(modest))
    with mock.patch.object(Batches, "draw", side_effect=RuntimeError("a defect")), \
            pytest.raises(RuntimeError, match="a defect"):
        starved.step()


AcceleratorError = getattr(torch, "AcceleratorError", RuntimeError)     # not in every version


class OutOfResources(RuntimeError):
    """An error of a library that is not about memory."""


FULL = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be reported asynchronously"),
        AcceleratorError("HIP error: out of memory"), RuntimeError("MPS backend out of memory (MPS allocated)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
        RuntimeError("cusolver error: CUSOLVER_STATUS_ALLOC_FAILED, when calling `cusolverDnCreate(handle)`"),
        RuntimeError("NCCL error: unhandled cuda error. Last error: Cuda failure 2 'out of memory'"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried"),
        MemoryError("Unable to allocate 9.00 GiB for an array")]
OTHER = [AcceleratorError("CUDA error: an illegal memory access was encountered"),
         RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), ValueError("out of memory"),
         OutOfResources("out of resource: shared memory, Required: 98304, Hardware limit: 65536")]


def test_every_form_of_full_memory_halves_the_micro_batch_and_no_other_error_does(batches):
    forward = TrainingLoss.forward
    for error in FULL:
        one = make(batches)

        def scarce(self, batch, keys, error=error):
            if len(batch.image) > 2:
                raise error
            return forward(self, batch, keys)

        with mock.patch.object(TrainingLoss, "forward", scarce):
            one.step()
        assert (one.micro_batch, one.skipped) == (2, 0), error
    for error in OTHER:
        one = make(batches)
        with mock.patch.object(TrainingLoss, "forward", side_effect=error), pytest.raises(type(error)) as caught:
            one.step()
        assert caught.value is error
        assert one.micro_batch == 4


@pytest.mark.parametrize("part", [(torch.nn.utils, "clip_grad_norm_"), (Optimizer, "step"), (ema, "update")])
def test_full_memory_in_the_update_ends_the_training_with_the_size_to_resume_with(batches, part):
    one = make(batches)
    for error in FULL:
        with mock.patch.object(*part, side_effect=error), \
                pytest.raises(OutOfMemoryError, match="Resume with --micro-batch 2") as caught:
            one.step()
        assert caught.value.exit_code == 7
    for error in OTHER:
        with mock.patch.object(*part, side_effect=error), pytest.raises(type(error)):
            one.step()


def test_pictures_leave_a_full_device_before_the_micro_batch_is_halved(batches):
    one, plain, forward, failures = make(batches), make(batches), TrainingLoss.forward, [FULL[1]]

    def scarce(self, batch, keys):
        if one.batches._pictures.resident is not None and failures:
            raise failures.pop()
        return forward(self, batch, keys)

    with mock.patch.object(TrainingLoss, "forward", scarce), \
            mock.patch.object(devices, "free_memory", return_value=2**40):
        for _ in range(3):
            one.step()
    for _ in range(3):
        plain.step()
    assert (one.micro_batch, failures) == (4, [])
    assert one.batches._pictures.resident is None
    assert same(weights(one), weights(plain))


# ── The average ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_average_is_the_power_function_average_of_all_weights(batches):
    one = make(batches, lr=0.01)
    seen = []
    for _ in range(5):
        one.step()
        seen.append(weights(one))
    # Unrolled: the weights after update i count in proportion to i^(gamma + 1) - (i - 1)^(gamma + 1).
    shares = [(i / 5) ** (ema.GAMMA + 1) - ((i - 1) / 5) ** (ema.GAMMA + 1) for i in range(1, 6)]
    assert sum(shares) == pytest.approx(1)
    for name, tensor in one.averaged.state_dict().items():
        expected = sum(share * past[name] for share, past in zip(shares, seen, strict=True))
        assert torch.allclose(tensor, expected, rtol=1e-4, atol=1e-6), name


# ── Skipped steps ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_spike_is_skipped_and_counted_once_the_norms_have_settled(batches):
    one = make(batches, warmup_steps=1)
    calm = [1.0] * (NORM_WINDOW // 4)
    with with_norms(*calm, 8.1, 7.9, 8.1):
        for _ in calm:
            one.step()
        before = weights(one)
        one.step()
        assert same(before, weights(one))
        assert (one.global_step, one.skipped, one.verdicts.updates) == (33, 1, 32)
        assert list(one.verdicts.norms)[-1] == pytest.approx(8.1)   # enters the window: a new level is accepted in time
        one.step()
        assert not same(before, weights(one))
        assert one.skipped == 1


def test_nothing_is_a_spike_before_the_norms_have_settled(batches):
    one = make(batches, warmup_steps=10)
    with with_norms(*([1.0] * 9), 1000.0):
        for _ in range(10):
            one.step()
    assert one.skipped == 0
    waiting = make(batches, warmup_steps=40)               # nor during the warm-up
    waiting.verdicts.norms.extend([1.0] * NORM_WINDOW)
    with with_norms(1000.0):
        waiting.step()
    assert waiting.skipped == 0


@pytest.mark.parametrize("norm", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing(batches, norm):
    one = make(batches)
    one.step()
    before, averaged = weights(one), copy.deepcopy(one.averaged.state_dict())
    with with_norms(norm):
        one.step()
    assert same(before, weights(one))
    assert same(averaged, one.averaged.state_dict())
    assert (one.global_step, one.skipped, one.verdicts.bad_steps, list(one.verdicts.norms)[1:]) == (2, 1, 1, [])
    one.step()
    assert (one.skipped, one.verdicts.bad_steps) == (1, 0)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_no_bit_of_the_state(batches, optimizer, value):
    """Neither weights, nor their average, nor moments, nor the optimiser's own counts."""
    one = make(batches, optimizer=optimizer)
    for _ in range(2):                                      # after the first, weights are their own average
        one.step()
    before = {name: tensor.clone() for name, tensor in one.tensors().items()}
    gradient_of_batch = one._gradient_of_batch

    def broken():
        totals = gradient_of_batch()
        next(one.network.parameters()).grad[0] = value
        return totals

    with mock.patch.object(one, "_gradient_of_batch", broken):
        one.step()
    assert same(before, one.tensors())
    assert (one.skipped, {count.item() for count in one.optimizer.counts}) == (1, {2.0})
    one.step()
    assert not same(before, one.tensors())


def test_weights_are_updated_before_the_verdict_of_their_step_is_read(batches):
    """So that a GPU never waits for the program; the one before is read, which the GPU knows by then."""
    one, told = make(batches), []
    tolist, step = Fetched.tolist, Optimizer.step
    with mock.patch.object(Fetched, "tolist", lambda self: told.append(f"read {one.global_step}") or tolist(self)), \
            mock.patch.object(Optimizer, "step", lambda self, *args: told.append("update") or step(self, *args)):
        for _ in range(3):
            one.step()
        one.record()
    assert told == ["update", "read 1", "update", "read 2", "update", "read 3"]


def test_gradients_that_lie_otherwise_give_the_same_step(batches):
    """Compiled code may give those of 1x1 kernels other strides, which CUDA's fused kernels refuse."""
    plain, other = (make(batches, optimizer="adamw") for _ in range(2))
    gradient_of_batch = other._gradient_of_batch

    def laid_otherwise():
        totals = gradient_of_batch()
        for parameter in other.network.parameters():
            if parameter.ndim == 4 and parameter.shape[2:] == (1, 1):
                parameter.grad = parameter.grad.as_strided(parameter.shape, (parameter.shape[1], 1, 1, 1))
                assert parameter.grad.stride() != parameter.stride()
        return totals

    plain.step()
    with mock.patch.object(other, "_gradient_of_batch", laid_otherwise):
        other.step()
    assert all(parameter.grad.stride() == parameter.stride() for parameter in other.network.parameters())
    assert same(weights(plain), weights(other))


def test_a_loss_that_is_not_finite_is_noticed_even_if_its_gradient_is(batches):
    one = make(batches)
    accumulate = Trainer._accumulate
    with mock.patch.object(Trainer, "_accumulate", lambda *arguments: accumulate(*arguments) * math.inf):
        one.step()
    assert (one.skipped, one.verdicts.bad_steps) == (1, 1)


def test_three_such_steps_in_a_row_end_the_run(batches):
    one = make(batches)
    draw = Batches.draw

    def poisoned(self, step, start, count):
        batch, keys = draw(self, step, start, count)
        return Batch(batch.image * math.nan, batch.noise, batch.t, batch.tokens, batch.caption_of), keys

    one.step()
    before = weights(one)
    with mock.patch.object(Batches, "draw", poisoned):
        for _ in range(3):
            one.step()
        with pytest.raises(DivergedError) as caught:
            one.record()
    assert caught.value.exit_code == 8
    assert "the last 4; 1 was good" in caught.value.what
    assert caught.value.hint == "Try --lr 2.5e-04 --fresh"
    assert same(before, weights(one))


# ── The state ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_restored_trainer_continues_as_if_nothing_had_happened(batches, optimizer):
    one, other = (make(batches, optimizer=optimizer) for _ in range(2))
    for _ in range(3):
        one.step()
    with with_norms(math.nan):
        one.step()
    saved = {name: tensor.clone() for name, tensor in one.tensors().items()}
    other.restore(saved, copy.deepcopy(one.record()))
    assert other.record() == one.record()
    for _ in range(2):
        one.step()
        other.step()
    assert same(one.tensors(), other.tensors())
    assert other.record() == one.record()
    assert (other.global_step, other.skipped) == (6, 1)


def test_the_state_has_weight_average_and_moments_of_every_parameter(batches):
    one = make(batches)
    names = {name for name, _ in one.network.named_parameters()}
    muon_params = {name for name in names if f"momentum.{name}" in one.tensors()}
    assert muon_params
    assert set(one.tensors()) == {
        f"{kind}.{name}" for name in names
        for kind in ("weights", "average", *(("momentum",) if name in muon_params else ("exp_avg", "exp_avg_sq")))}
    other = make(batches, optimizer="adamw")
    assert set(other.tensors()) == {
        f"{kind}.{name}" for name in names for kind in ("weights", "average", "exp_avg", "exp_avg_sq")}
    assert other.parameters == sum(tensor.numel() for tensor in other.tensors().values()) / 4


def test_dropout_follows_the_pictures(batches):
    """With dropout, the same seed still gives the same step, and another rate gives another step."""
    first, second, none = (make(batches, dropout=rate) for rate in (0.5, 0.5, 0.0))
    totals = [one.step().losses for one in (first, second, none)]
    assert torch.equal(totals[0], totals[1])
    first.step()
    second.step()
    assert same(weights(first), weights(second))
