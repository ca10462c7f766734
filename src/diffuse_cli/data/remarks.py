"""What a person may want to look into before training on pictures, in words; and the facts from which this is seen.

Knows no pixels: only names, and what the decoder noted about each picture.
"""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from .colours import BRIGHT, DARK, NEARLY_TRANSPARENT, PLAIN, STRETCHED, Rendering
from .litter import is_conflict_copy

FEW = 8                                         # minimum pictures of a data set; a model memorises fewer
_LISTED = 6                                     # kinds of skipped files that are named
_LEVELS = (255, 1023, 4095, 16383)              # highest values of 8, 10, 12 and 14 bits


@dataclass(frozen=True)
class Entry:
    """A file in the index: the hash of its contents, and the hash of its pixels or the reason why there are none."""

    file_hash: str
    pixels_hash: str
    reason: str
    width: int = 0                              # of the picture in the file, as the next
    height: int = 0
    mode: str = ""                              # Pillow's, in the file
    peak: int = 0                               # highest value of a picture of 16 bits, otherwise 0
    notes: list[str] = field(default_factory=list)      # those of `colours`


def warnings_about(used: Sequence[tuple[str, Entry]], resolution: int, rendering: Rendering) -> Iterator[str]:
    """Facts about the pictures, (name, entry), that can be used; each with a count and one example."""
    if 0 < len(used) < FEW:
        yield f"{pictures_in_words(len(used))}: the model will memorise {'it' if len(used) == 1 else 'them'}"
    first: dict[str, str] = {}
    copies = [(name, original) for name, entry in used
              if (original := first.setdefault(entry.pixels_hash, name)) != name]
    if copies:
        name, original = copies[0]
        yield f"{pictures_in_words(len(copies))} with the same pixels as another, for example {name} (as {original})"
    yield from _range_warnings(used, rendering)
    remarks: tuple[tuple[str, Callable[[Entry], bool]], ...] = (
        ("longer than 3:1, of which only the centre square is kept",
         lambda entry: max(entry.width, entry.height) > 3 * min(entry.width, entry.height)),
        (f"enlarged more than twice to {resolution} pixels",
         lambda entry: 2 * min(entry.width, entry.height) < resolution),
        ("of real, negative or large numbers, stretched from lowest to highest (--white-level N takes 0 to N for all)",
         lambda entry: STRETCHED in entry.notes),
        ("nearly transparent, although colours are hidden there (to train on these, save the pictures without alpha)",
         lambda entry: NEARLY_TRANSPARENT in entry.notes),
        ("of high dynamic range (PQ or HLG), which become pale: export them for sRGB",
         lambda entry: BRIGHT in entry.notes),
        (f"empty on the background {rendering.background} (choose another --background)",
         lambda entry: PLAIN in entry.notes),
    )
    for remark, applies in remarks:
        if names := [name for name, entry in used if applies(entry)]:
            yield f"{pictures_in_words(len(names))} {remark}, for example {names[0]}"
    if names := [name for name, _ in used if is_conflict_copy(posixpath.basename(name))]:
        yield (f"{pictures_in_words(len(names))} named as a sync tool names two versions that contradict each other, "
               f"for example {names[0]}")


def _range_warnings(used: Sequence[tuple[str, Entry]], rendering: Rendering) -> Iterator[str]:
    """Whether values of 16-bit pictures fill only the darkest part of their range, or are above the white level."""
    deep = [(name, entry.peak) for name, entry in used if entry.peak]
    level = rendering.white_level
    if level is not None:
        if above := [name for name, peak in deep if peak > level]:
            yield (f"{pictures_in_words(len(above))} with values above --white-level {level:g}, which become white, "
                   f"for example {above[0]}")
        return
    if dark := [(name, peak) for name, peak in deep if peak <= DARK]:
        highest, name = max(peak for _, peak in dark), dark[0][0]
        fitting = next(level for level in _LEVELS if level >= highest)
        remedy = f"with --white-level {fitting}, that value is white in all pictures" if len(dark) == len(deep) \
            else f"{len(deep) - len(dark):,} others use the whole range: train on them separately"
        yield (f"{pictures_in_words(len(dark))} of 16 bits with no value above {highest:,} of 65,535, which become "
               f"dark ({remedy}), for example {name}")


def describe_litter(litter: Sequence[tuple[str, int]]) -> str:
    """'skipped 14 files of other programs: @eaDir 12, ._* 2'."""
    total = sum(count for _, count in litter)
    more = sum(count for _, count in litter[_LISTED:])
    listed = [*litter[:_LISTED], *([("others", more)] if more else [])]
    counted = ", ".join(f"{name} {count:,}" for name, count in listed)
    return f"skipped {total:,} {'file' if total == 1 else 'files'} of other programs: {counted}"


def pictures_in_words(number: int) -> str:
    """A number of pictures in words: '1 picture', '2,048 pictures'."""
    return "1 picture" if number == 1 else f"{number:,} pictures"
