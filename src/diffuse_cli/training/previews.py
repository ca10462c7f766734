"""Previews: pictures of fixed prompts and seeds, sampled with the averaged weights during training."""

import numpy as np
import torch

from .. import config, events
from ..config import Sampling
from ..data.caption_words import split_words
from ..files import durable
from ..pictures import sheets
from ..pictures.pixels import to_pixels
from ..runtime import randomness
from ..sampling.generate import generate
from ..sampling.request import SampleRequest
from ..sampling.upscale import draw_enlarged
from ..storage import checkpoint
from .batches import shuffled
from .low_res import SmallPictures
from .session import Session


def preview(session: Session) -> events.Previewed:
    """Sample a strip of pictures, and write it into the run's directory. Raises StorageError."""
    trainer, plan = session.trainer, session.plan
    if plan.model.is_upscaler:
        pixels, prompts = _enlarged_crops(session)
        return _write(session, pixels, prompts)
    model = checkpoint.Model(plan.model, trainer.averaged, session.tokenizer)
    prompts, count = preview_prompts(session)
    sampling = Sampling.of(plan.model, batch_size=config.PREVIEW_PICTURES, precision=trainer.precision)
    requests = [SampleRequest(prompt=prompt, count=count, seed=plan.seed, sampling=sampling) for prompt in prompts]
    samples = list(generate(model, requests))
    return _write(session, np.stack([sample.pixels for sample in samples]),
                  tuple(sample.prompt for sample in samples))


def _write(session: Session, pixels: np.ndarray, prompts: tuple[str, ...]) -> events.Previewed:
    """Write a strip of pictures (N, H, W, 3), each with its prompt. Raises StorageError."""
    step = session.trainer.global_step
    path = session.directory / "previews" / f"step-{step:08d}.png"
    durable.write(path, sheets.encode_strip(pixels))
    return events.Previewed(step=step, path=str(path), prompts=prompts)


def _enlarged_crops(session: Session) -> tuple[np.ndarray, tuple[str, ...]]:
    """Crops that an upscaler draws, each right of the small picture that it was given (N, H, 2·W, 3), and captions.

    They are of held-out pictures, or of training pictures if none are held out.
    """
    plan, trainer, dataset, split = session.plan, session.trainer, session.dataset, session.split
    model = checkpoint.Model(plan.model, trainer.averaged, session.tokenizer)
    positions = shuffled(split.held_out if len(split.held_out) else split.train, plan.seed)
    positions = next(filter(len, dataset.by_size(positions)))[:config.PREVIEW_PICTURES]
    keys = randomness.keys(plan.seed, "preview", 0, torch.arange(len(positions)))
    small = SmallPictures.of(
        dataset, positions, randomness.uniform(keys, 3), keys, config=plan.model, schedule=trainer.schedule)
    enlarged = small.without_noise().to(trainer.batches.device)
    prompts = tuple(next(iter(dataset.captions[position]), "") for position in positions.tolist())
    drawn = draw_enlarged(model, enlarged, prompts, seeds=range(len(positions)), precision=trainer.precision)
    return np.concatenate([to_pixels(enlarged), drawn], axis=2), prompts


def preview_prompts(session: Session) -> tuple[tuple[str, ...], int]:
    """→ the prompts of a preview, and the number of pictures of each.

    They are the prompts of --preview-prompt, otherwise captions of held-out pictures drawn at random, or of training
    pictures if none are held out. Captions of words that the model is trained on come first.
    """
    if session.tokenizer is None:
        return ("",), config.PREVIEW_PICTURES
    if prompts := session.run.machine.preview_prompt:
        return prompts, max(1, config.PREVIEW_PICTURES // len(prompts))
    split = session.split
    known: dict[str, None] = {}
    others: dict[str, None] = {}
    for position in shuffled(split.held_out if len(split.held_out) else split.train, session.plan.seed):
        for caption in session.dataset.captions[position][:1]:
            (others if _unknown_words(session, caption) else known)[caption] = None
        if len(known) == config.PREVIEW_PICTURES:
            break
    return (*known, *others)[:config.PREVIEW_PICTURES] or ("",), 1


def prompt_to_try(session: Session) -> str:
    """The prompt of the previews to begin with: the shortest of those with the fewest unknown words."""
    return min(preview_prompts(session)[0], key=lambda prompt: (_unknown_words(session, prompt), len(prompt)))


def _unknown_words(session: Session, prompt: str) -> int:
    """The number of words of a prompt that are in no caption that is trained on."""
    return 0 if session.tokenizer is None else sum(word not in session.words for word in split_words(prompt))
