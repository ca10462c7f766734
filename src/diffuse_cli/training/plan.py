"""From a recipe to a plan: every choice that the user left open is made from the data and the machine, with its reason.

No choice depends on a timing, except for `--time`, whose measured number of pictures must be known before.
"""

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer

from .. import config
from ..config import Plan, Recipe, teacher_guidance
from ..data.channel_choice import choose_channels
from ..data.listing import Dataset
from ..data.split import Split, held_out_limit
from ..diffusion.upscaling import START_TIME
from ..errors import UsageError
from ..model_config import UPSCALER_SIDE, ModelConfig, Student, Upscaling
from ..network.network import parameter_count
from ..network.presets import network_config, upscaler_config
from ..picture_size import Size
from ..storage import registry
from ..storage.checkpoint import Model
from . import half_side

COOLDOWN_SHARE = 0.25                           # share of the run in which the learning rate falls to 0
STUDENT_COOLDOWN_SHARE = 0.75                   # the same of a student, which starts as its teacher and learns at
STUDENT_LR_FACTOR = 0.25                        # this share of the learning rate
ADVERSARIAL = 0.1                               # weight of what the discriminator says of a student's estimates,
ADVERSARIAL_STEPS = 250                         # from so many steps on: before, it knows too little, and tints pictures
SMALL_DATASET = 5_000                           # number of pictures below which words are dropped from captions, and
#                                                 the best weights of the run are kept
MIN_DROPOUT_EPOCHS = 50                         # number of epochs from which dropout is used
DROPOUT_RATES = ((20_000, 0.25), (100_000, 0.12), (1_000_000, 0.05))   # (fewer pictures than this, rate), otherwise 0
MUON_LEARNING_RATES = ((2e6, 4e-3), (5e6, 2e-3), (20e6, 1e-3), (60e6, 6e-4), (250e6, 4e-4))  # (parameters, rate)
ADAM_LR_FACTOR = 0.5                            # learning rate of AdamW and Adam, as a factor of Muon's


@dataclass(frozen=True)
class Reasons:
    """The reasons of choices that were left open. They are shown, never saved."""

    channels: str
    preset: str
    batch: str
    budget: str


def make_plan(
    recipe: Recipe, dataset: Dataset, split: Split, *, resolution: Size | int, sizes: tuple[Size, ...] = (), fit: str,
    tokenizer: Tokenizer | None, init: Model | None, device: torch.device, upscaling: Upscaling | None = None,
) -> tuple[Plan, Reasons]:
    """Resolve a recipe. `--time` must have been turned into `images` by a measurement before.

    resolution: an int is the side of squares; it decides on the shape of a new network. sizes: of the pictures, if they
    have others, of about as many pixels. upscaling: of an upscaler, which learns from crops of that resolution, of
    pictures of these sizes. tokenizer: None for an unconditional model; init: the model of --init, or
    None. Raises UsageError if the recipe contradicts `init`.
    """
    train_images, held_out = len(split.train), len(split.held_out)
    resolution = Size.of(resolution)
    if upscaling is None:
        model, preset, why_preset = _choose_model(recipe, resolution, tokenizer, init, device, train_images)
        channels, why_channels = _choose_channels(recipe, dataset, init)
        model = dataclasses.replace(model, network=model.network.with_channels(channels).with_sizes(
            sizes or (resolution,)))
    else:
        model, preset, why_preset = _choose_upscaler(
            recipe, resolution, upscaling, tokenizer, init, device, train_images)
        why_channels = "upscalers enlarge pictures in red, green and blue"
    batch_size, why_batch = _choose_batch(recipe, train_images, device, pieces=_pieces(model))
    if model.student is not None and (recipe.steps, recipe.images) == (None, None):
        recipe = dataclasses.replace(recipe, images=_student_images(init))
    steps = recipe.steps or math.ceil(_images_seen(recipe, train_images, pieces=_pieces(model)) / batch_size)
    seen = steps * batch_size
    passes = seen / train_images
    why_budget = f"{seen:,} pictures seen, each {passes:{',.1f' if passes >= 1 else '.1g'}} times"
    conditional = model.conditional
    drops = 0.1 if conditional and model.student is None else 0.0      # guidance is in what a student learns already
    adversarial = ADVERSARIAL if (
        model.student is not None and not model.is_upscaler and steps >= ADVERSARIAL_STEPS) else 0.0
    plan = Plan(
        model=model, preset=preset, loss_weighting=recipe.loss_weighting, variance_grad=recipe.variance_grad,
        times=recipe.times, optimizer=recipe.optimizer, seed=recipe.seed, batch_size=batch_size, steps=steps,
        lr=recipe.lr or peak_learning_rate(parameter_count(model.network), recipe.optimizer) * (
            1 if model.student is None else STUDENT_LR_FACTOR),
        warmup_steps=max(1, min(max(200, steps // 100), steps // 20)),
        cooldown_steps=cooldown_steps(model, steps),
        dropout=_dropout(train_images, epochs=seen / train_images) if model.student is None else 0.0,
        caption_drop=drops, word_drop=drops if train_images < SMALL_DATASET else 0.0,
        flip=recipe.flip if recipe.flip is not None else not conditional,
        train_images=train_images, validation_images=held_out,
        validation_probe=_probe(steps, batch_size, held_out), validate_steps=max(1, steps // config.VALIDATIONS),
        keep_best=held_out > 0 and train_images < SMALL_DATASET and not adversarial,
        data_id=dataset.content_id, init_id=None if init is None else init.sha256,
        shuffle_tags=recipe.shuffle_tags and conditional, tag_drop=recipe.tag_dropout if conditional else 0.0,
        held_out_limit=held_out_limit(split, dataset.pixel_hashes) if recipe.held_out is None else None,
        fit=fit, crop_of=() if upscaling is None else sizes,
        half_side_steps=half_side.first_steps(model.network, steps) if init is None else 0,
        adversarial=adversarial)
    return plan, Reasons(why_channels, why_preset, why_batch, why_budget)


def extend(plan: Plan, recipe: Recipe, name: str) -> Plan:
    """The plan of the run `name` with the longer budget of `recipe`.

    Only the end changes, and so the beginning of the cool-down and the interval of validations. `--time` must have been
    turned into `images` before. Raises UsageError if the budget is shorter than the plan's.
    """
    seen = _images_seen(recipe, plan.train_images, pieces=_pieces(plan.model))
    steps = recipe.steps or math.ceil(seen / plan.batch_size)
    if steps == plan.steps:                                            # the same budget, given by another option
        return plan
    if steps < plan.steps:
        raise UsageError(f"the run {name!r} was begun for {plan.steps:,} steps, and this is {steps:,}",
                         hint="A budget can only grow; --fresh starts anew")
    return dataclasses.replace(plan, steps=steps, cooldown_steps=cooldown_steps(plan.model, steps),
                               validate_steps=max(1, steps // config.VALIDATIONS))


def cooldown_steps(model: ModelConfig, steps: int) -> int:
    """The number of steps at the end of a run in which the learning rate falls to 0."""
    return max(1, round((COOLDOWN_SHARE if model.student is None else STUDENT_COOLDOWN_SHARE) * steps))


def _student_images(teacher: Model | None) -> int:
    """The budget of a student in pictures: a twelfth of what its teacher saw, which takes a quarter of the time."""
    seen = 0 if teacher is None else teacher.training.images_seen or 0
    return min(max(seen // 12, 16_000), 10_000_000)


def _images_seen(recipe: Recipe, train_images: int, *, pieces: int) -> int:
    """The budget in pictures: --images, otherwise 100 epochs, but from 100,000 to 100,000,000 pictures.

    Of crops of an upscaler, the default is as many pixels: see `_pieces`.
    """
    return recipe.images or min(max(100 * train_images, 100_000), 100_000_000) // pieces


def _pieces(model: ModelConfig) -> int:
    """As how many pictures a crop of an upscaler counts in choosing batch and budget: squares of `UPSCALER_SIDE`."""
    if not model.is_upscaler:
        return 1
    return max(1, round(model.network.resolution.pixels / UPSCALER_SIDE**2))


def _probe(steps: int, batch_size: int, held_out: int) -> int:
    """The number of held-out pictures in each validation, for which all validations cost about 3 % of the run.

    It is from 16 to 256, if there are so many. A forward pass costs a third of a training step.
    """
    affordable = int(0.03 * 3 * steps * batch_size / (config.VALIDATION_LEVELS * config.VALIDATIONS))
    return min(held_out, 256, max(config.MIN_VALIDATION_PICTURES, affordable))


def choose_preset(recipe: Recipe, device: torch.device, train_images: int) -> tuple[str, str]:
    """The preset of a network that starts from nothing or from a foundation, and the reason."""
    if recipe.preset is not None:
        return recipe.preset, "as asked"
    if device.type != "cuda":
        return "nano", f"the one that a {device.type.upper()} trains in reasonable time"
    return "small" if train_images < 20_000 else "base", f"for {train_images:,} pictures on a GPU"


def _choose_model(
    recipe: Recipe, resolution: Size, tokenizer: Tokenizer | None, init: Model | None, device: torch.device,
    train_images: int,
) -> tuple[ModelConfig, str, str]:
    """→ the model's config, its preset, and the reason for the preset. Raises UsageError if they contradict `init`."""
    # A foundation, whose form was already compared
    preset, why = choose_preset(recipe, device, train_images)
    if init is not None and recipe.init == "auto":
        return init.config, preset, why

    # The teacher of a student
    if init is not None and recipe.evaluations is not None:
        return student_config(init, recipe), init.training.preset or "?", "that of its teacher"

    # The model of --init
    if init is not None:
        init.config.check_draws_alone()
        _check_init(recipe, resolution, init.config)
        config = dataclasses.replace(init.config, student=None)
        return config, init.training.preset or "?", "that of --init"

    vocabulary = None if tokenizer is None else tokenizer.get_vocab_size()
    network = network_config(preset, resolution, vocabulary=vocabulary, learned_variance=recipe.variance == "learned")
    return ModelConfig(network=network, schedule=recipe.schedule, prediction=recipe.prediction), preset, why


def _choose_upscaler(
    recipe: Recipe, crop: Size, upscaling: Upscaling, tokenizer: Tokenizer | None, init: Model | None,
    device: torch.device, train_images: int,
) -> tuple[ModelConfig, str, str]:
    """`_choose_model` for an upscaler. init: the model of --init, or the one whose pictures are to be enlarged."""
    if init is not None and recipe.evaluations is not None:
        return student_config(init, recipe), init.training.preset or "?", "that of its teacher"
    preset, why = choose_preset(recipe, device, train_images)
    if init is not None and recipe.init != "auto":
        of_init = init.config.network.upscaling
        if of_init is None or of_init.factor != upscaling.factor:
            raise UsageError(f"--init {recipe.init} is no upscaler by {upscaling.factor}", hint="Leave --init out")
        _check_init(recipe, crop, init.config)
        preset, why = init.training.preset or "?", "that of --init"
    if init is not None and init.config.is_upscaler:
        config = dataclasses.replace(
            init.config, network=dataclasses.replace(init.config.network, resolution=crop, upscaling=upscaling))
        return config, preset, why
    learned = recipe.variance == "learned"
    text = None if init is None else init.config.network.text
    if init is None and tokenizer is not None:
        text = network_config(preset, crop, vocabulary=tokenizer.get_vocab_size(), learned_variance=learned).text
    network = upscaler_config(preset, crop, upscaling, text=text, learned_variance=learned)
    return ModelConfig(network=network, schedule=recipe.schedule, prediction=recipe.prediction), preset, why


def _check_init(recipe: Recipe, resolution: Size, init: ModelConfig) -> None:
    """Raise UsageError if a recipe contradicts the model of --init."""
    if recipe.preset is not None or (resolution != init.network.resolution and not init.is_upscaler):
        raise UsageError(f"--init starts from a network of {init.network.resolution} px with its own shape",
                         hint="Leave --preset and --resolution out")
    wanted = (recipe.prediction, recipe.variance == "learned", recipe.schedule)
    if wanted != (init.prediction, init.learned_variance, init.schedule):
        variance = "a learned" if init.learned_variance else "no learned"
        raise UsageError(f"--init starts from a model that predicts {init.prediction}, with the schedule "
                         f"{init.schedule} and {variance} variance",
                         hint="Use its --prediction, --schedule and --variance")


def _choose_channels(recipe: Recipe, dataset: Dataset, init: Model | None) -> tuple[int, str]:
    """The number of channels of a picture, and the reason: what the pictures have, or the model of --init, to which
    alpha may be added.

    Raises UsageError if they do not fit together.
    """
    channels, why = choose_channels(dataset)
    if init is None or recipe.init == "auto":
        return channels, why
    network, alpha = init.config.network, channels % 2 == 0
    if network.has_alpha and not alpha:
        raise UsageError(f"{recipe.init} draws transparent pictures",
                         hint="Add --background none, which keeps transparency")
    if recipe.evaluations is not None and alpha and not network.has_alpha:
        raise UsageError(f"{recipe.init} draws no transparent pictures, so its student draws none",
                         hint="Leave --background none out")
    if network.channels < channels - 1:
        raise UsageError(f"{recipe.init} draws grey pictures, and these have colours",
                         hint="Choose another --init, or none")
    return network.channels + (alpha and not network.has_alpha), recipe.why_as_init


def student_config(teacher: Model, recipe: Recipe) -> ModelConfig:
    """The config of a student. Raises UsageError if the teacher is a student itself."""
    assert recipe.evaluations is not None
    if teacher.config.student is not None:
        raise UsageError(f"{recipe.init} is distilled already: its teacher was {teacher.config.student.teacher}",
                         hint="Distil that one")
    guidance = teacher_guidance(teacher.config) if recipe.guidance is None else recipe.guidance
    name = teacher.training.name if registry.is_path(recipe.init) else ""
    student = Student(evaluations=recipe.evaluations, guidance=guidance if teacher.config.conditional else 1.0,
                      teacher=name or recipe.init,
                      start=START_TIME if teacher.config.is_upscaler else 1.0)
    return dataclasses.replace(teacher.config, student=student)


def _choose_batch(recipe: Recipe, train_images: int, device: torch.device, *, pieces: int) -> tuple[int, str]:
    """The batch size, and the reason: the power of two near 512·(pictures seen / 200M)^0.45.

    It is at most 2048, and at least 16, or 32 on a GPU. A small budget is best spent on many small steps;
    but a GPU takes as long for 8 pictures as for 32. Crops of an upscaler are fewer, of as many pixels: see `_pieces`.
    """
    if recipe.batch_size is not None:
        return recipe.batch_size, "as asked"
    min_exponent, max_exponent = 5 if device.type == "cuda" else 4, 11

    def ideal(seen: int) -> int:
        exponent = round(math.log2(512 * (seen / 200e6) ** 0.45))
        return 1 << min(max(exponent, min_exponent), max_exponent)

    if recipe.steps is None:
        seen = pieces * _images_seen(recipe, train_images, pieces=pieces)
    else:               # the number of pictures seen depends on the batch: take the largest that is not above its ideal
        sizes = [2**exponent for exponent in range(min_exponent, max_exponent + 1)]
        seen = recipe.steps * max(size for size in sizes if size <= ideal(recipe.steps * size))
    return max(1, ideal(seen) // pieces), "for the number of pictures seen"


def peak_learning_rate(parameters: int, optimizer: str) -> float:
    """The learning rate for a number of parameters, rounded to two digits.

    It is interpolated in `MUON_LEARNING_RATES`, both axes logarithmic, and constant outside of the table.
    """
    sizes, rates = zip(*MUON_LEARNING_RATES, strict=True)
    rate = np.exp(np.interp(math.log(parameters), np.log(sizes), np.log(rates)))
    return float(f"{rate * (1 if optimizer == 'muon' else ADAM_LR_FACTOR):.1e}")


def _dropout(train_images: int, *, epochs: float) -> float:
    """The dropout rate: less with more pictures, and 0 in a budget too short to memorise them."""
    if epochs < MIN_DROPOUT_EPOCHS:
        return 0.0
    return next((rate for limit, rate in DROPOUT_RATES if train_images < limit), 0.0)
