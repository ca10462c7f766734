"""Pictures that were made from others and lie beside them: masks, depth maps, thumbnails. Judges names alone."""

import functools
import posixpath
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .spilled import SpilledDict

_KINDS = r"""masks?|masklabel|gt|ground_?truth|condlabel|matte|alpha|trimap|seg|segmentation|depth|depths|depth_?map|
    disparity|normals?|normal_?map|canny|edges?|hed|lineart|scribble|sketch|pose|openpose|conditioning|control|thumb|thumbs|thumbnail|tn|
    preview|small|lowres|resized|scaled|\d{2,4}x\d{2,4}"""
_BEHIND = re.compile(rf"(.+?)(?:[-_. ](?:{_KINDS})|@\dx)", re.IGNORECASE | re.VERBOSE)
_BEFORE = re.compile(rf"(?:{_KINDS})[-_. ](.+)", re.IGNORECASE | re.VERBOSE)
# Names of folders. Words that are also names of classes ("normal", "pose") are not among them.
_PLAIN = re.compile(r"(.+)[-_. ](?:rgb|image|img|colou?r|photo|orig|original|input|source|target)", re.IGNORECASE)
_FOLDERS = re.compile(r"""_?(masks?|trimaps|segmentations?|segmentation(class|object)|gt|ground_?truth|depths?|
    depth_maps|normals|normal_maps|canny|lineart|conditioning|conditioning_images|controls?|controlnet|thumbs?|
    thumbnails?|previews?|annotations|labels)""", re.IGNORECASE | re.VERBOSE)
_SHARE = 0.5                                    # of a folder's pictures that must have the names of others


Names = Callable[[], Iterable[str]]             # gives the names of all pictures, in order
Derived = tuple[str, str, str]                  # a picture, what it was made from, a pattern for its name or path


def warn_of_derived(names: Names, root: Path) -> Iterator[str]:
    """A warning, if some of the pictures are called like others with a word such as "mask" added to the name or path.

    names: gives those of all pictures that would be trained on, relative to the data set. root: where they lie.
    """
    patterns: Counter[str] = Counter()
    example = original = ""
    for name, other, pattern in _derived(names):
        patterns[pattern] += 1
        if not example:
            example, original = name, other
    if not example:
        return
    total = patterns.total()
    counted = ", ".join(f"{pattern} {count:,}" for pattern, count in patterns.most_common(4))
    without = " ".join(f"! -{'path' if pattern.endswith('/*') else 'name'} {shlex.quote(pattern)}"
                       for pattern in patterns)
    step = f"find {shlex.quote(str(root))} -type f {without} > pictures.txt, and give pictures.txt" if root.is_dir() \
        else "save the others in an archive of their own"
    yield (f"{total:,} {'picture seems' if total == 1 else 'pictures seem'} to be made from others, as masks "
           f"and thumbnails are, and will be trained on ({counted}; for example {example} from {original}). To leave "
           f"them out: {step}")


def _derived(names: Names) -> Iterator[Derived]:
    """The pictures that are made from others, by their own names or by those of their folders."""
    by_base: SpilledDict[str] = SpilledDict()   # name without suffix → the picture
    if any(True for name in names() for _ in _names_of_originals(name)):
        for name in names():
            base = posixpath.splitext(name)[0]
            by_base[base] = name
            if (plain := _PLAIN.fullmatch(base)) and plain[1] not in by_base:          # 1_rgb.png beside 1_depth.png
                by_base[plain[1]] = name
    outside = _outside_of_folders(names)
    folders = _folders_of_derived(names, outside)
    for name in names() if by_base or folders else ():
        found = next(((by_base[base], pattern) for base, pattern in _names_of_originals(name) if base in by_base), None)
        folder = _folder(posixpath.dirname(name))
        if found is None and folder in folders and (original := outside.get(_stem(name))):
            found = original, f"*/{folder}/*"
        if found is not None:
            yield name, *found


def _names_of_originals(name: str) -> Iterator[tuple[str, str]]:
    """(name without suffix, pattern) of what a name with a word before or behind says: photo_mask.png, tn_1.jpg."""
    directory, stem = posixpath.split(posixpath.splitext(name)[0])
    for expression in (_BEHIND, _BEFORE):
        if match := expression.fullmatch(stem):
            word = re.sub(r"\d+x\d+", "[0-9]*x[0-9]*", stem.replace(match[1], "*", 1))
            yield posixpath.join(directory, match[1]), f"{word}.*" if expression is _BEHIND else word


def _outside_of_folders(names: Names) -> SpilledDict[str]:
    """Stem → the first picture outside of folders such as "masks"; empty if there are no such folders."""
    outside: SpilledDict[str] = SpilledDict()
    if any(_folder(posixpath.dirname(name)) for name in names()):
        for name in names():
            if not _folder(posixpath.dirname(name)) and (stem := _stem(name)) not in outside:
                outside[stem] = name
    return outside


def _folders_of_derived(names: Names, outside: SpilledDict[str]) -> set[str]:
    """The folders such as "masks" in which at least half of the pictures are called like pictures in other folders."""
    total: Counter[str] = Counter()
    derived: Counter[str] = Counter()
    for name in names() if outside else ():
        if folder := _folder(posixpath.dirname(name)):
            total[folder] += 1
            derived[folder] += _stem(name) in outside
    return {folder for folder in total if derived[folder] >= _SHARE * total[folder]}


@functools.lru_cache(maxsize=1000)
def _folder(directory: str) -> str:
    """The first folder in a path that is called like "masks"; "" without any."""
    return next((part for part in directory.split("/") if _FOLDERS.fullmatch(part)), "")


def _stem(name: str) -> str:
    stem = posixpath.splitext(posixpath.basename(name))[0].lower()
    return match[1] if (match := _BEHIND.fullmatch(stem)) else stem
