"""From a request to a plan: every choice that was left open is made from the data and the machine, with its reason.

Never from a timing, but for `--time`, whose measured number of steps becomes part of the plan. Trains nothing.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from .. import config
from ..config import ModelConfig, Plan, Recipe
from ..data.dataset import Dataset
from ..data.split import Split
from ..errors import UsageError
from ..network.network import parameter_count
from ..network.presets import network_config
from ..storage.checkpoint import Model

COOLDOWN = 0.25                                 # share of the run in which the learning rate falls to 0
FEW_EPOCHS = 50                                 # no dropout below
DROPOUTS = ((20_000, 0.25), (100_000, 0.12), (1_000_000, 0.05))        # (below so many pictures, rate); else 0
LEARNING_RATES = ((2e6, 4e-3), (5e6, 2e-3), (20e6, 1e-3), (60e6, 6e-4), (250e6, 4e-4))       # (parameters, Muon's)
ADAMS_SHARE = 0.5                               # of these, for the other optimisers


@dataclass(frozen=True)
class Reasons:
    """Why the open choices were made as they were; shown, never saved."""

    preset: str
    batch: str
    budget: str


def make_plan(
    recipe: Recipe, dataset: Dataset, split: Split, *, resolution: int, tokenizer: Tokenizer | None,
    init: Model | None, device: torch.device,
) -> tuple[Plan, Reasons]:
    """Resolve a recipe. `--time` must have been turned into `images` by a measurement before."""
    train_images, held_out = len(split.train), len(split.held_out)
    model, preset, why_preset = _choose_model(recipe, resolution, tokenizer, init, device, train_images)
    batch_size, why_batch = _choose_batch(recipe, train_images, device)
    steps = recipe.steps or math.ceil(_images_seen(recipe, train_images) / batch_size)
    seen = steps * batch_size
    why_budget = f"{seen:,} pictures seen, each {seen / train_images:,.1f} times"
    conditional = model.conditional
    plan = Plan(
        model=model, preset=preset, loss_weighting=recipe.loss_weighting, variance_grad=recipe.variance_grad,
        times=recipe.times,
        optimizer=recipe.optimizer, seed=recipe.seed, batch_size=batch_size, steps=steps,
        lr=recipe.lr or learning_rate(parameter_count(model.network), recipe.optimizer),
        warmup_steps=max(1, min(max(200, steps // 100), steps // 20)), cooldown_steps=max(1, round(COOLDOWN * steps)),
        dropout=_dropout(train_images, epochs=seen / train_images),
        caption_drop=0.1 if conditional else 0.0,
        word_drop=0.1 if conditional and train_images < 5_000 else 0.0,
        flip=recipe.flip if recipe.flip is not None else not conditional,
        train_images=train_images, validation_images=held_out,
        validation_probe=_probe(steps, batch_size, held_out), validate_steps=max(1, steps // config.VALIDATIONS),
        keep_best=held_out > 0 and train_images < 5_000,
        data_id=dataset.id, init_id=None if init is None else init.sha256)
    return plan, Reasons(why_preset, why_batch, why_budget)


def extend(plan: Plan, recipe: Recipe, name: str) -> Plan:
    """The plan of a run whose budget grew: all is as it was, but where it ends, and so where the cool-down begins.

    `--time` must have been turned into `images` before. Raises UsageError when the budget is shorter.
    """
    steps = recipe.steps or math.ceil(_images_seen(recipe, plan.train_images) / plan.batch_size)
    if steps == plan.steps:                                            # the same, in other words
        return plan
    if steps < plan.steps:
        raise UsageError(f"the run {name!r} was begun for {plan.steps:,} steps, and this is {steps:,}",
                         hint="A budget can only grow; --fresh starts anew")
    return dataclasses.replace(plan, steps=steps, cooldown_steps=max(1, round(COOLDOWN * steps)),
                               validate_steps=max(1, steps // config.VALIDATIONS))


def _images_seen(recipe: Recipe, train_images: int) -> int:
    """The budget in pictures, when it is not given in steps: 100 epochs, but at least 100,000 pictures."""
    return recipe.images or min(max(100 * train_images, 100_000), 100_000_000)


def _probe(steps: int, batch_size: int, held_out: int) -> int:
    """How many held-out pictures a validation looks at: so many that all validations cost about 3 % of the run.

    At least 16, at most 256; a forward pass costs a third of a training step.
    """
    affordable = int(0.03 * 3 * steps * batch_size / (config.VALIDATION_LEVELS * config.VALIDATIONS))
    return min(held_out, 256, max(config.MIN_VALIDATION_PICTURES, affordable))


def _choose_model(
    recipe: Recipe, resolution: int, tokenizer: Tokenizer | None, init: Model | None, device: torch.device,
    train_images: int,
) -> tuple[ModelConfig, str, str]:
    if init is not None:
        network = init.config.network
        if recipe.preset is not None or resolution != network.resolution:
            raise UsageError(f"--init starts from a network of {network.resolution} px with its own shape",
                             hint="Leave --preset and --resolution out")
        same = (recipe.prediction, recipe.variance == "learned", recipe.schedule)
        if same != (init.config.prediction, init.config.learned_variance, init.config.schedule):
            variance = "a learned" if init.config.learned_variance else "no learned"
            raise UsageError(f"--init starts from a model that predicts {init.config.prediction}, with the schedule "
                             f"{init.config.schedule} and {variance} variance",
                             hint="Use its --prediction, --schedule and --variance")
        return init.config, init.training.preset or "?", "that of --init"
    if recipe.preset is not None:
        preset, why = recipe.preset, "as asked"
    elif device.type != "cuda":
        preset, why = "nano", f"the one that a {device.type.upper()} trains in reasonable time"
    else:
        preset = "small" if train_images < 20_000 else "base"
        why = f"for {train_images:,} pictures on a GPU"
    vocabulary = None if tokenizer is None else tokenizer.get_vocab_size()
    network = network_config(preset, resolution, vocabulary=vocabulary, learned_variance=recipe.variance == "learned")
    return ModelConfig(network=network, schedule=recipe.schedule, prediction=recipe.prediction), preset, why


def _choose_batch(recipe: Recipe, train_images: int, device: torch.device) -> tuple[int, str]:
    """The power of two near 512·(pictures seen / 200M)^0.45, at most 2048, at least 16, and 32 on a GPU.

    Few pictures are best learnt from in many small steps; but a GPU takes as long for 8 pictures as for 32.
    """
    if recipe.batch_size is not None:
        return recipe.batch_size, "as asked"
    smallest = 5 if device.type == "cuda" else 4

    def ideal(seen: int) -> int:
        exponent = round(math.log2(512 * (seen / 200e6) ** 0.45))
        return 1 << min(max(exponent, smallest), 11)

    if recipe.steps is None:
        seen = _images_seen(recipe, train_images)
    else:                                                              # the largest batch that its own budget wants
        sizes = [2**k for k in range(smallest, 12)]
        seen = recipe.steps * max(size for size in sizes if size <= ideal(recipe.steps * size))
    return ideal(seen), "for the number of pictures seen"


def learning_rate(parameters: int, optimizer: str) -> float:
    """Interpolated between LEARNING_RATES (both axes logarithmic), constant outside, to two digits."""
    sizes, rates = zip(*LEARNING_RATES, strict=True)
    found = np.exp(np.interp(math.log(parameters), np.log(sizes), np.log(rates)))
    return float(f"{found * (1 if optimizer == 'muon' else ADAMS_SHARE):.1e}")


def _dropout(train_images: int, *, epochs: float) -> float:
    """Less with more pictures; none in a budget too short to learn them by heart."""
    if epochs < FEW_EPOCHS:
        return 0.0
    return next((rate for limit, rate in DROPOUTS if train_images < limit), 0.0)
