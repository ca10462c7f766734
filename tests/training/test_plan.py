"""Choices that the user left open follow from the data and the machine, by rules that can be recomputed by hand."""

import dataclasses
import math
from unittest import mock

import pytest
import tiny
import torch

from diffuse_cli.config import Recipe
from diffuse_cli.data.split import Split, split_dataset
from diffuse_cli.network.network import parameter_count
from diffuse_cli.network.tokenizer import train_tokenizer
from diffuse_cli.training.plan import extend, make_plan, peak_learning_rate

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TOKENIZER = train_tokenizer(["a red square"])


def plan_for(train, held_out=0, *, conditional=True, device=CPU, resolution=32, **recipe):
    """The plan for so many pictures, which need not exist."""
    split = Split(torch.arange(train), torch.arange(train, train + held_out))
    data = mock.Mock(content_id="d", names=(), channels=3, pixel_hashes=["0"] * (train + held_out))
    return make_plan(Recipe(**recipe), data, split, resolution=resolution, fit="crop", init=None,
                     device=device, tokenizer=TOKENIZER if conditional else None)


def test_a_longer_budget_changes_only_where_the_run_ends():
    first, _ = plan_for(2000, 100, images=100_000)
    longer, fresh = extend(first, Recipe(images=200_000), "x"), plan_for(2000, 100, images=200_000)[0]
    assert (first.batch_size, fresh.batch_size) == (16, 32)            # a new run would choose another batch
    same, _ = plan_for(2000, 100, steps=12_500, batch_size=16)
    assert longer == dataclasses.replace(
        same, warmup_steps=first.warmup_steps, dropout=first.dropout, validation_probe=first.validation_probe)


# ── Batch and budget ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("images", [10_000, 100_000, 1_000_000, 20_000_000, 200_000_000, 5_000_000_000])
def test_the_batch_is_the_power_of_two_near_the_formula(images):
    plan, reasons = plan_for(1000, images=images)
    formula = 512 * (images / 200e6) ** 0.45
    assert plan.batch_size & (plan.batch_size - 1) == 0
    assert 16 <= plan.batch_size <= 2048
    if 16 <= formula <= 2048:
        assert 2**-0.5 <= plan.batch_size / formula <= 2**0.5
    assert plan.steps == math.ceil(images / plan.batch_size)
    assert reasons.batch == "for the number of pictures seen"


@pytest.mark.parametrize("steps", [100, 5_000, 100_000, 10_000_000])
def test_with_a_budget_of_steps_the_batch_fits_what_it_makes_of_it(steps):
    plan, _ = plan_for(1000, steps=steps)
    assert plan.steps == steps
    assert plan_for(1000, images=steps * plan.batch_size)[0].batch_size == plan.batch_size


@pytest.mark.parametrize(("train", "seen"), [(10, 100_000), (1000, 100_000), (50_000, 5_000_000),
                                             (10_000_000, 100_000_000)])
def test_the_default_budget_is_100_epochs_within_bounds(train, seen):
    plan, reasons = plan_for(train)
    assert seen <= plan.steps * plan.batch_size < seen + plan.batch_size
    assert reasons.budget == f"{plan.steps * plan.batch_size:,} pictures seen, each {seen / train:,.1f} times"


def test_what_is_asked_for_is_taken():
    plan, reasons = plan_for(
        1000, batch_size=7, steps=11, lr=0.5, preset="micro", flip=True, seed=5, loss_weighting="simple",
        prediction="x0",
        schedule="linear", optimizer="adam", times="discrete", variance_grad="trunk")
    assert (plan.batch_size, plan.steps, plan.lr, plan.preset, plan.flip, plan.seed) == (7, 11, 0.5, "micro", True, 5)
    assert (plan.loss_weighting, plan.optimizer) == ("simple", "adam")
    assert (plan.times, plan.variance_grad) == ("discrete", "trunk")
    assert (plan.model.prediction, plan.model.schedule, plan.model.network.out_channels) == ("x0", "linear", 6)
    assert (reasons.preset, reasons.batch) == ("as asked", "as asked")
    assert plan_for(1000, variance="fixed")[0].model.network.out_channels == 3


@pytest.mark.parametrize(("steps", "warmup", "cooldown"), [
    (1, 1, 1), (20, 1, 5), (1000, 50, 250), (4000, 200, 1000), (20_000, 200, 5000), (100_000, 1000, 25_000)])
def test_warm_up_and_cool_down(steps, warmup, cooldown):
    plan, _ = plan_for(1000, steps=steps)
    assert plan.warmup_steps == warmup                     # max(200, 1 %), at most 5 %
    assert abs(plan.cooldown_steps - cooldown) <= 1        # a quarter


# ── By size ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("parameters", "rate"), [
    (1, 4e-3), (2_000_000, 4e-3), (5_000_000, 2e-3), (10_000_000, 1.4e-3), (20_000_000, 1e-3), (60_000_000, 6e-4),
    (250_000_000, 4e-4), (10**10, 4e-4)])
def test_the_learning_rate_follows_the_size(parameters, rate):
    assert peak_learning_rate(parameters, "muon") == pytest.approx(rate, rel=1e-9)  # 1.4e-3: the middle of logs
    for other in ("adamw", "adam"):
        assert peak_learning_rate(parameters, other) == pytest.approx(rate / 2, rel=0.02)


def test_the_learning_rate_never_rises_with_the_size():
    rates = [peak_learning_rate(round(1e6 * 1.1**k), "muon") for k in range(70)]
    assert rates == sorted(rates, reverse=True)
    plan, _ = plan_for(100, preset="small", steps=10)
    assert plan.lr == peak_learning_rate(parameter_count(plan.model.network), "muon")


@pytest.mark.parametrize(("train", "dropout"), [
    (1, 0.25), (19_999, 0.25), (20_000, 0.12), (99_999, 0.12), (100_000, 0.05), (999_999, 0.05), (1_000_000, 0.0)])
def test_dropout_by_the_number_of_pictures(train, dropout):
    assert plan_for(train, images=50 * train, batch_size=1)[0].dropout == dropout
    assert plan_for(train, images=50 * train - 1, batch_size=1)[0].dropout == 0      # too few epochs to memorise them


@pytest.mark.parametrize(("train", "device", "preset"), [
    (100, CPU, "nano"), (10**6, CPU, "nano"), (100, CUDA, "small"), (20_000, CUDA, "base")])
def test_the_preset_follows_the_machine(train, device, preset):
    plan, reasons = plan_for(train, device=device, steps=10)
    assert plan.preset == preset
    assert ("CPU" if device is CPU else "GPU") in reasons.preset


def test_captions_decide_flips_and_drops():
    with_captions, _ = plan_for(4999, steps=10)
    assert (with_captions.flip, with_captions.caption_drop, with_captions.word_drop) == (False, 0.1, 0.1)
    assert plan_for(5000, steps=10)[0].word_drop == 0
    without, _ = plan_for(100, steps=10, conditional=False)
    assert (without.flip, without.caption_drop, without.word_drop, without.model.conditional) == (True, 0, 0, False)
    assert plan_for(100, steps=10, conditional=False, flip=False)[0].flip is False


# ── Validation ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_counts_are_those_of_the_split():
    data = tiny.dataset([("x",)] * 30, hashes=["same"] * 30)         # all copies of one picture: none can be held out
    plan, _ = make_plan(Recipe(steps=10), data, split_dataset(data.pixel_hashes), resolution=8, fit="crop",
                        tokenizer=TOKENIZER, init=None, device=CPU)
    assert (plan.train_images, plan.validation_images, plan.validation_probe, plan.keep_best) == (30, 0, 0, False)


def test_the_best_weights_are_kept_on_small_sets_that_are_validated():
    assert plan_for(4999, 500, steps=10)[0].keep_best
    assert not plan_for(5000, 500, steps=10)[0].keep_best
    assert not plan_for(19, 0, steps=10)[0].keep_best


@pytest.mark.parametrize(("steps", "batch_size", "held_out", "probe"), [
    (10, 4, 0, 0), (10, 4, 2, 2), (10, 4, 64, 16), (20_000, 64, 64, 64), (20_000, 64, 2048, 256), (1000, 64, 2048, 72)])
def test_validation_costs_about_three_hundredths(steps, batch_size, held_out, probe):
    plan, _ = plan_for(1000, held_out, steps=steps, batch_size=batch_size)
    assert plan.validation_probe == probe
    if 16 < probe < min(held_out, 256):                    # 10 validations, 8 levels, a forward pass a third of a step
        assert 10 * 8 * probe / 3 == pytest.approx(0.03 * steps * batch_size, rel=0.02)


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (9, 1), (100, 10), (12_345, 1234)])
def test_ten_validations_in_a_run(steps, every):
    assert plan_for(1000, 64, steps=steps)[0].validate_steps == every


@pytest.mark.parametrize(("train", "steps", "passes"), [
    (1000, 1, "0.002"), (1000, 470, "0.9"), (1000, 500, "1.0"), (10, 10_000, "2,000.0")])
def test_a_part_of_one_pass_is_not_told_as_none(train, steps, passes):
    assert plan_for(train, steps=steps, batch_size=2)[1].budget == f"{2 * steps:,} pictures seen, each {passes} times"
