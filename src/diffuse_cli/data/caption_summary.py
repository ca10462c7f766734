"""What is said about the captions of a data set: how many there are, examples, and those that no person would write."""

import itertools
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .listing import PictureFiles
from .source_captions import SourceCaptions

# What language models answer instead of a caption.
_REFUSAL = re.compile(r"(?:i['’]m |i am )?(?:very )?sorry,? (?:but )?(?:i |as an )|as an ai\b|i['’]m unable to|"
                      r"i (?:can['’]?t|cannot|am unable to) (?:assist|help|describe|provide|process|view|see)\b",
                      re.IGNORECASE)
# A choice for programs that draw one at random, {red|green} or __colour__; and what they replace by a word or a text.
_WILDCARD = re.compile(r"\{[^{}|]*\|[^{}]*\}|\b__[\w/-]+__\b|\[(?:trigger|name|filewords)\]|"
                       r"\{(?:trigger|caption|prompt)\}")
_WORDS_OF_TAG = 2                               # maximum, on average; sentences have more between their commas


@dataclass(frozen=True)
class Counts:
    """The captions of a data set in numbers."""

    pictures: int
    captioned: int                              # pictures with a caption
    captions: int
    wildcards: int                              # captions with choices that nobody has made
    wildcard: str                               # the first such choice
    refusals: int                               # captions that are none, by what they say
    refusal: str                                # the first of them


def odd_captions(counts: Counts) -> Iterator[str]:
    """Warnings of captions that a person would not have written."""
    if counts.wildcards:
        yield (f"{counts.wildcards:,} of {counts.captions:,} captions leave a word open, such as "
               f"“{counts.wildcard[:40]}”, and are taken as they stand; write the word itself")
    if counts.refusals:
        yield (f"{counts.refusals:,} of {counts.captions:,} captions are refusals of the program that wrote them, for "
               f"example “{counts.refusal[:60]}”; remove or rewrite them")


def no_tags(pictures: PictureFiles, options: str) -> Iterator[str]:
    """A warning if most captions are no tags between commas, which these options change."""
    total, single, sentences, sentence = 0, 0, 0, ""
    for caption in itertools.chain.from_iterable(pictures.captions):
        parts = [part for part in caption.split(",") if part.strip()]
        total += 1
        if len(parts) < 2:
            single += 1
        elif len(caption.split()) > _WORDS_OF_TAG * len(parts) and caption.rstrip().endswith((".", "!", "?")):
            sentences, sentence = sentences + 1, sentence or caption
    if 2 * single > total:
        yield f"{single:,} of {total:,} captions have no tags between commas, so {options} does not change them"
    elif 2 * (single + sentences) > total:
        yield (f"{sentences:,} of {total:,} captions are sentences with commas, for example “{sentence[:60]}”, and "
               f"{options} takes what is between these for tags")


def look_through(pictures: PictureFiles) -> tuple[Counts, tuple[str, ...]]:
    """Count the captions. → the counts; up to three examples: the first, the middle and the last of the distinct ones
    """
    captioned = count = wildcards = refusals = 0
    wildcard = refusal = ""
    hashes, positions = array("q"), array("L")  # of the first caption of each picture
    for position, captions in enumerate(pictures.captions):
        if captions:
            captioned += 1
            count += len(captions)
            hashes.append(hash(captions[0]))
            positions.append(position)
        for match in filter(None, map(_WILDCARD.search, captions)):
            wildcards, wildcard = wildcards + 1, wildcard or match[0]
        for caption in filter(_REFUSAL.match, captions):
            refusals, refusal = refusals + 1, refusal or caption
    _, first = np.unique(np.frombuffer(hashes, np.int64), return_index=True) if hashes else (None, np.empty(0, int))
    distinct = np.sort(first)
    chosen = sorted({0, len(distinct) // 2, len(distinct) - 1}) if len(distinct) else []
    examples = tuple(pictures.captions[positions[distinct[number]]][0] for number in chosen)
    return Counts(len(pictures), captioned, count, wildcards, wildcard, refusals, refusal), examples


def summary(counts: Counts, source: SourceCaptions) -> str:
    """'sidecar .txt (812 of 840 files; 28 have none → empty)'."""
    if not counts.captioned and not source.by_name and source.label.startswith("none"):
        return source.label
    parts = [f"{counts.captioned:,} of {counts.pictures:,} files"]         # some may turn out to be no pictures
    if without := counts.pictures - counts.captioned:
        parts.append(f"{without:,} {'have' if without > 1 else 'has'} none → empty")
    if source.excluded:
        parts.append(f"{len(source.excluded):,} more not listed → left out")
    if counts.captions - counts.captioned > counts.captioned / 20:
        lines = ", one a line" if source.label.startswith("sidecar") else ""
        parts.append(f"{counts.captions / counts.captioned:.1f} captions a picture{lines}")
    return f"{source.label} ({'; '.join(parts)})"
