"""Prompts with which a model is shown, when nobody named any: of its previews, of demo scenes, or frequent words."""

from collections.abc import Mapping
from pathlib import Path

from ..data.caption_words import split_words
from ..storage.event_log import read_event_log
from .png_metadata import MAX_PROMPT

DEMO_PROMPTS = ("a red car", "a blue fish in the sea", "a yellow star at night", "a green tree on grass",
                "a tiny pink mushroom", "a black cat indoors")         # for models of demo scenes, as the bundled ones
FUNCTION_WORDS = frozenset((                    # words that no picture can show
    "a", "an", "and", "at", "by", "for", "from", "in", "is", "it", "of", "on", "or", "the", "to", "with"))


def example_prompts(words: Mapping[str, int], run: Path, *, count: int) -> list[str]:
    """At most `count` prompts of the newest preview of a run; without one, those of demo scenes if the model knows all
    of their words, else frequent words; [""] if there are none.

    words: how often each word occurred in the captions; run: the directory of the model, with the log of its training.
    """
    previews = read_event_log(run).previews
    logged = previews[-1].get("prompts") if previews else None
    prompts = [prompt for prompt in logged if isinstance(prompt, str) and prompt] if isinstance(logged, list) else []
    known = DEMO_PROMPTS if all(word in words for prompt in DEMO_PROMPTS for word in split_words(prompt)) else ()
    return [prompt[:MAX_PROMPT] for prompt in dict.fromkeys(prompts or known or frequent_words(words) or [""])][:count]


def frequent_words(words: Mapping[str, int]) -> list[str]:
    """The words of captions without function words, the most frequent first."""
    ordered = sorted(words.items(), key=lambda item: (-item[1], item[0]))
    return [word for word, _ in ordered if word not in FUNCTION_WORDS]
