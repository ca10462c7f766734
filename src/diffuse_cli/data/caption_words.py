"""The words of captions: which words a model has seen, and how often."""

from collections import Counter
from collections.abc import Iterable

MAX_WORDS = 20_000                              # kept of the captions' vocabulary, the most frequent first


def count_words(captions: Iterable[str]) -> dict[str, int]:
    """The most frequent words of the captions, for warnings about prompts and never more."""
    counts = Counter(word for caption in captions for word in split_words(caption))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_WORDS])


def split_words(caption: str) -> list[str]:
    """The words of a caption or prompt: lower case, without punctuation around them."""
    return [word for raw in caption.lower().split() if (word := raw.strip(".,;:!?\"'()[]{}")) and len(word) <= 40]
