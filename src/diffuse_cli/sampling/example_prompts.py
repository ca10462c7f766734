"""Prompts with which a model is shown, when nobody named any: those of its previews, or words of its captions."""

from collections.abc import Mapping
from pathlib import Path

from ..storage.event_log import read_event_log
from .png_metadata import MAX_PROMPT

_FUNCTION_WORDS = frozenset((                   # words that no picture can show
    "a", "an", "and", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "the", "to", "with"))


def example_prompts(words: Mapping[str, int], run: Path, *, count: int) -> list[str]:
    """At most `count` prompts of the newest preview of a run, else frequent words; [""] if there are neither.

    words: how often each word occurred in the captions; run: the directory of the model, with the log of its training.
    """
    previews = read_event_log(run).previews
    logged = previews[-1].get("prompts") if previews else None
    prompts = [prompt for prompt in logged if isinstance(prompt, str) and prompt] if isinstance(logged, list) else []
    return [prompt[:MAX_PROMPT] for prompt in dict.fromkeys(prompts or frequent_words(words) or [""])][:count]


def frequent_words(words: Mapping[str, int]) -> list[str]:
    """The words of captions without function words, the most frequent first."""
    ordered = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in ordered if word not in _FUNCTION_WORDS]
