"""What a person may want to look into before training on pictures, in words; and the facts from which this is seen.

Knows no pixels: only names, and what the decoder noted about each picture.
"""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ..picture_size import Size, nearest
from .colours import BRIGHT, DARK, NEARLY_TRANSPARENT, PLAIN, STRETCHED, Rendering
from .litter import is_conflict_copy

FEW = 8                                         # minimum pictures of a data set; a model memorises fewer
_LISTED = 6                                     # kinds of skipped files that are named
_LEVELS = (255, 1023, 4095, 16383)              # highest values of 8, 10, 12 and 14 bits
_LONG = {"crop": "of which only the centre {} is kept", "pad": "narrow between bars", "stretch": "squeezed",
         "buckets": "cropped, or narrow between bars"}      # fit → what happens to long pictures
_DARK = "of 16 bits with no value above"


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


class Remarks:
    """Facts about the pictures that can be used, collected one by one. Each has the nearest of `sizes`."""

    def __init__(self, sizes: tuple[Size, ...], rendering: Rendering) -> None:
        level = rendering.white_level
        decisive = min if rendering.fit == "pad" else max               # of the factors of both sides
        shape = f"the shape {sizes[0]}" if len(sizes) == 1 else "the nearest shape"
        long, part = ("longer than 3:1", "square") if len(sizes) == 1 and sizes[0].is_square else (
            f"over three times as wide or as high as {shape}", "part")
        self._sizes = sizes
        self._total = self._deep = self._highest = 0        # pictures; those of 16 bits; the highest value in dark ones
        self._found: dict[str, tuple[int, str]] = {}        # remark → the number of pictures, the first of them
        self._kinds: tuple[tuple[str, Callable[[str, Entry], bool]], ...] = (
            (f"with values above --white-level {level or 0:g}, which become white",
             lambda _, entry: level is not None and entry.peak > level),
            (_DARK, lambda _, entry: level is None and 0 < entry.peak <= DARK),
            (f"{long}, {_LONG[rendering.fit].format(part)}",
             lambda _, entry: self._is_long(entry)),
            (f"enlarged more than twice to {sizes[0]} pixels" if len(sizes) == 1 else "enlarged more than twice",
             lambda _, entry: decisive(self._size(entry).width / entry.width,
                                       self._size(entry).height / entry.height) > 2),
            ("of real, negative or large numbers, stretched from lowest to highest (--white-level N takes 0 to N for "
             "all)", lambda _, entry: STRETCHED in entry.notes),
            ("nearly transparent, although colours are hidden there (to train on these, save the pictures without "
             "alpha)", lambda _, entry: NEARLY_TRANSPARENT in entry.notes),
            ("of high dynamic range (PQ or HLG), which become pale: export them for sRGB",
             lambda _, entry: BRIGHT in entry.notes),
            ("that show nothing, because all of them is transparent" if rendering.keeps_alpha else
             f"empty on the background {rendering.background} (choose another --background)",
             lambda _, entry: PLAIN in entry.notes),
            ("named as a sync tool names two versions that contradict each other",
             lambda name, _: is_conflict_copy(posixpath.basename(name))))

    def _size(self, entry: Entry) -> Size:
        return nearest(self._sizes, (entry.width, entry.height))

    def _is_long(self, entry: Entry) -> bool:
        size = self._size(entry)
        sides = entry.width * size.height, entry.height * size.width
        return max(sides) > 3 * min(sides)

    def add(self, name: str, entry: Entry) -> None:
        """Look at the next picture."""
        self._total += 1
        self._deep += entry.peak > 0
        for remark, applies in self._kinds:
            if applies(name, entry):
                count, first = self._found.get(remark, (0, name))
                self._found[remark] = count + 1, first
                if remark is _DARK:
                    self._highest = max(self._highest, entry.peak)

    def warnings(self, copies: int, first_copy: tuple[str, str] = ("", "")) -> Iterator[str]:
        """Each remark with a count and one example.

        copies: number of pictures with the pixels of an earlier one. first_copy: the first of them, and that one.
        """
        if 0 < self._total < FEW:
            yield f"{pictures_in_words(self._total)}: the model will memorise {'it' if self._total == 1 else 'them'}"
        if copies:
            name, original = first_copy
            yield f"{pictures_in_words(copies)} with the same pixels as another, for example {name} (as {original})"
        for remark, _ in self._kinds:
            if remark in self._found:
                count, first = self._found[remark]
                details = self._about_dark(count) if remark == _DARK else ""
                yield f"{pictures_in_words(count)} {remark}{details}, for example {first}"

    def _about_dark(self, count: int) -> str:
        """More about so many pictures of 16 bits that become dark, and what helps."""
        fitting = next(level for level in _LEVELS if level >= self._highest)
        others = self._deep - count
        remedy = f"with --white-level {fitting}, that value is white in all pictures" if not others else (
            f"{'1 other uses' if others == 1 else f'{others:,} others use'} the whole range: train on them separately")
        return f" {self._highest:,} of 65,535, which become dark ({remedy})"


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
