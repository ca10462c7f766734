"""Previews: pictures of fixed prompts and seeds, sampled with the averaged weights during training."""

import numpy as np

from .. import config, events
from ..config import Sampling
from ..data.caption_words import split_words
from ..files import durable
from ..pictures import sheets
from ..sampling.generate import generate
from ..sampling.request import SampleRequest
from ..storage import checkpoint
from .batches import shuffled
from .session import Session


def preview(session: Session) -> events.Previewed:
    """Sample a strip of pictures, and write it into the run's directory. Raises StorageError."""
    trainer, plan = session.trainer, session.plan
    model = checkpoint.Model(plan.model, trainer.averaged, session.tokenizer)
    prompts, count = preview_prompts(session)
    sampling = Sampling.of(plan.model, batch_size=config.PREVIEW_PICTURES, precision=trainer.precision)
    requests = [SampleRequest(prompt=prompt, count=count, seed=plan.seed, sampling=sampling) for prompt in prompts]
    samples = list(generate(model, requests))
    strip = sheets.encode_strip(np.stack([sample.pixels for sample in samples]))
    path = session.directory / "previews" / f"step-{trainer.global_step:08d}.png"
    durable.write(path, strip)
    return events.Previewed(
        step=trainer.global_step, path=str(path), prompts=tuple(sample.prompt for sample in samples))


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
