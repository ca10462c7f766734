"""The words of captions: which words a model was trained on, and how often."""

from collections import Counter
from collections.abc import Iterable

from ..config import MAX_WORDS

_DIFFERENT = 500_000                            # maximum different words in memory


def count_words(captions: Iterable[str]) -> dict[str, int]:
    """The MAX_WORDS most frequent words of the captions → how often each occurs; for warnings about prompts only."""
    counts: Counter[str] = Counter()
    for caption in captions:
        counts.update(split_words(caption))
        if len(counts) > _DIFFERENT:            # of so many words, those that occur least are hardly among the frequent
            counts = Counter(dict(counts.most_common(_DIFFERENT // 2)))
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:MAX_WORDS])


def split_words(caption: str) -> list[str]:
    """The words of a caption or prompt: lower case, without punctuation around them, up to 40 letters each."""
    return [word for raw in caption.lower().split() if (word := raw.strip(".,;:!?\"'()[]{}")) and len(word) <= 40]
