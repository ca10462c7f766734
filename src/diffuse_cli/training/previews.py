"""Pictures drawn with a model in training."""

import numpy as np

from .. import events
from ..config import Sampling
from ..files import durable
from ..pictures import image_files, sheets
from ..sampling.generate import draw
from ..sampling.request import Wanted
from ..storage import checkpoint
from . import plan as planning
from .prepare import Session


def preview(session: Session) -> events.Previewed:
    """One strip of pictures of fixed prompts and seeds, drawn with the averaged weights."""
    learner, plan = session.learner, session.plan
    model = checkpoint.Model(plan.model, learner.averaged, session.tokenizer, {}, {}, "")
    prompts, count = preview_prompts(session)
    sampling = Sampling(batch_size=planning.PREVIEWED, precision=learner.precision)
    wanted = [Wanted(prompt=prompt, count=count, seed=plan.seed, sampling=sampling) for prompt in prompts]
    drawn = list(draw(model, wanted))
    strip = sheets.sheet(np.stack([picture.pixels for picture in drawn]), columns=len(drawn))
    path = session.directory / "previews" / f"step-{learner.step:08d}.png"
    durable.write(path, image_files.encode(strip))
    return events.Previewed(step=learner.step, path=str(path), prompts=tuple(picture.prompt for picture in drawn))


def preview_prompts(session: Session) -> tuple[tuple[str, ...], int]:
    """Prompts and the number of pictures of each: those asked for, else captions of held-out pictures."""
    if session.tokenizer is None:
        return ("",), planning.PREVIEWED
    asked = session.run.machine.preview_prompt
    if asked:
        return asked, max(1, planning.PREVIEWED // len(asked))
    positions = (session.split.held_out if len(session.split.held_out) else session.split.train).tolist()
    captions = dict.fromkeys(caption for position in positions for caption in session.dataset.captions[position][:1])
    return tuple(captions)[:planning.PREVIEWED] or ("",), 1
