"""What people should know about a request before its pictures come: prompts, words and settings that a model ignores.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence

from ..config import Sampling
from ..data.caption_words import split_words
from ..network.tokenizer import is_truncated
from ..storage.checkpoint import Model
from .example_prompts import FUNCTION_WORDS
from .request import SampleRequest
from .steps import guided_steps

MAX_WARNINGS = 5                                # words that are warned about one by one
COMPARED = 4_000                                # known words, the most frequent, with which an unknown one is compared
_SHOWN = 60                                     # characters of a prompt that is quoted


def remarks_on(requests: Sequence[SampleRequest], model: Model) -> Iterator[str]:
    """Yield a sentence for each prompt, word and setting that the model ignores. Prompts in it may hold any character.
    """
    texts = list(dict.fromkeys(text for request in requests for text in (request.prompt, request.negative) if text))
    if model.tokenizer is None:
        if texts:
            yield "this model was trained without captions and ignores prompts"
        return
    if any(request.negative for request in requests) and all(request.sampling.guidance == 1 for request in requests):
        yield "--negative does nothing: the guidance of a distilled model is built in" if model.config.student else (
            "--negative does nothing without guidance, and --guidance 1 is no guidance")
    if any(request.sampling.guidance != 1 and (request.negative or request.sampling.guidance != Sampling.guidance)
           and not guided_steps(model.config, request.sampling) for request in requests):
        yield ("guidance does nothing, because no step begins in the --guidance-interval; widen it, or use more "
               "--steps")
    yield from _unknown_words(texts, model)
    for text in texts:
        if is_truncated(model.tokenizer, text):
            end = "..." if len(text) > _SHOWN else ""
            yield f"the prompt is too long for the model, so its end is ignored: {text[:_SHOWN]}{end}"


def _unknown_words(texts: Iterable[str], model: Model) -> Iterator[str]:
    words = dict.fromkeys(word for text in texts for word in split_words(text))
    if not model.words:                         # the file does not say which words the model was trained on
        return
    unknown = [word for word in words if word not in model.words and word not in FUNCTION_WORDS]
    for word in unknown[:MAX_WARNINGS]:
        alike = [known for known in model.words if abs(len(known) - len(word)) < 4][:COMPARED]
        near = difflib.get_close_matches(word, alike, 3)
        suggestion = f"; it knows {', '.join(near)}" if near else ""
        yield f"the model has never seen the word {word!r}{suggestion}"
    if len(unknown) > MAX_WARNINGS:
        yield f"the model has never seen {len(unknown) - MAX_WARNINGS} more of the words"
